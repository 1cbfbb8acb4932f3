//! The pilot's daily earnings file: one JSON array per day, one entry per organisation, container group and machine.
//!
//! `{"key":[organisation, container group slug, machine uuid],
//!   "value":[start ms, stop ms, invoice USD, max vCPU, max memory MB, GPU class uuid or null]}`
//!
//! The file name `YYYYMMDD-YYYYMMDD.json` labels the days that it covers, the second one exclusive (equal days mean that
//! one day). Labels are Mountain Time in the pilot; money goes by the millisecond stamps.

use jiff::civil::Date;
use ledger::workload::{Evidence, Item, Kind, Price, Record, Revision, WorkResult};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Rejection,
    fields::{self, Field},
};

/// Most days that a file may cover. More are a slip in its name, and would take the days of every right one.
const MAX_SPAN: i32 = 31;
/// Most that one entry may cost, USD. More than a year of the dearest machine is a mistake.
const MAX_USD: u32 = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<'a> {
    #[serde(borrow)]
    key: Vec<&'a RawValue>,
    #[serde(borrow)]
    value: Vec<&'a RawValue>,
}

/// First day and first day after, `YYYYMMDD`, of a file name, if it is one of daily earnings.
pub fn days_of(name: &str) -> Option<(String, String)> {
    let (first, until) = name.strip_suffix(".json")?.split_once('-')?;
    let day = |text: &str| {
        let is_day = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_day.then(|| Date::strptime("%Y%m%d", text).ok()).flatten()
    };
    let (first_day, until_day) = (day(first)?, day(until)?);
    if first_day == until_day {
        let next = first_day.tomorrow().ok()?;
        return Some((first.to_owned(), next.strftime("%Y%m%d").to_string()));
    }
    (first_day < until_day).then(|| (first.to_owned(), until.to_owned()))
}

/// Refuses a label of more days than a file covers.
fn check_span(first_day: &str, until_day: &str) -> Result<(), String> {
    let day = |text: &str| Date::strptime("%Y%m%d", text);
    let span = day(first_day).and_then(|first| day(until_day)?.since(first));
    match span.map_err(|error| error.to_string())?.get_days() {
        ..=MAX_SPAN => Ok(()),
        days => Err(format!(
            "it covers {days} days; a daily earnings file covers at most {MAX_SPAN}, mend its name or split it, but not if an \
             earlier version took it in: its work would be paid again"
        )),
    }
}

/// Parses a file. The whole of it is refused if it is not a JSON array, or if its label is not believed.
pub(super) fn parse(
    text: &str,
    first_day: &str,
    until_day: &str,
    source: &str,
) -> Result<Vec<Result<Record, Rejection>>, String> {
    check_span(first_day, until_day)?;
    let entries: Vec<&RawValue> = serde_json::from_str(text)
        .map_err(|error| format!("it is not a JSON array of entries: {error}"))?;
    let prefix = format!("{first_day}-{until_day}");
    Ok(entries.into_iter().map(|entry| record(entry, &prefix, source)).collect())
}

fn record(entry: &RawValue, prefix: &str, source: &str) -> Field<Record> {
    let entry: Entry<'_> =
        fields::members("entry", entry.get()).map_err(|Rejection { field, reason }| {
            Rejection::new(
                field,
                format!("it is not {{\"key\": [...], \"value\": [...]}}: {reason}"),
            )
        })?;
    let [organisation, group, machine] = entry.key[..] else {
        return Err(Rejection::new("key", format!("it has {} parts, not 3", entry.key.len())));
    };
    let [start, stop, usd, vcpu, memory, gpu] = entry.value[..] else {
        return Err(Rejection::new("value", format!("it has {} parts, not 6", entry.value.len())));
    };
    let organisation = fields::text("organisation", organisation)?;
    let group = fields::text("container_group", group)?;
    let machine = fields::text("machine", machine)?;
    let started_ms = fields::millis("start", start)?;
    let stopped_ms = fields::millis("stop", stop)?;
    fields::duration("stop", started_ms, stopped_ms)?;
    Ok(Record {
        item: Item {
            source: source.to_owned(),
            external_id: format!("{prefix}/{organisation}/{group}/{machine}"),
            organisation,
            machine,
            kind: Kind::Batch,
            container_group: Some(group),
            gpu_class: fields::optional("gpu_class", Some(gpu), fields::text)?,
            vcpu: fields::optional("max_vcpu", Some(vcpu), fields::number)?,
            memory_mb: fields::optional("max_memory_mb", Some(memory), fields::number)?,
            priority: None,
            country: None,
            started_ms,
            stopped_ms,
        },
        revision: Revision {
            revision: 0,
            result: WorkResult::Completed,
            price: Price::Usd(invoice(usd)?),
            rate: None,
            evidence: Evidence::default(),
        },
        payout: None,
    })
}

