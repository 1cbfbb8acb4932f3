//! Goal: a process that begins with an old database pays nothing that was paid since.
//! Method: a backup, one more settled statement, the backup again, and turns before the chain is read.
//! What would break it: signing by what the ledger knows, while the chain knows more.

use crate::sender::{Live, World, says};

#[tokio::test]
async fn a_process_with_an_old_database_signs_nothing_before_it_has_read_what_was_final() {
    let mut world = World::new().await;
    let (file, backup) = (world.env.dir().join("quittance.db"), world.env.dir().join("backup.db"));
    world.live.ledger.backup(&backup).await.unwrap();
    world.work(0, 1).await;
    world.turn().await;
    world.finish().await;

    world.live.ledger.clone().close().await;
    for name in ["quittance.db-wal", "quittance.db-shm", "quittance.lock"] {
        std::fs::remove_file(world.env.dir().join(name)).unwrap_or_default();
    }
    std::fs::rename(&backup, &file).unwrap();
    world.live = Live::open(&world.config).await;
    world.live.endpoints.look().await.unwrap();
    world.work(1, 2).await;
    let report = world.turn().await;
    assert_eq!((report.signed, report.sent), (0, 0), "{report:?}");
    assert!(says(&report, "until the chain is read"), "{report:?}");

    world.index().await;
    let report = world.turn().await;
    assert!(!says(&report, "until the chain is read"), "{report:?}");
    assert_eq!(report.signed, 1, "another organisation is not concerned: {report:?}");
}
