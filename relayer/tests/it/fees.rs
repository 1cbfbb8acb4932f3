//! Goal: what is spent on gas is a share of what the same money is worth, and all of it only where a thaw would take it.
//! Method: an installation on a real chain, whose base fee and time the test sets; deposits thaw.
//! What would break it: a wrong unit of time, a deadline for money that cannot leave, one statement that pays for others.

use alloy::{
    network::TransactionBuilder, primitives::Bytes, providers::Provider,
    rpc::types::TransactionRequest, sol_types::SolCall,
};
use contracts::Settlement;
use ledger::{
    Millis, Units,
    book::Obligation,
    read::{AttemptKind, FundingDeposit, Slot},
};
use relayer::turn::Report;
use serde_json::json;

use crate::{
    env::rpc,
    sender::{LATE, World, calldata, says, stranger},
};

/// A base fee, wei, at which settling one statement costs about a tenth of the work of [`World::work`].
const DEAR: u64 = 40_000_000_000;
const HOUR: u64 = 3600;
/// How long before the end of a thaw the fee bound has risen.
const MARGIN_HOURS: u32 = 6;
/// How long before the end of a thaw it begins to rise.
const PRESSURE_BEGINS: u64 = 30 * HOUR;

impl World {
    /// A world in which gas is judged by value.
    async fn judging_by_value() -> Self {
        let mut world = Box::pin(Self::new()).await;
        world.config.policy.native_usd = Some("2.00".parse().unwrap());
        world.config.policy.settle_margin_hours = MARGIN_HOURS;
        world.reopen().await;
        world.live.endpoints.look().await.unwrap();
        world
    }

    async fn deposit_of(&self, organisation: usize) -> FundingDeposit {
        let name = &self.config.organisations[organisation].name;
        let mut deposits = self.live.reader.books(name).await.unwrap().unwrap().deposits;
        assert_eq!(deposits.len(), 1);
        deposits.remove(0)
    }

    /// Has an organisation's requestor thaw all of its deposit but `kept`, and returns when it can withdraw, seconds.
    async fn thaw_all_but(&mut self, organisation: usize, kept: Units) -> u64 {
        let deposit = self.deposit_of(organisation).await;
        let key: Settlement::DepositKey = deposit.key.clone().unwrap().into();
        let requestor = key.requestor;
        self.meddle("anvil_impersonateAccount", &format!("[\"{requestor}\"]")).await;
        let settlement = Settlement::new(self.config.chain.contract, self.provider.clone());
        let units = deposit.state.balance.get() - kept.get();
        let _sent = settlement.thaw(key, units).from(requestor).send().await.unwrap();
        self.mine(1).await;
        self.live.reader.deposit_state(deposit.id).await.unwrap().thaw_ends
    }

    /// A turn after a block at a time, seconds, when gas is dear.
    async fn dear_turn_at(&mut self, time: u64) -> Report {
        rpc(&self.provider, "evm_setNextBlockTimestamp", &format!("[{time}]")).await;
        self.dear_turn().await
    }

    async fn dear_turn(&mut self) -> Report {
        self.set_base_fee(DEAR).await;
        self.turn().await
    }

    /// Mines a block with a base fee, wei.
    async fn set_base_fee(&mut self, wei: u64) {
        let params = format!("[\"{wei:#x}\"]");
        rpc(&self.provider, "anvil_setNextBlockBaseFeePerGas", &params).await;
        self.mine(1).await;
    }

    /// Takes in a piece of work of another price than usual, by a machine of another owner.
    async fn work_worth(&mut self, organisation: usize, id: u32, price: &str, owner: u32) {
        let payout = relayer::generate::payout_address(&format!("owner {owner} of seed 1"));
        let line = self.line_of(organisation, id, payout);
        self.take_in(&line.replace("0.050000", price)).await;
    }

    /// Takes in work of three organisations that is worth little beside its gas.
    async fn dust(&mut self) {
        for (id, organisation) in (2..).zip([1, 1, 1, 2, 2, 2, 3, 3, 3]) {
            self.work_worth(organisation, id, "0.030000", id % 3 + 1).await;
        }
    }
}

/// How many statements a slot carries.
fn statements_of(slot: &Slot) -> usize {
    let Obligation::Settle(statements) = &slot.obligation else { panic!("{slot:?}") };
    statements.len()
}

