//! Records of the three formats.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use relayer::{
    intake::{self, Parsed, Rejection},
    opinion,
};

use crate::{Message, rng, share};

/// A bad record: its text, the field at fault, and what is said of it.
struct Bad {
    text: String,
    field: String,
    message: Message,
}

/// A wrong value and what has to be said of it.
type Wrong = (String, Message);

/// A record under construction: names and raw JSON values.
#[derive(Clone)]
struct Draft(Vec<(String, String)>);

impl Draft {
    fn set(mut self, name: &str, value: &str) -> Self {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value.to_owned(),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.0.retain(|(known, _)| known != name);
        self
    }

    fn text(&self) -> String {
        let members: Vec<_> =
            self.0.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// A good record with a random choice of optional fields.
fn good(rng: &mut StdRng) -> Draft {
    let mut draft = Draft(Vec::new());
    let number = rng.random::<u32>();
    for (name, value) in [
        ("schema", quoted("workload/1")),
        ("source", quoted("salad")),
        ("external_id", quoted(&format!("w/{number}"))),
        ("organisation", quoted("acme")),
        ("machine", quoted("7f3a")),
        (
            "kind",
            quoted(
                ["inference", "render", "simulation", "transcription", "batch"]
                    .choose(rng)
                    .unwrap(),
            ),
        ),
        ("started_at", quoted("2026-11-20T07:00:00Z")),
        ("ended_at", quoted("2026-11-20T09:30:00.250+01:00")),
        ("result", quoted(["completed", "interrupted", "failed"].choose(rng).unwrap())),
    ] {
        draft = draft.set(name, &value);
    }
    let price =
        format!(r#"{{"currency":"USD","per_hour":null,"amount":"{}.{}"}}"#, number % 100, number);
    let rate = r#"{"usd_per_token":"0.247","source":"desk","at":"2026-11-20T07:00:00Z"}"#;
    draft = match rng.random_range(0..3) {
        0 => draft.set("price", &price),
        1 => draft.set("price", &price).set("rate", rate),
        _ => draft.set("amount", &quoted(&number.to_string())).set("rate", rate),
    };
    for (name, value) in [
        ("revision", number.to_string()),
        ("provider", quoted("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")),
        ("container_group", quoted("gr\u{fc}ppe \u{1f600}")),
        ("gpu_class", "null".into()),
        ("vcpu", "8.50".into()),
        ("memory_mb", "16384".into()),
        ("priority", quoted("batch")),
        ("country", quoted("US")),
        ("evidence", r#"{"salad_job_ids":["a"],"golem_agreement":null}"#.into()),
    ] {
        if rng.random() {
            draft = draft.set(name, &value);
        }
    }
    draft
}

/// Values that are no string at all.
fn no_strings() -> Vec<Wrong> {
    ["7", "-0", "1e400", "true", "[]", "{}", "[\"a\"]", r#""\ud800""#, r#""\udc00x""#, "0.1"]
        .into_iter()
        .map(|raw| (raw.to_owned(), Message::is(format!("{raw} is not a string in quotes"))))
        .collect()
}

/// Values that are no text of 1 to 200 characters.
fn no_texts() -> Vec<Wrong> {
    let mut wrong = no_strings();
    for raw in [r#""""#, r#""a\u0000b""#, r#""\n""#, r#""\u007f""#, r#""x\u0085""#, "\"\u{9b}\""] {
        let shown: String = raw.chars().filter(|c| !c.is_control()).collect();
        let shown = if shown.len() < raw.len() { shown + "…" } else { shown };
        let message =
            format!("{shown} must have 1 to 200 characters, none of them control characters");
        wrong.push((raw.into(), Message::Is(message)));
    }
    for long in ["x".repeat(201), "\u{1f600}".repeat(201), "e\u{301}".repeat(101)] {
        let raw = quoted(&long);
        let shown: String = raw.chars().take(60).collect();
        let message =
            format!("{shown}… must have 1 to 200 characters, none of them control characters");
        wrong.push((raw, Message::Is(message)));
    }
    wrong
}

/// Texts that are no plain decimal, each with the reason.
fn no_decimals() -> Vec<(&'static str, &'static str)> {
    const FORM: &str = "it must be digits with at most one point between them";
    const EXPONENT: &str = "an exponent is not allowed; write the number out";
    const LONG: &str = "it has more than 30 digits";
    vec![
        ("1e400", EXPONENT),
        ("1E-3", EXPONENT),
        ("-1", "it must not be negative"),
        ("-0", "it must not be negative"),
        (".5", FORM),
        ("1.", FORM),
        ("+1", FORM),
        (" 1", FORM),
        ("1 ", FORM),
        ("1,5", FORM),
        ("1_000", FORM),
        ("0x1f", FORM),
        ("NaN", FORM),
        ("1.2.3", FORM),
        ("\u{663}", FORM),
        ("\u{ff11}", FORM),
        ("1234567890123456789012345678901", LONG),
        ("0.0000000000000000000000000000001", LONG),
        ("1000000000000000.0000000000000001", LONG),
    ]
}

fn decimal_strings() -> Vec<Wrong> {
    let mut wrong = no_texts();
    wrong.extend(no_decimals().into_iter().map(|(text, why)| {
        (quoted(text), Message::is(format!("{text:?} is not a plain decimal: {why}")))
    }));
    wrong
}

fn decimal_numbers() -> Vec<Wrong> {
    let mut wrong: Vec<Wrong> = no_decimals()
        .into_iter()
        .filter(|(text, _)| {
            serde_json::from_str::<serde_json::Number>(text).is_ok() || *text == "1e400"
        })
        .filter(|(text, _)| !text.starts_with([' ', '.']) && !text.ends_with(' '))
        .map(|(text, why)| {
            (text.to_owned(), Message::is(format!("{text:?} is not a plain decimal: {why}")))
        })
        .collect();
    for raw in ["\"8\"", "true", "[]", "{}"] {
        wrong.push((raw.into(), Message::is(format!("{raw} is not a number without quotes"))));
    }
    wrong
}

fn integers(most: &str, above: &str) -> Vec<Wrong> {
    ["-1", "-0", "1.0", "1e0", "1e400", "\"1\"", "true", "[]", "0.5", above]
        .into_iter()
        .map(|raw| {
            let message =
                format!("{raw} is not a whole number from 0 to {most}, written as digits");
            (raw.to_owned(), Message::Is(message))
        })
        .collect()
}

fn instants() -> Vec<Wrong> {
    let mut wrong = no_texts();
    for text in [
        "yesterday",
        "2026-11-20",
        "2026-11-20T07:00:00",
        "2026-11-20 07:00:00Z",
        "2026-11-20T07:00Z",
        "2026-11-20T07:00:00.Z",
        "2026-11-20T07:00:00.1234567890Z",
        "2026-02-30T07:00:00Z",
        "2026-11-20T24:00:00Z",
        "2026-11-20T07:60:00Z",
        "2026-11-20T07:00:60Z",
        "2026-11-20T07:00:00+24:00",
        "2026-11-20T07:00:00+01",
        "2026-11-20T07:00:00Z[UTC]",
        "+002026-11-20T07:00:00Z",
        "1763596800000",
        "\u{ff12}026-11-20T07:00:00Z",
    ] {
        wrong.push((
            quoted(text),
            Message::is(format!("{text:?} is not a time like 2026-11-20T07:00:00Z")),
        ));
    }
    for (text, ms) in [
        ("2019-12-31T23:59:59.999Z", 1_577_836_799_999_i64),
        ("2020-01-01T00:59:59+01:00", 1_577_836_799_000),
        ("2100-01-01T00:00:00Z", 4_102_444_800_000),
        ("1970-01-01T00:00:00Z", 0),
    ] {
        let message = format!("{ms} ms since 1970 is not between the years 2020 and 2100");
        wrong.push((quoted(text), Message::Is(message)));
    }
    wrong
}

fn addresses(prefix: bool) -> Vec<Wrong> {
    let mut wrong = no_texts();
    let good = "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
    let mut texts = vec![
        format!("0x{}", good.replace("aA", "AA")),
        format!("0x{}", good.to_uppercase()),
        format!("0X{}", good.to_lowercase()),
        good.to_lowercase(),
        format!("0x{}", &good.to_lowercase()[1..]),
        format!("0x{}0", good.to_lowercase()),
        format!("0x{}", "0".repeat(40)),
        format!("0x{}", "g".repeat(40)),
        "0x".into(),
        "vitalik.eth".into(),
        "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beae\u{a0}".into(),
    ];
    if prefix {
        for account in
            ["eip155::", "eip155:x:", "eip156:1:", "eip155:1", "eip155:999999999999999999999:"]
        {
            texts.push(format!("{account}0x{}", good.to_lowercase()));
        }
    }
    for text in texts {
        // Of an account with a sound prefix, the address alone is shown.
        let message =
            format!("{text:?} is not an address: 0x and 40 hex digits, checksum intact, not zero");
        wrong.push((quoted(&text), Message::Is(message)));
    }
    wrong
}

fn words(list: &str) -> Vec<Wrong> {
    [
        "\"Render\"",
        "\"done\"",
        "\"\"",
        "\"render \"",
        "\"rend\u{435}r\"",
        "7",
        "true",
        "[\"render\"]",
        r#"{"render":null}"#,
    ]
    .into_iter()
    .map(|raw| (raw.to_owned(), Message::is(format!("{raw} is none of {list}"))))
    .collect()
}

/// Wrong values of every field of `workload/1`.
fn wrong_values(field: &str) -> Vec<Wrong> {
    match field {
        "schema" => {
            let mut wrong = no_texts();
            for text in ["workload/2", "Workload/1", "payee/1", " workload/1"] {
                wrong.push((quoted(text), Message::is(format!("{text:?} is not \"workload/1\""))));
            }
            wrong
        }
        "revision" => integers("4294967295", "4294967296"),
        "vcpu" | "memory_mb" => decimal_numbers(),
        "kind" => words("inference, render, simulation, transcription, batch"),
        "result" => words("completed, interrupted, failed"),
        "started_at" | "ended_at" => instants(),
        "provider" => addresses(true),
        "country" => {
            let mut wrong = no_texts();
            for text in ["usa", "us", "U", "U1", "\u{dc}S", "USA"] {
                let message = format!("{text:?} is not two capital letters (ISO 3166-1)");
                wrong.push((quoted(text), Message::Is(message)));
            }
            wrong
        }
        "amount" => {
            let mut wrong = no_texts();
            for text in
                ["1.5", "-1", "+1", "1e3", "0x1", " 1", "340282366920938463463374607431768211456"]
            {
                wrong.push((quoted(text), Message::Begins(format!("{text:?} is not an amount"))));
            }
            wrong
        }
        "price" | "rate" | "evidence" => ["7", "true", "\"x\"", "[]", r#"["USD","1","1"]"#]
            .into_iter()
            .map(|raw| (raw.to_owned(), Message::is(format!("{raw} is not an object in braces"))))
            .collect(),
        _ => no_texts(),
    }
}

const FIELDS: [&str; 21] = [
    "schema",
    "source",
    "external_id",
    "revision",
    "organisation",
    "provider",
    "machine",
    "kind",
    "container_group",
    "gpu_class",
    "vcpu",
    "memory_mb",
    "priority",
    "country",
    "started_at",
    "ended_at",
    "result",
    "price",
    "amount",
    "rate",
    "evidence",
];
const REQUIRED: [&str; 8] =
    ["schema", "source", "external_id", "organisation", "machine", "kind", "started_at", "result"];
const MISSING: &str = "it is missing or null, and it is required";

/// A record with one fault.
fn bad(rng: &mut StdRng) -> Bad {
    let draft = good(rng);
    match rng.random_range(0..10) {
        0 => {
            let field = *REQUIRED.choose(rng).unwrap();
            let draft = if rng.random() { draft.set(field, "null") } else { draft.without(field) };
            Bad { text: draft.text(), field: field.into(), message: Message::is(MISSING) }
        }
        1 => nested(draft, rng),
        2 => whole(&draft, rng),
        3 => together(draft, rng),
        _ => {
            let field = *FIELDS.choose(rng).unwrap();
            let (raw, message) = wrong_values(field).choose(rng).unwrap().clone();
            Bad { text: draft.set(field, &raw).text(), field: field.into(), message }
        }
    }
}

/// Faults inside price, rate and evidence.
fn nested(draft: Draft, rng: &mut StdRng) -> Bad {
    let rate = |member: &str, raw: &str| {
        let mut parts = Draft(Vec::new())
            .set("usd_per_token", "\"1\"")
            .set("source", "\"desk\"")
            .set("at", "\"2026-11-20T07:00:00Z\"");
        parts = if raw.is_empty() { parts.without(member) } else { parts.set(member, raw) };
        parts.text()
    };
    let (field, value, message) = match rng.random_range(0..8) {
        0 => {
            let member = *["usd_per_token", "source", "at"].choose(rng).unwrap();
            (format!("rate.{member}"), rate(member, ""), Message::is(MISSING))
        }
        1 => {
            let zero = *["\"0\"", "\"0.000\"", "\"00\""].choose(rng).unwrap();
            (
                "rate.usd_per_token".into(),
                rate("usd_per_token", zero),
                Message::is("it must not be zero"),
            )
        }
        2 => {
            let (raw, message) = decimal_strings().choose(rng).unwrap().clone();
            ("rate.usd_per_token".into(), rate("usd_per_token", &raw), message)
        }
        3 => {
            let (raw, message) = instants().choose(rng).unwrap().clone();
            ("rate.at".into(), rate("at", &raw), message)
        }
        4 => {
            let (raw, message) = decimal_strings().choose(rng).unwrap().clone();
            let member = *["amount", "per_hour"].choose(rng).unwrap();
            let price = Draft(Vec::new()).set("currency", "\"USD\"").set("amount", "\"1\"");
            (format!("price.{member}"), price.set(member, &raw).text(), message)
        }
        5 => {
            let price = r#"{"currency":"EUR","amount":"1"}"#;
            ("price.currency".into(), price.into(), Message::is("\"EUR\" is not \"USD\""))
        }
        6 => {
            let text = *["0x12", "12", "0xzz", "0X"].choose(rng).unwrap();
            let message = format!("{text:?} is not 32 bytes in hex with 0x before them");
            let member = *["digest", "mirror_digest"].choose(rng).unwrap();
            (
                format!("evidence.{member}"),
                format!("{{\"{member}\":\"{text}\"}}"),
                Message::Is(message),
            )
        }
        _ => {
            let raw = *["7", "\"a\"", "[1]", "[null]", "{}", r#"["\ud800"]"#].choose(rng).unwrap();
            let field = "evidence.salad_job_ids".to_owned();
            (
                field,
                format!("{{\"salad_job_ids\":{raw}}}"),
                Message::is("it is not an array of strings"),
            )
        }
    };
    let name = field.split('.').next().unwrap();
    Bad { text: draft.set(name, &value).text(), field, message }
}

/// Lines that are no record at all.
fn whole(draft: &Draft, rng: &mut StdRng) -> Bad {
    let text = draft.text();
    let (text, message) = match rng.random_range(0..9) {
        0 => {
            let field = &draft.0.choose(rng).unwrap().0;
            let again = format!("{},\"{field}\":null}}", &text[..text.len() - 1]);
            (again, Message::Begins(format!("duplicate field `{field}`")))
        }
        1 => {
            let name = ["note", "Source", "source\\u0000", "so\u{443}rce"].choose(rng).unwrap();
            let more = format!("{},\"{name}\":1}}", &text[..text.len() - 1]);
            (more, Message::Begins("unknown field `".into()))
        }
        2 => {
            let cut = (1..text.len()).filter(|cut| text.is_char_boundary(*cut)).collect::<Vec<_>>();
            (
                text[..*cut.choose(rng).unwrap()].to_owned(),
                Message::Begins("it is not JSON: ".into()),
            )
        }
        3 => (format!("{text}}}"), Message::Begins("it is not JSON: trailing characters".into())),
        4 => {
            let depth = rng.random_range(2..3_000);
            ("[".repeat(depth), Message::Begins("it is not JSON: EOF while parsing a list".into()))
        }
        5 => (format!("\u{feff}{text}"), Message::Begins("it is not JSON: expected value".into())),
        6 => {
            let raw = *["7", "null", "\"x\"", "[]", "true"].choose(rng).unwrap();
            (raw.into(), Message::is(format!("{raw} is not an object in braces")))
        }
        7 => {
            let raw = *["NaN", "Infinity", "-", "01", "1.", ".5", "+1", "'x'"].choose(rng).unwrap();
            let text = draft.clone().set("vcpu", raw).text();
            (text, Message::Begins("it is not JSON: ".into()))
        }
        _ => {
            let text = draft.clone().set("source", "\"a\tb\u{0}\"").text();
            (text, Message::Begins("it is not JSON: control character".into()))
        }
    };
    Bad { text, field: "record".into(), message }
}

/// Faults of two fields together.
fn together(draft: Draft, rng: &mut StdRng) -> Bad {
    match rng.random_range(0..4) {
        0 => Bad {
            text: draft.without("amount").set("price", "null").text(),
            field: "price".into(),
            message: Message::is("it is missing, and so is amount; one of them is needed"),
        },
        1 => Bad {
            text: draft.set("amount", "\"5\"").without("rate").text(),
            field: "rate".into(),
            message: Message::is(
                "it is missing; an amount in base units needs the rate that led to it",
            ),
        },
        2 => Bad {
            text: draft
                .set("started_at", "\"2026-11-20T07:00:00Z\"")
                .set("ended_at", "\"2026-11-20T06:59:59.999Z\"")
                .text(),
            field: "ended_at".into(),
            message: Message::is("it is 1 ms before the start"),
        },
        _ => Bad {
            text: draft
                .set("started_at", "\"2026-11-20T07:00:00Z\"")
                .set("ended_at", "\"2026-11-28T07:00:00.001Z\"")
                .text(),
            field: "ended_at".into(),
            message: Message::is(
                "it is 192 hours after the start; more than 8 days is not believed",
            ),
        },
    }
}

/// Takes a file apart on both sides, and holds each record against what is expected of it.
fn check(name: &str, text: &str, expected: &[Option<Bad>]) {
    let parsed =
        intake::parse(name, text.as_bytes(), "salad").unwrap_or_else(|e| panic!("{e}: {text}"));
    let verdicts: Vec<Result<(), Rejection>> = match parsed {
        Parsed::Work { records, .. } => {
            records.into_iter().map(|record| record.map(drop)).collect()
        }
        Parsed::Payees { entries, .. } => {
            entries.into_iter().map(|entry| entry.map(drop)).collect()
        }
    };
    let second = opinion::file(name, text.as_bytes(), "salad").unwrap().records;
    assert_eq!((verdicts.len(), second.len()), (expected.len(), expected.len()), "{text}");
    for ((verdict, second), expected) in verdicts.iter().zip(second).zip(expected) {
        match expected {
            None => assert!(verdict.is_ok() && second.is_ok(), "{verdict:?} {second:?}\n{text}"),
            Some(bad) => {
                let rejection = verdict.as_ref().expect_err(&bad.text);
                assert_eq!(rejection.field, bad.field, "{}\n{rejection:?}", bad.text);
                let (is, should) = (&rejection.reason, &bad.message);
                assert!(should.fits(is), "{}\nsays   {is}\nshould {should:?}", bad.text);
                assert_eq!(second.as_ref().err(), Some(&bad.field), "{}", bad.text);
            }
        }
    }
}

/// Files of good and bad records in any order, each bad one between good ones.
fn file_of(
    rng: &mut StdRng,
    good: impl Fn(&mut StdRng) -> String,
    bad: impl Fn(&mut StdRng) -> Bad,
) -> (Vec<String>, Vec<Option<Bad>>) {
    let (mut texts, mut expected) = (vec![good(rng)], vec![None]);
    for _ in 0..20 {
        let one = bad(rng);
        texts.push(one.text.clone());
        expected.push(Some(one));
        texts.push(good(rng));
        expected.push(None);
    }
    (texts, expected)
}

#[test]
fn every_bad_workload_is_refused_for_its_fault_and_costs_no_neighbour() {
    let mut rng = rng(1);
    let mut bads = 0;
    while bads < share(60) {
        let (lines, expected) = file_of(&mut rng, |rng| good(rng).text(), bad);
        bads += expected.iter().flatten().count();
        check("day.jsonl", &lines.join("\n"), &expected);
    }
}

fn payee(rng: &mut StdRng) -> Draft {
    let address = format!("\"0x{:040x}\"", rng.random_range(1..u128::MAX));
    Draft(Vec::new()).set("schema", "\"payee/1\"").set("machine", "\"m\"").set("address", &address)
}

fn bad_payee(rng: &mut StdRng) -> Bad {
    let draft = payee(rng);
    let field = *["schema", "machine", "address"].choose(rng).unwrap();
    match rng.random_range(0..6) {
        0 => Bad {
            text: draft.without(field).text(),
            field: field.into(),
            message: Message::is(MISSING),
        },
        1 => {
            let text = draft.text();
            let text = format!("{},\"{field}\":1}}", &text[..text.len() - 1]);
            Bad {
                text,
                field: "record".into(),
                message: Message::Begins(format!("duplicate field `{field}`")),
            }
        }
        2 => {
            let text = r#"["payee/1","m","0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"]"#;
            let message = Message::Begins(r#"["payee/1","m","#.into());
            Bad { text: text.into(), field: "record".into(), message }
        }
        _ => {
            let wrong = match field {
                "schema" => {
                    let mut wrong = no_texts();
                    let message = "\"workload/1\" is not \"payee/1\", which this file holds";
                    wrong.push((quoted("workload/1"), Message::is(message)));
                    wrong
                }
                "machine" => no_texts(),
                _ => addresses(false),
            };
            let (raw, message) = wrong.choose(rng).unwrap().clone();
            Bad { text: draft.set(field, &raw).text(), field: field.into(), message }
        }
    }
}

#[test]
fn every_bad_payee_is_refused_for_its_fault_and_costs_no_neighbour() {
    let mut rng = rng(2);
    let mut bads = 0;
    while bads < share(10) {
        let (lines, expected) = file_of(&mut rng, |rng| payee(rng).text(), bad_payee);
        bads += expected.iter().flatten().count();
        check("payees.jsonl", &lines.join("\r\n"), &expected);
    }
}

/// The parts of an earnings entry: key, then value.
fn entry(rng: &mut StdRng) -> [Vec<String>; 2] {
    let invoice = format!("{}.{}", rng.random_range(0..100_000), rng.random::<u64>());
    [
        vec![quoted("acme"), quoted("sdxl"), quoted(&format!("m{}", rng.random::<u32>()))],
        vec![
            "1795046400000".into(),
            "1795053600000".into(),
            invoice,
            "8".into(),
            "null".into(),
            "null".into(),
        ],
    ]
}

fn entry_text([key, value]: &[Vec<String>; 2]) -> String {
    format!(r#"{{"key":[{}],"value":[{}]}}"#, key.join(","), value.join(","))
}

fn bad_entry(rng: &mut StdRng) -> Bad {
    let mut parts = entry(rng);
    const NAMES: [&str; 9] = [
        "organisation",
        "container_group",
        "machine",
        "start",
        "stop",
        "invoice_usd",
        "max_vcpu",
        "max_memory_mb",
        "gpu_class",
    ];
    if rng.random_range(0..5) == 0 {
        return broken_entry(&parts, rng);
    }
    let place = rng.random_range(0..9);
    let most = i64::MAX.to_string();
    let mut wrong = match place {
        0..3 => no_texts(),
        3 | 4 => integers(&most, "9223372036854775808"),
        5 => decimal_numbers(),
        6 | 7 => decimal_numbers(),
        _ => no_texts(),
    };
    match place {
        3 => wrong.push((
            "1577836799999".into(),
            Message::is("1577836799999 ms since 1970 is not between the years 2020 and 2100"),
        )),
        4 => {
            wrong.push(("1795046399999".into(), Message::is("it is 1 ms before the start")));
            wrong.push((
                "1795737600001".into(),
                Message::is("it is 192 hours after the start; more than 8 days is not believed"),
            ));
        }
        5 => wrong.push((
            "100001".into(),
            Message::is("100001 is more than 100000, which is not believed"),
        )),
        _ => {}
    }
    if (3..6).contains(&place) {
        let message = if place == 5 {
            "null is not a number without quotes".to_owned()
        } else {
            format!("null is not a whole number from 0 to {most}, written as digits")
        };
        wrong.push(("null".into(), Message::Is(message)));
    }
    let (raw, message) = wrong.choose(rng).unwrap().clone();
    if place < 3 {
        parts[0][place] = raw
    } else {
        parts[1][place - 3] = raw
    }
    Bad { text: entry_text(&parts), field: NAMES[place].into(), message }
}

/// Entries of another shape.
fn broken_entry(parts: &[Vec<String>; 2], rng: &mut StdRng) -> Bad {
    let text = entry_text(parts);
    const SHAPE: &str = r#"it is not {"key": [...], "value": [...]}: "#;
    let (text, field, message) = match rng.random_range(0..6) {
        0 => {
            let text = entry_text(&[parts[0][..2].to_vec(), parts[1].clone()]);
            (text, "key", Message::is("it has 2 parts, not 3"))
        }
        1 => {
            let text = entry_text(&[parts[0].clone(), parts[1][..5].to_vec()]);
            (text, "value", Message::is("it has 5 parts, not 6"))
        }
        2 => {
            let text = format!("[{},{}]", 1, 2);
            (text, "entry", Message::is(format!("{SHAPE}[1,2] is not an object in braces")))
        }
        3 => {
            let text = format!("{},\"more\":1}}", &text[..text.len() - 1]);
            (text, "entry", Message::Begins(format!("{SHAPE}unknown field `more`")))
        }
        4 => {
            let text = format!("{},\"key\":[]}}", &text[..text.len() - 1]);
            (text, "entry", Message::Begins(format!("{SHAPE}duplicate field `key`")))
        }
        _ => (
            "{\"key\":[]}".into(),
            "entry",
            Message::Begins(format!("{SHAPE}missing field `value`")),
        ),
    };
    Bad { text, field: field.into(), message }
}

#[test]
fn every_bad_earnings_entry_is_refused_for_its_fault_and_costs_no_neighbour() {
    let mut rng = rng(3);
    let mut bads = 0;
    while bads < share(15) {
        let (entries, expected) = file_of(&mut rng, |rng| entry_text(&entry(rng)), bad_entry);
        bads += expected.iter().flatten().count();
        check("20261120-20261121.json", &format!("[{}]", entries.join(",\n")), &expected);
    }
}

#[test]
fn a_file_that_is_not_its_format_is_refused_whole_and_says_why() {
    const NAME: &str = "it is neither a daily earnings file (YYYYMMDD-YYYYMMDD.json, until exclusive) nor JSON lines (*.jsonl)";
    let cases: [(&str, &[u8], Message); 13] = [
        ("a.json", b"[]", Message::is(NAME)),
        ("20261120.json", b"[]", Message::is(NAME)),
        ("20261121-20261120.json", b"[]", Message::is(NAME)),
        ("20261120-20261131.json", b"[]", Message::is(NAME)),
        ("20260229-20260301.json", b"[]", Message::is(NAME)),
        (
            "20261120-20261222.json",
            b"[]",
            Message::is(
                "it covers 32 days; a daily earnings file covers at most 31, mend its name or split it, but not if an earlier version took it in: its work would be paid again",
            ),
        ),
        ("day.JSONL", b"", Message::is(NAME)),
        ("day.jsonl", b"\xff", Message::Begins("it is not UTF-8: ".into())),
        ("day.jsonl", b"{}\n\xc3", Message::Begins("it is not UTF-8: ".into())),
        (
            "20261120-20261121.json",
            b"",
            Message::Begins("it is not a JSON array of entries: ".into()),
        ),
        (
            "20261120-20261121.json",
            b"{}",
            Message::Begins("it is not a JSON array of entries: ".into()),
        ),
        (
            "20261120-20261121.json",
            b"[{]",
            Message::Begins("it is not a JSON array of entries: ".into()),
        ),
        (
            "20261120-20261121.json",
            b"[1,]",
            Message::Begins("it is not a JSON array of entries: ".into()),
        ),
    ];
    for (name, bytes, message) in cases {
        let relayer::Error::Input { name: said, reason } =
            intake::parse(name, bytes, "salad").unwrap_err()
        else {
            panic!("another error for {name}")
        };
        assert_eq!(said, name);
        assert!(message.fits(&reason), "{name}: {reason}");
        // One of many days may have been taken in before that was refused.
        let is_long = name == "20261120-20261222.json";
        assert_eq!(opinion::file(name, bytes, "salad").is_err(), !is_long, "{name}");
    }
}
