//! Money as integers: base units, units, and exact decimals for what comes in as USD.

use std::{fmt, str::FromStr};

use alloy::primitives::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Error, Result};

/// An amount of a token in base units. Never negative, never a float; a decimal string in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Amount(u128);

#[allow(clippy::should_implement_trait, reason = "sums can fail, the traits cannot")]
impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// An amount of `base_units`.
    pub const fn new(base_units: u128) -> Self {
        Self(base_units)
    }

    /// The number of base units.
    pub const fn base_units(self) -> u128 {
        self.0
    }

    /// Sum, if it fits.
    pub fn add(self, other: Self) -> Result<Self> {
        self.0.checked_add(other.0).map(Self).ok_or(Error::Overflow("sum of amounts"))
    }

    /// Difference, or `None` if `other` is larger.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The same amount where differences are taken.
    pub fn signed(self) -> Result<i128> {
        i128::try_from(self.0).map_err(|_| Error::Overflow("signed amount"))
    }

    /// `bps` ten-thousandths of it, rounded down.
    pub fn share(self, bps: u16) -> Result<Self> {
        let share = U256::from(self.0) * U256::from(bps) / U256::from(10_000);
        share.try_into().map(Self).map_err(|_| Error::Overflow("share of an amount"))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Amount {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.map(Self).ok_or_else(|| Error::NotAnAmount(text.to_owned()))
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// An amount in the contract's units. One unit is [`Unit`] base units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Units(u64);

#[allow(clippy::should_implement_trait, reason = "sums can fail, the traits cannot")]
impl Units {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// An amount of `units`.
    pub const fn new(units: u64) -> Self {
        Self(units)
    }

    /// The number of units.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Sum, if it fits.
    pub fn add(self, other: Self) -> Result<Self> {
        self.0.checked_add(other.0).map(Self).ok_or(Error::Overflow("sum of units"))
    }

    /// Difference, if it is not negative.
    pub fn sub(self, other: Self) -> Result<Self> {
        self.0.checked_sub(other.0).map(Self).ok_or(Error::Overflow("difference of units"))
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Units {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Units {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if is_plain { text.parse().ok() } else { None };
        number
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("{text:?} is not a number of units")))
    }
}

/// Units over a whole life: what goes out and comes in again counts each time, so that the sum outgrows the 64 bits that the
/// contract bounds what there is at any one time by. A decimal string in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Turnover(u128);

#[allow(clippy::should_implement_trait, reason = "sums can fail, the traits cannot")]
impl Turnover {
    /// A sum of `units`.
    pub const fn new(units: u128) -> Self {
        Self(units)
    }

    /// The number of units.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// With `units` more, if that fits.
    pub fn add(self, units: Units) -> Result<Self> {
        let sum = self.0.checked_add(units.0.into());
        sum.map(Self).ok_or(Error::Overflow("units over a whole life"))
    }

    /// What is there now after so much went out, if that is not negative.
    pub fn less(self, out: Self) -> Result<Units> {
        let left = self.0.checked_sub(out.0).and_then(|left| u64::try_from(left).ok());
        left.map(Units).ok_or(Error::Overflow("units that are left"))
    }
}

impl Serialize for Turnover {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Base units per unit of a token: 10^max(0, decimals − 6). See `ITokens.sol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unit(u64);

impl Unit {
    /// The unit of a token with `decimals`, as the contract fixes it.
    pub fn of_decimals(decimals: u8) -> Result<Self> {
        let exponent = decimals.saturating_sub(6);
        if exponent > 18 {
            return Err(Error::Overflow("unit of a token with more than 24 decimals"));
        }
        Ok(Self(10_u64.pow(u32::from(exponent))))
    }

    /// Base units per unit.
    pub const fn base_units(self) -> u64 {
        self.0
    }

    /// `units` in base units. Cannot overflow: 64 bits times 64 bits.
    pub fn amount(self, units: Units) -> Amount {
        Amount(u128::from(self.0) * u128::from(units.get()))
    }

    /// A sum of units in base units, if that fits.
    pub fn turnover(self, turnover: Turnover) -> Result<Amount> {
        let amount = turnover.0.checked_mul(self.0.into());
        amount.map(Amount).ok_or(Error::Overflow("base units over a whole life"))
    }

    /// Whole units in `amount`, and the base units that remain.
    pub fn split(self, amount: Amount) -> Result<(Units, Amount)> {
        let unit = u128::from(self.0);
        let units = u64::try_from(amount.0 / unit).map_err(|_| Error::Overflow("units"))?;
        Ok((Units(units), Amount(amount.0 % unit)))
    }
}

/// An exact, non-negative decimal number, such as a price in USD. Parsed from text, never through a float.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal {
    digits: u128,
    scale: u32,
}

impl Decimal {
    /// Most digits that a decimal may have: the largest conversion then stays below 2^256.
    pub const MAX_DIGITS: usize = 30;

    /// Whether it is zero.
    pub const fn is_zero(&self) -> bool {
        self.digits == 0
    }

    /// Its whole part.
    pub const fn whole(&self) -> u128 {
        match 10_u128.checked_pow(self.scale) {
            Some(power) => self.digits / power,
            None => 0,
        }
    }

    /// What `amount` of a token with `decimals` is worth at this price per whole token, in millionths of the currency,
    /// rounded down.
    pub fn value_of(&self, amount: Amount, decimals: u8) -> Result<u128> {
        let power = |exponent: u32| U256::from(10).checked_pow(U256::from(exponent));
        let value = || {
            let up = U256::from(self.digits)
                .checked_mul(U256::from(amount.0))?
                .checked_mul(power(6)?)?;
            u128::try_from(up.checked_div(power(self.scale + u32::from(decimals))?)?).ok()
        };
        value().ok_or(Error::Overflow("value of an amount"))
    }

    /// The most base units of a token with `decimals` that are worth at most so many millionths of the currency at this price
    /// per whole token: ⌊millionths × 10^decimals ÷ (self × 10^6)⌋. As many as there can be if the price is 0.
    pub fn most_within(&self, millionths: u128, decimals: u8) -> Amount {
        let up = || {
            let power = U256::from(10).checked_pow(U256::from(self.scale + u32::from(decimals)))?;
            U256::from(millionths).checked_mul(power)
        };
        let down = U256::from(self.digits).saturating_mul(U256::from(1_000_000));
        let most = up().unwrap_or(U256::MAX).checked_div(down).unwrap_or(U256::MAX);
        Amount(u128::try_from(most).unwrap_or(u128::MAX))
    }

    /// The tokens that it buys: ⌊self × 10^decimals ÷ rate⌋ base units, `rate` being the price of a whole token in the
    /// same currency. Rounds down, once, with 256-bit intermediates.
    pub fn convert(&self, rate: &Self, decimals: u8) -> Result<Amount> {
        let power = |exponent: u32| U256::from(10).checked_pow(U256::from(exponent));
        let quotient = || {
            let up =
                U256::from(self.digits).checked_mul(power(u32::from(decimals) + rate.scale)?)?;
            let down = U256::from(rate.digits).checked_mul(power(self.scale)?)?;
            u128::try_from(up.checked_div(down)?).ok()
        };
        quotient().map(Amount).ok_or(Error::Overflow("conversion of a price"))
    }
}

impl FromStr for Decimal {
    type Err = Error;

    /// Accepts digits with at most one point between them: no sign, no exponent, no spaces, at most 30 digits. Trailing
    /// zeros after the point do not matter.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why| Error::NotADecimal { text: text.to_owned(), why };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if text.contains(['e', 'E']) {
            return Err(refuse("an exponent is not allowed; write the number out"));
        }
        if text.starts_with('-') {
            return Err(refuse("it must not be negative"));
        }
        if !are_digits(whole) || !are_digits(fraction) {
            return Err(refuse("it must be digits with at most one point between them"));
        }
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        if whole.len() + fraction.len() > Self::MAX_DIGITS {
            return Err(refuse("it has more than 30 digits"));
        }
        let digits = format!("0{whole}{fraction}").parse().map_err(|_| refuse("it is too long"))?;
        let scale = u32::try_from(fraction.len()).map_err(|_| refuse("it is too long"))?;
        Ok(Self { digits, scale })
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = self.scale as usize;
        let digits = format!("{:0>width$}", self.digits, width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        if fraction.is_empty() { f.write_str(whole) } else { write!(f, "{whole}.{fraction}") }
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn refuses_decimals_that_are_not_plain() {
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1E-3", "0x1", "1 ", "1.2.3", "NaN"] {
            assert!(text.parse::<Decimal>().is_err(), "{text:?}");
        }
        assert!("1234567890123456789012345678901".parse::<Decimal>().is_err());
    }

    #[test]
    fn units_over_a_whole_life_outgrow_what_there_is_at_one_time() {
        let most = Units::new(u64::MAX);
        let twice = Turnover::default().add(most).unwrap().add(most).unwrap();
        let once = Turnover::default().add(most).unwrap();
        assert_eq!(twice.less(once).unwrap(), most);
        assert!(once.less(twice).is_err() && twice.less(Turnover::default()).is_err());
        assert!(Turnover::new(u128::MAX).add(Units::new(1)).is_err());
        let unit = Unit::of_decimals(24).unwrap();
        assert_eq!(unit.turnover(once).unwrap(), unit.amount(most));
        assert!(unit.turnover(Turnover::new(u128::MAX)).is_err());
    }

    #[test]
    fn refuses_amounts_that_are_not_digits() {
        for text in ["", "-1", "+1", "1.0", "1e3", "340282366920938463463374607431768211456"] {
            assert!(text.parse::<Amount>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn refuses_units_that_are_not_digits() {
        for text in ["\"\"", "\"-1\"", "\"+1\"", "\"1.0\"", "\"18446744073709551616\"", "1"] {
            assert!(serde_json::from_str::<Units>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_and_units_are_text_in_json() {
        for number in [0, 7, u128::MAX] {
            let (amount, text) = (Amount::new(number), format!("\"{number}\""));
            assert_eq!(serde_json::to_string(&amount).unwrap(), text);
            assert_eq!(serde_json::from_str::<Amount>(&text).unwrap().base_units(), number);
        }
        for number in [0, 7, u64::MAX] {
            let (units, text) = (Units::new(number), format!("\"{number}\""));
            assert_eq!(serde_json::to_string(&units).unwrap(), text);
            assert_eq!(serde_json::from_str::<Units>(&text).unwrap().get(), number);
        }
    }

    #[test]
    fn nothing_is_subtracted_below_zero() {
        let (three, five) = (Amount::new(3), Amount::new(5));
        assert_eq!(five.checked_sub(three), Some(Amount::new(2)));
        assert_eq!(three.checked_sub(five), None);
        assert_eq!(Units::new(5).sub(Units::new(3)).unwrap(), Units::new(2));
        assert!(Units::new(3).sub(Units::new(5)).is_err());
    }

    #[test]
    fn prints_decimals_in_their_shortest_form() {
        for (text, shown) in [("0", "0"), ("00.250", "0.25"), ("12", "12"), ("1.05", "1.05")] {
            assert_eq!(decimal(text).to_string(), shown);
        }
    }

    #[test]
    fn a_decimal_has_thirty_digits_at_most() {
        let longest = "123456789012345.678901234567891";
        assert_eq!(decimal(longest).to_string(), longest);
        assert!(format!("{longest}1").parse::<Decimal>().is_err());
    }

    #[test]
    fn a_decimal_tells_its_whole_part_and_whether_it_is_zero() {
        for (text, whole, is_zero) in
            [("0", 0, true), ("0.000", 0, true), ("0.5", 0, false), ("12.75", 12, false)]
        {
            assert_eq!(
                (decimal(text).whole(), decimal(text).is_zero()),
                (whole, is_zero),
                "{text}"
            );
        }
    }

    #[test]
    fn an_amount_is_worth_its_price_rounded_down() {
        for (price, amount, decimals, millionths) in [
            ("0.25", 2_000_000, 6, 500_000),
            ("0.25", 2_000_000_000_000_000_000, 18, 500_000),
            ("0.247", 1_295_546_558_704_453_441, 18, 319_999),
            ("0", 5, 6, 0),
        ] {
            let value = decimal(price).value_of(Amount::new(amount), decimals).unwrap();
            assert_eq!(value, millionths, "{amount} at {price}");
        }
        assert!(decimal("1000").value_of(Amount::new(u128::MAX), 0).is_err());
    }

    #[test]
    fn the_most_that_a_value_buys_is_worth_no_more_and_one_base_unit_more_is() {
        for (price, millionths, decimals) in
            [("0.25", 1_000_000, 6), ("0.247", 320_000, 18), ("3", 1, 18), ("1999.99", 7, 8)]
        {
            let price = decimal(price);
            let most = price.most_within(millionths, decimals).base_units();
            let paid = |amount: u128| {
                U256::from(amount) * U256::from(price.digits) * U256::from(1_000_000)
            };
            let bound = U256::from(millionths)
                * U256::from(10).pow(U256::from(price.scale + u32::from(decimals)));
            assert!(paid(most) <= bound && paid(most + 1) > bound, "{price}");
        }
        assert_eq!(decimal("0.25").most_within(1_000_000, 6), Amount::new(4_000_000));
        assert_eq!(decimal("0").most_within(1, 6), Amount::new(u128::MAX));
    }

    #[test]
    fn converts_rounding_down_once() {
        let amount = decimal("0.320000").convert(&decimal("0.247000"), 18).unwrap();
        assert_eq!(amount.to_string(), "1295546558704453441");
        assert_eq!(decimal("0.0000019").convert(&decimal("1"), 6).unwrap(), Amount::new(1));
    }

    #[test]
    fn refuses_a_conversion_at_rate_zero() {
        assert!(decimal("1").convert(&decimal("0"), 6).is_err());
    }

    #[test]
    fn splits_into_whole_units_and_a_remainder() {
        let unit = Unit::of_decimals(18).unwrap();
        let (units, rest) = unit.split(Amount::new(1_295_546_558_704_453_441)).unwrap();
        assert_eq!((units, rest), (Units::new(1_295_546), Amount::new(558_704_453_441)));
        assert_eq!(unit.amount(units), Amount::new(1_295_546_000_000_000_000));
    }

    #[test]
    fn a_unit_is_a_millionth_of_a_token_and_at_least_a_base_unit() {
        for (decimals, base_units) in
            [(0, 1), (6, 1), (7, 10), (18, 1_000_000_000_000), (24, 1_000_000_000_000_000_000)]
        {
            assert_eq!(Unit::of_decimals(decimals).unwrap().base_units(), base_units);
        }
        assert!(Unit::of_decimals(25).is_err());
    }
}