/// What would break it: hours or seconds for milliseconds, a margin that is added, a deadline of another clock.
#[tokio::test]
async fn a_statement_that_is_too_dear_goes_within_a_day_before_its_thaw_and_not_before() {
    let mut world = World::judging_by_value().await;
    world.work(0, 1).await;
    let report = world.dear_turn().await;
    assert_eq!((report.signed, report.sent), (1, 0), "{report:?}");
    assert!(says(&report, "it would cost"), "{report:?}");
    let begins = world.thaw_all_but(0, Units::ZERO).await - PRESSURE_BEGINS;
    // A tenth of the value is allowed after a tenth of the day.
    for (time, sent) in [(begins - 60, 0), (begins + HOUR, 0), (begins + 4 * HOUR, 1)] {
        let report = world.dear_turn_at(time).await;
        assert_eq!(report.sent, sent, "{time}: {report:?}");
    }
}

/// What would break it: a deadline for every statement of a deposit of which anything thaws.
#[tokio::test]
async fn a_thaw_that_leaves_what_a_statement_moves_does_not_press_it() {
    let mut world = World::judging_by_value().await;
    world.work(0, 1).await;
    let report = world.dear_turn().await;
    assert_eq!((report.signed, report.sent), (1, 0), "{report:?}");
    let total = world.live.reader.at_stake(world.deposit_of(0).await.id).await.unwrap();
    let ends = world.thaw_all_but(0, total).await;
    let report = world.dear_turn_at(ends - 7 * HOUR).await;
    assert_eq!(report.sent, 0, "{report:?}");
    let ends = world.thaw_all_but(0, Units::new(total.get() - 1)).await;
    let report = world.dear_turn_at(ends - 7 * HOUR).await;
    assert_eq!(report.sent, 1, "{report:?}");
}

/// What would break it: looking at nothing but what the statement under way moves itself.
#[tokio::test]
async fn a_thaw_that_leaves_too_little_for_what_waits_behind_a_statement_presses_it() {
    let mut world = World::judging_by_value().await;
    world.work(0, 1).await;
    assert_eq!(world.turn().await.sent, 1);
    let total = world.live.reader.at_stake(world.deposit_of(0).await.id).await.unwrap();
    world.dear_turn().await;
    for id in 2..6 {
        world.work(0, id).await;
    }
    let ends = world.thaw_all_but(0, total).await;
    // Each replacement is threefold at most.
    for minute in 0..8 {
        world.now += LATE;
        world.dear_turn_at(ends - 7 * HOUR + minute * 60).await;
    }
    let attempts = world.slots().await.remove(0).attempts;
    let fees: Vec<_> = attempts.iter().map(|attempt| attempt.max_fee).collect();
    assert!(*fees.last().unwrap() > DEAR.into(), "{fees:?}");
}

/// What would break it: one deadline and one value for a whole batch.
#[tokio::test]
async fn a_thaw_of_one_statement_does_not_lift_the_fee_bound_of_others() {
    let mut world = World::judging_by_value().await;
    world.work(0, 1).await;
    world.dust().await;
    let report = world.dear_turn().await;
    assert_eq!((report.signed, report.sent), (4, 0), "{report:?}");
    let begins = world.thaw_all_but(0, Units::ZERO).await - PRESSURE_BEGINS;
    let report = world.dear_turn_at(begins + 4 * HOUR).await;
    assert_eq!(report.sent, 1, "{report:?}");
    assert!(says(&report, "it would cost"), "{report:?}");
    assert_eq!(statements_of(&world.slots().await[0]), 1);
}

/// What would break it: waiting for a price at which all of a batch is cheap enough.
#[tokio::test]
async fn a_statement_that_pays_for_itself_does_not_wait_with_those_that_do_not() {
    let mut world = World::judging_by_value().await;
    let settled = world.settled().await;
    world.work_worth(0, 1, "1.800000", 1).await;
    world.dust().await;
    let report = world.dear_turn().await;
    assert_eq!((report.signed, report.sent), (4, 1), "{report:?}");
    assert!(says(&report, "it would cost"), "{report:?}");
    assert_eq!(statements_of(&world.slots().await[0]), 1);
    world.mine(1).await;
    assert_eq!(world.settled().await, settled + 1);
}

