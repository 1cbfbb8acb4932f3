//! What is paid for gas: prices, replacements and bounds. Pure; integers only.

use ledger::{Amount, Decimal, Millis, Result};

/// How soon a transaction has to be mined; each asks for another percentile of what others tip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It may take its time.
    Calm,
    /// The usual.
    Normal,
    /// A deadline is near.
    Pressing,
}

/// Percentiles of tips that the urgencies ask for, in their order.
pub const PERCENTILES: [f64; 3] = [20.0, 50.0, 80.0];

/// What gas costs now, wei per gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    /// Base fee of the next block.
    pub base: u128,
    /// Tips by urgency, ascending.
    pub tips: [u128; 3],
}

/// Fee fields of a transaction, wei per gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fees {
    /// `maxFeePerGas`.
    pub max_fee: u128,
    /// `maxPriorityFeePerGas`.
    pub tip: u128,
}

impl Prices {
    /// The same tip for every urgency.
    pub const fn flat(base: u128, tip: u128) -> Self {
        Self { base, tips: [tip; 3] }
    }

    /// The tip of an urgency.
    pub const fn tip(&self, urgency: Urgency) -> u128 {
        let [calm, normal, pressing] = self.tips;
        match urgency {
            Urgency::Calm => calm,
            Urgency::Normal => normal,
            Urgency::Pressing => pressing,
        }
    }

    /// What a unit of gas would cost in the next block.
    pub const fn now(&self, urgency: Urgency) -> u128 {
        self.base.saturating_add(self.tip(urgency))
    }

    /// Fees of a first attempt: room for the base fee to double, within `cap`.
    pub fn fees(&self, urgency: Urgency, cap: u128) -> Fees {
        let tip = self.tip(urgency);
        let max_fee = self.base.saturating_mul(2).saturating_add(tip).min(cap).max(1);
        Fees { max_fee, tip: tip.min(max_fee) }
    }
}

/// Base fee of the block after one with this header, by EIP-1559.
pub fn next_base_fee(base: u128, gas_used: u64, gas_limit: u64) -> u128 {
    let target = u128::from(gas_limit / 2).max(1);
    let used = u128::from(gas_used);
    let change = |distance: u128| base.saturating_mul(distance) / target / 8;
    match used.checked_sub(target) {
        Some(0) => base,
        Some(above) => base.saturating_add(change(above).max(1)),
        None => base.saturating_sub(change(target - used)),
    }
}

/// The tips of each percentile: the median over the blocks that had any. `None` if none had.
pub fn tips(rewards: &[Vec<u128>]) -> Option<[u128; 3]> {
    let mut tips = [0; 3];
    for (index, tip) in tips.iter_mut().enumerate() {
        let mut seen: Vec<_> = rewards
            .iter()
            .filter_map(|block| block.get(index).copied())
            .filter(|tip| *tip > 0)
            .collect();
        seen.sort_unstable();
        *tip = *seen.get(seen.len() / 2)?;
    }
    // Medians of different blocks could cross.
    tips.sort_unstable();
    Some(tips)
}

/// Whether most blocks had no tips: then those of the others may be one sender's whim, and tell no price.
pub fn is_quiet(rewards: &[Vec<u128>]) -> bool {
    let is_empty = |block: &&Vec<u128>| block.iter().all(|tip| *tip == 0);
    rewards.iter().filter(is_empty).count() > rewards.len() / 2
}

/// Fees of a replacement: both fields rise by at least an eighth and one wei, because nodes refuse less than a tenth on
/// either, to what is right now if that is more, and to at most three times what they were.
pub fn replacement(old: Fees, fresh: Fees) -> Fees {
    let step = |old: u128, fresh: u128| fresh.min(old.saturating_mul(3)).max(raised(old));
    let tip = step(old.tip, fresh.tip);
    Fees { max_fee: step(old.max_fee, fresh.max_fee).max(tip), tip }
}

