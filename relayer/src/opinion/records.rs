//! The three input formats, read anew from their description.

use alloy::primitives::{Address, B256, U256, keccak256};

use super::{
    json::{self, Json},
    money::{self, Decimal},
};

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;
/// Longest that one piece of work takes.
const MAX_DAYS: i64 = 8;
/// 2020-01-01 and 2100-01-01, milliseconds since 1970.
const TIMES: (i64, i64) = (1_577_836_800_000, 4_102_444_800_000);
/// Highest whole part of an invoice in the daily earnings, USD.
const MAX_INVOICE: u64 = 100_000;
/// Most characters of a text.
const MAX_TEXT: usize = 200;

/// What a source said, one record of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A workload.
    Work(Box<Work>),
    /// The payout address of a machine.
    Payee(String, Address),
}

/// One revision of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Who reports.
    pub source: String,
    /// The source's own id.
    pub external_id: String,
    /// Number of the revision.
    pub revision: u32,
    /// Who pays.
    pub organisation: String,
    /// Who did it.
    pub machine: String,
    /// End of the work, ms.
    pub stopped_ms: i64,
    /// Whether it did what was asked.
    pub is_completed: bool,
    /// What it costs.
    pub price: Price,
    /// USD per whole token, where the source names it.
    pub rate: Option<Decimal>,
    /// Payout address that the record names.
    pub payout: Option<Address>,
    /// Whether both sides' digests are there and differ.
    pub digests_differ: bool,
    /// Everything that a revision may not change, in one form.
    pub fixed: String,
    /// Everything that was said, in one form.
    pub content: String,
}

/// What a workload costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Price {
    /// USD, to be converted.
    Usd(Decimal),
    /// Base units.
    Token(U256),
}

/// A file as it was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// First day and first day after, of daily earnings.
    pub days: Option<(String, String)>,
    /// Hash of its bytes.
    pub content: B256,
    /// Each record, or the field for which it is refused.
    pub records: Vec<Result<Said, String>>,
}

/// Reads a file by its name; `source` is that of daily earnings.
pub fn file(name: &str, content: &[u8], source: &str) -> Result<File, String> {
    let text = std::str::from_utf8(content).map_err(|_| "it is not UTF-8".to_owned())?;
    let content = keccak256(content);
    let name = name.rsplit('/').next().unwrap_or(name);
    if let Some((first, until)) = days(name) {
        let Ok(Json::List(entries)) = json::read(text) else {
            return Err("it is not a JSON array".into());
        };
        let label = format!("{first}-{until}");
        let records = entries.iter().map(|entry| earnings(entry, &label, source)).collect();
        return Ok(File { days: Some((first, until)), content, records });
    }
    if !name.ends_with(".jsonl") {
        return Err("its name is neither YYYYMMDD-YYYYMMDD.json nor *.jsonl".into());
    }
    let lines: Vec<&str> = text
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .filter(|line| !line.trim().is_empty())
        .collect();
    let names_payee = |line: &&str| {
        json::read(line).is_ok_and(|value| {
            let schemas = value.count("schema");
            schemas == 1 && value.get("schema").and_then(Json::text) == Some("payee/1")
        })
    };
    let read = if lines.first().is_some_and(names_payee) { payee } else { workload };
    Ok(File { days: None, content, records: lines.into_iter().map(read).collect() })
}

type Field<T> = Result<T, String>;

fn at<T>(field: &str, value: Option<T>) -> Field<T> {
    value.ok_or_else(|| field.to_owned())
}

/// Days of a file name: the second one exclusive, two equal ones meaning that one day.
fn days(name: &str) -> Option<(String, String)> {
    let label = name.strip_suffix(".json")?;
    let (first, until) = label.split_once('-')?;
    let (from, to) = (day_of(first)?, day_of(until)?);
    if from == to {
        return Some((first.to_owned(), label_of(from + 1)));
    }
    (from < to).then(|| (first.to_owned(), until.to_owned()))
}

/// Days since 1970 of a label `YYYYMMDD`.
fn day_of(label: &str) -> Option<i64> {
    if label.len() != 8 || !label.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| label[range].parse::<i64>().ok();
    since_1970(number(0..4)?, number(4..6)?, number(6..8)?)
}

/// Days since 1970 of a date of the calendar, counted from March so that leap days stand last.
fn since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let length = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(days + (153 * month + 2) / 5 + day - 1 - 719_468)
}

fn label_of(day: i64) -> String {
    let mut year = 1970 + day.div_euclid(366);
    while since_1970(year + 1, 1, 1).is_some_and(|next| next <= day) {
        year += 1;
    }
    let month = (1..=12)
        .rev()
        .find(|month| since_1970(year, *month, 1).is_some_and(|first| first <= day))
        .unwrap_or(1);
    let first = since_1970(year, month, 1).unwrap_or(day);
    format!("{year:04}{month:02}{:02}", day - first + 1)
}

