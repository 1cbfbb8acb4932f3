//! What commands show while they work, and how they print numbers.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is where commands talk to people"
)]

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress on standard error: a line per finished stage, and a moving line for the present one on a terminal.
#[derive(Debug)]
pub struct Screen {
    bar: ProgressBar,
    is_quiet: bool,
}

impl Screen {
    /// A screen; a quiet one shows nothing.
    pub fn new(is_quiet: bool) -> Self {
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
        if is_quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self { bar, is_quiet }
    }

    /// A stage is over.
    pub fn done(&self, text: impl AsRef<str>) {
        if !self.is_quiet {
            self.bar.suspend(|| eprintln!("  {}", text.as_ref()));
        }
    }

    /// What is being worked on.
    pub fn working(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// Takes the moving line away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Prints a result on standard output.
pub fn print(text: impl AsRef<str>) {
    println!("{}", text.as_ref());
}

/// Prints a complaint on standard error.
pub fn complain(text: impl AsRef<str>) {
    eprintln!("{}", text.as_ref());
}

/// A number with its thousands grouped.
pub fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Base units as whole tokens, with every decimal.
pub fn with_decimals(base_units: u128, decimals: u8) -> String {
    let decimals = usize::from(decimals);
    let digits = format!("{base_units:0>width$}", width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    let whole = grouped(whole.parse().unwrap_or_default());
    if fraction.is_empty() { whole } else { format!("{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_thousands() {
        for (number, shown) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")]
        {
            assert_eq!(grouped(number), shown);
        }
    }

    #[test]
    fn shows_every_decimal() {
        assert_eq!(with_decimals(1_234_567_890, 6), "1,234.567890");
        assert_eq!(with_decimals(7, 18), "0.000000000000000007");
        assert_eq!(with_decimals(42, 0), "42");
    }
}
