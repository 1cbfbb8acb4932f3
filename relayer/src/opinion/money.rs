//! Exact decimals and amounts in 256 bits.

use alloy::primitives::{I256, U256};

/// Most digits of a decimal once zeros that say nothing are gone.
const MAX_DIGITS: usize = 30;

/// A plain decimal that is not negative: `digits ÷ 10^scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    digits: U256,
    scale: usize,
}

impl Decimal {
    /// Reads digits with at most one point between them.
    pub fn read(text: &str) -> Option<Self> {
        let (whole, fraction) = match text.find('.') {
            Some(point) => (&text[..point], &text[point + 1..]),
            None => (text, "0"),
        };
        for part in [whole, fraction] {
            if part.is_empty() || part.contains(|digit: char| !digit.is_ascii_digit()) {
                return None;
            }
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        if whole.len() + fraction.len() > MAX_DIGITS {
            return None;
        }
        let mut digits = U256::ZERO;
        for digit in whole.bytes().chain(fraction.bytes()) {
            digits = digits * U256::from(10) + U256::from(digit - b'0');
        }
        Some(Self { digits, scale: fraction.len() })
    }

    /// Whether it is a whole number or above it.
    pub fn is_at_least(&self, whole: u64) -> bool {
        self.digits >= U256::from(whole) * ten_to(self.scale)
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.digits.is_zero()
    }

    /// The base units that so many USD buy at `rate` USD per whole token, rounded down once.
    pub fn buys(&self, rate: &Self, decimals: u8) -> Option<U256> {
        let up = self.digits.checked_mul(ten_to(rate.scale + usize::from(decimals)))?;
        let down = rate.digits.checked_mul(ten_to(self.scale))?;
        up.checked_div(down)
    }

    /// Its one form.
    pub fn text(&self) -> String {
        format!("{}e-{}", self.digits, self.scale)
    }
}

/// 10^exponent.
pub(super) fn ten_to(exponent: usize) -> U256 {
    U256::from(10).saturating_pow(U256::from(exponent))
}

/// The same number where differences are taken.
pub(super) fn signed(amount: U256) -> I256 {
    I256::try_from(amount).unwrap_or(I256::MAX)
}

/// Digits only, below 2^128.
pub(super) fn amount(text: &str) -> Option<U256> {
    if text.is_empty() || text.contains(|digit: char| !digit.is_ascii_digit()) {
        return None;
    }
    let mut amount = U256::ZERO;
    for digit in text.bytes() {
        amount = amount.checked_mul(U256::from(10))?.checked_add(U256::from(digit - b'0'))?;
    }
    (amount <= U256::from(u128::MAX)).then_some(amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_decimals_that_are_not_plain() {
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1 ", "1.2.3", "NaN", "٣"] {
            assert_eq!(Decimal::read(text), None, "{text:?}");
        }
        assert_eq!(Decimal::read(&"1".repeat(31)), None);
        assert!(Decimal::read(&format!("{}1.10000", "0".repeat(40))).is_some());
    }

    #[test]
    fn rounds_down_once() {
        let buys = |usd: &str, rate: &str, decimals| {
            Decimal::read(usd).unwrap().buys(&Decimal::read(rate).unwrap(), decimals).unwrap()
        };
        assert_eq!(buys("0.320000", "0.247", 18).to_string(), "1295546558704453441");
        assert_eq!(buys("0.0000019", "1", 6), U256::from(1));
        assert_eq!(Decimal::read("1").unwrap().buys(&Decimal::read("0.0").unwrap(), 6), None);
    }
}
