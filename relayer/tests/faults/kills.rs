//! Goal: a process that is killed, stopped or paused at any instant loses and doubles nothing.
//! Method: signals at random instants of a scripted day, several in each run, then the money of an undisturbed run.
//! What would break it: trusting that what was begun is finished, cleaning up on exit only, timers that count paused time.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    day::{Calm, Disturbance, Run},
    env::rpc,
    ground::{Ground, Script},
};

/// Kills in one run: more would leave lives too short to come to an end.
const KILLS_PER_RUN: u32 = 10;
/// Longest life that is cut short.
const LIFE: Duration = Duration::from_millis(900);
const SIGKILL: i32 = 9;

/// Sends a signal at random instants.
struct Killer {
    random: StdRng,
    signal: &'static str,
    left: u32,
    sent: u32,
    next: Option<Instant>,
}

impl Killer {
    fn new(seed: u64, signal: &'static str) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random, signal, left: KILLS_PER_RUN, sent: 0, next: None }
    }
}

impl Disturbance for Killer {
    fn has_ended(&mut self, end: ExitStatus) -> bool {
        self.next = None;
        match self.signal {
            "-KILL" => end.signal() == Some(SIGKILL),
            // In order, or before the process could listen for it.
            _ => end.success() || end.signal() == Some(15),
        }
    }

    async fn strike(&mut self, run: &mut Run<'_>) {
        let life = LIFE.mul_f64(self.random.random::<f64>());
        let next = *self.next.get_or_insert_with(|| Instant::now() + life);
        if self.left == 0 || Instant::now() < next || run.pid().is_none() {
            return;
        }
        run.signal(self.signal).await;
        self.left -= 1;
        self.sent += 1;
        self.next = Some(Instant::now() + LIFE * 100);
    }
}

/// Stops the process once for a while in which the chain goes on, as a laptop that sleeps.
struct Pauser {
    at: Instant,
    is_done: bool,
}

impl Disturbance for Pauser {
    async fn strike(&mut self, run: &mut Run<'_>) {
        if self.is_done || Instant::now() < self.at || run.pid().is_none() {
            return;
        }
        self.is_done = true;
        run.signal("-STOP").await;
        for _ in 0..15 {
            rpc(&run.chain(), "anvil_mine", "[1, \"0x2\"]").await;
            sleep(Duration::from_millis(50)).await;
        }
        run.signal("-CONT").await;
    }
}

async fn undisturbed(ground: &Ground) -> Value {
    let mut run = Run::new(ground, &[]).await;
    run.play(&mut Calm).await;
    run.finish().await
}

/// Plays runs under signals until so many were sent. Returns how many were.
async fn lane(
    ground: &Ground,
    expected: &Value,
    signal: &'static str,
    wanted: u32,
    seed: u64,
) -> u32 {
    let mut sent = 0;
    for seed in seed.. {
        if sent >= wanted {
            break;
        }
        let mut killer = Killer::new(seed, signal);
        let mut run = Run::new(ground, &[]).await;
        run.play(&mut killer).await;
        assert_eq!(&run.finish().await, expected, "money differs in the run of seed {seed}");
        assert!(killer.sent > 0, "seed {seed} never struck");
        sent += killer.sent;
    }
    sent
}

/// Sends so many signals on two grounds side by side.
async fn send(signal: &'static str, wanted: u32) {
    let (one, two) =
        tokio::join!(Ground::new(Script::three_days()), Ground::new(Script::three_days()));
    let expected = undisturbed(&one).await;
    let (one, two) = tokio::join!(
        lane(&one, &expected, signal, wanted / 2, 0),
        lane(&two, &expected, signal, wanted / 2, 1 << 32)
    );
    println!("{} × {signal} at random instants: 0 base units lost, 0 doubled", one + two);
}

fn count(fast: u32, deep: u32) -> u32 {
    if std::env::var_os("QUITTANCE_TEST_DEEP").is_some() { deep } else { fast }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_kills_at_random_instants_lose_and_double_nothing() {
    send("-KILL", count(200, 5_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_told_to_stop_at_random_instants_ends_in_order_and_loses_nothing() {
    send("-TERM", count(40, 1_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_sleeps_while_the_chain_goes_on_loses_nothing() {
    let ground = Ground::new(Script::three_days()).await;
    let expected = undisturbed(&ground).await;
    for moment in [300, 700, 1_100, 1_500] {
        let at = Instant::now() + Duration::from_millis(moment);
        let mut pauser = Pauser { at, is_done: false };
        let mut run = Run::new(&ground, &[]).await;
        run.play(&mut pauser).await;
        assert_eq!(run.finish().await, expected);
        assert!(pauser.is_done);
    }
}
