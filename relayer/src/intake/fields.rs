//! Reading single fields, each with an error that names the field, the problem and what would be right.

use alloy::primitives::{Address, B256};
use jiff::Timestamp;
use ledger::{Decimal, Millis};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Rejection;

/// Most characters of a name or an id.
const MAX_TEXT: usize = 200;
/// Longest that one piece of work may take, days.
const MAX_DAYS: i64 = 8;
/// Earliest and latest time that a record may name: 2020 to 2100, ms.
const TIMES: std::ops::Range<i64> = 1_577_836_800_000..4_102_444_800_000;

pub(super) type Field<T> = Result<T, Rejection>;

/// Reads the members of an object, each of which may come once. An array is none, although its values could be read as an
/// object's in their order.
pub(super) fn members<'a, T: Deserialize<'a>>(field: &str, text: &'a str) -> Field<T> {
    if !text.trim_start().starts_with('{') {
        let problem = match serde_json::from_str::<&RawValue>(text) {
            Ok(value) => format!("{} is not an object in braces", shorten(value.get())),
            Err(error) => format!("it is not JSON: {error}"),
        };
        return Err(Rejection::new(field, problem));
    }
    serde_json::from_str(text).map_err(|error| {
        let is_data = error.classify() == serde_json::error::Category::Data;
        let problem = if is_data { error.to_string() } else { format!("it is not JSON: {error}") };
        Rejection::new(field, problem)
    })
}

/// A value as it stands in the record, or what is missing.
pub(super) fn required<'a>(field: &str, value: Option<&'a RawValue>) -> Field<&'a RawValue> {
    match value.filter(|value| value.get() != "null") {
        Some(value) => Ok(value),
        None => Err(Rejection::new(field, "it is missing or null, and it is required")),
    }
}

/// Reads a field that may be absent or null.
pub(super) fn optional<T>(
    field: &str,
    value: Option<&RawValue>,
    read: impl FnOnce(&str, &RawValue) -> Field<T>,
) -> Field<Option<T>> {
    value.filter(|value| value.get() != "null").map(|value| read(field, value)).transpose()
}

/// A string of 1 to 200 characters without control characters.
pub(super) fn text(field: &str, value: &RawValue) -> Field<String> {
    let text: String = serde_json::from_str(value.get()).map_err(|_| {
        Rejection::new(field, format!("{} is not a string in quotes", shorten(value.get())))
    })?;
    if text.is_empty() || text.chars().count() > MAX_TEXT || text.chars().any(char::is_control) {
        let shown = shorten(value.get());
        return Err(Rejection::new(
            field,
            format!(
                "{shown} must have 1 to {MAX_TEXT} characters, none of them control characters"
            ),
        ));
    }
    Ok(text)
}

/// A whole number from 0 to `most`, written as digits.
pub(super) fn integer(field: &str, value: &RawValue, most: u64) -> Field<u64> {
    let text = value.get();
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_digits { text.parse::<u64>().ok() } else { None };
    number.filter(|number| *number <= most).ok_or_else(|| {
        let shown = shorten(text);
        Rejection::new(
            field,
            format!("{shown} is not a whole number from 0 to {most}, written as digits"),
        )
    })
}

/// A plain decimal, given as a JSON number.
pub(super) fn number(field: &str, value: &RawValue) -> Field<Decimal> {
    let text = value.get();
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return Err(Rejection::new(
            field,
            format!("{} is not a number without quotes", shorten(text)),
        ));
    }
    text.parse().map_err(|error: ledger::Error| Rejection::new(field, error.to_string()))
}

/// A plain decimal, given as a JSON string.
pub(super) fn decimal(field: &str, value: &RawValue) -> Field<Decimal> {
    text(field, value)?
        .parse()
        .map_err(|error: ledger::Error| Rejection::new(field, error.to_string()))
}

/// An amount of base units, given as a JSON string.
pub(super) fn amount(field: &str, value: &RawValue) -> Field<ledger::Amount> {
    text(field, value)?
        .parse()
        .map_err(|error: ledger::Error| Rejection::new(field, error.to_string()))
}

/// 32 bytes in hex.
pub(super) fn hash(field: &str, value: &RawValue) -> Field<B256> {
    let text = text(field, value)?;
    let parsed = if text.starts_with("0x") { text.parse().ok() } else { None };
    parsed.ok_or_else(|| {
        Rejection::new(field, format!("{text:?} is not 32 bytes in hex with 0x before them"))
    })
}

/// An address that is not zero: checksummed, or all in lower case.
pub(super) fn address(field: &str, text: &str) -> Field<Address> {
    crate::address::parse(text).map_err(|problem| Rejection::new(field, problem))
}

/// An instant in RFC 3339, as milliseconds.
pub(super) fn instant(field: &str, value: &RawValue) -> Field<Millis> {
    let text = text(field, value)?;
    let time = if is_rfc3339(&text) { text.parse::<Timestamp>().ok() } else { None };
    let time = time.ok_or_else(|| {
        Rejection::new(field, format!("{text:?} is not a time like 2026-11-20T07:00:00Z"))
    })?;
    in_range(field, time.as_millisecond())
}

/// Whether a text has the form of RFC 3339, at most nanoseconds: the library that reads it takes more.
fn is_rfc3339(text: &str) -> bool {
    let fits = |text: &str, form: &str| {
        text.len() == form.len()
            && text.bytes().zip(form.bytes()).all(|(byte, mark)| match mark {
                b'9' => byte.is_ascii_digit(),
                b'5' => (b'0'..=b'5').contains(&byte),
                b'2' => (b'0'..=b'2').contains(&byte),
                b'T' => matches!(byte, b'T' | b't'),
                b'+' => matches!(byte, b'+' | b'-'),
                mark => byte == mark,
            })
    };
    let Some((time, rest)) = text.split_at_checked(19) else { return false };
    let offset = match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => {
            let offset = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
            if !(1..=9).contains(&(fraction.len() - offset.len())) {
                return false;
            }
            offset
        }
    };
    let is_offset = matches!(offset, "Z" | "z")
        || (fits(offset, "+29:59") && offset.get(1..3).is_some_and(|hours| hours < "24"));
    fits(time, "9999-99-99T29:59:59") && is_offset
}

/// Milliseconds since 1970, given as a JSON number.
pub(super) fn millis(field: &str, value: &RawValue) -> Field<Millis> {
    let most = Millis::MAX.unsigned_abs();
    in_range(field, Millis::try_from(integer(field, value, most)?).unwrap_or(Millis::MAX))
}

fn in_range(field: &str, time: Millis) -> Field<Millis> {
    if TIMES.contains(&time) {
        return Ok(time);
    }
    Err(Rejection::new(
        field,
        format!("{time} ms since 1970 is not between the years 2020 and 2100"),
    ))
}

/// Checks that work ended after it started, and within eight days.
pub(super) fn duration(field: &str, started: Millis, stopped: Millis) -> Field<()> {
    let longest = MAX_DAYS * 24 * 60 * 60 * 1000;
    match stopped - started {
        negative if negative < 0 => {
            Err(Rejection::new(field, format!("it is {} ms before the start", -negative)))
        }
        long if long > longest => Err(Rejection::new(
            field,
            format!(
                "it is {} hours after the start; more than {MAX_DAYS} days is not believed",
                long / 3_600_000
            ),
        )),
        _ => Ok(()),
    }
}

/// A value for an error message, cut to a sensible length.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