/// Goal: what presses does not keep what has time, nor the other way round.
/// Method: one statement that a thaw threatens, packed with three that pay for themselves by the usual tip, while those who are
/// in a hurry tip much more.
/// What would break it: one tip for all that goes at once, in the plan and out of it.
#[tokio::test]
async fn a_pressing_statement_and_ones_that_have_time_go_apart_if_they_are_too_dear_together() {
    const BASE: u64 = 2_000_000_000;
    const TIPS: [u64; 3] = [1_000_000_000, 1_000_000_000, 185_000_000_000];
    let world = World::judging_by_value().await;
    let mut world = world
        .behind(|request| {
            let history = json!({
                "oldestBlock": "0x1", "baseFeePerGas": ["0x1", "0x1"], "gasUsedRatio": [0.5],
                "reward": [TIPS.map(|tip| format!("{tip:#x}"))]
            });
            (request["method"] == "eth_feeHistory").then(|| json!({ "result": history }))
        })
        .await;
    world.live.endpoints.look().await.unwrap();
    let settled = world.settled().await;
    world.work(0, 1).await;
    let report = world.dear_turn().await;
    assert_eq!((report.signed, report.sent), (1, 0), "{report:?}");
    let ends = world.thaw_all_but(0, Units::ZERO).await;
    for organisation in 1..4 {
        let id = u32::try_from(organisation).unwrap() + 1;
        world.work_worth(organisation, id, "0.140000", 1).await;
    }
    let time = ends - 7 * HOUR;
    rpc(&world.provider, "evm_setNextBlockTimestamp", &format!("[{time}]")).await;
    let base = format!("[\"{BASE:#x}\"]");
    rpc(&world.provider, "anvil_setNextBlockBaseFeePerGas", &base).await;
    world.mine(1).await;
    let report = world.turn().await;
    assert_eq!((report.signed, report.sent), (3, 2), "{report:?}");
    let sizes: Vec<_> = world.slots().await.iter().map(statements_of).collect();
    assert_eq!(sizes, [1, 3], "what presses goes first");
    world.mine(1).await;
    assert_eq!(world.settled().await, settled + 4);
}

/// What would break it: judging what does nothing by what it was to carry, which is worth nothing any more.
#[tokio::test]
async fn a_cancellation_is_raised_to_the_price_of_gas_though_it_carries_nothing() {
    let mut world = World::judging_by_value().await;
    world.work_worth(0, 1, "1.800000", 1).await;
    assert_eq!(world.turn().await.sent, 1);
    world.finish().await;
    let report = world.turn_that_pushes().await;
    assert_eq!(report.sent, 1, "{report:?}");
    let claim = world.slots().await.remove(0).attempts.remove(0);
    world.drop_all().await;
    let request = TransactionRequest::default()
        .with_to(world.config.chain.contract)
        .with_input(calldata(&claim.raw))
        .with_gas_limit(5_000_000);
    let _sent = stranger(&world.env).send_transaction(request).await.unwrap();
    world.mine(1).await;
    let mut report = Report::default();
    for _ in 0..12 {
        world.now += LATE;
        report = world.dear_turn().await;
        if world.slots().await.is_empty() {
            return;
        }
    }
    panic!("{report:?}: {:?}", world.slots().await);
}

/// What would break it: the host's clock alone, which may be days ahead of the chain that decides when a thaw ends.
#[tokio::test]
async fn a_clock_that_is_ahead_of_the_chains_presses_nothing() {
    let mut world = World::judging_by_value().await;
    world.work(0, 1).await;
    let report = world.dear_turn().await;
    assert_eq!((report.signed, report.sent), (1, 0), "{report:?}");
    let ends = world.thaw_all_but(0, Units::ZERO).await;
    world.now = Millis::try_from(ends).unwrap() * 1000;
    let report = world.dear_turn().await;
    assert_eq!(report.sent, 0, "{report:?}");
    let report = world.dear_turn_at(ends - 7 * HOUR).await;
    assert_eq!(report.sent, 1, "{report:?}");
}

/// What would break it: the median of the few blocks that had tips, where nobody else competes.
#[tokio::test]
async fn one_dear_transaction_of_a_quiet_chain_does_not_set_the_tip() {
    const ADVICE: u64 = 2_000_000_000;
    let mut world = World::new()
        .await
        .behind(|request| {
            let mut rewards = vec![["0x0"; 3]; 9];
            rewards.push(["0xba43b7400"; 3]);
            let (bases, full) = (["0x1"; 11], [0.5; 10]);
            let history = json!({
                "oldestBlock": "0x1", "baseFeePerGas": bases, "gasUsedRatio": full, "reward": rewards
            });
            match request["method"].as_str()? {
                "eth_feeHistory" => Some(json!({ "result": history })),
                "eth_maxPriorityFeePerGas" => Some(json!({ "result": format!("{ADVICE:#x}") })),
                _ => None,
            }
        })
        .await;
    world.work(0, 1).await;
    assert_eq!(world.turn().await.sent, 1);
    assert_eq!(world.slots().await[0].attempts[0].tip, ADVICE.into());
}

