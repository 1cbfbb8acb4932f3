//! Goal: an endpoint that fails or lies costs time, never money, and what is written is what the chain says.
//! Method: our proxy before the node, with faults by seed and rate, and reorgs; then the money of an undisturbed run.
//! What would break it: taking an answer for the truth, a timeout for a no, a null for absence.

use std::{
    collections::BTreeMap, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::{
    day::{Calm, Disturbance, END, PATIENCE, Run, STEP},
    env::{Env, assert_success, quittance, rpc},
    ground::{FINALITY, Ground, Script},
    proxy::{Fault, Mix, Proxy},
};

async fn undisturbed(ground: &Ground) -> Value {
    let mut run = Run::new(ground, &[]).await;
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
    let run = Run::new(&ground, &[&proxy.url]).await;
    let mut serve = quittance(&["serve", "--dir"]);
    // Whatever is asked of the log, it does not hold the endpoint's key.
    let serve = serve.arg(run.dir()).env("QUITTANCE_LOG", "trace").output();
    let output = timeout(END, serve).await.unwrap().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{complaint}");
    assert!(complaint.contains("serves chain 1, not 31337"), "{complaint}");
    ground.canaries.look_for("stderr", &output.stderr);
}

/// How hard an endpoint's day is, and how much time it has.
struct Weather {
    per_mille: u32,
    reorgs: u32,
    /// Pause between two reorgs.
    every: Duration,
    patience: Duration,
    lead: Option<u64>,
}

/// Plays a script through an endpoint with faults, with reorgs, to the end, and compares.
async fn through_faults(script: Script, weather: Weather, seed: u64) {
    let Weather { per_mille, reorgs, every, patience, lead } = weather;
    let ground = Ground::new(script).await;
    let expected = undisturbed(&ground).await;
    let proxy = Proxy::new(&ground.env.anvil.url, None, seed).await;
    let mut run = Run::new(&ground, &[&proxy.url]).await;
    (run.patience, run.lead) = (patience, lead);
    let mut disturbance = Reorgs {
        random: StdRng::seed_from_u64(seed),
        left: reorgs,
        next: Instant::now() + every,
        every,
    };
    proxy.set(Mix::of(per_mille, &Fault::WEATHER));
    let began = Instant::now();
    run.play(&mut Endings(&mut disturbance)).await;
    let took = began.elapsed();
    proxy.set(Mix::default());
    assert_eq!(run.finish().await, expected, "seed {seed}");
    let (requests, counts) = proxy.counts();
    let faults: u64 = counts.values().sum();
    println!(
        "{} workloads in {took:.0?}, {requests} requests, {faults} faults {counts:?}, {} reorgs: 0 base units of difference",
        ground.script.records(),
        reorgs - disturbance.left,
    );
    // So few transactions are sent that none may have been dropped.
    let many: Vec<_> =
        Fault::WEATHER.into_iter().filter(|fault| *fault != Fault::DropSayYes).collect();
    assert_met(&many, &counts);
}

/// That each of the faults was met.
fn assert_met(faults: &[Fault], counts: &BTreeMap<Fault, u64>) {
    let unmet: Vec<_> = faults.iter().filter(|fault| !counts.contains_key(fault)).collect();
    assert!(unmet.is_empty(), "not met: {unmet:?} of {counts:?}");
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
    // Files of a few hours at any number of machines. Where four of five requests fail, and a tenth are put off for a second or
    // two, forty blocks a second are more than anybody follows: the chain waits.
    let (machines, records, weather) = if is_deep {
        let (every, patience) = (Duration::from_secs(10), Duration::from_secs(3 * 3600));
        let lead = Some(4 * FINALITY);
        (6_000, 4_000, Weather { per_mille: 800, reorgs: 500, every, patience, lead })
    } else {
        let (every, patience) = (28 * STEP, PATIENCE);
        (130, 400, Weather { per_mille: 600, reorgs: 20, every, patience, lead: None })
    };
    through_faults(Script::workloads(machines, 4, records), weather, 1).await;
}

/// Goal: a call that returns nothing, as from a node that lacks the state, is waited out.
/// Method: hand work in while every call returns nothing, until the server says that it waits for that; then the truth.
/// What would break it: taking what cannot be decoded for a mistake of our own, which ends the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_return_nothing_are_waited_out() {
    let ground = Ground::new(Script::three_days()).await;
    let expected = undisturbed(&ground).await;
    let proxy = Proxy::new(&ground.env.anvil.url, None, 1).await;
    let mut run = Run::new(&ground, &[&proxy.url]).await;
    run.hand_in(&ground.script.payees, &mut Calm).await;
    run.until_registered(&mut Calm).await;
    proxy.set(Mix::of(1_000, &[Fault::Empty]));
    run.hand_in(&ground.script.files[0], &mut Calm).await;
    for _ in 0..2 {
        run.until_waiting("the contract refused settle", &mut Calm).await;
        // And once more by a process that has known nothing else.
        assert!(run.stop().await.success());
    }
    proxy.set(Mix::default());
    run.play(&mut Calm).await;
    assert_eq!(run.finish().await, expected);
}

