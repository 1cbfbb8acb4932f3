//! A wrong environment: two servers at once, a chain that halts, an empty purse, dear gas, a task that panics, a clock
//! that jumps, a configuration of another deployment. Nothing of it may cost money, and what waits says why.

use std::{
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Output},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    day::{Calm, Disturbance, END, Run},
    env::{quittance, rpc},
    ground::{FINALITY, Ground, Script},
};

/// Runs another server on the same folder, which has to end by itself.
async fn serve_again(run: &Run<'_>) -> Output {
    let second = quittance(&["serve", "--dir"]).arg(run.dir()).output();
    timeout(END, second).await.expect("it did not end").unwrap()
}

fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "it ran");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn undisturbed(ground: &Ground) -> Value {
    let mut run = Run::new(ground, &[]).await;
    run.play(&mut Calm).await;
    run.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_is_refused_even_while_the_first_sleeps() {
    let ground = Ground::new(Script::three_days()).await;
    let mut run = Run::new(&ground, &[]).await;
    run.until("the server", &mut Calm, async |run| run.status().await).await;
    assert!(complaint(&serve_again(&run).await).contains("another process"));
    run.signal("-STOP").await;
    assert!(complaint(&serve_again(&run).await).contains("another process"));
    run.signal("-CONT").await;
    run.play(&mut Calm).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_of_another_deployment_is_refused() {
    let ground = Ground::new(Script::three_days()).await;
    let mut run = Run::new(&ground, &[]).await;
    run.until("the server", &mut Calm, async |run| run.status().await).await;
    assert!(run.stop().await.success());
    let path = run.dir().join("quittance.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let line_of = |field: &str| {
        text.lines().find(|line| line.starts_with(&format!("{field} = "))).unwrap().to_owned()
    };
    for (field, other, reason) in [
        // Another contract that is there: the token.
        ("contract", format!("contract = \"{}\"", ground.token()), "contract"),
        ("genesis", format!("genesis = \"0x{}\"", "11".repeat(32)), "genesis block"),
        ("id", "id = 1".to_owned(), "chain id"),
    ] {
        std::fs::write(&path, text.replace(&line_of(field), &other)).unwrap();
        let complaint = complaint(&serve_again(&run).await);
        assert!(complaint.contains(reason), "{field}: {complaint}");
    }
    std::fs::write(&path, text).unwrap();
    run.play(&mut Calm).await;
    run.finish().await;
}

/// Goal: a database that was lost, or that is older than what settled, costs a command, never money.
/// Method: put an old copy, or none, in its place while statements are settled that it does not know; hand everything in
/// again; wait until both organisations and the sender stand still; recover; compare all money at the end of the script.
/// What would break it: trusting the file more than the chain, or thawing before what settled is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_restored_database_stands_still_until_recovered_and_then_pays_only_the_rest() {
    let ground = Ground::new(Script::three_days()).await;
    let expected = undisturbed(&ground).await;
    for is_restored in [true, false] {
        let mut run = Run::new(&ground, &[]).await;
        run.hand_in(&ground.script.payees, &mut Calm).await;
        run.until_registered(&mut Calm).await;
        run.play_file(0, &mut Calm).await;
        let backup = ground.env.folder.path().join(format!("backup-{is_restored}.db"));
        // Beside the running server.
        run.command("backup", &[&backup.display().to_string()]).await;
        run.play_file(1, &mut Calm).await;
        assert!(run.stop().await.success());
        replace_database(&run, is_restored.then_some(&backup));

        let before = ground.money().await;
        for file in [&ground.script.payees, &ground.script.files[0], &ground.script.files[1]] {
            run.hand_in(file, &mut Calm).await;
        }
        for reason in [
            "organisation \"org-01\" is frozen",
            "organisation \"org-02\" is frozen",
            "sender recover",
        ] {
            run.until_waiting(reason, &mut Calm).await;
        }
        // The sender's transactions alone do not bring back what the statements paid.
        assert!(run.stop().await.success());
        run.command("sender recover", &[]).await;
        run.until_waiting("organisation \"org-01\" is frozen", &mut Calm).await;
        for _ in 0..40 {
            run.step(&mut Calm).await;
        }
        assert_eq!(ground.money().await, before, "money moved while it stood still");

        let recovery = run.command("recover", &["--json"]).await;
        assert!(recovery["imported"].as_u64().unwrap() >= 2, "{recovery}");
        assert_eq!(recovery["refused"], json!([]));
        run.play_from(2, &mut Calm).await;
        assert_eq!(run.finish().await, expected, "restored: {is_restored}");
    }
}

/// Puts a copy, or nothing, in the place of the database.
fn replace_database(run: &Run<'_>, copy: Option<&PathBuf>) {
    for entry in std::fs::read_dir(run.dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.display().to_string().contains("quittance.db") {
            std::fs::remove_file(path).unwrap();
        }
    }
    if let Some(copy) = copy {
        std::fs::copy(copy, run.dir().join("quittance.db")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_key_somebody_else_used_stands_still_until_told_to_go_on() {
    let ground = Ground::new(Script::three_days()).await;
    let expected = undisturbed(&ground).await;
    let mut run = Run::new(&ground, &[]).await;
    run.hand_in(&ground.script.payees, &mut Calm).await;
    run.until_registered(&mut Calm).await;
    let before = ground.money().await;
    let sender = &ground.sender;
    rpc(&run.chain(), "anvil_impersonateAccount", &json!([sender]).to_string()).await;
    let transfer = json!([{ "from": sender, "to": sender, "gas": "0x186a0" }]);
    rpc(&run.chain(), "eth_sendTransaction", &transfer.to_string()).await;
    rpc(&run.chain(), "anvil_stopImpersonatingAccount", &json!([sender]).to_string()).await;
    run.until_waiting("is frozen", &mut Calm).await;
    run.hand_in(&ground.script.files[0], &mut Calm).await;
    for _ in 0..40 {
        run.step(&mut Calm).await;
    }
    assert_eq!(ground.money().await, before, "money moved while it stood still");
    assert!(run.stop().await.success());
    run.command("sender adopt", &["--reason", "a test of the key"]).await;
    run.play(&mut Calm).await;
    assert_eq!(run.finish().await, expected);
}

/// Stops the chain for a while, then mines five hundred blocks at once.
struct Halt {
    at: Instant,
    is_over: bool,
}

impl Disturbance for Halt {
    async fn strike(&mut self, run: &mut Run<'_>) {
        if self.is_over || Instant::now() < self.at {
            return;
        }
        sleep(Duration::from_secs(2)).await;
        rpc(&run.chain(), "anvil_mine", "[500]").await;
        self.is_over = true;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_halts_and_hurries_loses_nothing() {
    let ground = Ground::new(Script::three_days()).await;
    let expected = undisturbed(&ground).await;
    let mut halt = Halt { at: Instant::now() + Duration::from_secs(1), is_over: false };
    let mut run = Run::new(&ground, &[]).await;
    run.play(&mut halt).await;
    assert_eq!(run.finish().await, expected);
    assert!(halt.is_over);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_without_gas_money_says_so_and_goes_on_when_it_has_some() {
    let ground = Ground::new(Script::three_days()).await;
    let expected = undisturbed(&ground).await;
    let mut run = Run::new(&ground, &[]).await;
    // The block that this belies is final and passed over at once: nothing is proved by it.
    let set = async |wei: &str| {
        let (chain, params) =
            (ground.env.provider(), format!("[\"{}\", \"{wei}\"]", ground.sender));
        rpc(&chain, "anvil_setBalance", &params).await;
        rpc(&chain, "anvil_mine", &format!("[{}]", FINALITY + 1)).await;
    };
    set("0x0").await;
    run.hand_in(&ground.script.payees, &mut Calm).await;
    run.until_waiting("wei and needs", &mut Calm).await;
    set("0x56bc75e2d63100000").await;
    run.play(&mut Calm).await;
    assert_eq!(run.finish().await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_waits_out_a_spike_of_the_base_fee_and_says_so() {
    let ground = Ground::new(Script::three_days()).await;
    let expected = without_epochs(undisturbed(&ground).await);
    for gwei in [200_u64, 800] {
        let mut run = Run::new(&ground, &[]).await;
        let path = run.dir().join("quittance.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("[policy]\n", "[policy]\nnative_usd = \"2\"\n"))
            .unwrap();
        let mut spike = Spike { wei: gwei * 1_000_000_000, is_on: false };
        run.hand_in(&ground.script.payees, &mut spike).await;
        run.until_registered(&mut spike).await;
        spike.is_on = true;
        run.hand_in(&ground.script.files[0], &mut spike).await;
        run.until_waiting("bps of the", &mut spike).await;
        spike.is_on = false;
        run.play(&mut spike).await;
        assert_eq!(without_epochs(run.finish().await), expected, "at {gwei} gwei");
    }
}

/// What is left at the end, whatever number of statements it took: a row that is not worth its gas comes with a later one.
fn without_epochs(mut left: Value) -> Value {
    for deposit in left["deposits"].as_object_mut().unwrap().values_mut() {
        deposit.as_array_mut().unwrap().pop();
    }
    left
}

/// Keeps the base fee up while it is on.
struct Spike {
    wei: u64,
    is_on: bool,
}

impl Disturbance for Spike {
    async fn strike(&mut self, run: &mut Run<'_>) {
        if self.is_on {
            let params = format!("[\"{:#x}\"]", self.wei);
            rpc(&run.chain(), "anvil_setNextBlockBaseFeePerGas", &params).await;
        }
    }
}

/// Lets a task panic once.
struct Panic {
    place: Option<&'static str>,
    codes: Vec<Option<i32>>,
}

impl Disturbance for Panic {
    fn environment(&mut self) -> Vec<(&'static str, String)> {
        let place = self.place.take();
        place.map(|place| ("QUITTANCE_PANIC_AT", place.to_owned())).into_iter().collect()
    }

    fn has_ended(&mut self, end: ExitStatus) -> bool {
        self.codes.push(end.code());
        end.signal().is_none()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_panics_ends_the_process_with_a_code_and_loses_nothing() {
    let ground = Ground::new(Script::three_days()).await;
    let expected = undisturbed(&ground).await;
    for place in ["commit blocks:before:2", "commit slot:after:1", "commit statement:after:1"] {
        let mut panic = Panic { place: Some(place), codes: Vec::new() };
        let mut run = Run::new(&ground, &[]).await;
        run.play(&mut panic).await;
        assert_eq!(run.finish().await, expected, "{place}");
        assert_eq!(panic.codes, [Some(1)], "{place}");
    }
}

/// Lets the clock of the running server jump, by a library between it and the system.
struct Clock {
    library: PathBuf,
    offset: tempfile::NamedTempFile,
    jumps: Vec<&'static str>,
    next: Instant,
}

impl Disturbance for Clock {
    fn environment(&mut self) -> Vec<(&'static str, String)> {
        let text = |path: &std::path::Path| path.display().to_string();
        vec![
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(self.offset.path())),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    async fn strike(&mut self, _run: &mut Run<'_>) {
        if Instant::now() >= self.next
            && let Some(jump) = self.jumps.pop()
        {
            std::fs::write(self.offset.path(), jump).unwrap();
            self.next = Instant::now() + Duration::from_millis(400);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_by_hours_and_days_changes_no_money() {
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|target| PathBuf::from(format!("/usr/lib/{target}/faketime/libfaketime.so.1")))
        .into_iter()
        .find(|path| path.exists());
    let Some(library) = library else {
        println!("left out: libfaketime is not installed (Debian's package libfaketime)");
        return;
    };
    let ground = Ground::new(Script::three_days()).await;
    let expected = undisturbed(&ground).await;
    let offset = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(offset.path(), "+0").unwrap();
    let jumps = vec!["+0", "-1d", "+1d", "-1h", "+1h"];
    let mut clock = Clock { library, offset, jumps, next: Instant::now() };
    let mut run = Run::new(&ground, &[]).await;
    run.play(&mut clock).await;
    assert_eq!(run.finish().await, expected);
    assert!(clock.jumps.is_empty(), "{:?}", clock.jumps);
}
