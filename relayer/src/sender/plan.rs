//! The whole decision of a sender: what it knows goes in, what it does comes out. Pure, tested by tables.

use alloy::primitives::{B256, U256};
use ledger::{
    Millis,
    read::{Attempt, AttemptKind, Memory, Slot},
};

use super::{
    Answer, CANCEL_GAS, cost, cost_of,
    fees::{self, Fees, Prices, Urgency},
};

/// Most transactions in a node's pool from one account.
pub const MAX_IN_FLIGHT: usize = 16;
/// Nodes take one transaction at a time from an account whose code is an EIP-7702 delegation.
const MAX_DELEGATED: usize = 1;
/// How many times longer an attempt that pays enough is waited for.
const PATIENCE: i64 = 5;

/// How many tx nonces the chain says the account has consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// At the ledger's last final block.
    pub finalised: u64,
    /// At the ledger's checkpoint.
    pub indexed: u64,
    /// At the newest block that the endpoint has.
    pub latest: u64,
}

/// What bounds the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Highest `maxFeePerGas`, wei.
    pub cap: u128,
    /// Age of the newest attempt at which it is replaced, ms.
    pub bump_after_ms: i64,
}

/// What bounds the fees of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The most that its content is worth to be paid for all of its gas, wei.
    pub allowed: u128,
    /// Its gas limit.
    pub gas: u64,
    /// How soon it has to be mined.
    pub urgency: Urgency,
    /// Whether `allowed` is what its content is worth, and not only what its gas costs at a price.
    pub is_judged: bool,
}

impl Bound {
    /// Of a transaction that is not judged by what it carries: what its gas costs at a price.
    pub fn at_price(price: u128, gas: u64, urgency: Urgency) -> Self {
        let allowed = price.saturating_mul(u128::from(gas));
        Self { allowed, gas, urgency, is_judged: false }
    }

    /// Highest `maxFeePerGas` within it, wei.
    pub fn cap(&self) -> u128 {
        self.allowed / u128::from(self.gas.max(1))
    }
}

/// Why the pool refused an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the answer means.
    pub answer: Answer,
    /// Its words.
    pub reason: String,
}

/// A slot whose tx nonce the newest block has not consumed, with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The slot.
    pub slot: Slot,
    /// Whether the endpoint knows its newest attempt.
    pub is_known: bool,
    /// Whether nothing that it carries can have an effect any more.
    pub is_void: bool,
    /// Why the pool refused its newest attempt, if that is the last that it said and has no older one either.
    pub refusal: Option<Refusal>,
    /// For how long it has been declined, as the lowest, though it paid what gas costs, ms.
    pub declined_for: Millis,
    /// What bounds its fees.
    pub bound: Bound,
}

impl Pending {
    fn is_cancelled(&self) -> bool {
        self.slot.attempts.last().is_some_and(|newest| newest.kind == AttemptKind::Cancel)
    }

    /// Whether no node has its newest attempt, for its tip or for a reason that is not known here.
    pub(super) fn is_declined(&self) -> bool {
        !self.is_known && (self.is_refused(Answer::Declined) || self.is_refused(Answer::LowTip))
    }

    /// The newest attempt and since when it has been declined though it pays what gas costs, by what was known before: in whatever
    /// turn it does not, or is not declined, that begins anew.
    pub(super) fn declined_since(
        &self,
        before: Option<(B256, Millis)>,
        prices: Prices,
        now: Millis,
    ) -> Option<(B256, Millis)> {
        let newest = self.slot.attempts.last().filter(|_| self.is_declined())?;
        // Dated in the future, it was noted under a clock that was wrong.
        let before = before.filter(|(hash, since)| *hash == newest.hash && *since <= now);
        let is_paid = newest.max_fee >= prices.now(self.bound.urgency);
        is_paid.then(|| before.unwrap_or((newest.hash, now)))
    }

    fn is_refused(&self, answer: Answer) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| refusal.answer == answer)
    }

    /// What is told if no node has its newest attempt and one says why. A dearer one that the pool has is answered by a
    /// replacement.
    fn wait(&self) -> Option<Wait> {
        let (newest, refusal) = self.slot.attempts.last().zip(self.refusal.as_ref())?;
        let is_told = !self.is_known && refusal.answer != Answer::Underpriced;
        let (hash, reason) = (newest.hash, &refusal.reason);
        is_told.then(|| Wait::Refused { hash, reason: reason.clone() })
    }
}

/// Everything that a sender decides by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Now, ms.
    pub now: Millis,
    /// Consumed tx nonces.
    pub counts: Counts,
    /// What the ledger remembers of the account.
    pub memory: Memory,
    /// Slots from `counts.latest` on, ascending.
    pub pending: Vec<Pending>,
    /// What bounds a transaction that found no room behind them in the last turn.
    pub roomless: Option<Bound>,
    /// Slots below `counts.finalised` of which it is not known what consumed their tx nonce.
    pub unexplained: Vec<u64>,
    /// What gas costs.
    pub prices: Prices,
    /// What the account has, less what has been mined and not been taken from it, wei.
    pub balance: U256,
    /// Whether the account's code is an EIP-7702 delegation.
    pub is_delegated: bool,
    /// What bounds the sender.
    pub limits: Limits,
}