/// Goal: an endpoint that agrees on every block and lacks the state does not keep the others from being asked.
/// Method: the preferred one of three returns nothing to any call, from beginning to end.
/// What would break it: taking an empty answer for an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preferred_endpoint_without_state_is_passed_over() {
    let ground = Ground::new(Script::three_days()).await;
    let expected = undisturbed(&ground).await;
    let mut proxies = Vec::new();
    for seed in 0..3 {
        proxies.push(Proxy::new(&ground.env.anvil.url, None, seed).await);
    }
    proxies[0].set(Mix::of(1_000, &[Fault::Empty]));
    let urls: Vec<_> = proxies.iter().map(|proxy| proxy.url.as_str()).collect();
    let mut run = Run::new(&ground, &urls).await;
    run.play(&mut Calm).await;
    // The commands that check the run ask the same endpoints.
    assert_eq!(run.finish().await, expected);
    assert!(proxies[0].counts().1[&Fault::Empty] > 0);
}

/// The faults of providers and their lies together.
fn all_faults() -> Vec<Fault> {
    Fault::WEATHER.into_iter().chain(Fault::LIES).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_endpoints_may_do_what_it_likes() {
    let ground = Ground::new(Script::three_days()).await;
    let expected = undisturbed(&ground).await;
    let other_fork = Ground::new(Script::three_days()).await;
    let (honest, fork) = (ground.env.anvil.url.as_str(), other_fork.env.anvil.url.as_str());
    for seed in 0..3 {
        let proxies = [
            Proxy::new(honest, Some(fork), seed).await,
            Proxy::new(honest, None, seed).await,
            Proxy::new(honest, None, seed).await,
        ];
        proxies[0].set(Mix::of(600, &all_faults()));
        // Each of the three in turn is the preferred one.
        let mut urls: Vec<_> = proxies.iter().map(|proxy| proxy.url.as_str()).collect();
        urls.rotate_right(usize::try_from(seed).unwrap());
        let mut run = Run::new(&ground, &urls).await;
        run.play(&mut Calm).await;
        proxies[0].set(Mix::default());
        assert_eq!(run.finish().await, expected, "seed {seed}");
        let (requests, counts) = proxies[0].counts();
        println!("one of three: {requests} requests, faults {counts:?}");
        assert!(counts.len() >= 10, "{counts:?}");
    }
}

/// Makes an endpoint do everything that it can, with what it has not done yet a hundred times as often. An operator lets its lies
/// go, again and again, or it would tell one only; and something is logged, again and again, that it can lie about.
struct Everything<'g> {
    ground: &'g Ground,
    proxy: &'g Proxy,
    faults: Vec<Fault>,
    next: Instant,
    lies_let_go: u32,
}

impl Everything<'_> {
    fn unmet(&self) -> Vec<Fault> {
        let counts = self.proxy.counts().1;
        self.faults.iter().copied().filter(|fault| !counts.contains_key(fault)).collect()
    }
}

impl Disturbance for Everything<'_> {
    async fn strike(&mut self, run: &mut Run<'_>) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + Duration::from_millis(250);
        let unmet = self.unmet();
        let wanted = unmet.iter().cycle().take(100 * unmet.len());
        let faults: Vec<_> = self.faults.iter().chain(wanted).copied().collect();
        self.proxy.set(Mix::of(600, &faults));
        if !unmet.is_empty() {
            self.ground.thaw_nothing().await;
        }
        let liars = run.liars().await;
        assert!(liars.iter().all(|liar| liar == "operator 0"), "{liars:?}\n{}", run.output());
        if !liars.is_empty() {
            self.lies_let_go += u32::from(run.let_lies_go("operator 0").await);
        }
    }
}

/// Goal: one of three endpoints that fails and lies in every way costs time and nothing else, however often it is forgiven.
/// Method: the preferred one of three meets each fault of weather and lies at least once, among them the answers of a node on
/// another fork, while many workloads are settled.
/// What would break it: believing the preferred endpoint where the others contradict it, or marking one that told the truth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_endpoints_may_do_everything_while_work_is_settled() {
    let ground = Ground::new(Script::workloads(80, 3, 250)).await;
    let expected = undisturbed(&ground).await;
    let other = Env::new().await;
    rpc(&other.provider(), "anvil_mine", "[2000]").await;
    let honest = ground.env.anvil.url.as_str();
    let mut proxies = Vec::new();
    for seed in 0..3 {
        proxies.push(Proxy::new(honest, Some(&other.anvil.url), seed).await);
    }
    let urls: Vec<_> = proxies.iter().map(|proxy| proxy.url.as_str()).collect();
    let mut run = Run::new(&ground, &urls).await;
    let (next, faults) = (Instant::now(), all_faults());
    let mut disturbance =
        Everything { ground: &ground, proxy: &proxies[0], faults, next, lies_let_go: 0 };
    let began = Instant::now();
    run.play(&mut disturbance).await;
    while !disturbance.unmet().is_empty() && began.elapsed() < PATIENCE {
        run.step(&mut disturbance).await;
    }
    let (took, lies_let_go) = (began.elapsed(), disturbance.lies_let_go);
    proxies[0].set(Mix::default());
    assert_eq!(run.finish().await, expected);
    let (requests, counts) = proxies[0].counts();
    println!(
        "one of three, {} workloads in {took:.0?}: {requests} requests, faults {counts:?}, its lies let go {lies_let_go} times",
        ground.script.records(),
    );
    assert_met(&all_faults(), &counts);
}