/// Goal: what somebody else has settled pays for nothing any more.
/// Method: a batch of a large statement and a small one; a stranger settles the large one, then gas becomes dear.
/// What would break it: taking what a batch was worth when it was sent for what it is worth.
#[tokio::test]
async fn a_statement_that_somebody_else_has_settled_pays_no_more_for_the_rest_of_its_batch() {
    /// A half per cent of five hundredths of a USD, and the operator's hundredth, at two USD a coin, wei.
    const ALLOWED: u128 = 126_250_000_000_000;
    let mut world = World::judging_by_value().await;
    world.work_worth(0, 1, "1.800000", 1).await;
    world.work(1, 2).await;
    let report = world.turn().await;
    assert_eq!((report.signed, report.sent), (2, 1), "{report:?}");
    let raw = world.slots().await.remove(0).attempts.remove(0).raw;
    let mut batch = Settlement::settleCall::abi_decode(&calldata(&raw)).unwrap();
    batch.statements.truncate(1);
    let settled = world.settled().await;
    world.drop_all().await;
    let request = TransactionRequest::default()
        .with_to(world.config.chain.contract)
        .with_input(Bytes::from(batch.abi_encode()))
        .with_gas_limit(5_000_000);
    let _sent = stranger(&world.env).send_transaction(request).await.unwrap();
    world.mine(1).await;
    assert_eq!(world.settled().await, settled + 1);
    for _ in 0..5 {
        world.now += LATE;
        world.dear_turn().await;
    }
    for replacement in world.slots().await.remove(0).attempts.iter().skip(1) {
        let most = u128::from(replacement.gas_limit) * replacement.max_fee;
        assert!(most <= ALLOWED, "{replacement:?}");
    }
}

/// Goal: a claim that pays for its gas does not wait for others that do not.
/// Method: one large credit and two small ones, and gas that becomes cheaper until anything goes.
/// What would break it: judging all that is due together, and nothing else.
#[tokio::test]
async fn the_largest_credits_go_first_where_all_together_are_too_dear() {
    let mut world = World::judging_by_value().await;
    world.config.tokens.iter_mut().for_each(|token| token.push_threshold_units = 1);
    world.reopen().await;
    world.live.endpoints.look().await.unwrap();
    for (id, price) in [(1, "0.001000"), (2, "0.060000"), (3, "0.001000")] {
        world.work_worth(0, id, price, id).await;
    }
    while world.turn().await.sent > 0 {
        world.finish().await;
    }
    let mut gas: u64 = 4_000_000_000_000;
    let report = loop {
        world.set_base_fee(gas).await;
        let report = world.live.relayer.turn(world.now, true).await.unwrap();
        if report.sent > 0 {
            break report;
        }
        assert!(says(&report, "a claim batch waits"), "{report:?}");
        gas = gas / 10 * 9;
    };
    assert!(says(&report, "a claim batch waits"), "the small ones: {report:?}");
    let obligation = world.slots().await.remove(0).obligation;
    let Obligation::Claim(token, providers) = &obligation else { panic!("{obligation:?}") };
    let mut credits = world.live.reader.credits().await.unwrap();
    credits.retain(|credit| credit.token == *token);
    let largest = credits.iter().max_by_key(|credit| credit.units).unwrap();
    assert_eq!(providers[..], [largest.provider]);
}

/// Goal: what waits until gas is cheaper goes when it is.
/// Method: a statement that is sent as dear as may be, forgotten by the pool and declined for minutes of dearer gas.
/// What would break it: taking the refusals of a time when gas was dearer for those of what pays enough.
#[tokio::test]
async fn what_was_declined_while_gas_was_dearer_goes_once_it_is_not() {
    let mut world = World::judging_by_value().await;
    let settled = world.settled().await;
    world.work(0, 1).await;
    let mut gas: u64 = 4_000_000_000_000;
    world.set_base_fee(gas).await;
    while world.turn().await.sent == 0 {
        gas = gas / 10 * 9;
        world.set_base_fee(gas).await;
    }
    let sent = world.slots().await.remove(0).attempts.remove(0);
    assert!(sent.max_fee < u128::from(gas) / 4 * 7 + sent.tip, "not at its cap: {sent:?}, {gas}");
    world.drop_all().await;
    let mut report = Report::default();
    for _ in 0..8 {
        world.set_base_fee(gas * 4).await;
        world.now += LATE;
        report = world.turn().await;
    }
    assert!(says(&report, "max fee per gas less than block base fee"), "{report:?}");
    world.set_base_fee(gas / 2).await;
    world.turn().await;
    let slot = world.slots().await.remove(0);
    assert!(slot.attempts.iter().all(|each| each.kind == AttemptKind::Work), "{slot:?}");
    world.finish().await;
    assert_eq!(world.settled().await, settled + 1);
}
