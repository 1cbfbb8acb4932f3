//! Payout addresses of machines: `{"schema":"payee/1","machine":"…","address":"0x…"}`, one per line.

use alloy::primitives::Address;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Rejection,
    fields::{self, Field},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<'a> {
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
    #[serde(borrow)]
    machine: Option<&'a RawValue>,
    #[serde(borrow)]
    address: Option<&'a RawValue>,
}

/// Whether a line says that it is a payee.
pub(super) fn is_payee(line: &str) -> bool {
    #[derive(Deserialize)]
    struct Schema {
        schema: String,
    }
    serde_json::from_str::<Schema>(line).is_ok_and(|line| line.schema == "payee/1")
}

pub(super) fn parse(line: &str) -> Field<(String, Address)> {
    let entry: Entry<'_> = fields::members("record", line)?;
    let schema = fields::text("schema", fields::required("schema", entry.schema)?)?;
    if schema != "payee/1" {
        return Err(Rejection::new(
            "schema",
            format!("{schema:?} is not \"payee/1\", which this file holds"),
        ));
    }
    let machine = fields::text("machine", fields::required("machine", entry.machine)?)?;
    let address = fields::text("address", fields::required("address", entry.address)?)?;
    Ok((machine, fields::address("address", &address)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_addresses_with_a_broken_checksum() {
        let line = r#"{"schema":"payee/1","machine":"m","address":"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"}"#;
        assert!(parse(line).is_ok());
        assert_eq!(parse(&line.replace("5aAe", "5AAe")).unwrap_err().field, "address");
        assert_eq!(parse(&line.replace("0x5a", "5a")).unwrap_err().field, "address");
    }
}
