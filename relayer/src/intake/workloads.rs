//! `workload/1`: one JSON object per line. The schema is `docs/workload-1.schema.json`.

use alloy::primitives::Address;
use ledger::workload::{Evidence, Item, Kind, Price, Rate, Record, Revision, WorkResult};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Rejection,
    fields::{self, Field, optional, required},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow)]
    external_id: Option<&'a RawValue>,
    #[serde(borrow)]
    revision: Option<&'a RawValue>,
    #[serde(borrow)]
    organisation: Option<&'a RawValue>,
    #[serde(borrow)]
    provider: Option<&'a RawValue>,
    #[serde(borrow)]
    machine: Option<&'a RawValue>,
    #[serde(borrow)]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    container_group: Option<&'a RawValue>,
    #[serde(borrow)]
    gpu_class: Option<&'a RawValue>,
    #[serde(borrow)]
    vcpu: Option<&'a RawValue>,
    #[serde(borrow)]
    memory_mb: Option<&'a RawValue>,
    #[serde(borrow)]
    priority: Option<&'a RawValue>,
    #[serde(borrow)]
    country: Option<&'a RawValue>,
    #[serde(borrow)]
    started_at: Option<&'a RawValue>,
    #[serde(borrow)]
    ended_at: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    price: Option<&'a RawValue>,
    #[serde(borrow)]
    amount: Option<&'a RawValue>,
    #[serde(borrow)]
    rate: Option<&'a RawValue>,
    #[serde(borrow)]
    evidence: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceFields<'a> {
    #[serde(borrow)]
    currency: Option<&'a RawValue>,
    #[serde(borrow)]
    per_hour: Option<&'a RawValue>,
    #[serde(borrow)]
    amount: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateFields<'a> {
    #[serde(borrow)]
    usd_per_token: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow)]
    at: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceFields<'a> {
    #[serde(borrow)]
    salad_job_ids: Option<&'a RawValue>,
    #[serde(borrow)]
    golem_agreement: Option<&'a RawValue>,
    #[serde(borrow)]
    digest: Option<&'a RawValue>,
    #[serde(borrow)]
    mirror_digest: Option<&'a RawValue>,
}

pub(super) fn parse(line: &str) -> Field<Record> {
    let line: Line<'_> = fields::members("record", line)?;
    let schema = fields::text("schema", required("schema", line.schema)?)?;
    if schema != "workload/1" {
        return Err(Rejection::new("schema", format!("{schema:?} is not \"workload/1\"")));
    }
    let item = item(&line)?;
    let result: WorkResult =
        choice("result", required("result", line.result)?, "completed, interrupted, failed")?;
    let rate = optional("rate", line.rate, rate)?;
    let revision = Revision {
        revision: optional("revision", line.revision, number_of_revision)?.unwrap_or(0),
        result,
        price: price(&line, rate.as_ref())?,
        rate,
        evidence: optional("evidence", line.evidence, evidence)?.unwrap_or_default(),
    };
    Ok(Record { item, revision, payout: optional("provider", line.provider, account)? })
}

fn item(line: &Line<'_>) -> Field<Item> {
    let started_ms = fields::instant("started_at", required("started_at", line.started_at)?)?;
    let stopped_ms = fields::instant("ended_at", required("ended_at", line.ended_at)?)?;
    fields::duration("ended_at", started_ms, stopped_ms)?;
    let kinds = "inference, render, simulation, transcription, batch";
    Ok(Item {
        source: fields::text("source", required("source", line.source)?)?,
        external_id: fields::text("external_id", required("external_id", line.external_id)?)?,
        organisation: fields::text("organisation", required("organisation", line.organisation)?)?,
        machine: fields::text("machine", required("machine", line.machine)?)?,
        kind: choice::<Kind>("kind", required("kind", line.kind)?, kinds)?,
        container_group: optional("container_group", line.container_group, fields::text)?,
        gpu_class: optional("gpu_class", line.gpu_class, fields::text)?,
        vcpu: optional("vcpu", line.vcpu, fields::number)?,
        memory_mb: optional("memory_mb", line.memory_mb, fields::number)?,
        priority: optional("priority", line.priority, fields::text)?,
        country: optional("country", line.country, country)?,
        started_ms,
        stopped_ms,
    })
}