/// An eighth more, rounded up, and one.
pub const fn raised(fee: u128) -> u128 {
    fee.saturating_add(fee.div_ceil(8)).saturating_add(1)
}

/// Before a deadline, the time in which the fee bound rises from the usual share to the whole value.
pub const PRESSURE: Millis = 24 * 3_600_000;

/// What a batch may cost: `max_fee_bps` of `value`, and, as the deadline nears, up to all of it. Same currency in and out.
pub fn allowed(value: u128, max_fee_bps: u16, left: Option<Millis>) -> Result<u128> {
    let value = Amount::new(value);
    let usual = value.share(max_fee_bps)?.base_units();
    let left = left.map_or(PRESSURE, |left| left.clamp(0, PRESSURE));
    let gone = u128::from((PRESSURE - left).unsigned_abs());
    let whole = u128::from(PRESSURE.unsigned_abs());
    let more = value.base_units().saturating_sub(usual);
    let rise = (more / whole)
        .saturating_mul(gone)
        .saturating_add((more % whole).saturating_mul(gone) / whole);
    Ok(usual.saturating_add(rise).min(value.base_units().max(usual)))
}

/// The most wei that are worth at most `allowed` millionths of a USD.
pub fn wei_within(allowed: u128, native_usd: &Decimal) -> u128 {
    native_usd.most_within(allowed, 18).base_units()
}

/// Gas of one more row in a statement of many whose credits were used before; decisions/0001.
const ROW_GAS: u128 = 1_650;

