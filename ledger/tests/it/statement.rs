//! Recording statements: only what the books say now.

use alloy::primitives::B256;
use ledger::{
    Error, Unit,
    book::Naming,
    chain::Event,
    rules::{self, DepositState, Fee, Limits, Proposal, Purse},
};

use crate::world::{
    FEE_BPS, OPERATOR, ORGANISATION, World, attester, deposit_key, payout, record, secret, settle,
    tariff,
};

/// A world with one accepted piece of work, and the proposal for deposit `number` that pays it.
pub(crate) async fn proposal(world: &World, number: u8) -> (DepositState, Proposal) {
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    let secret = secret().of_organisation(ORGANISATION);
    let deposit =
        books.deposits.iter().find(|deposit| deposit.id == deposit_key(number).id()).unwrap();
    let place = (deposit.id, deposit.state.epoch + 1);
    let payables: Vec<_> =
        books.open.iter().filter_map(|item| item.to_payable(&secret, place).unwrap()).collect();
    let purse = Purse {
        unit: Unit::of_decimals(18).unwrap(),
        spendable: deposit.state.spendable(),
        carries: deposit.carries.clone(),
        is_thawing: deposit.state.is_thawing(),
    };
    let fee = Fee { bps: FEE_BPS, operator: Some(OPERATOR) };
    (deposit.state, rules::propose(&payables, &purse, fee, Limits::default()).unwrap())
}

pub(crate) async fn world_with_work() -> World {
    let mut world = World::new().await;
    world.fund(1, 100_000_000).await;
    world.fund(2, 100_000_000).await;
    world.finalise(0).await;
    world.book.take_in(&[record(1, 2, 0, 1_000_000)], &tariff(), 0).await.unwrap();
    world
}

fn assert_stale(error: &Error) {
    assert!(
        matches!(error, Error::Unsignable(why) if why.contains("not due as proposed")),
        "{error}"
    );
}

#[tokio::test]
async fn refuses_work_that_another_deposit_has_stated_since() {
    let world = world_with_work().await;
    let (first_state, first) = proposal(&world, 1).await;
    let (second_state, second) = proposal(&world, 2).await;
    world.book.record_statement(deposit_key(1).id(), &first_state, &first, FEE_BPS).await.unwrap();
    let error = world
        .book
        .record_statement(deposit_key(2).id(), &second_state, &second, FEE_BPS)
        .await
        .unwrap_err();
    assert_stale(&error);
}

#[tokio::test]
async fn refuses_rows_of_a_provider_whose_registration_may_still_be_undone() {
    let mut world = world_with_work().await;
    world.mine(vec![Event::Registered { provider: 5, payout: payout(5) }]).await;
    let (state, mut proposal) = proposal(&world, 1).await;
    proposal.rows.last_mut().unwrap().provider = 5;
    let id = deposit_key(1).id();
    let error = world.book.record_statement(id, &state, &proposal, FEE_BPS).await.unwrap_err();
    assert!(error.to_string().contains("the registration of provider 5 is not final"), "{error}");
}

#[tokio::test]
async fn refuses_work_that_was_finally_paid_since_the_books_were_read() {
    let mut world = world_with_work().await;
    let (state, paid) = proposal(&world, 1).await;
    let (other_state, stale) = proposal(&world, 2).await;
    let signed =
        world.book.record_statement(deposit_key(1).id(), &state, &paid, FEE_BPS).await.unwrap();
    let signed = world.book.sign_statement(signed.id, &attester()).await.unwrap();
    settle(&mut world, &signed).await;
    world.finalise(0).await;
    let error = world
        .book
        .record_statement(deposit_key(2).id(), &other_state, &stale, FEE_BPS)
        .await
        .unwrap_err();
    assert_stale(&error);
}

#[tokio::test]
async fn refuses_an_amount_that_a_revision_changed_since() {
    let world = world_with_work().await;
    let (state, stale) = proposal(&world, 1).await;
    world.book.take_in(&[record(1, 2, 1, 500_000)], &tariff(), 0).await.unwrap();
    let error = world
        .book
        .record_statement(deposit_key(1).id(), &state, &stale, FEE_BPS)
        .await
        .unwrap_err();
    assert_stale(&error);
}

#[tokio::test]
async fn refuses_a_second_candidate_and_a_key_that_the_deposit_does_not_name() {
    let world = world_with_work().await;
    let (state, proposal) = proposal(&world, 1).await;
    let id = deposit_key(1).id();
    let recorded = world.book.record_statement(id, &state, &proposal, FEE_BPS).await.unwrap();
    let error = world.book.record_statement(id, &state, &proposal, FEE_BPS).await.unwrap_err();
    assert!(matches!(&error, Error::Unsignable(why) if why.contains("candidate")), "{error}");
    let stranger = k256::ecdsa::SigningKey::from_slice(&[8; 32]).unwrap();
    let error = world.book.sign_statement(recorded.id, &stranger).await.unwrap_err();
    assert!(matches!(&error, Error::Unsignable(why) if why.contains("does not name")), "{error}");
    world.book.sign_statement(recorded.id, &attester()).await.unwrap();
}