/// Goal: when nobody tells the truth, nothing false is written, and what stands still says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_all_tell_the_same_lie_stop_the_server_and_write_nothing() {
    let ground = Ground::new(Script::three_days()).await;
    let expected = undisturbed(&ground).await;
    for lie in [Fault::OmitLog, Fault::InventLog, Fault::AlterLog] {
        // The same seed: all three answer alike.
        let mut proxies = Vec::new();
        for _ in 0..3 {
            proxies.push(Proxy::new(&ground.env.anvil.url, None, 7).await);
        }
        let urls: Vec<_> = proxies.iter().map(|proxy| proxy.url.as_str()).collect();
        let mut run = Run::new(&ground, &urls).await;
        proxies.iter().for_each(|proxy| proxy.set(Mix::of(1_000, &[lie])));
        let complains =
            |log: &str| ["lies", "journal", "root"].iter().any(|word| log.contains(word));
        run.until("its complaint", &mut Calm, async |run| complains(&run.output()).then_some(()))
            .await;
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            run.step(&mut Calm).await;
        }
        let status = run.until("its status", &mut Calm, async |run| run.status().await).await;
        assert_eq!(status["providers"], 0, "{lie:?}: {status}");
        // The truth again, to a new process: to the old one, the first endpoint that tells it would convict the others.
        assert!(run.stop().await.success());
        proxies.iter().for_each(|proxy| proxy.set(Mix::default()));
        // And an operator who lets the grudges go, if the ledger keeps some.
        for operator in ["operator 0", "operator 1", "operator 2"] {
            let mut command = quittance(&["endpoints", "--dir"]);
            command.arg(run.dir()).args(["--clear", operator, "--reason", "they were mended"]);
            // It succeeds as soon as the mark is gone, also while too few others are trusted.
            assert_success(&command.output().await.unwrap());
        }
        run.play(&mut Calm).await;
        assert_eq!(run.finish().await, expected, "{lie:?}");
        println!("{lie:?} by all: {:?}", proxies[0].counts());
    }
}

/// Counts how often the server ended itself.
struct Ends(u32);

impl Disturbance for Ends {
    fn has_ended(&mut self, end: ExitStatus) -> bool {
        self.0 += 1;
        end.signal().is_none()
    }
}

/// Goal: endpoints that all move to a fork without what is final stop the server with both hashes, and no figure changes.
/// Method: settle a file finally, then let all three answer from a longer chain of the same genesis; later the truth again.
/// What would break it: rolling what is final back because nobody contradicts, or paying again on the other fork.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_all_move_to_another_fork_stop_the_server_and_change_nothing() {
    let ground = Ground::new(Script::three_days()).await;
    let expected = undisturbed(&ground).await;
    let other = Env::new().await;
    rpc(&other.provider(), "anvil_mine", "[2000]").await;
    let mut proxies = Vec::new();
    for seed in 0..3 {
        proxies.push(Proxy::new(&ground.env.anvil.url, Some(&other.anvil.url), seed).await);
    }
    let urls: Vec<_> = proxies.iter().map(|proxy| proxy.url.as_str()).collect();
    let mut run = Run::new(&ground, &urls).await;
    run.hand_in(&ground.script.payees, &mut Calm).await;
    run.until_registered(&mut Calm).await;
    run.play_file(0, &mut Calm).await;
    let settled = run.status().await.unwrap()["settled"].take();

    // While it sleeps, so that it never sees one move before the others, which would convict some of them.
    run.signal("-STOP").await;
    proxies.iter().for_each(|proxy| proxy.set(Mix::of(1_000, &[Fault::OtherFork])));
    run.signal("-CONT").await;
    let mut ends = Ends(0);
    let until = Instant::now() + 2 * END;
    // The second end is that of a process which has known nothing but the other fork.
    while ends.0 < 2 {
        assert!(Instant::now() < until, "it goes on: {}", run.output());
        run.step(&mut ends).await;
        if let Some(status) = run.status().await {
            assert_eq!(status["settled"], settled, "{status}");
        }
    }
    assert!(run.output().contains("was final as"), "{}", run.output());
    run.stop().await;
    proxies.iter().for_each(|proxy| proxy.set(Mix::default()));
    run.play_from(1, &mut ends).await;
    assert_eq!(run.finish().await, expected);
}
