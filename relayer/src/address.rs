//! Addresses as people write them: in records, in the configuration, on the command line.

use alloy::primitives::Address;
use serde::{Deserialize, Deserializer, de::Error};

/// Reads an address that is not zero: checksummed, or all in lower case.
pub(crate) fn parse(text: &str) -> Result<Address, String> {
    let parsed = if text.starts_with("0x") && text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Address::parse_checksummed(text, None).ok()
    } else {
        text.starts_with("0x").then(|| text.parse().ok()).flatten()
    };
    parsed.filter(|address| *address != Address::ZERO).ok_or_else(|| {
        format!("{text:?} is not an address: 0x and 40 hex digits, checksum intact, not zero")
    })
}

/// Reads one of the configuration.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Reads one that may be left out.
pub(crate) fn deserialize_if_set<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Address>, D::Error> {
    deserialize(deserializer).map(Some)
}