#[tokio::test]
async fn what_was_paid_too_much_is_taken_back_from_the_provider_that_got_it() {
    let mut world = world_with_work().await;
    let (state, paid) = proposal(&world, 1).await;
    let signed =
        world.book.record_statement(deposit_key(1).id(), &state, &paid, FEE_BPS).await.unwrap();
    let signed = world.book.sign_statement(signed.id, &attester()).await.unwrap();
    settle(&mut world, &signed).await;
    world.book.set_payee("machine-2", crate::world::payout(3), (0, 1)).await.unwrap();
    world.book.take_in(&[record(1, 2, 1, 400_000)], &tariff(), 0).await.unwrap();
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    let place = (deposit_key(1).id(), 2);
    assert_eq!(books.open[0].payable(place).unwrap(), None, "the epoch that paid it is not final");
    world.finalise(0).await;
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    let (provider, _, due) = books.open[0].payable(place).unwrap().unwrap();
    assert_eq!(provider, 2);
    assert!(due < 0);
}

#[tokio::test]
async fn a_payout_address_named_under_a_clock_that_was_ahead_acts_earlier_when_named_again() {
    let world = world_with_work().await;
    let name = async |now| {
        world.book.set_payee("machine-2", crate::world::payout(3), (0, now)).await.unwrap()
    };
    let provider = async || {
        let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
        books.open[0].provider
    };
    assert!(name(i64::MAX).await);
    assert_eq!(provider().await, Some(2), "the clock of the chain is not there yet");
    assert!(name(0).await);
    assert_eq!(provider().await, Some(3));
    assert!(!name(1).await, "it acts already");
}

/// Goal: the way out for whoever handed a file in while the clock was ahead.
/// Method: the same file again, before and after another address was named.
/// What would break it: taking a line for known without looking from when its address acts.
#[tokio::test]
async fn a_file_that_comes_again_makes_its_address_act_earlier_where_none_was_named_since() {
    let world = world_with_work().await;
    let name = async |file: u8, provider: u32, times| {
        let payees = [("machine-2".to_owned(), payout(provider))];
        let file = (B256::repeat_byte(file), 0);
        world.book.name_payees(file, &payees, times).await.unwrap().remove(0)
    };
    let provider = async || {
        let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
        books.open[0].provider
    };
    assert_eq!(name(1, 3, (0, i64::MAX)).await, Naming::New);
    assert_eq!(name(1, 3, (0, i64::MAX)).await, Naming::Known);
    assert_eq!(provider().await, Some(2), "the clock of the chain is not there yet");
    assert_eq!(name(1, 3, (0, 0)).await, Naming::New);
    assert_eq!(provider().await, Some(3));
    assert_eq!(name(1, 3, (0, 1)).await, Naming::Known, "it acts already");

    assert_eq!(name(2, 4, (HOUR, 0)).await, Naming::New);
    assert_eq!(name(1, 3, (0, 2)).await, Naming::Replaced(payout(4)));
    assert_eq!(name(2, 4, (HOUR, 2)).await, Naming::Known, "it would act no earlier");
    assert_eq!(provider().await, Some(3));
}

const HOUR: i64 = 3_600_000;

/// A world whose first machine is paid at the address of provider 2, and names others at these hours, with a delay of a day.
struct Renamed(World);

impl Renamed {
    async fn name(&mut self, hour: i64, provider: u32) -> bool {
        self.mine(hour).await;
        let times = (24 * HOUR, hour * HOUR);
        self.0.book.set_payee("machine-2", payout(provider), times).await.unwrap()
    }

    async fn mine(&mut self, hour: i64) {
        self.0.mine_at(u64::try_from(hour * HOUR / 1000).unwrap(), Vec::new()).await;
    }

    async fn provider_at(&mut self, hour: i64) -> Option<u32> {
        self.mine(hour).await;
        self.0.reader.books(ORGANISATION).await.unwrap().unwrap().open[0].provider
    }
}

#[tokio::test]
async fn a_payout_address_named_under_a_clock_that_is_behind_waits_as_long_as_any() {
    let mut world = Renamed(world_with_work().await);
    world.mine(48).await;
    let named = world.0.book.set_payee("machine-2", payout(3), (24 * HOUR, HOUR)).await;
    assert!(named.unwrap());
    assert_eq!(world.provider_at(71).await, Some(2));
    assert_eq!(world.provider_at(72).await, Some(3));
}

#[tokio::test]
async fn a_wrong_payout_address_that_is_corrected_before_it_acts_never_acts() {
    let mut world = Renamed(world_with_work().await);
    assert!(world.name(1, 3).await);
    assert!(world.name(23, 2).await);
    assert!(!world.name(24, 2).await, "it acts already");
    for hour in [24, 26, 30, 50] {
        assert_eq!(world.provider_at(hour).await, Some(2), "at {hour} h");
    }
    assert!(!world.name(51, 2).await);
}

#[tokio::test]
async fn a_payout_address_that_replaces_one_before_it_acts_acts_alone_and_after_its_own_delay() {
    let mut world = Renamed(world_with_work().await);
    world.name(1, 3).await;
    world.name(23, 4).await;
    for (hour, provider) in [(24, 2), (26, 2), (46, 2), (47, 4), (80, 4)] {
        assert_eq!(world.provider_at(hour).await, Some(provider), "at {hour} h");
    }
    assert!(!world.name(81, 4).await);
}

#[tokio::test]
async fn a_payout_address_that_acted_stays_until_the_next_one_acts() {
    let mut world = Renamed(world_with_work().await);
    world.name(1, 3).await;
    assert!(world.name(26, 2).await);
    for (hour, provider) in [(26, 3), (49, 3), (50, 2)] {
        assert_eq!(world.provider_at(hour).await, Some(provider), "at {hour} h");
    }
}