fn earnings(entry: &Json, label: &str, source: &str) -> Field<Said> {
    if entry.stray_key(&["key", "value"]) != Ok(None) {
        return Err("entry".into());
    }
    let list = |name: &str| at("entry", entry.get(name).and_then(Json::list));
    let (key, value) = (list("key")?, list("value")?);
    let [organisation, group, machine] = key else { return Err("key".into()) };
    let [start, stop, usd, vcpu, memory, gpu] = value else { return Err("value".into()) };
    let organisation = text("organisation", organisation)?;
    let group = text("container_group", group)?;
    let machine = text("machine", machine)?;
    let started_ms = millis("start", start)?;
    let stopped_ms = lasting("stop", started_ms, millis("stop", stop)?)?;
    let gpu = maybe(Some(gpu), |value| text("gpu_class", value))?;
    let vcpu = maybe(Some(vcpu), |value| number("max_vcpu", value))?;
    let memory = maybe(Some(memory), |value| number("max_memory_mb", value))?;
    let usd = number("invoice_usd", usd)?;
    if usd.is_at_least(MAX_INVOICE + 1) {
        return Err("invoice_usd".into());
    }
    let external_id = format!("{label}/{organisation}/{group}/{machine}");
    let resources = (Some(&group), gpu, decimal_form(vcpu), decimal_form(memory));
    let fixed = format!(
        "{:?}",
        (source, &external_id, &organisation, &machine, "batch", resources, started_ms, stopped_ms)
    );
    Ok(Said::Work(Box::new(Work {
        source: source.to_owned(),
        external_id,
        revision: 0,
        organisation: organisation.to_owned(),
        machine: machine.to_owned(),
        stopped_ms,
        is_completed: true,
        price: Price::Usd(usd),
        rate: None,
        payout: None,
        digests_differ: false,
        content: format!("{fixed} {}", usd.text()),
        fixed,
    })))
}

fn payee(line: &str) -> Field<Said> {
    let entry = json::read(line).map_err(|_| "record".to_owned())?;
    if entry.stray_key(&["schema", "machine", "address"]) != Ok(None) {
        return Err("record".into());
    }
    if text("schema", needed("schema", &entry)?)? != "payee/1" {
        return Err("schema".into());
    }
    let machine = text("machine", needed("machine", &entry)?)?.to_owned();
    let address = address(text("address", needed("address", &entry)?)?);
    Ok(Said::Payee(machine, at("address", address)?))
}

/// Every field of a workload.
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

fn workload(line: &str) -> Field<Said> {
    let line = json::read(line).map_err(|_| "record".to_owned())?;
    if line.stray_key(&FIELDS) != Ok(None) {
        return Err("record".into());
    }
    if text("schema", needed("schema", &line)?)? != "workload/1" {
        return Err("schema".into());
    }
    let plain = |name: &str| text(name, needed(name, &line)?);
    let optional = |name: &str| maybe(line.get(name), |value| text(name, value));
    let started_ms = instant("started_at", needed("started_at", &line)?)?;
    let ended_ms = instant("ended_at", needed("ended_at", &line)?)?;
    let stopped_ms = lasting("ended_at", started_ms, ended_ms)?;
    let (source, external_id) = (plain("source")?, plain("external_id")?);
    let (organisation, machine) = (plain("organisation")?, plain("machine")?);
    let kinds = ["inference", "render", "simulation", "transcription", "batch"];
    let kind = one_of("kind", &line, &kinds)?;
    let (group, gpu) = (optional("container_group")?, optional("gpu_class")?);
    let vcpu = maybe(line.get("vcpu"), |value| number("vcpu", value))?;
    let memory = maybe(line.get("memory_mb"), |value| number("memory_mb", value))?;
    let (priority, country) = (optional("priority")?, optional("country")?);
    if country
        .is_some_and(|code| code.len() != 2 || code.contains(|c: char| !c.is_ascii_uppercase()))
    {
        return Err("country".into());
    }
    let resources = (group, gpu, decimal_form(vcpu), decimal_form(memory), priority, country);
    let fixed = format!(
        "{:?}",
        (source, external_id, organisation, machine, kind, resources, started_ms, stopped_ms)
    );
    let result = one_of("result", &line, &["completed", "interrupted", "failed"])?;
    let rate = maybe(line.get("rate"), rate)?;
    let revision = maybe(line.get("revision"), |value| count("revision", value, u32::MAX.into()))?;
    let revision = u32::try_from(revision.unwrap_or(0)).unwrap_or_default();
    let price = price(&line, rate.is_some())?;
    let (evidence, digests_differ) = evidence(line.get("evidence"))?;
    let payout = maybe(line.get("provider"), account)?;
    let form = match price {
        Price::Usd(usd) => usd.text(),
        Price::Token(amount) => format!("{amount} base units"),
    };
    let rate_form = rate.as_ref().map(|(rate, source, at)| (rate.text(), source, *at));
    let said = (revision, result, form, rate_form, evidence, payout);
    Ok(Said::Work(Box::new(Work {
        source: source.to_owned(),
        external_id: external_id.to_owned(),
        revision,
        organisation: organisation.to_owned(),
        machine: machine.to_owned(),
        stopped_ms,
        is_completed: result == "completed",
        price,
        rate: rate.as_ref().map(|(rate, ..)| *rate),
        payout,
        digests_differ,
        content: format!("{fixed} {said:?}"),
        fixed,
    })))
}

