//! Recording statements: only what the books say now.

use ledger::{
    Error, Unit,
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
