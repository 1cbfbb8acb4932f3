//! Goal: a process that ends at any commit, call or file write of a scripted day loses and doubles nothing.
//! Method: list every place that an undisturbed run reaches, end processes there, start again, compare all money.
//! What would break it: acknowledging before committing, sending before storing, doing on restart what was done before.

use std::{
    collections::{BTreeMap, VecDeque},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::ExitStatus,
};

use serde_json::Value;

use crate::{
    day::{Calm, Disturbance, Run},
    ground::{Ground, Script},
};

/// Hits of each place that are tried.
const HITS: u32 = 3;
/// Runs side by side.
const LANES: usize = 2;
/// Places at which processes of one run end, one after the other, in the fast tier.
const CHAIN: usize = 14;
/// The signal that a process ends itself with.
const SIGABRT: i32 = 6;

/// Writes down every place that is reached.
struct Surveyor(std::path::PathBuf);

impl Disturbance for Surveyor {
    fn environment(&mut self) -> Vec<(&'static str, String)> {
        vec![("QUITTANCE_CRASH_LOG", self.0.display().to_string())]
    }
}

/// Ends processes at places, each process at the next place.
struct Saboteur {
    places: VecDeque<String>,
    hit: Vec<String>,
}

impl Disturbance for Saboteur {
    fn environment(&mut self) -> Vec<(&'static str, String)> {
        self.places.front().map(|place| ("QUITTANCE_CRASH_AT", place.clone())).into_iter().collect()
    }

    fn has_ended(&mut self, end: ExitStatus) -> bool {
        self.hit.extend(self.places.pop_front());
        end.signal() == Some(SIGABRT)
    }
}

/// What became of one place.
#[derive(Default)]
struct Tally {
    tried: u32,
    hit: u32,
}

/// Every place with its first hits, in the order in which a run comes to them.
fn places_of(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap();
    let mut places: Vec<String> = Vec::new();
    for line in text.lines() {
        let (_, count) = line.rsplit_once(':').unwrap();
        if count.parse::<u32>().unwrap() <= HITS && !places.iter().any(|place| place == line) {
            places.push(line.to_owned());
        }
    }
    places
}

/// The name of a place without side and count.
fn name_of(place: &str) -> &str {
    place.rsplitn(3, ':').last().unwrap()
}

/// Chains of places such that each run comes to its places in order; in the deep tier each has a run of its own.
fn chains_of(places: &[String], is_deep: bool) -> Vec<VecDeque<String>> {
    let runs = places.len().div_ceil(if is_deep { 1 } else { CHAIN });
    (0..runs).map(|run| places.iter().skip(run).step_by(runs).cloned().collect()).collect()
}

/// Plays all chains on one ground, and returns which places ended a process and what was tried.
async fn lane(
    ground: &Ground,
    chains: Vec<VecDeque<String>>,
    expected: &Value,
) -> (Vec<String>, Vec<String>) {
    let (mut hit, mut missed) = (Vec::new(), Vec::new());
    for chain in chains {
        let mut saboteur = Saboteur { places: chain.clone(), hit: Vec::new() };
        let mut run = Run::new(ground, &[]).await;
        run.play(&mut saboteur).await;
        // A place that is left may be come to on the way out.
        let end = run.stop().await;
        assert!(end.success() || saboteur.has_ended(end), "the server ended: {end}");
        let money = run.finish().await;
        assert_eq!(&money, expected, "money differs after ends at {chain:?}");
        hit.extend(saboteur.hit);
        missed.extend(saboteur.places);
    }
    (hit, missed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_ended_at_any_place_loses_and_doubles_nothing() {
    let grounds =
        tokio::join!(Ground::new(Script::three_days()), Ground::new(Script::three_days()));
    let grounds: [Ground; LANES] = grounds.into();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut run = Run::new(&grounds[0], &[]).await;
    run.play(&mut Surveyor(log.path().to_owned())).await;
    let expected = run.finish().await;
    let mut run = Run::new(&grounds[1], &[]).await;
    run.play(&mut Calm).await;
    assert_eq!(run.finish().await, expected, "two undisturbed runs differ");

    let places = places_of(log.path());
    let is_deep = std::env::var_os("QUITTANCE_TEST_DEEP").is_some();
    let mut chains = chains_of(&places, is_deep);
    let (mut hit, mut runs) = (Vec::new(), 0);
    // A place that a chain did not come to gets a run of its own; how often some are reached depends on when blocks come,
    // so that at last the first time will do.
    for round in 0..3 {
        runs += chains.len();
        let odd = chains.iter().skip(1).step_by(2).cloned().collect();
        let even = chains.iter().step_by(2).cloned().collect();
        let (one, two) =
            tokio::join!(lane(&grounds[0], even, &expected), lane(&grounds[1], odd, &expected));
        hit.extend(one.0.into_iter().chain(two.0));
        let missed = one.1.into_iter().chain(two.1);
        let again = missed.map(|place| match round {
            0 => place,
            _ => format!("{}:1", place.rsplit_once(':').unwrap().0),
        });
        chains = again.map(|place| VecDeque::from([place])).collect();
    }
    assert!(chains.is_empty(), "never came to {chains:?}");
    report(&places, &hit, runs);
}

/// Prints the table. Every run before it ended with the money of the undisturbed one, to the base unit.
fn report(places: &[String], hit: &[String], runs: usize) {
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for place in places {
        tallies.entry(name_of(place)).or_default().tried += 1;
    }
    for place in hit {
        tallies.entry(name_of(place)).or_default().hit += 1;
    }
    println!("{:<40} {:>6} {:>6}", "place", "hits", "ended");
    for (name, tally) in &tallies {
        println!("{name:<40} {:>6} {:>6}", tally.tried, tally.hit);
        assert!(tally.hit > 0, "no process ended at {name}");
    }
    println!(
        "{} places, {} hits on both sides, {runs} runs, {} processes ended, 0 base units lost, 0 doubled",
        tallies.len(),
        places.len(),
        hit.len()
    );
}