fn number_of_revision(field: &str, value: &RawValue) -> Field<u32> {
    let number = fields::integer(field, value, u32::MAX.into())?;
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

/// One of a list of words.
fn choice<T: for<'de> Deserialize<'de>>(field: &str, value: &RawValue, words: &str) -> Field<T> {
    // An enumeration is also read from an object with one key, which is no word.
    let word =
        if value.get().starts_with('"') { serde_json::from_str(value.get()).ok() } else { None };
    word.ok_or_else(|| {
        Rejection::new(field, format!("{} is none of {words}", fields::shorten(value.get())))
    })
}

fn country(field: &str, value: &RawValue) -> Field<String> {
    let text = fields::text(field, value)?;
    if text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Ok(text);
    }
    Err(Rejection::new(field, format!("{text:?} is not two capital letters (ISO 3166-1)")))
}

/// A plain address, or CAIP-10 `eip155:<chain id>:<address>`.
fn account(field: &str, value: &RawValue) -> Field<Address> {
    let text = fields::text(field, value)?;
    let address = match text.strip_prefix("eip155:").and_then(|rest| rest.split_once(':')) {
        Some((chain, address))
            if (1..=20).contains(&chain.len())
                && chain.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            address
        }
        _ => &text,
    };
    fields::address(field, address)
}

fn rate(field: &str, value: &RawValue) -> Field<Rate> {
    let rate: RateFields<'_> = fields::members(field, value.get())?;
    let usd_per_token =
        fields::decimal("rate.usd_per_token", required("rate.usd_per_token", rate.usd_per_token)?)?;
    if usd_per_token.is_zero() {
        return Err(Rejection::new("rate.usd_per_token", "it must not be zero"));
    }
    Ok(Rate {
        usd_per_token,
        source: fields::text("rate.source", required("rate.source", rate.source)?)?,
        at_ms: fields::instant("rate.at", required("rate.at", rate.at)?)?,
    })
}

/// Base units if the record names them, together with the rate that led to them; USD otherwise.
fn price(line: &Line<'_>, rate: Option<&Rate>) -> Field<Price> {
    let usd = optional("price", line.price, usd)?;
    match (optional("amount", line.amount, fields::amount)?, usd) {
        (None, None) => {
            Err(Rejection::new("price", "it is missing, and so is amount; one of them is needed"))
        }
        (None, Some(usd)) => Ok(Price::Usd(usd)),
        (Some(_), _) if rate.is_none() => Err(Rejection::new(
            "rate",
            "it is missing; an amount in base units needs the rate that led to it",
        )),
        (Some(amount), _) => Ok(Price::Token(amount)),
    }
}

fn usd(field: &str, value: &RawValue) -> Field<ledger::Decimal> {
    let price: PriceFields<'_> = fields::members(field, value.get())?;
    let currency = fields::text("price.currency", required("price.currency", price.currency)?)?;
    if currency != "USD" {
        return Err(Rejection::new("price.currency", format!("{currency:?} is not \"USD\"")));
    }
    optional("price.per_hour", price.per_hour, fields::decimal)?;
    fields::decimal("price.amount", required("price.amount", price.amount)?)
}