/// What to do about one slot, by its row id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send the stored bytes of all its attempts again.
    Rebroadcast(i64),
    /// Sign a replacement that pays this.
    Bump(i64, Fees),
    /// Sign a replacement that pays this and does nothing, since the content could have no effect any more, or no node takes it,
    /// or it keeps from being mined what pays for itself.
    Cancel(i64, Fees),
}

/// Why the sender holds something back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// The chain has consumed more tx nonces than slots and adoptions account for.
    UnknownTransactions {
        /// The lowest that nothing accounts for.
        from: u64,
        /// The first that the chain has not consumed.
        until: u64,
    },
    /// A transaction that this ledger had not signed consumed the tx nonce of a slot.
    ForeignTransaction {
        /// The tx nonce.
        tx_nonce: u64,
        /// The transaction.
        hash: B256,
    },
    /// The endpoint's newest block is older than what the ledger has indexed.
    StaleEndpoint,
    /// The tx nonce is finally consumed, and the endpoint does not tell by what.
    Unexplained(u64),
    /// No node takes the newest attempt.
    Refused {
        /// The newest attempt.
        hash: B256,
        /// What a node says.
        reason: String,
    },
    /// The fee bound keeps the newest attempt from being replaced.
    AtCap {
        /// The newest attempt.
        hash: B256,
        /// The bound, wei per gas.
        cap: u128,
    },
    /// The balance does not cover a replacement with all that is under way.
    Balance {
        /// What the account has, wei.
        balance: U256,
        /// What it would need, wei.
        needed: U256,
    },
    /// The account's code is a delegation, so that it sends one transaction at a time.
    Delegated,
    /// No slot has the tx nonce that the chain takes next; the next obligation gets it, or, if this turn opens none, a slot
    /// that carries nothing.
    Gap(u64),
}

impl Wait {
    /// Whether nothing may be sent until the operator has acted.
    pub const fn is_freeze(&self) -> bool {
        matches!(self, Self::UnknownTransactions { .. } | Self::ForeignTransaction { .. })
    }
}

/// What a sender does in one turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// What to do, in this order.
    pub actions: Vec<Action>,
    /// What is held back, and why.
    pub waiting: Vec<Wait>,
    /// How many slots may be opened.
    pub room: usize,
    /// The slot that is cancelled because no node takes it, and what one says.
    pub given_up: Option<(i64, String)>,
}

/// Decides what a sender does about its slots.
///
/// The lowest slot whose tx nonce is not consumed decides the fate of all: it alone is replaced or cancelled. Those above
/// are sent again when they got lost. A freeze stops everything; an endpoint that lags stops it until it has caught up.
pub fn plan(view: &View) -> Plan {
    let mut plan = Plan::default();
    if let Some(freeze) = freeze(view) {
        plan.waiting.push(freeze);
        return plan;
    }
    plan.waiting.extend(view.unexplained.iter().map(|tx_nonce| Wait::Unexplained(*tx_nonce)));
    if view.counts.latest < view.counts.indexed.max(view.memory.ended) {
        plan.waiting.push(Wait::StaleEndpoint);
        return plan;
    }
    if view.is_delegated {
        plan.waiting.push(Wait::Delegated);
    }
    let most = if view.is_delegated { MAX_DELEGATED } else { MAX_IN_FLIGHT };
    plan.room = most.saturating_sub(view.pending.len());
    if let Some(lowest) = view.pending.first()
        && lowest.slot.tx_nonce > view.counts.latest
    {
        plan.waiting.push(Wait::Gap(view.counts.latest));
        plan.room = plan.room.max(1);
    }
    for (index, pending) in view.pending.iter().take(most).enumerate() {
        plan.waiting.extend(pending.wait());
        if index == 0 {
            decide(view, pending, &mut plan);
        } else if !pending.is_known {
            plan.actions.push(Action::Rebroadcast(pending.slot.id));
        }
    }
    plan
}

/// The lowest tx nonce from `latest` on that has no slot: where the next obligation goes.
pub fn next_nonce(latest: u64, slots: &[Slot]) -> u64 {
    let mut next = latest;
    for slot in slots.iter().filter(|slot| slot.tx_nonce >= latest) {
        if slot.tx_nonce != next {
            break;
        }
        next += 1;
    }
    next
}

/// What stops the sender until its operator has acted, if anything does.
fn freeze(view: &View) -> Option<Wait> {
    if let Some((tx_nonce, hash)) = view.memory.foreign {
        return Some(Wait::ForeignTransaction { tx_nonce, hash });
    }
    let Counts { finalised, indexed, latest } = view.counts;
    let (from, until) = (view.memory.next(), latest.max(indexed).max(finalised));
    (until > from).then_some(Wait::UnknownTransactions { from, until })
}

