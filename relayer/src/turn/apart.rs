//! What no node takes: what such a transaction carried goes again in smaller ones.

use std::collections::BTreeMap;

use alloy::primitives::Address;
use ledger::{Millis, ProviderNumber, book::Obligation};

/// How long what was refused goes in smaller transactions.
const APART: Millis = 24 * 3_600_000;
/// How long what was refused alone waits at first; twice as long each time, a day at most.
const ALONE: Millis = 3_600_000;

/// One of the things that an obligation carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Statement(i64),
    Claim(Address, ProviderNumber),
    Registration(Address),
}

#[derive(Debug)]
struct Share {
    /// How many may go together, from when and until when.
    most: usize,
    from: Millis,
    until: Millis,
    /// How often in a row it was refused alone.
    times: u32,
    reason: String,
}

/// What transactions carried that were given up because no node took them.
#[derive(Debug, Default)]
pub(super) struct Apart(BTreeMap<Part, Share>);

impl Apart {
    /// Remembers that no node took a transaction: half of what it carried may go together, and what it carried alone after a
    /// while, still alone, so that it drags nothing else along.
    pub(super) fn note(&mut self, obligation: &Obligation, reason: &str, now: Millis) {
        self.0.retain(|_, share| now < share.until);
        let parts = parts_of(obligation);
        let is_alone = parts.len() == 1;
        for part in parts_of(obligation) {
            let before = self.0.get(&part).map_or(0, |share| share.times);
            let times = if is_alone { before.saturating_add(1) } else { 0 };
            let pause =
                if is_alone { ALONE.saturating_mul(1 << before.min(5)).min(APART) } else { 0 };
            let from = now.saturating_add(pause);
            let (most, until) = ((parts.len() / 2).max(1), from.saturating_add(APART));
            let reason = reason.to_owned();
            self.0.insert(part, Share { most, from, until, times, reason });
        }
    }

    /// Why an obligation may not go as it is, if it carries too much of what was refused.
    pub(super) fn why(&self, obligation: &Obligation, now: Millis) -> Option<String> {
        let parts = parts_of(obligation);
        let is_kept =
            |share: &&Share| now < share.from || now < share.until && parts.len() > share.most;
        let share = parts.iter().filter_map(|part| self.0.get(part)).find(is_kept)?;
        Some(format!("no node took it: {}", share.reason))
    }
}

fn parts_of(obligation: &Obligation) -> Vec<Part> {
    match obligation {
        Obligation::Settle(statements) => statements.iter().copied().map(Part::Statement).collect(),
        Obligation::Claim(token, providers) => {
            providers.iter().map(|provider| Part::Claim(*token, *provider)).collect()
        }
        Obligation::Register(addresses) => {
            addresses.iter().copied().map(Part::Registration).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_goes_in_halves_until_it_stands_alone_waits_and_goes_alone() {
        let mut apart = Apart::default();
        let may_go = |apart: &Apart, statements: &[i64], now| {
            apart.why(&Obligation::Settle(statements.to_vec()), now).is_none()
        };
        let refuse = |apart: &mut Apart, statements: &[i64], now| {
            apart.note(&Obligation::Settle(statements.to_vec()), "too dear", now);
        };
        refuse(&mut apart, &[1, 2, 3, 4, 5], 0);
        assert!(!may_go(&apart, &[1, 2, 3], 0) && may_go(&apart, &[1, 2], 0));
        assert!(!may_go(&apart, &[5, 6, 7], 0) && may_go(&apart, &[6, 7, 8], 0));
        refuse(&mut apart, &[1, 2], 0);
        refuse(&mut apart, &[1], 0);
        assert!(!may_go(&apart, &[1], ALONE - 1) && may_go(&apart, &[2], ALONE - 1));
        assert!(may_go(&apart, &[1], ALONE) && !may_go(&apart, &[1, 6], ALONE));
        refuse(&mut apart, &[1], ALONE);
        assert!(!may_go(&apart, &[1], 3 * ALONE - 1) && may_go(&apart, &[1], 3 * ALONE));
        assert!(!may_go(&apart, &[3, 4, 5], APART - 1) && may_go(&apart, &[3, 4, 5], APART));
        for _ in 0..9 {
            refuse(&mut apart, &[1], 3 * ALONE);
        }
        assert!(may_go(&apart, &[1], 3 * ALONE + APART), "a day at most");
    }

    #[test]
    fn claims_and_registrations_are_told_from_statements_and_by_their_token() {
        let (one, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let mut apart = Apart::default();
        apart.note(&Obligation::Claim(one, vec![1]), "too dear", 0);
        apart.note(&Obligation::Register(vec![one]), "too dear", 0);
        for (obligation, may_go) in [
            (Obligation::Claim(one, vec![1]), false),
            (Obligation::Claim(other, vec![1]), true),
            (Obligation::Claim(one, vec![2]), true),
            (Obligation::Settle(vec![1]), true),
            (Obligation::Register(vec![one]), false),
            (Obligation::Register(vec![other]), true),
        ] {
            assert_eq!(apart.why(&obligation, 0).is_none(), may_go, "{obligation:?}");
        }
    }
}
