//! Many callers at once: each hears its own verdict, and none harms another.

use std::collections::BTreeMap;

use ledger::{book::BookWriter, workload::Outcome};
use tokio::task::JoinSet;

use crate::{
    invariants::Damage,
    traps::funded,
    world::{ORGANISATION, World, record, tariff},
};

/// Hands in one record per caller, all at once. Answers by the caller's number; an error as its text.
async fn at_once(
    world: &World,
    callers: u64,
    external_id: impl Fn(u64) -> u64,
) -> BTreeMap<u64, Result<Outcome, String>> {
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (book, record) =
            (BookWriter::new(world.ledger.clone()), record(external_id(caller), 2, 0, 1_000));
        tasks.spawn(async move {
            let answer = book.take_in(&[record], &tariff(), 0).await;
            (caller, answer.map(|mut one| one.remove(0)).map_err(|error| format!("{error:?}")))
        });
    }
    tasks.join_all().await.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_record_that_cannot_be_stored_fails_alone() {
    let world = funded(100_000_000, 0).await;
    let poison = "create trigger poison before insert on item when new.external_id = '57'
         begin select raise(abort, 'no such record'); end";
    Damage::without_dropping(&world).await.run(poison).await.unwrap();
    let answers = at_once(&world, 100, |caller| caller).await;
    for (caller, answer) in answers {
        if caller == 57 {
            assert!(answer.unwrap_err().contains("no such record"));
        } else {
            assert!(matches!(answer, Ok(Outcome::Accepted { .. })), "{caller}: {answer:?}");
        }
    }
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    assert_eq!(books.open.len(), 99);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_the_same_record_from_64_callers_one_is_accepted() {
    let world = funded(100_000_000, 0).await;
    let answers = at_once(&world, 64, |_| 7).await;
    let accepted = answers.values().filter(|answer| matches!(answer, Ok(Outcome::Accepted { .. })));
    assert_eq!(accepted.count(), 1);
    let duplicates = answers.values().filter(|answer| **answer == Ok(Outcome::Duplicate));
    assert_eq!(duplicates.count(), 63);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_at_once_cannot_be_promised_more_than_there_is() {
    // Enough for 10 records of 1,000 millionths of a USD at 0.247 USD per token, with the fee.
    let world = funded(41_000, 0).await;
    let answers = at_once(&world, 64, |caller| caller).await;
    let accepted =
        answers.values().filter(|answer| matches!(answer, Ok(Outcome::Accepted { .. }))).count();
    assert_eq!(accepted, 10);
    assert!(answers.values().all(Result::is_ok));
    let books = world.reader.books(ORGANISATION).await.unwrap().unwrap();
    assert!(books.available(crate::world::FEE_BPS).unwrap() >= 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_caller_that_goes_away_takes_no_other_along() {
    let world = funded(100_000_000, 0).await;
    for round in 0..20_u64 {
        let mut tasks = JoinSet::new();
        for caller in 0..16 {
            let (book, record) = (
                BookWriter::new(world.ledger.clone()),
                record(1_000 + round * 16 + caller, 2, 0, 10),
            );
            let task = tasks.spawn(async move {
                let answer = book.take_in(&[record], &tariff(), 0).await;
                assert!(matches!(answer.unwrap()[0], Outcome::Accepted { .. }));
            });
            if caller % 3 == round % 3 {
                tokio::task::yield_now().await;
                task.abort();
            }
        }
        let mut finished = 0;
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(()) => finished += 1,
                Err(error) => assert!(error.is_cancelled(), "{error}"),
            }
        }
        assert!(finished >= 10, "only {finished} callers heard something");
    }
}