/// Decides about the lowest slot.
fn decide(view: &View, lowest: &Pending, plan: &mut Plan) {
    let Some(newest) = lowest.slot.attempts.last() else { return };
    let (id, bound) = (lowest.slot.id, lifted(view, lowest.bound));
    // Dated in the future, it was sent under a clock that was wrong, and may be of any age.
    let age = view.now.saturating_sub(newest.at).saturating_abs();
    let is_young = age < view.limits.bump_after_ms;
    let cap = bound.cap().min(view.limits.cap);
    let is_in_vain = !is_young && is_in_vain(view, (lowest, newest), bound.urgency, cap);
    let is_given_up = is_in_vain || !is_young && makes_way(view, lowest.bound, bound);
    if newest.kind == AttemptKind::Work && (lowest.is_void || is_given_up) {
        let fees = replacement(newest, view.prices, bound.urgency, view.limits.cap);
        let action = Action::Cancel(id, fees);
        // What was refused at the cap can be replaced above it only, for the little gas that this takes.
        let cap = if is_in_vain { fees::raised(view.limits.cap) } else { view.limits.cap };
        propose(view, action, (lowest, cap), plan);
        if is_in_vain && !lowest.is_void && plan.actions.contains(&action) {
            plan.given_up = lowest.refusal.as_ref().map(|refusal| (id, refusal.reason.clone()));
        }
        return;
    }
    let fresh = view.prices.fees(bound.urgency, cap);
    let pays_enough = newest.max_fee >= fresh.max_fee && newest.tip >= fresh.tip;
    // A chain that is slow is no reason to pay more, at first.
    let is_patient = pays_enough
        && age < view.limits.bump_after_ms.saturating_mul(PATIENCE)
        && !lowest.is_refused(Answer::LowTip);
    if !lowest.is_refused(Answer::Underpriced) && (is_young || is_patient) {
        if !is_young || !lowest.is_known {
            plan.actions.push(Action::Rebroadcast(id));
        }
        return;
    }
    let mut fees = replacement(newest, view.prices, bound.urgency, cap);
    if fees.max_fee > cap && lowest.is_refused(Answer::LowTip) && newest.tip < newest.max_fee {
        // The pool has nothing to outbid.
        fees = Fees { max_fee: newest.max_fee, tip: fees.tip.min(newest.max_fee) };
    }
    propose(view, Action::Bump(id, fees), (lowest, cap), plan);
}

/// Whether no node takes the newest attempt and a higher fee is no help: it is refused by a limit, and would be more firmly if
/// it paid more; or for a reason that is not known here, though for long it has paid what gas costs, and it may not pay more.
fn is_in_vain(
    view: &View,
    (lowest, newest): (&Pending, &Attempt),
    urgency: Urgency,
    cap: u128,
) -> bool {
    let is_at_cap = replacement(newest, view.prices, urgency, cap).max_fee > cap;
    let patience = view.limits.bump_after_ms.saturating_mul(PATIENCE);
    let is_declined_for_long = lowest.is_declined() && lowest.declined_for >= patience && is_at_cap;
    !lowest.is_known && lowest.is_refused(Answer::Refused) || is_declined_for_long
}

/// What bounds the lowest slot with all that stands behind it and waits for it: besides what it is worth itself, the most that
/// one of them can spare once it is paid for at today's price, and what those between lack, at most their cancellations. What
/// is not judged by what it is worth spares no more than a cancellation.
fn lifted(view: &View, lowest: Bound) -> Bound {
    let (mut spare, mut lacking) = (0_u128, 0_u128);
    // What is cancelled has nothing to spare: its bound is not what it is worth.
    let behind = view.pending.iter().skip(1).filter(|pending| !pending.is_cancelled());
    let behind: Vec<_> = behind.map(|pending| pending.bound).chain(view.roomless).collect();
    let urgency = behind.iter().map(|bound| bound.urgency).fold(lowest.urgency, Urgency::max);
    let cancellation = cost_of_cancelling(view.prices.now(urgency));
    for bound in behind {
        let price = view.prices.now(bound.urgency);
        let needed = u128::from(bound.gas).saturating_mul(price);
        let own = bound.allowed.saturating_sub(needed).saturating_sub(lacking);
        let most = if bound.is_judged { own } else { cancellation };
        spare = spare.max(own.min(most));
        lacking = lacking
            .saturating_add(needed.saturating_sub(bound.allowed).min(cost_of_cancelling(price)));
    }
    Bound { allowed: lowest.allowed.saturating_add(spare), urgency, ..lowest }
}

/// Whether the lowest slot is not worth its gas today, not even with what one behind it can spare, which pays for its
/// cancellation.
fn makes_way(view: &View, lowest: Bound, lifted: Bound) -> bool {
    let spare = lifted.allowed.saturating_sub(lowest.allowed);
    let price = view.prices.now(lifted.urgency);
    let is_worth_it = lifted.cap() >= view.prices.now(lowest.urgency);
    !is_worth_it && price <= view.limits.cap && spare >= cost_of_cancelling(price)
}

fn cost_of_cancelling(price: u128) -> u128 {
    u128::from(CANCEL_GAS).saturating_mul(price)
}