fn needed<'a>(field: &str, value: &'a Json) -> Field<&'a Json> {
    at(field, value.get(field.rsplit('.').next().unwrap_or(field)))
}

fn maybe<'a, T>(
    value: Option<&'a Json>,
    read: impl FnOnce(&'a Json) -> Field<T>,
) -> Field<Option<T>> {
    value.filter(|value| **value != Json::Null).map(read).transpose()
}

fn text<'a>(field: &str, value: &'a Json) -> Field<&'a str> {
    let is_plain = |text: &&str| {
        let is_control = |c: char| c < ' ' || ('\u{7f}'..='\u{9f}').contains(&c);
        !text.is_empty() && text.chars().count() <= MAX_TEXT && !text.contains(is_control)
    };
    at(field, value.text().filter(is_plain))
}

fn one_of<'a>(field: &str, line: &'a Json, words: &[&str]) -> Field<&'a str> {
    at(field, needed(field, line)?.text().filter(|word| words.contains(word)))
}

fn number(field: &str, value: &Json) -> Field<Decimal> {
    at(field, value.number().and_then(Decimal::read))
}

fn decimal(field: &str, value: &Json) -> Field<Decimal> {
    at(field, Decimal::read(text(field, value)?))
}

fn decimal_form(decimal: Option<Decimal>) -> Option<String> {
    decimal.map(|decimal| decimal.text())
}

/// A whole number that is written as digits.
fn count(field: &str, value: &Json, most: u64) -> Field<u64> {
    let number = value.number().and_then(money::amount).and_then(|n| u64::try_from(n).ok());
    at(field, number.filter(|number| *number <= most))
}

fn millis(field: &str, value: &Json) -> Field<i64> {
    let time = count(field, value, u64::MAX)?;
    at(field, i64::try_from(time).ok().filter(|time| (TIMES.0..TIMES.1).contains(time)))
}

fn lasting(field: &str, started_ms: i64, stopped_ms: i64) -> Field<i64> {
    let is_sound = (0..=MAX_DAYS * DAY).contains(&(stopped_ms - started_ms));
    at(field, is_sound.then_some(stopped_ms))
}

/// RFC 3339 with an offset; what is below a millisecond is dropped.
fn instant(field: &str, value: &Json) -> Field<i64> {
    let time = rfc3339(text(field, value)?);
    at(field, time.filter(|time| (TIMES.0..TIMES.1).contains(time)))
}

fn rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    let is = |place: usize, marks: &[u8]| bytes.get(place).is_some_and(|b| marks.contains(b));
    let has_marks = is(4, b"-") && is(7, b"-") && is(10, b"Tt") && is(13, b":") && is(16, b":");
    if !has_marks {
        return None;
    }
    let day = since_1970(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanoseconds = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit())?;
        if !(1..=9).contains(&end) {
            return None;
        }
        nanoseconds = format!("{:0<9}", &fraction[..end]).parse::<i64>().ok()?;
        rest = &fraction[end..];
    }
    let offset = match rest.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let digits = |a: &u8, b: &u8| {
                let are_digits = a.is_ascii_digit() && b.is_ascii_digit();
                are_digits.then(|| i64::from(a - b'0') * 10 + i64::from(b - b'0'))
            };
            let (hours, minutes) = (digits(h1, h2)?, digits(m1, m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = hour * 3600 + minute * 60 + second - offset * 60;
    Some(day * DAY + seconds * 1000 + nanoseconds / 1_000_000)
}

/// A plain address or `eip155:<chain id>:<address>`.
fn account(value: &Json) -> Field<Address> {
    let text = text("provider", value)?;
    let plain = match text.strip_prefix("eip155:") {
        None => Some(text),
        Some(rest) => rest.split_once(':').and_then(|(chain, rest)| {
            let is_chain =
                (1..=20).contains(&chain.len()) && chain.bytes().all(|byte| byte.is_ascii_digit());
            is_chain.then_some(rest)
        }),
    };
    at("provider", plain.and_then(address))
}

/// An address that is not zero, in lower case or with its EIP-55 checksum.
fn address(text: &str) -> Option<Address> {
    let bytes: [u8; 20] = hex(text)?;
    let digits = &text[2..];
    let lower = digits.to_ascii_lowercase();
    if digits != lower {
        let hash = keccak256(&lower);
        for (place, digit) in digits.bytes().enumerate() {
            let nibble = hash[place / 2] >> (4 * (1 - place % 2)) & 15;
            if digit.is_ascii_alphabetic() && digit.is_ascii_uppercase() != (nibble > 7) {
                return None;
            }
        }
    }
    (bytes != [0; 20]).then(|| bytes.into())
}

/// `N` bytes in hex behind `0x`.
pub(super) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        for digit in pair {
            let nibble = char::from(*digit).to_digit(16)?;
            *byte = *byte << 4 | u8::try_from(nibble).ok()?;
        }
    }
    Some(bytes)
}

