//! Bad input of every kind, generated with the error that each has to meet: the generator knows which fault it planted.
//! Good records beside a bad one are taken, and the second opinion reads every file the same way.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking"
)]

mod configs;
mod corpora;
mod kept;
mod records;
mod signed;
#[path = "../../fuzz/targets.rs"]
mod targets;

use rand::{SeedableRng, rngs::StdRng};

/// How many bad inputs are generated: 10,000 and more, a million in the deep tier.
fn count() -> usize {
    if std::env::var_os("QUITTANCE_TEST_DEEP").is_some() { 1_000_000 } else { 12_000 }
}

/// A share of all inputs, in percent.
fn share(percent: usize) -> usize {
    count() * percent / 100
}

fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// What a message has to be: all of it, or how it begins where a library adds a place.
#[derive(Debug, Clone)]
enum Message {
    Is(String),
    Begins(String),
}

impl Message {
    fn is(text: impl Into<String>) -> Self {
        Self::Is(text.into())
    }

    fn fits(&self, message: &str) -> bool {
        match self {
            Self::Is(text) => text == message,
            Self::Begins(text) => message.starts_with(text.as_str()),
        }
    }
}