/// Takes a replacement of the lowest slot into the plan, or says that the cap or the balance forbids it and keeps sending what
/// there is.
fn propose(view: &View, action: Action, (lowest, cap): (&Pending, u128), plan: &mut Plan) {
    let (gas, fees) = match action {
        Action::Cancel(_, fees) => (CANCEL_GAS, fees),
        Action::Bump(_, fees) => (lowest.bound.gas, fees),
        Action::Rebroadcast(_) => return plan.actions.push(action),
    };
    let others = view.pending.iter().skip(1).map(|pending| &pending.slot);
    let needed = cost_of(others).saturating_add(cost(gas, fees.max_fee));
    if fees.max_fee <= cap && needed <= view.balance {
        plan.actions.push(action);
        return;
    }
    let hash = lowest.slot.attempts.last().map(|newest| newest.hash).unwrap_or_default();
    plan.waiting.push(if fees.max_fee > cap {
        Wait::AtCap { hash, cap }
    } else {
        Wait::Balance { balance: view.balance, needed }
    });
    if !lowest.is_known {
        plan.actions.push(Action::Rebroadcast(lowest.slot.id));
    }
}

fn replacement(newest: &Attempt, prices: Prices, urgency: Urgency, cap: u128) -> Fees {
    let old = Fees { max_fee: newest.max_fee, tip: newest.tip };
    fees::replacement(old, prices.fees(urgency, cap))
}

#[cfg(test)]
mod tests {
    use ledger::book::Obligation;

    use super::*;

    const GWEI: u128 = 1_000_000_000;
    const LIMITS: Limits = Limits { cap: 100 * GWEI, bump_after_ms: 60_000 };
    const CALM: Prices = Prices::flat(10 * GWEI, GWEI);
    const BORN: Millis = 1_000_000;
    const GAS: u64 = 21_000;

    fn attempt(kind: AttemptKind, max_fee: u128, tip: u128) -> Attempt {
        let hash = B256::repeat_byte(7);
        Attempt { id: 1, kind, hash, raw: vec![], max_fee, tip, gas_limit: GAS, at: BORN }
    }

    fn pending(tx_nonce: u64) -> Pending {
        let id = i64::try_from(tx_nonce).unwrap();
        let attempts = vec![attempt(AttemptKind::Work, 21 * GWEI, GWEI)];
        let slot =
            Slot { id, tx_nonce, obligation: Obligation::Settle(vec![id]), at: BORN, attempts };
        let bound = Bound::at_price(LIMITS.cap, GAS, Urgency::Normal);
        Pending { slot, is_known: true, is_void: false, refusal: None, declined_for: 0, bound }
    }

    /// Slots 5 to 7 are open, the account has consumed 5 tx nonces, all is well.
    fn calm() -> View {
        View {
            now: BORN + 30_000,
            counts: Counts { finalised: 3, indexed: 5, latest: 5 },
            memory: Memory { slotted: 8, adopted: 0, ended: 0, foreign: None },
            pending: vec![pending(5), pending(6), pending(7)],
            roomless: None,
            unexplained: vec![],
            prices: CALM,
            balance: U256::MAX,
            is_delegated: false,
            limits: LIMITS,
        }
    }

    fn bump(max_fee: u128, tip: u128) -> Action {
        Action::Bump(5, Fees { max_fee, tip })
    }

    /// Of what is worth its gas up to a price.
    fn worth(price: u128) -> Bound {
        Bound { is_judged: true, ..Bound::at_price(price, GAS, Urgency::Normal) }
    }

    /// Lets each slot be worth its gas up to a price.
    fn allow(view: &mut View, prices: [u128; 3]) {
        for (pending, price) in view.pending.iter_mut().zip(prices) {
            pending.bound = worth(price);
        }
    }

    /// Lets the pool have refused a slot's newest attempt.
    fn refuse(view: &mut View, index: usize, answer: Answer) {
        let refusal = Some(Refusal { answer, reason: "because".into() });
        view.pending[index] = Pending { refusal, is_known: false, ..view.pending[index].clone() };
    }

    /// The same of the lowest slot, whose newest attempt is as old as what is replaced.
    fn refuse_the_old(view: &mut View, answer: Answer) {
        view.now = BORN + 60_000;
        refuse(view, 0, answer);
    }

