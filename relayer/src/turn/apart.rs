//! What no node takes: what such a transaction carried goes again in smaller ones.

use std::collections::BTreeMap;

use alloy::primitives::Address;
use ledger::{Millis, ProviderNumber, book::Obligation};

/// How long what was refused together goes in smaller transactions.
const APART: Millis = 24 * 3_600_000;
/// How long what was refused alone waits.
const ALONE: Millis = 3_600_000;

/// One of the things that an obligation carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Statement(i64),
    Claim(Address, ProviderNumber),
    Registration(Address),
}

#[derive(Debug)]
struct Refusal {
    /// How many may go together.
    most: usize,
    until: Millis,
    reason: String,
}

/// What transactions carried that were given up because no node took them.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeMap<Part, Refusal>);

impl Refused {
    /// Remembers that no node took a transaction: half of what it carried may go together.
    pub(super) fn note(&mut self, obligation: &Obligation, reason: &str, now: Millis) {
        self.0.retain(|_, refusal| now < refusal.until);
        let parts = parts_of(obligation);
        let most = parts.len() / 2;
        let until = now.saturating_add(if most == 0 { ALONE } else { APART });
        for part in parts {
            self.0.insert(part, Refusal { most, until, reason: reason.to_owned() });
        }
    }

    /// Why an obligation may not go as it is, if it carries too much of what was refused.
    pub(super) fn why(&self, obligation: &Obligation, now: Millis) -> Option<String> {
        let parts = parts_of(obligation);
        let mut refusals = parts.iter().filter_map(|part| self.0.get(part));
        let refusal = refusals.find(|refusal| now < refusal.until && parts.len() > refusal.most)?;
        Some(format!("no node took it: {}", refusal.reason))
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
    fn what_was_refused_goes_in_halves_until_it_stands_alone_and_waits() {
        let mut refused = Refused::default();
        let may_go = |refused: &Refused, statements: &[i64], now| {
            refused.why(&Obligation::Settle(statements.to_vec()), now).is_none()
        };
        refused.note(&Obligation::Settle(vec![1, 2, 3, 4, 5]), "too dear", 0);
        assert!(!may_go(&refused, &[1, 2, 3], 0) && may_go(&refused, &[1, 2], 0));
        assert!(!may_go(&refused, &[5, 6, 7], 0) && may_go(&refused, &[6, 7, 8], 0));
        refused.note(&Obligation::Settle(vec![1, 2]), "too dear", 0);
        refused.note(&Obligation::Settle(vec![1]), "too dear", 0);
        assert!(!may_go(&refused, &[1], ALONE - 1) && may_go(&refused, &[2], ALONE - 1));
        assert!(may_go(&refused, &[1], ALONE) && !may_go(&refused, &[3, 4, 5], ALONE));
        assert!(may_go(&refused, &[3, 4, 5], APART));
    }

    #[test]
    fn claims_and_registrations_are_told_from_statements_and_by_their_token() {
        let (one, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let mut refused = Refused::default();
        refused.note(&Obligation::Claim(one, vec![1]), "too dear", 0);
        refused.note(&Obligation::Register(vec![one]), "too dear", 0);
        for (obligation, may_go) in [
            (Obligation::Claim(one, vec![1]), false),
            (Obligation::Claim(other, vec![1]), true),
            (Obligation::Claim(one, vec![2]), true),
            (Obligation::Settle(vec![1]), true),
            (Obligation::Register(vec![one]), false),
            (Obligation::Register(vec![other]), true),
        ] {
            assert_eq!(refused.why(&obligation, 0).is_none(), may_go, "{obligation:?}");
        }
    }
}
