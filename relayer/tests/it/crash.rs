//! Goal: a process that is killed while it settles loses and doubles nothing.
//! Method: kill -9 the demo at ten random moments of its settling, go on with `serve`, compare with an undisturbed run.
//! What would break it: sending before storing, stating work twice, counting on memory.

use std::{process::Stdio, time::Duration};

use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::{Instant, sleep},
};

use crate::env::{Env, assert_success, eventually, terminate};

const MACHINES: u32 = 60;
const MOMENTS: u32 = 10;

/// All that money depends on: deposits, credits, and what arrived in wallets.
async fn final_state(env: &Env) -> Value {
    let status = env.json("status", &[]).await;
    let reconciliation = env.json("reconcile", &[]).await;
    json!({
        "organisations": status["organisations"],
        "credits": status["credits"],
        "settled": status["settled"],
        "tokens": reconciliation["tokens"],
    })
}

/// Starts the demo and waits until its last file is taken in.
async fn demo_until_settling(env: &Env) -> tokio::process::Child {
    let mut child =
        env.demo(MACHINES).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("took in 20261120") {
            // Keeps the pipe open, so that the demo can go on talking.
            tokio::spawn(async move {
                while lines.next_line().await.is_ok_and(|line| line.is_some()) {}
            });
            return child;
        }
    }
    panic!("the demo ended before it settled");
}

#[tokio::test]
async fn a_demo_killed_at_ten_random_moments_ends_like_an_undisturbed_one() {
    let undisturbed = Env::new().await;
    let mut child = demo_until_settling(&undisturbed).await;
    let began = Instant::now();
    assert!(child.wait().await.unwrap().success());
    let settling = began.elapsed();
    let expected = final_state(&undisturbed).await;

    let mut cut_short = 0;
    for moment in 0..MOMENTS {
        let delay = settling.mul_f64(rand::rngs::StdRng::from_os_rng().random_range(0.0..0.8));
        println!("moment {moment}: killed after {delay:?} of {settling:?}");
        let env = Env::new().await;
        let mut child = demo_until_settling(&env).await;
        sleep(delay).await;
        child.kill().await.unwrap();
        if final_state(&env).await != expected {
            cut_short += 1;
        }

        let mining = env.keep_mining();
        let server = env.serve();
        eventually("the state of the undisturbed run", async || {
            (final_state(&env).await == expected).then_some(())
        })
        .await;
        sleep(Duration::from_millis(500)).await;
        assert_eq!(final_state(&env).await, expected, "it went on to another state");
        assert!(terminate(server).await.success());
        drop(mining);
        assert_success(&env.run("reconcile", &[]).await);
        assert_success(&env.run("verify", &[]).await);
    }
    assert!(cut_short >= MOMENTS / 2, "only {cut_short} of {MOMENTS} kills hit an unfinished run");
}