    /// A change of the calm view, and what is done then about the lowest slot.
    type Case = (&'static str, fn(&mut View), Vec<Action>, Vec<Wait>);

    fn run(cases: Vec<Case>) {
        for (name, change, actions, waiting) in cases {
            let mut view = calm();
            change(&mut view);
            let plan = plan(&view);
            assert_eq!((&plan.actions, &plan.waiting), (&actions, &waiting), "{name}");
        }
    }

    #[test]
    fn only_what_the_operator_has_to_explain_freezes() {
        let hash = B256::repeat_byte(7);
        assert!(Wait::UnknownTransactions { from: 3, until: 5 }.is_freeze());
        assert!(Wait::ForeignTransaction { tx_nonce: 3, hash }.is_freeze());
        let short = Wait::Balance { balance: U256::ZERO, needed: U256::ONE };
        let others =
            [Wait::StaleEndpoint, Wait::Unexplained(3), Wait::AtCap { hash, cap: 1 }, Wait::Gap(3)];
        let refused = Wait::Refused { hash, reason: "too dear".into() };
        let others = others.into_iter().chain([Wait::Delegated, short, refused]);
        assert!(!others.into_iter().any(|wait| wait.is_freeze()));
    }

    #[test]
    fn decides_about_the_lowest_slot_by_age_visibility_price_and_cap() {
        let at_cap = Wait::AtCap { hash: B256::repeat_byte(7), cap: 100 * GWEI };
        let near_cap = |view: &mut View| {
            view.pending[0].slot.attempts = vec![attempt(AttemptKind::Work, 95 * GWEI, GWEI)];
        };
        assert_eq!(plan(&calm()).room, 13);
        run(vec![
            ("young and known", |_| {}, vec![], vec![]),
            (
                "young and forgotten",
                |v| v.pending[0].is_known = false,
                vec![Action::Rebroadcast(5)],
                vec![],
            ),
            ("old, paying enough", |v| v.now = BORN + 60_000, vec![Action::Rebroadcast(5)], vec![]),
            (
                "very old",
                |v| v.now = BORN + 300_000,
                vec![bump(23_625_000_001, 1_125_000_001)],
                vec![],
            ),
            (
                "old and cheap",
                |v| {
                    v.now = BORN + 60_000;
                    v.pending[0].slot.attempts = vec![attempt(AttemptKind::Work, 15 * GWEI, GWEI)];
                },
                vec![bump(21 * GWEI, 1_125_000_001)],
                vec![],
            ),
            (
                "old, dear times: no more than threefold",
                |v| {
                    v.now = BORN + 60_000;
                    v.prices = Prices::flat(49 * GWEI, 2 * GWEI);
                },
                vec![bump(63 * GWEI, 2 * GWEI)],
                vec![],
            ),
            ("clock went back a little", |v| v.now = BORN - 1_000, vec![], vec![]),
            (
                "clock went back far",
                |v| {
                    v.now = BORN - 60_000;
                    v.pending[0].slot.attempts = vec![attempt(AttemptKind::Work, 15 * GWEI, GWEI)];
                },
                vec![bump(21 * GWEI, 1_125_000_001)],
                vec![],
            ),
            (
                "the pool has a dearer one",
                |v| refuse(v, 0, Answer::Underpriced),
                vec![bump(23_625_000_001, 1_125_000_001)],
                vec![],
            ),
        ]);
        let mut view = calm();
        near_cap(&mut view);
        view.now = BORN + 300_000;
        let held = plan(&view);
        assert_eq!((held.actions, held.waiting), (vec![], vec![at_cap]), "very old, at the cap");
        view.pending[0].is_known = false;
        assert_eq!(plan(&view).actions, [Action::Rebroadcast(5)], "at the cap, forgotten");
    }

    #[test]
    fn content_without_effect_is_cancelled_once_and_its_cancellation_replaced_like_any_attempt() {
        let raised = Fees { max_fee: 23_625_000_001, tip: 1_125_000_001 };
        run(vec![
            ("void", |v| v.pending[0].is_void = true, vec![Action::Cancel(5, raised)], vec![]),
            (
                "cancelled already",
                |v| {
                    v.pending[0].is_void = true;
                    v.pending[0].slot.attempts.push(attempt(AttemptKind::Cancel, 21 * GWEI, GWEI));
                },
                vec![],
                vec![],
            ),
            (
                "the cancellation is very old",
                |v| {
                    v.now = BORN + 300_000;
                    v.pending[0].is_void = true;
                    v.pending[0].slot.attempts.push(attempt(AttemptKind::Cancel, 21 * GWEI, GWEI));
                },
                vec![bump(raised.max_fee, raised.tip)],
                vec![],
            ),
            (
                "worth nothing is no bound for a cancellation",
                |v| {
                    v.pending[0].is_void = true;
                    v.pending.iter_mut().for_each(|pending| pending.bound.allowed = 0);
                },
                vec![Action::Cancel(5, raised)],
                vec![],
            ),
            (
                "a higher slot is left until it is the lowest",
                |v| v.pending[1].is_void = true,
                vec![],
                vec![],
            ),
        ]);
    }

    #[test]
    fn what_no_node_takes_says_so_and_is_cancelled_when_it_is_old_unless_money_or_a_higher_fee_helps()
     {
        let raised = Fees { max_fee: 23_625_000_001, tip: 1_125_000_001 };
        let says_so =
            || vec![Wait::Refused { hash: B256::repeat_byte(7), reason: "because".into() }];
        run(vec![
            ("young", |v| refuse(v, 0, Answer::Refused), vec![Action::Rebroadcast(5)], says_so()),
            (
                "old",
                |v| refuse_the_old(v, Answer::Refused),
                vec![Action::Cancel(5, raised)],
                says_so(),
            ),
            (
                "old, and as dear as may be",
                |v| {
                    v.pending[0].slot.attempts[0].max_fee = LIMITS.cap;
                    refuse_the_old(v, Answer::Refused);
                },
                vec![Action::Cancel(
                    5,
                    Fees { max_fee: fees::raised(LIMITS.cap), tip: raised.tip },
                )],
                says_so(),
            ),
            (
                "another endpoint has it",
                |v| {
                    refuse_the_old(v, Answer::Refused);
                    v.pending[0].is_known = true;
                },
                vec![Action::Rebroadcast(5)],
                vec![],
            ),
            (
                "its cancellation",
                |v| {
                    v.pending[0].slot.attempts.push(attempt(AttemptKind::Cancel, 21 * GWEI, GWEI));
                    refuse_the_old(v, Answer::Refused);
                },
                vec![Action::Rebroadcast(5)],
                says_so(),
            ),
            (
                "for want of money",
                |v| refuse_the_old(v, Answer::NoFunds),
                vec![Action::Rebroadcast(5)],
                says_so(),
            ),
            (
                "for too low a fee",
                |v| {
                    v.prices = Prices::flat(30 * GWEI, GWEI);
                    refuse_the_old(v, Answer::Declined);
                },
                vec![bump(61 * GWEI, raised.tip)],
                says_so(),
            ),
            (
                "a higher slot",
                |v| {
                    v.now = BORN + 60_000;
                    v.pending[0].slot.attempts[0].at = v.now;
                    refuse(v, 1, Answer::Refused);
                },
                vec![Action::Rebroadcast(6)],
                says_so(),
            ),
        ]);
    }

    #[test]
    fn what_is_declined_in_unknown_words_makes_way_once_it_has_paid_enough_for_long_and_can_pay_no_more()
     {
        let cancel = Action::Cancel(5, Fees { max_fee: 23_625_000_001, tip: 1_125_000_001 });
        let mut view = calm();
        allow(&mut view, [21 * GWEI, 11 * GWEI, 11 * GWEI]);
        refuse(&mut view, 0, Answer::Declined);
        (view.now, view.pending[0].declined_for) = (BORN + 900_000, 299_999);
        assert_eq!(plan(&view).actions, [Action::Rebroadcast(5)], "not for long");
        view.pending[0].declined_for = 300_000;
        let plans = plan(&view);
        assert_eq!((plans.actions, plans.given_up), (vec![cancel], Some((5, "because".into()))));
        view.pending[0].is_known = true;
        assert_eq!(plan(&view).actions, [], "another endpoint has it");
        view.pending[0].is_known = false;
        allow(&mut view, [24 * GWEI, 11 * GWEI, 11 * GWEI]);
        assert!(matches!(plan(&view).actions[..], [Action::Bump(5, _)]), "it can pay more");
    }

    #[test]
    fn being_declined_counts_from_when_the_same_attempt_began_to_pay_what_gas_costs() {
        let mut view = calm();
        refuse(&mut view, 0, Answer::Declined);
        let (hash, now) = (B256::repeat_byte(7), 1_000);
        let since = |pending: &Pending, before, prices| pending.declined_since(before, prices, now);
        let declined = &view.pending[0];
        assert_eq!(since(declined, None, CALM), Some((hash, now)));
        assert_eq!(since(declined, Some((hash, 400)), CALM), Some((hash, 400)));
        let (other, future) = ((B256::ZERO, 400), (hash, now + 1));
        for before in [other, future] {
            assert_eq!(since(declined, Some(before), CALM), Some((hash, now)), "{before:?}");
        }
        let dear = Prices::flat(21 * GWEI, GWEI);
        assert_eq!(since(declined, Some((hash, 400)), dear), None, "it pays too little");
        assert_eq!(since(&view.pending[1], Some((hash, 400)), CALM), None, "nobody declines it");
    }

    #[test]
    fn a_tip_that_is_too_low_for_the_pool_is_raised_without_patience() {
        let mut view = calm();
        refuse_the_old(&mut view, Answer::LowTip);
        assert_eq!(plan(&view).actions, [bump(23_625_000_001, 1_125_000_001)]);
        view.now -= 1;
        assert_eq!(plan(&view).actions, [Action::Rebroadcast(5)], "young");
        view.now += 1;
        allow(&mut view, [21 * GWEI, 11 * GWEI, 11 * GWEI]);
        assert_eq!(
            plan(&view).actions,
            [bump(21 * GWEI, 1_125_000_001)],
            "the tip alone, at the cap"
        );
        view.pending[0].slot.attempts = vec![attempt(AttemptKind::Work, 21 * GWEI, 21 * GWEI)];
        assert_eq!(plan(&view).actions, [Action::Rebroadcast(5)], "all of it");
        view.pending[0].declined_for = 300_000;
        assert!(matches!(plan(&view).actions[..], [Action::Cancel(5, _)]), "for long");
    }

    #[test]
    fn what_is_not_judged_by_its_worth_lends_no_more_than_a_cancellation_costs() {
        let mut view = calm();
        view.now = BORN + 300_000;
        allow(&mut view, [GWEI, 11 * GWEI, 0]);
        view.pending[2].bound = Bound::at_price(LIMITS.cap, GAS, Urgency::Normal);
        let at_cap = Wait::AtCap { hash: B256::repeat_byte(7), cap: 12 * GWEI };
        assert_eq!((plan(&view).actions, plan(&view).waiting), (vec![], vec![at_cap]));
        // A batch that presses and is worth nothing near its gas makes way.
        view.prices.tips = [GWEI, 2 * GWEI, 3 * GWEI];
        view.pending[0].bound = Bound { urgency: Urgency::Pressing, gas: 12_000_000, ..worth(0) };
        assert!(matches!(plan(&view).actions[..], [Action::Cancel(5, _)]), "{:?}", plan(&view));
    }

    #[test]
    fn the_lowest_slot_acts_for_all_and_those_above_are_only_sent_again() {
        run(vec![
            (
                "two above got lost",
                |v| {
                    v.pending[1].is_known = false;
                    v.pending[2].is_known = false;
                },
                vec![Action::Rebroadcast(6), Action::Rebroadcast(7)],
                vec![],
            ),
            (
                "all got lost: ascending",
                |v| v.pending.iter_mut().for_each(|pending| pending.is_known = false),
                vec![Action::Rebroadcast(5), Action::Rebroadcast(6), Action::Rebroadcast(7)],
                vec![],
            ),
            (
                "a worthy one behind lifts the bound",
                |v| {
                    v.now = BORN + 300_000;
                    allow(v, [GWEI, 11 * GWEI, 34 * GWEI]);
                },
                vec![bump(23_625_000_001, 1_125_000_001)],
                vec![],
            ),
            (
                "it does not where it has to pay for one between",
                |v| {
                    v.now = BORN + 300_000;
                    allow(v, [GWEI, 10 * GWEI, 34 * GWEI]);
                },
                vec![],
                vec![Wait::AtCap { hash: B256::repeat_byte(7), cap: 23 * GWEI }],
            ),
            (
                "so does one that found no room",
                |v| {
                    v.now = BORN + 300_000;
                    allow(v, [GWEI, 11 * GWEI, 11 * GWEI]);
                    v.roomless = Some(worth(34 * GWEI));
                },
                vec![bump(23_625_000_001, 1_125_000_001)],
                vec![],
            ),
            (
                "nobody behind is worth it",
                |v| {
                    v.now = BORN + 300_000;
                    allow(v, [11 * GWEI; 3]);
                },
                vec![],
                vec![Wait::AtCap { hash: B256::repeat_byte(7), cap: 11 * GWEI }],
            ),
            (
                "a pressing one behind sets the tip",
                |v| {
                    v.now = BORN + 60_000;
                    v.prices.tips = [GWEI, GWEI, 2 * GWEI];
                    v.pending[2].bound.urgency = Urgency::Pressing;
                },
                vec![bump(23_625_000_001, 2 * GWEI)],
                vec![],
            ),
        ]);
    }

    /// Goal: what stands behind pays for a large transaction no more than it is worth itself.
    /// Method: 12,000,000 gas worth 0.0125 coins, 100,000 gas behind it worth more and more, at 51 gwei.
    /// What would break it: handing on a price of gas, which is another amount for another gas limit.
    #[test]
    fn the_lowest_slot_gets_an_amount_from_those_behind_it_and_not_their_price() {
        const MILLICOIN: u128 = 1_000_000 * GWEI;
        for (behind, cap) in [
            (5 * MILLICOIN, GWEI + GWEI / 24),
            (5 * MILLICOIN + 100_000 * GWEI, GWEI + GWEI / 24),
            (604 * MILLICOIN + 600_000 * GWEI, 51 * GWEI),
            (700 * MILLICOIN, 58 * GWEI + 950_000_000),
        ] {
            let mut view = calm();
            view.now = BORN + 300_000;
            view.prices = Prices::flat(50 * GWEI, GWEI);
            view.pending.truncate(2);
            let bound = |allowed, gas| Bound { allowed, gas, ..worth(0) };
            view.pending[0].bound = bound(12 * MILLICOIN + MILLICOIN / 2, 12_000_000);
            view.pending[1].bound = bound(behind, 100_000);
            let plan = plan(&view);
            let least = 23_625_000_001;
            if cap < least {
                let at_cap = Wait::AtCap { hash: B256::repeat_byte(7), cap };
                assert_eq!((plan.actions, plan.waiting), (vec![], vec![at_cap]), "{behind}");
            } else {
                assert_eq!(plan.actions, [bump(cap, 1_125_000_001)], "{behind}");
            }
        }
    }

    /// Goal: what pays for itself does not stand behind large transactions that nobody pays for, and nothing that is worth its
    /// gas is cancelled.
    /// Method: transactions of 12,000,000 gas, worth a thousandth of it, before one of 100,000 that is worth 20 millicoins, at 51
    /// gwei, where each cancellation costs 1.071 millicoins.
    /// What would break it: charging it for all the gas before it.
    #[test]
    fn what_cannot_pay_for_itself_makes_way_for_what_pays_for_its_cancellation() {
        const MILLICOIN: u128 = 1_000_000 * GWEI;
        let bound = |allowed, gas| Bound { allowed, gas, ..worth(0) };
        let way = |before: u64, behind: u128| {
            let mut view = calm();
            view.now = BORN + 60_000;
            view.prices = Prices::flat(50 * GWEI, GWEI);
            view.pending = (5..=5 + before).map(pending).collect();
            view.pending.iter_mut().for_each(|each| each.bound = bound(MILLICOIN / 2, 12_000_000));
            view.pending.last_mut().unwrap().bound = bound(behind, 100_000);
            view
        };
        let cancel = Fees { max_fee: 63 * GWEI, tip: 1_125_000_001 };
        let least = 5 * MILLICOIN + MILLICOIN / 10;
        let each = 21_000 * 51 * GWEI;
        for before in [1, 2, 8] {
            let needed = least + u128::from(before) * each;
            assert_eq!(plan(&way(before, needed)).actions, [Action::Cancel(5, cancel)], "{before}");
            let short = plan(&way(before, needed - 1));
            assert!(!short.actions.contains(&Action::Cancel(5, cancel)), "{before}: {short:?}");
        }
        let mut view = way(8, 20 * MILLICOIN);
        view.now = BORN + 30_000;
        assert_eq!(plan(&view).actions, [], "it is young");
        view.now = BORN + 60_000;
        view.pending[0].bound = bound(612 * MILLICOIN, 12_000_000);
        let is_raised = |view: &View| matches!(plan(view).actions[..], [Action::Bump(5, _)]);
        assert!(is_raised(&view), "it pays for itself");
        view.prices.tips = [GWEI, GWEI, 40 * GWEI];
        view.pending[8].bound.urgency = Urgency::Pressing;
        assert!(is_raised(&view), "but for the tip of what presses");
    }

    #[test]
    fn a_replacement_that_the_balance_does_not_cover_is_not_made_and_says_what_it_needs() {
        // Two others at 21 gwei, and the replacement.
        let needed = U256::from(GAS) * U256::from(2 * 21 * GWEI + 23_625_000_001);
        let mut view = calm();
        view.now = BORN + 300_000;
        for is_void in [false, true] {
            view.pending[0].is_void = is_void;
            view.balance = needed;
            assert_eq!((plan(&view).actions.len(), plan(&view).waiting), (1, vec![]));
            let balance = needed - U256::from(1);
            view.balance = balance;
            let short = plan(&view);
            assert_eq!(
                (short.actions, short.waiting),
                (vec![], vec![Wait::Balance { balance, needed }])
            );
        }
        view.pending[0].is_known = false;
        assert_eq!(plan(&view).actions, [Action::Rebroadcast(5)], "what there is goes on");
    }

    #[test]
    fn foreign_and_unknown_transactions_freeze_and_lagging_endpoints_hold() {
        let hash = B256::repeat_byte(9);
        let unknown = |from, until| vec![Wait::UnknownTransactions { from, until }];
        run(vec![
            ("latest is ahead of the slots", |v| v.counts.latest = 9, vec![], unknown(8, 9)),
            ("so is a final block", |v| v.counts.finalised = 10, vec![], unknown(8, 10)),
            (
                "a restored backup without slots",
                |v| {
                    v.memory.slotted = 0;
                    v.pending.clear();
                },
                vec![],
                unknown(0, 5),
            ),
            (
                "a final tx nonce went to a stranger's hash",
                |v| v.memory.foreign = Some((4, B256::repeat_byte(9))),
                vec![],
                vec![Wait::ForeignTransaction { tx_nonce: 4, hash }],
            ),
            (
                "the endpoint is behind the ledger",
                |v| {
                    v.counts.latest = 4;
                    v.pending[0].is_known = false;
                },
                vec![],
                vec![Wait::StaleEndpoint],
            ),
            (
                "the endpoint denies what a final block has consumed",
                |v| {
                    v.counts = Counts { finalised: 4, indexed: 4, latest: 4 };
                    v.memory.ended = 5;
                },
                vec![],
                vec![Wait::StaleEndpoint],
            ),
            (
                "nobody tells what consumed a tx nonce",
                |v| v.unexplained = vec![2],
                vec![],
                vec![Wait::Unexplained(2)],
            ),
        ]);
        let mut view = calm();
        view.counts.latest = 9;
        assert_eq!(plan(&view).room, 0, "nothing new is sent while frozen");
        view.memory.adopted = 9;
        view.pending.clear();
        assert_eq!((plan(&view).waiting, plan(&view).room), (vec![], 16), "adopted");
    }

    #[test]
    fn a_pool_takes_sixteen_and_a_delegated_account_one() {
        let mut view = calm();
        view.memory.slotted = 21;
        view.pending = (5..21).map(pending).collect();
        assert_eq!(plan(&view).room, 0);
        view.pending = vec![pending(5), pending(6)];
        view.is_delegated = true;
        view.pending[1].is_known = false;
        let one = plan(&view);
        assert_eq!((one.actions, one.waiting, one.room), (vec![], vec![Wait::Delegated], 0));
        view.pending.clear();
        assert_eq!(plan(&view).room, 1);
    }

    #[test]
    fn the_next_obligation_takes_the_lowest_tx_nonce_without_a_slot() {
        let slots: Vec<_> = [5, 6, 8].map(|nonce| pending(nonce).slot).to_vec();
        for (latest, next) in [(4, 4), (5, 7), (6, 7), (7, 7), (8, 9), (9, 9), (20, 20)] {
            assert_eq!(next_nonce(latest, &slots), next, "{latest}");
        }
        let mut view = calm();
        view.pending = (6..22).map(pending).collect();
        view.memory.slotted = 22;
        let gap = plan(&view);
        assert_eq!(
            (gap.waiting, gap.room),
            (vec![Wait::Gap(5)], 1),
            "full, and yet the gap is filled"
        );
    }
}