fn rate(value: &Json) -> Field<(Decimal, &str, i64)> {
    if value.stray_key(&["usd_per_token", "source", "at"]) != Ok(None) {
        return Err("rate".into());
    }
    let usd = decimal("rate.usd_per_token", needed("rate.usd_per_token", value)?)?;
    if usd.is_zero() {
        return Err("rate.usd_per_token".into());
    }
    let source = text("rate.source", needed("rate.source", value)?)?;
    Ok((usd, source, instant("rate.at", needed("rate.at", value)?)?))
}

fn price(line: &Json, has_rate: bool) -> Field<Price> {
    let usd = maybe(line.get("price"), |value| {
        if value.stray_key(&["currency", "per_hour", "amount"]) != Ok(None) {
            return Err("price".into());
        }
        if text("price.currency", needed("price.currency", value)?)? != "USD" {
            return Err("price.currency".into());
        }
        maybe(value.get("per_hour"), |value| decimal("price.per_hour", value))?;
        decimal("price.amount", needed("price.amount", value)?)
    })?;
    let amount =
        maybe(line.get("amount"), |value| at("amount", money::amount(text("amount", value)?)))?;
    match (amount, usd) {
        (None, None) => Err("price".into()),
        (None, Some(usd)) => Ok(Price::Usd(usd)),
        (Some(_), _) if !has_rate => Err("rate".into()),
        (Some(amount), _) => Ok(Price::Token(amount)),
    }
}

/// The evidence in one form, and whether both digests are there and differ.
fn evidence(value: Option<&Json>) -> Field<(String, bool)> {
    let none = Json::Object(Vec::new());
    let value = value.unwrap_or(&none);
    let names = ["salad_job_ids", "golem_agreement", "digest", "mirror_digest"];
    if value.stray_key(&names) != Ok(None) {
        return Err("evidence".into());
    }
    let jobs = maybe(value.get("salad_job_ids"), |jobs| {
        let jobs = jobs.list().map(|jobs| jobs.iter().map(Json::text).collect::<Option<Vec<_>>>());
        at("evidence.salad_job_ids", jobs.flatten())
    })?;
    let agreement =
        maybe(value.get("golem_agreement"), |value| text("evidence.golem_agreement", value))?;
    let digest = |name: &str| {
        let field = format!("evidence.{name}");
        maybe(value.get(name), |value| at(&field, hex::<32>(text(&field, value)?).map(B256::from)))
    };
    let (ours, mirror) = (digest("digest")?, digest("mirror_digest")?);
    let form = format!("{:?}", (jobs.unwrap_or_default(), agreement, ours, mirror));
    Ok((form, ours.zip(mirror).is_some_and(|(ours, mirror)| ours != mirror)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_is_gregorian() {
        for (year, month, day) in
            [(2026, 2, 29), (2100, 2, 29), (2026, 13, 1), (2026, 0, 1), (2026, 4, 31), (2026, 1, 0)]
        {
            assert_eq!(since_1970(year, month, day), None);
        }
        assert_eq!(since_1970(1970, 1, 1), Some(0));
        assert_eq!(since_1970(2000, 2, 29), Some(11_016));
        assert_eq!(label_of(11_016), "20000229");
        assert_eq!(days("20271231-20271231.json"), Some(("20271231".into(), "20280101".into())));
        assert_eq!(rfc3339("2020-01-01T00:00:00Z"), Some(TIMES.0));
        assert_eq!(rfc3339("2099-12-31T22:30:00.0009-01:30"), Some(TIMES.1));
    }

    #[test]
    fn an_address_needs_its_checksum() {
        let good = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        assert!(address(good).is_some());
        assert!(address(&good.to_lowercase()).is_some());
        assert_eq!(address(&good.replace("aA", "AA")), None);
        assert_eq!(address(&format!("0x{}", "0".repeat(40))), None);
    }
}
