//! Goal: the folders of manifests hold what the ledger has signed, whatever became of them, before money moves.
//! Method: a real server over folders that were deleted, added later, or cannot be made.
//! What would break it: a halt that nobody can lift, a copy that is none, intake before the folders were read.

use std::{collections::BTreeMap, fs, path::Path};

use crate::{
    env::{Env, assert_success, eventually, terminate},
    halt::{status, until_lifted},
};

/// Every manifest of a folder by its name.
fn manifests_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        })
        .collect()
}

/// A day of work that the demo did not have, with its payout addresses.
async fn more_work(env: &Env) -> [String; 2] {
    env.generate_more("12", "1").await;
    ["payees.jsonl", "20261121-20261122.json"]
        .map(|name| env.folder.path().join(name).to_str().unwrap().to_owned())
}

async fn settled(env: &Env) -> u64 {
    env.json("status", &[]).await["settled"].as_u64().unwrap()
}

/// Takes more work in, and waits until something of it is settled.
async fn settle_more(env: &Env) {
    let [payees, work] = more_work(env).await;
    let before = settled(env).await;
    env.json("ingest", &[&payees]).await;
    env.json("ingest", &["--close", &work]).await;
    eventually("money to move", async || (settled(env).await > before).then_some(())).await;
}

/// Goal: a folder of manifests that is lost costs no more than a command.
/// Method: the folder is deleted under a server, after payments; the server halts; `recover` writes it anew.
/// What would break it: passing over what the ledger knows, or writing something else than was published.
#[tokio::test]
async fn recover_writes_the_manifests_anew_whose_loss_halts_money() {
    let env = Env::after_demo(12).await;
    let mut config = env.config();
    config.policy.check_every_seconds = 1;
    config.write().unwrap();
    let folder = env.dir().join("manifests");
    let published = manifests_in(&folder);
    assert!(!published.is_empty());
    let orders = fs::read(folder.join("orders.jsonl")).unwrap();

    let _mining = env.keep_mining();
    let server = env.serve();
    eventually("the server", async || status(&env).await).await;
    fs::remove_dir_all(&folder).unwrap();
    eventually("a halt that names what helps", async || {
        let halted = status(&env).await?["status"]["halted"].as_str()?.to_owned();
        (halted.contains("L36") && halted.contains("quittance recover")).then_some(())
    })
    .await;
    let recovery = env.json("recover", &[]).await;
    assert_eq!(recovery["rewritten"], published.len(), "{recovery}");
    assert!(manifests_in(&folder) == published, "another manifest than was published");
    assert_eq!(fs::read(folder.join("orders.jsonl")).unwrap(), orders);
    until_lifted(&env).await;
    settle_more(&env).await;
    assert_eq!(env.json("recover", &[]).await["rewritten"], 0);
    assert!(terminate(server).await.success());
    assert_success(&env.run("doctor", &[]).await);
}

/// Goal: a copy that is named later becomes a whole one, and until then nobody has to find out by losing the first folder.
/// Method: an empty folder is configured; one file of the first folder is damaged, so that it cannot be copied.
/// What would break it: copying what is signed from now on only; silence about what is missing.
#[tokio::test]
async fn a_copy_that_is_named_later_is_completed_and_what_it_lacks_is_told() {
    let env = Env::after_demo(12).await;
    let mut config = env.config();
    config.files.manifest_copies = vec!["copy".into()];
    config.write().unwrap();
    let (folder, copy) = (env.dir().join("manifests"), env.dir().join("copy"));
    let published = manifests_in(&folder);
    let (damaged, whole) = published.first_key_value().unwrap();
    fs::write(folder.join(damaged), &whole[..whole.len() / 2]).unwrap();

    let _mining = env.keep_mining();
    let server = env.serve();
    let told = format!("{} is being completed: files that it lacked: 1,", copy.display());
    eventually("all others, and what is told of the damaged one", async || {
        let waiting = status(&env).await?["waiting"].to_string();
        (waiting.contains(&told) && waiting.contains(damaged)).then_some(())
    })
    .await;
    let mut expected = published.clone();
    expected.remove(damaged);
    assert!(manifests_in(&copy) == expected, "the copy is another one");
    assert_eq!(env.json("recover", &[]).await["rewritten"], 1);
    assert!(manifests_in(&copy) == published, "the copy is another one");
    eventually("nothing to tell", async || {
        let waiting = status(&env).await?["waiting"].to_string();
        (!waiting.contains("it lacked")).then_some(())
    })
    .await;
    assert!(terminate(server).await.success());
}
