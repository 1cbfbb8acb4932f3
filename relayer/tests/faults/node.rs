//! Goal: an endpoint that fails or lies costs time, never money, and what is written is what the chain says.
//! Method: our proxy before the node, with faults by seed and rate, and reorgs; then the money of an undisturbed run.
//! What would break it: taking an answer for the truth, a timeout for a no, a null for absence.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::{
    day::{Calm, Disturbance, Run},
    env::quittance,
    ground::{FINALITY, Ground, Script},
    proxy::{Fault, Mix, Proxy},
};

async fn undisturbed(ground: &Ground) -> Value {
    let mut run = Run::new(ground, None).await;
    run.play(&mut Calm).await;
    run.finish().await
}

/// Reorgs within finality at random instants.
struct Reorgs {
    random: StdRng,
    left: u32,
    next: Instant,
    every: Duration,
}

impl Disturbance for Reorgs {
    async fn strike(&mut self, run: &mut Run<'_>) {
        if self.left > 0 && Instant::now() >= self.next {
            run.undo_blocks(self.random.random_range(1..FINALITY)).await;
            self.left -= 1;
            self.next = Instant::now() + self.every;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_of_another_chain_is_refused() {
    let ground = Ground::new(Script::three_days()).await;
    let proxy = Proxy::new(&ground.env.anvil.url, None, 1).await;
    proxy.set(Mix::of(1_000, &[Fault::WrongChain]));
    let run = Run::new(&ground, Some(&proxy.url)).await;
    let serve = quittance(&["serve", "--dir"]).arg(run.dir()).output();
    let output = timeout(Duration::from_secs(20), serve).await.unwrap().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{complaint}");
    assert!(complaint.contains("serves chain 1, not 31337"), "{complaint}");
    ground.canaries.look_for("stderr", &output.stderr);
}

/// Plays a script through an endpoint with faults, with reorgs, to the end, and compares.
async fn through_faults(script: Script, mix: Mix, reorgs: u32, seed: u64) {
    let ground = Ground::new(script).await;
    let expected = undisturbed(&ground).await;
    let proxy = Proxy::new(&ground.env.anvil.url, None, seed).await;
    let mut run = Run::new(&ground, Some(&proxy.url)).await;
    let every = Duration::from_millis(700);
    let mut disturbance = Reorgs {
        random: StdRng::seed_from_u64(seed),
        left: reorgs,
        next: Instant::now() + every,
        every,
    };
    proxy.set(mix);
    run.play(&mut Endings(&mut disturbance)).await;
    proxy.set(Mix::default());
    assert_eq!(run.finish().await, expected, "seed {seed}");
    let (requests, counts) = proxy.counts();
    let faults: u64 = counts.values().sum();
    println!(
        "{} workloads, {requests} requests, {faults} faults {counts:?}, {} reorgs: 0 base units of difference",
        ground.script.records(),
        reorgs - disturbance.left,
    );
    assert!(counts.len() >= 10, "{counts:?}");
}

/// A server that ends itself because of its endpoint is started again.
struct Endings<'a>(&'a mut Reorgs);

impl Disturbance for Endings<'_> {
    fn has_ended(&mut self, end: ExitStatus) -> bool {
        end.signal().is_none() && end.code() == Some(4)
    }

    async fn strike(&mut self, run: &mut Run<'_>) {
        self.0.strike(run).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_settled_to_the_base_unit_through_an_endpoint_that_fails_often() {
    let is_deep = std::env::var_os("QUITTANCE_TEST_DEEP").is_some();
    let (machines, per_mille, reorgs) = if is_deep { (6_000, 800, 500) } else { (130, 600, 20) };
    let script = Script::workloads(machines, 4, 400);
    through_faults(script, Mix::of(per_mille, &Fault::WEATHER), reorgs, 1).await;
}
