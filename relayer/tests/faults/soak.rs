//! Goal: the demo's days end reconciled although the server is killed every two seconds.
//! Method: with the default pace, kill -9 every two seconds until the time is over, the three days again and again; each
//! time the money of an undisturbed run.
//! What would break it: anything that a process has to live long for.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use serde_json::json;
use tokio::time::Instant;

use crate::{
    day::{Calm, Disturbance, Run},
    ground::{Ground, Script},
};

const EVERY: Duration = Duration::from_secs(2);
/// Longest that one stage may take: on a machine that is busy with other things many lives end before they did anything.
const PATIENCE: Duration = Duration::from_secs(1_200);
const SIGKILL: i32 = 9;

/// Kills every two seconds.
struct Metronome {
    next: Instant,
    kills: u32,
}

impl Disturbance for Metronome {
    fn has_ended(&mut self, end: ExitStatus) -> bool {
        end.signal() == Some(SIGKILL)
    }

    async fn strike(&mut self, run: &mut Run<'_>) {
        if Instant::now() >= self.next && run.pid().is_some() {
            run.signal("-KILL").await;
            self.next = Instant::now() + EVERY;
            self.kills += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes QUITTANCE_SOAK_SECONDS; run by scripts/soak"]
async fn the_demos_days_end_reconciled_under_a_kill_every_two_seconds() {
    let seconds = std::env::var("QUITTANCE_SOAK_SECONDS").map_or(600, |text| text.parse().unwrap());
    let script = Script::workloads(500, 8, 400).at_default_pace();
    let records = script.records();
    let ground = Ground::new(script).await;

    let began = Instant::now();
    let mut run = Run::new(&ground, &[]).await;
    run.play(&mut Calm).await;
    let undisturbed = began.elapsed();
    let expected = run.finish().await;

    let (began, mut rounds, mut starts) = (Instant::now(), 0_u32, 0);
    let mut metronome = Metronome { next: Instant::now() + EVERY, kills: 0 };
    while began.elapsed() < Duration::from_secs(seconds) {
        let mut run = Run::new(&ground, &[]).await;
        run.patience = PATIENCE;
        run.play(&mut metronome).await;
        starts += run.starts;
        assert_eq!(run.finish().await, expected, "money differs in round {rounds}");
        rounds += 1;
    }
    let took = began.elapsed();
    let per_second =
        |rounds: u32, time: Duration| f64::from(rounds) * records as f64 / time.as_secs_f64();
    let figures = json!({
        "bench": "soak", "seconds": took.as_secs(), "kills": metronome.kills, "starts": starts,
        "records": records * rounds as usize, "rounds": rounds,
        "records_per_second": per_second(rounds, took),
        "records_per_second_undisturbed": per_second(1, undisturbed),
        "differences": 0,
    });
    println!("{figures}");
}
