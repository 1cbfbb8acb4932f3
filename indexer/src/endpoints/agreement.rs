//! What enough operators say, of what each endpoint says. Pure.

use std::collections::BTreeMap;

use alloy::primitives::{B256, U256};

/// The greatest number that at least `needed` operators reach. An operator reaches what its best endpoint does.
pub(crate) fn reached<'a>(
    claims: impl IntoIterator<Item = (&'a str, u64)>,
    needed: usize,
) -> Option<u64> {
    let mut best: BTreeMap<&str, u64> = BTreeMap::new();
    for (operator, number) in claims {
        let known = best.entry(operator).or_default();
        *known = number.max(*known);
    }
    let mut numbers: Vec<_> = best.into_values().collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.get(needed.checked_sub(1)?).copied()
}

/// The number in the middle of what at least `needed` operators say, the lower of two: while they are the majority, it is not
/// further off than what one of them says who is right. An operator's first endpoint speaks for it.
pub(crate) fn middle<'a>(
    said: impl IntoIterator<Item = (&'a str, U256)>,
    needed: usize,
) -> Option<U256> {
    let mut by_operator: BTreeMap<&str, U256> = BTreeMap::new();
    for (operator, number) in said {
        by_operator.entry(operator).or_insert(number);
    }
    let mut numbers: Vec<_> = by_operator.into_values().collect();
    numbers.sort_unstable();
    let middle = numbers.len().checked_sub(1).filter(|_| numbers.len() >= needed)? / 2;
    numbers.get(middle).copied()
}

/// The hash that at least `needed` operators name, if there is exactly one. An operator whose endpoints contradict each
/// other names none.
pub(crate) fn agreed<'a>(
    votes: impl IntoIterator<Item = (&'a str, B256)>,
    needed: usize,
) -> Option<B256> {
    let mut by_operator: BTreeMap<&str, Option<B256>> = BTreeMap::new();
    for (operator, hash) in votes {
        by_operator
            .entry(operator)
            .and_modify(|known| *known = known.filter(|known| *known == hash))
            .or_insert(Some(hash));
    }
    let mut counts: BTreeMap<B256, usize> = BTreeMap::new();
    for hash in by_operator.into_values().flatten() {
        *counts.entry(hash).or_default() += 1;
    }
    let mut winners = counts.into_iter().filter(|(_, count)| *count >= needed.max(1));
    match (winners.next(), winners.next()) {
        (Some((hash, _)), None) => Some(hash),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: B256 = B256::repeat_byte(0xa);
    const B: B256 = B256::repeat_byte(0xb);

    #[test]
    fn two_endpoints_of_one_operator_are_one_vote() {
        assert_eq!(agreed([("x", A), ("x", A), ("y", B)], 2), None);
        assert_eq!(agreed([("x", A), ("y", A), ("y", A)], 2), Some(A));
        assert_eq!(reached([("x", 9), ("x", 8), ("y", 3)], 2), Some(3));
    }

    #[test]
    fn an_operator_that_contradicts_itself_names_nothing() {
        assert_eq!(agreed([("x", A), ("x", B), ("y", A)], 2), None);
        assert_eq!(agreed([("x", A), ("x", B), ("x", A)], 1), None);
    }

    #[test]
    fn two_hashes_with_enough_votes_each_are_no_agreement() {
        assert_eq!(agreed([("w", A), ("x", A), ("y", B), ("z", B)], 2), None);
    }

    #[test]
    fn losing_endpoints_never_lowers_the_threshold() {
        assert_eq!(agreed([("x", A)], 2), None);
        assert_eq!(agreed([], 1), None);
        assert_eq!(reached([("x", 9)], 2), None);
    }

    #[test]
    fn the_middle_of_what_enough_operators_say_is_taken() {
        let middle = |said: &[(&'static str, u64)], needed| {
            super::middle(said.iter().map(|(operator, n)| (*operator, U256::from(*n))), needed)
        };
        assert_eq!(middle(&[("a", 900), ("b", 3), ("c", 4)], 2), Some(U256::from(4)));
        assert_eq!(middle(&[("a", 0), ("b", 3), ("c", 4)], 2), Some(U256::from(3)));
        assert_eq!(middle(&[("a", 900), ("b", 3)], 2), Some(U256::from(3)));
        assert_eq!(middle(&[("a", 900), ("a", 901)], 2), None, "one operator");
        assert_eq!(middle(&[], 1), None);
    }

    #[test]
    fn the_highest_number_that_enough_operators_reach_is_voted_on() {
        assert_eq!(reached([("x", 9), ("y", 7), ("z", 100)], 2), Some(9));
        assert_eq!(reached([("x", 9), ("y", 7), ("z", 100)], 3), Some(7));
        assert_eq!(agreed([("x", A), ("y", A), ("z", B)], 2), Some(A));
    }
}
