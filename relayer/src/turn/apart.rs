//! What no node takes, and claims that come to nothing when they are mined: what such a transaction carried goes again in
//! smaller ones, and after a while.

use std::collections::BTreeMap;

use alloy::primitives::Address;
use ledger::{Millis, ProviderNumber, book::Obligation};

use crate::sender::fees::Urgency;

/// How long what was refused goes in smaller transactions.
const APART: Millis = 24 * 3_600_000;
/// How long what came to nothing by itself waits at first; twice as long each time in a row, a day at most.
const ALONE: Millis = 3_600_000;
/// The longest that it waits while a deadline presses.
const PRESSED: Millis = 600_000;

/// One of the things that an obligation carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Statement(i64),
    Claim(Address, ProviderNumber),
    Registration(Address),
}

#[derive(Debug)]
struct Share {
    /// How many may go together.
    most: usize,
    /// When it was refused last, and how long it waits since then.
    at: Millis,
    pause: Millis,
    /// How often in a row it came to nothing by itself.
    times: u32,
    reason: String,
}

impl Share {
    /// Whether it may not go among `together` yet. One that is dated in the future was refused under a clock that was wrong.
    fn is_kept(&self, together: usize, now: Millis, urgency: Urgency) -> bool {
        let pause = if urgency == Urgency::Pressing { self.pause.min(PRESSED) } else { self.pause };
        let passed = now.saturating_sub(self.at);
        passed >= 0 && (passed < pause || !self.is_over(now) && together > self.most)
    }

    fn is_over(&self, now: Millis) -> bool {
        now.saturating_sub(self.at) >= self.pause.saturating_add(APART)
    }
}

/// What transactions carried that were given up because no node took them, or that came to nothing.
#[derive(Debug, Default)]
pub(super) struct Apart(BTreeMap<Part, Share>);

impl Apart {
    /// Remembers why a transaction came to nothing: half of what it carried may go together, and what it carried alone after a
    /// while, still alone, so that it drags nothing else along.
    pub(super) fn note(&mut self, obligation: &Obligation, reason: &str, now: Millis) {
        let parts = parts_of(obligation);
        match parts[..] {
            [part] => self.pause(part, 1, reason, now),
            _ => {
                let most = parts.len() / 2;
                for part in parts {
                    let share = Share { most, at: now, pause: 0, times: 0, reason: reason.into() };
                    self.0.insert(part, share);
                }
            }
        }
        self.0.retain(|_, share| !share.is_over(now));
    }

    /// Remembers why a claim came to nothing in a transaction that went through: it waits for a while, and goes with others then.
    pub(super) fn note_claim(
        &mut self,
        (token, provider): (Address, ProviderNumber),
        reason: &str,
        now: Millis,
    ) {
        self.pause(Part::Claim(token, provider), usize::MAX, reason, now);
    }

    fn pause(&mut self, part: Part, most: usize, reason: &str, now: Millis) {
        let before = self.0.get(&part).filter(|share| !share.is_over(now));
        let times = before.map_or(0, |share| share.times);
        let most = before.map_or(most, |share| share.most.min(most));
        let pause = ALONE.saturating_mul(1 << times.min(5)).min(APART);
        let (times, reason) = (times.saturating_add(1), reason.to_owned());
        self.0.insert(part, Share { most, at: now, pause, times, reason });
    }

    /// Why a claim waits, and until when, if it does.
    pub(super) fn claim_waits(
        &self,
        (token, provider): (Address, ProviderNumber),
        now: Millis,
    ) -> Option<(String, Millis)> {
        let share = self.0.get(&Part::Claim(token, provider))?;
        let is_kept = share.is_kept(1, now, Urgency::Calm);
        is_kept.then(|| (share.reason.clone(), share.at.saturating_add(share.pause)))
    }

    /// Whether claims of some providers may go with few others only.
    pub(super) fn parts_any(
        &self,
        token: Address,
        claims: &[(ProviderNumber, u64)],
        now: Millis,
    ) -> bool {
        claims.iter().any(|(provider, _)| {
            let share = self.0.get(&Part::Claim(token, *provider));
            share.is_some_and(|share| share.most < usize::MAX && !share.is_over(now))
        })
    }

    /// Why an obligation may not go as it is, if it carries too much of what was refused. What a deadline presses waits for
    /// minutes only.
    pub(super) fn why(
        &self,
        obligation: &Obligation,
        now: Millis,
        urgency: Urgency,
    ) -> Option<String> {
        let parts = parts_of(obligation);
        let is_kept = |share: &&Share| share.is_kept(parts.len(), now, urgency);
        let share = parts.iter().filter_map(|part| self.0.get(part)).find(is_kept)?;
        Some(share.reason.clone())
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
            apart.why(&Obligation::Settle(statements.to_vec()), now, Urgency::Normal).is_none()
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
    fn what_was_refused_alone_waits_for_minutes_while_a_deadline_presses_and_not_for_a_wrong_clock()
    {
        let alone = Obligation::Settle(vec![1]);
        let mut apart = Apart::default();
        for _ in 0..9 {
            apart.note(&alone, "too dear", APART);
        }
        let waits = |now, urgency| apart.why(&alone, now, urgency).is_some();
        let (normal, pressing) = (Urgency::Normal, Urgency::Pressing);
        assert!(waits(APART + PRESSED - 1, pressing) && !waits(APART + PRESSED, pressing));
        assert!(waits(2 * APART - 1, normal) && !waits(2 * APART, normal));
        assert!(!waits(APART - 1, normal), "the clock went back since");
        let two = Obligation::Settle(vec![1, 2]);
        assert!(apart.why(&two, 2 * APART, pressing).is_some(), "alone, however it presses");
    }

    #[test]
    fn a_claim_that_the_token_refused_waits_and_goes_with_others_then() {
        let token = Address::repeat_byte(1);
        let mut apart = Apart::default();
        apart.note_claim((token, 1), "refused", 0);
        let two = Obligation::Claim(token, vec![1, 2]);
        assert_eq!(apart.claim_waits((token, 1), ALONE - 1), Some(("refused".into(), ALONE)));
        assert_eq!(apart.claim_waits((token, 2), 0), None);
        assert_eq!(apart.claim_waits((token, 1), ALONE), None);
        assert_eq!(apart.why(&two, ALONE, Urgency::Calm), None);
        apart.note_claim((token, 1), "refused", ALONE);
        assert!(apart.claim_waits((token, 1), 3 * ALONE - 1).is_some());
        apart.note(&Obligation::Claim(token, vec![3]), "failed", 0);
        apart.note_claim((token, 3), "refused", ALONE);
        let two = Obligation::Claim(token, vec![2, 3]);
        assert!(
            apart.why(&two, 3 * ALONE, Urgency::Calm).is_some(),
            "it failed with others before"
        );
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
            assert_eq!(
                apart.why(&obligation, 0, Urgency::Normal).is_none(),
                may_go,
                "{obligation:?}"
            );
        }
    }
}