/// The least value, in millionths of a USD, at which a row is within the fee bound at a price of gas in wei. What is below
/// waits in the unsigned proposal. `None` where fees are not judged.
pub fn least_row(
    price: u128,
    native_usd: Option<&Decimal>,
    max_fee_bps: u16,
) -> Result<Option<u128>> {
    let Some(native_usd) = native_usd else { return Ok(None) };
    let wei = ROW_GAS.saturating_mul(price);
    if max_fee_bps == 0 {
        return Ok((wei > 0).then_some(u128::MAX));
    }
    let least = wei.saturating_mul(10_000).div_ceil(u128::from(max_fee_bps));
    Ok(Some(native_usd.value_of(Amount::new(least), 18)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GWEI: u128 = 1_000_000_000;

    #[test]
    fn a_replacement_raises_both_fields_by_an_eighth_and_a_wei_and_at_most_threefold() {
        let fees = |max_fee, tip| Fees { max_fee, tip };
        let cases = [
            ("calm", fees(800, 80), fees(100, 10), fees(901, 91)),
            ("rounded up", fees(801, 81), fees(100, 10), fees(903, 93)),
            ("dearer now", fees(800, 80), fees(1000, 100), fees(1000, 100)),
            ("only the base fee rose", fees(800, 80), fees(2000, 80), fees(2000, 91)),
            ("only the tip rose", fees(800, 80), fees(800, 200), fees(901, 200)),
            ("a spike is followed in steps", fees(800, 80), fees(80_000, 8_000), fees(2400, 240)),
            ("no tip yet", fees(8, 0), fees(8, 0), fees(10, 1)),
            ("a tip above the fee is none", fees(8, 8), fees(8, 80), fees(24, 24)),
        ];
        for (name, old, fresh, expected) in cases {
            assert_eq!(replacement(old, fresh), expected, "{name}");
        }
        for fee in [1, 7, 8, 9, GWEI, 21 * GWEI + 3] {
            assert!((raised(fee) - 1) * 8 >= fee * 9, "{fee}");
        }
    }

    #[test]
    fn gas_costs_the_base_fee_and_the_tip_of_its_urgency() {
        let prices = Prices { base: 80 * GWEI, tips: [1, 20, 300] };
        let now = [Urgency::Calm, Urgency::Normal, Urgency::Pressing].map(|each| prices.now(each));
        assert_eq!(now.map(|price| price - prices.base), prices.tips);
    }

    #[test]
    fn a_first_attempt_stays_below_the_cap() {
        let fees = Prices::flat(80 * GWEI, 150 * GWEI).fees(Urgency::Normal, 100 * GWEI);
        assert_eq!(fees, Fees { max_fee: 100 * GWEI, tip: 100 * GWEI });
    }

    #[test]
    fn the_next_base_fee_follows_the_parent_by_an_eighth_at_most() {
        let limit = 30_000_000;
        for (used, expected) in [
            (limit / 2, 1000),
            (limit, 1125),
            (0, 875),
            (limit / 2 + 1, 1001),
            (limit / 2 - 1, 1000),
            (limit / 4, 938),
        ] {
            assert_eq!(next_base_fee(1000, used, limit), expected, "{used}");
        }
        assert_eq!(next_base_fee(7, 1, 0), 7, "a header without a gas limit moves nothing");
    }

    #[test]
    fn tips_are_medians_of_blocks_that_had_any() {
        assert_eq!(tips(&[]), None);
        assert_eq!(tips(&[vec![0, 0, 0], vec![]]), None);
        let mut rewards = vec![vec![1, 5, 9], vec![0, 0, 0], vec![2, 6, 80], vec![3, 70, 90]];
        assert_eq!(tips(&rewards), Some([2, 6, 80]));
        rewards.push(vec![4, 71, 91]);
        assert_eq!(tips(&rewards), Some([3, 70, 90]), "of an even number, the higher one");
    }

    #[test]
    fn a_chain_is_quiet_if_most_of_its_blocks_had_no_tips() {
        let (empty, dear) = (vec![0; 3], vec![50 * GWEI; 3]);
        for (empties, is_so) in [(10, true), (9, true), (6, true), (5, false), (0, false)] {
            let mut rewards = vec![empty.clone(); empties];
            rewards.resize(10, dear.clone());
            assert_eq!(is_quiet(&rewards), is_so, "{empties}");
        }
        assert!(is_quiet(&[vec![]]) && !is_quiet(&[]));
    }

    #[test]
    fn the_fee_bound_rises_to_the_value_at_stake_as_a_thaw_ends() {
        let hour = 3_600_000;
        for (left, expected) in [
            (None, 5_000),
            (Some(30 * hour), 5_000),
            (Some(24 * hour), 5_000),
            (Some(12 * hour), 502_500),
            (Some(hour), 958_541),
            (Some(0), 1_000_000),
            (Some(-hour), 1_000_000),
        ] {
            assert_eq!(allowed(1_000_000, 50, left).unwrap(), expected, "{left:?}");
        }
        assert_eq!(allowed(u128::MAX / 10_000, 50, Some(0)).unwrap(), u128::MAX / 10_000);
    }

    #[test]
    fn the_wei_within_a_bound_are_the_most_that_fit() {
        let native: Decimal = "2000".parse().unwrap();
        // 5,000 millionths of a USD are 2.5 × 10^12 wei.
        assert_eq!(wei_within(5_000, &native), 2_500_000_000_000);
        assert_eq!(wei_within(0, &"0.000001".parse().unwrap()), 0);
        assert_eq!(wei_within(5, &"0".parse().unwrap()), u128::MAX);
        assert_eq!(wei_within(u128::MAX, &"0.000000000000000001".parse().unwrap()), u128::MAX);
    }

    #[test]
    fn a_row_that_costs_more_than_its_share_is_below_the_least() {
        let native: Decimal = "2000".parse().unwrap();
        // 1,650 gas at 10 gwei are 33 thousandths of a USD.
        let least = least_row(10 * GWEI, Some(&native), 50).unwrap();
        assert_eq!(least, Some(6_600_000));
        assert_eq!(least_row(10 * GWEI, None, 50).unwrap(), None);
        assert_eq!(least_row(10 * GWEI, Some(&native), 0).unwrap(), Some(u128::MAX));
        assert_eq!(least_row(0, Some(&native), 0).unwrap(), None);
    }
}