fn evidence(field: &str, value: &RawValue) -> Field<Evidence> {
    let evidence: EvidenceFields<'_> = fields::members(field, value.get())?;
    let jobs = |field: &str, value: &RawValue| {
        serde_json::from_str::<Vec<String>>(value.get())
            .map_err(|_| Rejection::new(field, "it is not an array of strings"))
    };
    Ok(Evidence {
        salad_job_ids: optional("evidence.salad_job_ids", evidence.salad_job_ids, jobs)?
            .unwrap_or_default(),
        golem_agreement: optional(
            "evidence.golem_agreement",
            evidence.golem_agreement,
            fields::text,
        )?,
        digest: optional("evidence.digest", evidence.digest, fields::hash)?,
        mirror_digest: optional("evidence.mirror_digest", evidence.mirror_digest, fields::hash)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"schema":"workload/1","source":"salad","external_id":"a/1","revision":0,"organisation":"acme",
        "provider":"eip155:137:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed","machine":"7f3a","kind":"render",
        "gpu_class":"RTX 4090 (24 GB)","vcpu":8,"memory_mb":16384,"priority":"batch","country":"US",
        "started_at":"2026-11-20T07:00:00Z","ended_at":"2026-11-20T09:00:00Z","result":"completed",
        "price":{"currency":"USD","per_hour":"0.160000","amount":"0.320000"}}"#;

    fn with(from: &str, to: &str) -> String {
        assert!(LINE.contains(from), "{from}");
        LINE.replace(from, to)
    }

    #[test]
    fn names_the_field_at_fault() {
        let cases = [
            ("\"workload/1\"", "\"workload/2\"", "schema"),
            ("\"source\":\"salad\",", "", "source"),
            ("\"organisation\":\"acme\"", "\"organisation\":7", "organisation"),
            ("\"revision\":0", "\"revision\":-1", "revision"),
            ("\"render\"", "\"mining\"", "kind"),
            ("\"vcpu\":8", "\"vcpu\":8e0", "vcpu"),
            ("\"US\"", "\"usa\"", "country"),
            ("07:00:00Z", "10:00:00Z", "ended_at"),
            ("2026-11-20T07:00:00Z", "yesterday", "started_at"),
            ("\"completed\"", "\"done\"", "result"),
            ("\"USD\"", "\"EUR\"", "price.currency"),
            ("\"0.320000\"", "\"3.2e-1\"", "price.amount"),
            ("\"0.320000\"", "0.32", "price.amount"),
            ("0x5aAe", "0x5AAe", "provider"),
            ("\"schema\"", "\"note\":1,\"schema\"", "record"),
            ("\"price\"", "\"amount\":\"5\",\"price\"", "rate"),
        ];
        for (from, to, field) in cases {
            assert_eq!(parse(&with(from, to)).unwrap_err().field, field, "{to}");
        }
    }

    #[test]
    fn an_array_is_no_object_and_an_object_no_word() {
        let values = r#"["workload/1","salad","a/1",0,"acme",null,"7f3a","render",null,null,null,null,null,null,
            "2026-11-20T07:00:00Z","2026-11-20T09:00:00Z","completed",null,"5",{"usd_per_token":"1","source":"s","at":"2026-11-20T07:00:00Z"},null]"#;
        assert_eq!(parse(values).unwrap_err().field, "record");
        let price = with(
            r#"{"currency":"USD","per_hour":"0.160000","amount":"0.320000"}"#,
            r#"["USD","0.16","0.32"]"#,
        );
        assert_eq!(parse(&price).unwrap_err().field, "price");
        assert_eq!(parse(&with("\"render\"", r#"{"render":null}"#)).unwrap_err().field, "kind");
    }

    #[test]
    fn times_have_the_form_of_rfc_3339() {
        for time in [
            "2026-11-20 07:00:00Z",
            "2026-11-20T07Z",
            "2026-11-20T07:00Z",
            "20261120T070000Z",
            "2026-11-20T07:00:00",
            "2026-11-20T07:00:60Z",
            "2026-11-20T07:00:00,5Z",
            "2026-11-20T07:00:00+24:00",
            "2026-11-20T07:00:00+0100",
            "2026-11-20T07:00:00Z[UTC]",
            "2026-11-20T07:00:00.Z",
        ] {
            assert_eq!(
                parse(&with("2026-11-20T07:00:00Z", time)).unwrap_err().field,
                "started_at",
                "{time}"
            );
        }
        for time in [
            "2026-11-20t07:00:00z",
            "2026-11-20T07:00:00.123456789+23:59",
            "2026-11-20T07:00:00-00:00",
        ] {
            let with_both = with("2026-11-20T07:00:00Z", time)
                .replace("2026-11-20T09:00:00Z", "2026-11-22T09:00:00Z");
            assert!(parse(&with_both).is_ok(), "{time}");
        }
    }

    #[test]
    fn reads_every_field() {
        let record = parse(LINE).unwrap();
        assert_eq!(record.revision.price, Price::Usd("0.32".parse().unwrap()));
        assert_eq!(record.item.stopped_ms - record.item.started_ms, 7_200_000);
        assert_eq!(record.item.kind, Kind::Render);
        assert!(record.payout.is_some());
    }
}
