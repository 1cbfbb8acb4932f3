//! Group commit: calls that come while another commit is under way share the next one.
//!
//! A commit waits for the disk, and the disk takes as long for a hundred records as for one. Whoever holds the turn takes in
//! what everybody has handed in, commits once, and leaves each caller its own verdicts. A caller that is gone by then has had
//! its records taken in without hearing of it, as if its connection had broken.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::MutexGuard;

use super::{SourceFile, Tariff};
use crate::{
    Millis, Result,
    workload::{Outcome, Record},
};

/// Most records that share a commit, unless one call brings more.
const MOST_RECORDS: usize = 5_000;

/// What one caller hands in, and what it hears.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) records: Vec<Record>,
    /// The file that they come from, if that has a label.
    pub(super) file: Option<SourceFile>,
    pub(super) tariff: Tariff,
    pub(super) now: Millis,
    answer: Mutex<Answer>,
}

#[derive(Debug)]
enum Answer {
    Waiting,
    Ready(Result<Vec<Outcome>>),
    Taken,
}

impl Call {
    pub(super) fn set(&self, answer: Result<Vec<Outcome>>) {
        *lock(&self.answer) = Answer::Ready(answer);
    }

    fn is_waiting(&self) -> bool {
        matches!(*lock(&self.answer), Answer::Waiting)
    }

    pub(super) fn take(&self) -> Option<Result<Vec<Outcome>>> {
        let mut answer = lock(&self.answer);
        match std::mem::replace(&mut *answer, Answer::Taken) {
            Answer::Ready(ready) => Some(ready),
            before => {
                *answer = before;
                None
            }
        }
    }
}

/// Calls that wait, and whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Group {
    waiting: Mutex<VecDeque<Arc<Call>>>,
    turn: tokio::sync::Mutex<()>,
}

impl Group {
    /// Puts records into the queue.
    pub(super) fn add(
        &self,
        records: &[Record],
        file: Option<&SourceFile>,
        tariff: &Tariff,
        now: Millis,
    ) -> Arc<Call> {
        let (records, file, tariff) = (records.to_vec(), file.cloned(), tariff.clone());
        let answer = Mutex::new(Answer::Waiting);
        let call = Arc::new(Call { records, file, tariff, now, answer });
        lock(&self.waiting).push_back(Arc::clone(&call));
        call
    }

    /// Waits for the turn. Whoever holds it carries calls out, until its own is answered.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The calls that share the next commit, in the order in which they came. They stay in the queue until they are
    /// answered, so that nothing is lost if the caller whose turn it is goes away.
    pub(super) fn next(&self) -> Vec<Arc<Call>> {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|call| call.is_waiting());
        let mut records = 0;
        let mut calls = Vec::new();
        for call in waiting.iter() {
            records += call.records.len();
            if records > MOST_RECORDS && !calls.is_empty() {
                break;
            }
            calls.push(Arc::clone(call));
        }
        calls
    }
}

/// What a lock guards is whole at every moment, so that a panic of another holder does not matter.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::workload::{Evidence, Item, Kind, Price, Revision, WorkResult};

    fn record() -> Record {
        let item = Item {
            source: "source".into(),
            external_id: "id".into(),
            organisation: "organisation".into(),
            machine: "machine".into(),
            kind: Kind::Batch,
            container_group: None,
            gpu_class: None,
            vcpu: None,
            memory_mb: None,
            priority: None,
            country: None,
            started_ms: 0,
            stopped_ms: 1,
        };
        let revision = Revision {
            revision: 0,
            result: WorkResult::Failed,
            price: Price::Usd("0".parse().unwrap()),
            rate: None,
            evidence: Evidence::default(),
        };
        Record { item, revision, payout: None }
    }

    /// Adds a call for each of these numbers of records.
    fn queue(records: &[usize]) -> (Group, Vec<Arc<Call>>) {
        let tariff = Tariff { fee_bps: 0, rates: BTreeMap::new(), address_delay: 0 };
        let group = Group::default();
        let calls =
            records.iter().map(|&count| group.add(&vec![record(); count], None, &tariff, 0));
        let calls = calls.collect();
        (group, calls)
    }

    #[test]
    fn calls_share_a_commit_up_to_so_many_records_in_the_order_in_which_they_came() {
        for (records, together) in [
            (&[3_000, 2_000, 1][..], 2),
            (&[3_000, 2_001], 1),
            (&[MOST_RECORDS + 1, 1], 1),
            (&[1, MOST_RECORDS + 1], 1),
            (&[], 0),
        ] {
            let (group, calls) = queue(records);
            let next = group.next();
            assert_eq!(next.len(), together, "{records:?}");
            assert!(next.iter().zip(&calls).all(|(next, call)| Arc::ptr_eq(next, call)));
        }
    }

    #[test]
    fn a_call_stays_in_the_queue_until_it_is_answered_and_its_answer_is_taken_once() {
        let (group, calls) = queue(&[1, 1]);
        assert_eq!(group.next().len(), 2);
        assert!(calls[0].take().is_none());
        assert_eq!(group.next().len(), 2, "asking for an answer that is not there changes nothing");
        calls[0].set(Ok(Vec::new()));
        assert_eq!(group.next().len(), 1);
        assert!(calls[0].take().is_some_and(|answer| answer.is_ok()));
        assert!(calls[0].take().is_none());
        assert_eq!(group.next().len(), 1, "what was answered is not carried out again");
    }
}
