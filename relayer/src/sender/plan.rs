//! What to do about one open slot. Pure, tested by a table.

use ledger::read::Attempt;

/// What gas costs now, wei per gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GasPrice {
    /// Base fee of the newest block.
    pub base: u128,
    /// Tip that gets a transaction mined.
    pub tip: u128,
}

/// Fee fields of a transaction, wei per gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fees {
    /// `maxFeePerGas`.
    pub max_fee: u128,
    /// `maxPriorityFeePerGas`.
    pub tip: u128,
}

impl GasPrice {
    /// Fees of a first attempt: room for the base fee to double, within `cap`.
    pub fn fees(self, cap: u128) -> Fees {
        let max_fee = self.base.saturating_mul(2).saturating_add(self.tip).min(cap).max(1);
        Fees { max_fee, tip: self.tip.min(max_fee) }
    }
}

/// What to do about an open slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing yet: the newest attempt is in the pool and young.
    Wait,
    /// Send the newest attempt's bytes again: the endpoint does not know it.
    Rebroadcast,
    /// Sign a replacement that pays this.
    Bump(Fees),
    /// The fee cap keeps the slot from being bumped; keep sending what there is.
    AtCap,
}

/// What bounds the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Highest `maxFeePerGas`, wei.
    pub cap: u128,
    /// Age of the newest attempt at which it is replaced, ms.
    pub bump_after_ms: i64,
}

/// How many times longer an attempt that pays enough is waited for.
const PATIENCE: i64 = 5;

/// Decides about the lowest open slot; those above wait for it.
///
/// A replacement raises both fee fields by at least an eighth, because nodes refuse less than a tenth, and to what the
/// price is now if that is more.
pub fn plan(
    newest: &Attempt,
    is_known: bool,
    now_ms: i64,
    price: GasPrice,
    limits: Limits,
) -> Action {
    if now_ms.saturating_sub(newest.at) < limits.bump_after_ms {
        return if is_known { Action::Wait } else { Action::Rebroadcast };
    }
    let fresh = price.fees(limits.cap);
    let age = now_ms.saturating_sub(newest.at);
    let pays_enough = newest.max_fee >= fresh.max_fee && newest.tip >= fresh.tip;
    if pays_enough && age < limits.bump_after_ms.saturating_mul(PATIENCE) {
        // The chain is slow, not the price too low.
        return Action::Rebroadcast;
    }
    let max_fee = raised(newest.max_fee).max(fresh.max_fee);
    let tip = raised(newest.tip).max(fresh.tip);
    if max_fee > limits.cap {
        return if is_known { Action::AtCap } else { Action::Rebroadcast };
    }
    Action::Bump(Fees { max_fee, tip: tip.min(max_fee) })
}

/// An eighth more, rounded up, and one.
const fn raised(fee: u128) -> u128 {
    fee.saturating_add(fee.div_ceil(8)).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GWEI: u128 = 1_000_000_000;
    const LIMITS: Limits = Limits { cap: 100 * GWEI, bump_after_ms: 60_000 };
    const CALM: GasPrice = GasPrice { base: 10 * GWEI, tip: GWEI };

    fn attempt(max_fee: u128, tip: u128) -> Attempt {
        Attempt {
            id: 1,
            hash: Default::default(),
            raw: vec![],
            max_fee,
            tip,
            gas_limit: 21_000,
            at: 1_000_000,
        }
    }

    #[test]
    fn decides_by_age_visibility_price_and_cap() {
        let first = attempt(21 * GWEI, GWEI);
        let near_cap = attempt(95 * GWEI, GWEI);
        let bump = |max_fee, tip| Action::Bump(Fees { max_fee, tip });
        let spike = GasPrice { base: 40 * GWEI, tip: 2 * GWEI };
        let cases = [
            ("young and known", &first, true, 1_030_000, CALM, Action::Wait),
            ("young and forgotten", &first, false, 1_030_000, CALM, Action::Rebroadcast),
            ("old, paying enough", &first, true, 1_060_000, CALM, Action::Rebroadcast),
            ("very old", &first, true, 1_300_000, CALM, bump(23_625_000_001, 1_125_000_001)),
            (
                "old and cheap",
                &attempt(5 * GWEI, GWEI),
                false,
                1_060_000,
                CALM,
                bump(21 * GWEI, 1_125_000_001),
            ),
            ("old, dear times", &first, true, 1_060_000, spike, bump(82 * GWEI, 2 * GWEI)),
            ("very old, at the cap", &near_cap, true, 1_300_000, CALM, Action::AtCap),
            ("old, at the cap, forgotten", &near_cap, false, 1_060_000, CALM, Action::Rebroadcast),
            ("clock went back", &first, true, 0, CALM, Action::Wait),
        ];
        for (name, newest, is_known, now, price, action) in cases {
            assert_eq!(plan(newest, is_known, now, price, LIMITS), action, "{name}");
        }
    }

    #[test]
    fn a_bump_raises_both_fields_by_an_eighth_at_least() {
        for fee in [1, 7, 8, GWEI, 21 * GWEI] {
            assert!(raised(fee) * 8 >= fee * 9);
        }
    }

    #[test]
    fn a_first_attempt_stays_below_the_cap() {
        let fees = GasPrice { base: 80 * GWEI, tip: 150 * GWEI }.fees(100 * GWEI);
        assert_eq!(fees, Fees { max_fee: 100 * GWEI, tip: 100 * GWEI });
    }
}