fn invoice(value: &RawValue) -> Field<ledger::Decimal> {
    let usd = fields::number("invoice_usd", value)?;
    if usd.whole() > u128::from(MAX_USD) {
        return Err(Rejection::new(
            "invoice_usd",
            format!("{usd} is more than {MAX_USD}, which is not believed"),
        ));
    }
    Ok(usd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(entry: &str) -> Field<Record> {
        parse(&format!("[{entry}]"), "20261120", "20261121", "salad").unwrap().remove(0)
    }

    fn field_of(entry: &str) -> String {
        one(entry).unwrap_err().field
    }

    #[test]
    fn refuses_names_that_are_not_days() {
        for name in [
            "2026-11-20.json",
            "20261120-20261199.json",
            "20261121-20261120.json",
            "20261120.json",
            "a.jsonl",
        ] {
            assert_eq!(days_of(name), None, "{name}");
        }
    }

    #[test]
    fn names_the_field_at_fault() {
        let key = r#""key":["acme","sdxl","7f3a"]"#;
        let cases = [
            (r#"{"key":["acme","sdxl"],"value":[]}"#.to_owned(), "key"),
            (format!(r#"{{{key},"value":[1,2]}}"#), "value"),
            (format!(r#"{{{key},"value":["x",1763600400000,0.3,8,1,null]}}"#), "start"),
            (format!(r#"{{{key},"value":[1763596800000.5,1763600400000,0.3,8,1,null]}}"#), "start"),
            (format!(r#"{{{key},"value":[1763600400000,1763596800000,0.3,8,1,null]}}"#), "stop"),
            (format!(r#"{{{key},"value":[1763596800000,1795132800000,0.3,8,1,null]}}"#), "stop"),
            (
                format!(r#"{{{key},"value":[1763596800000,1763600400000,3e-1,8,1,null]}}"#),
                "invoice_usd",
            ),
            (
                format!(r#"{{{key},"value":[1763596800000,1763600400000,-0.3,8,1,null]}}"#),
                "invoice_usd",
            ),
            (
                format!(r#"{{{key},"value":[1763596800000,1763600400000,100001,8,1,null]}}"#),
                "invoice_usd",
            ),
            (format!(r#"{{{key},"value":[1763596800000,1763600400000,0.3,8,1,7]}}"#), "gpu_class"),
            (
                r#"{"key":["","sdxl","7f3a"],"value":[1763596800000,1763600400000,0.3,8,1,null]}"#
                    .to_owned(),
                "organisation",
            ),
            (
                format!(r#"{{{key},"value":[1763596800000,1763600400000,0.3,8,1,null],"more":1}}"#),
                "entry",
            ),
        ];
        for (entry, field) in cases {
            assert_eq!(field_of(&entry), field, "{entry}");
        }
    }

    #[test]
    fn refuses_what_is_not_an_array() {
        assert!(parse("{}", "20261120", "20261121", "salad").is_err());
        assert!(parse("[{]", "20261120", "20261121", "salad").is_err());
    }

    #[test]
    fn keeps_every_digit_of_an_invoice() {
        let entry = r#"{"key":["acme","sdxl","7f3a"],"value":[1763596800000,1763600400000,0.32000000000000006,8,16384,null]}"#;
        let record = one(entry).unwrap();
        assert_eq!(record.revision.price, Price::Usd("0.32000000000000006".parse().unwrap()));
        assert_eq!(record.item.external_id, "20261120-20261121/acme/sdxl/7f3a");
        assert_eq!(record.item.gpu_class, None);
    }

    #[test]
    fn equal_days_mean_that_one_day() {
        assert_eq!(days_of("20261130-20261130.json"), Some(("20261130".into(), "20261201".into())));
        assert_eq!(days_of("20261120-20261121.json"), Some(("20261120".into(), "20261121".into())));
    }
}
