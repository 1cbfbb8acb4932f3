//! A ledger in a temporary folder, and builders of what goes into it.

use std::{
    cell::Cell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use alloy::primitives::{Address, B256, keccak256};
use contracts::eip712::DepositKey;
use k256::ecdsa::SigningKey;
use ledger::{
    Error, Identity, Ledger, Units,
    book::{BookWriter, Organisation, SourceFile, Tariff},
    chain::{Block, ChainWriter, Event, Fact, IndexedBlock},
    invariants,
    manifest::Secret,
    read::{Reader, SignedStatement},
    statement::{self, Statement},
    workload::{Evidence, Item, Kind, Outcome, Price, Rate, Record, Revision, WorkResult},
};
use tempfile::TempDir;

pub(crate) const ORGANISATION: &str = "acme";
pub(crate) const FEE_BPS: u16 = 100;
pub(crate) const OPERATOR: u32 = 1;

pub(crate) struct World {
    pub(crate) folder: Folder,
    pub(crate) ledger: Ledger,
    pub(crate) chain: ChainWriter,
    pub(crate) book: BookWriter,
    pub(crate) reader: Reader,
    /// Blocks of the canonical chain, from number 1.
    pub(crate) blocks: Vec<IndexedBlock>,
    /// Makes every block's hash differ, also after a reorg.
    salt: u64,
}

/// The folder of a world's file. When a test ends well, the ledger that it leaves has to be sound.
pub(crate) struct Folder {
    folder: TempDir,
    is_damaged: Cell<bool>,
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path().join("ledger.db")
    }

    /// The test damages the ledger on purpose.
    pub(crate) fn is_damaged(&self) {
        self.is_damaged.set(true);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() || self.is_damaged.get() {
            return;
        }
        let file = self.file();
        // On a thread of its own, since this one may be running a runtime.
        let check = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let ledger = Ledger::open_read_only(&file).await.unwrap();
                let mut found = invariants::violations(&ledger).await.unwrap();
                found.extend(invariants::deep_violations(&ledger).await.unwrap());
                assert_eq!(found, [], "the test leaves a ledger that is not sound");
            });
        });
        check.join().unwrap();
    }
}

pub(crate) fn identity() -> Identity {
    Identity {
        chain_id: 31_337,
        contract: Address::repeat_byte(0xcc),
        genesis: B256::repeat_byte(9),
        start_block: 1,
    }
}

pub(crate) fn token() -> Address {
    Address::repeat_byte(0x70)
}

pub(crate) fn attester() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).unwrap()
}

pub(crate) fn secret() -> Secret {
    Secret::new(B256::repeat_byte(5))
}

pub(crate) fn deposit_key(number: u8) -> DepositKey {
    DepositKey {
        requestor: Address::repeat_byte(0xaa),
        signer: statement::address_of(attester().verifying_key()),
        cosigner: Address::ZERO,
        token: token(),
        salt: B256::repeat_byte(number),
    }
}

pub(crate) fn payout(number: u32) -> Address {
    Address::from_slice(&keccak256(number.to_be_bytes())[12..])
}

pub(crate) fn tariff() -> Tariff {
    let rate = Rate { usd_per_token: "0.247".parse().unwrap(), source: "static".into(), at_ms: 0 };
    Tariff { fee_bps: FEE_BPS, rates: BTreeMap::from([(token(), rate)]), address_delay: 0 }
}

/// A completed record of `micro_usd` millionths of a USD.
pub(crate) fn record(external_id: u64, machine: u32, revision: u32, micro_usd: u64) -> Record {
    let usd = format!("{}.{:06}", micro_usd / 1_000_000, micro_usd % 1_000_000);
    Record {
        item: Item {
            source: "salad".into(),
            external_id: external_id.to_string(),
            organisation: ORGANISATION.into(),
            machine: format!("machine-{machine}"),
            kind: Kind::Batch,
            container_group: None,
            gpu_class: None,
            vcpu: None,
            memory_mb: None,
            priority: None,
            country: None,
            started_ms: 0,
            stopped_ms: i64::try_from(external_id).unwrap(),
        },
        revision: Revision {
            revision,
            result: WorkResult::Completed,
            price: Price::Usd(usd.parse().unwrap()),
            rate: None,
            evidence: Evidence::default(),
        },
        payout: None,
    }
}

/// A daily file that covers these days.
pub(crate) fn day_file(first: &str, until: &str) -> SourceFile {
    SourceFile {
        source: "salad".into(),
        name: format!("{first}-{until}.json"),
        first_day: first.into(),
        until_day: until.into(),
        sha256: keccak256([first, until].concat()),
    }
}

/// One work of a source file, whose id begins with the days and names organisation and machine, as all of such a file do.
pub(crate) fn work_of(file: &SourceFile, work: u64) -> Record {
    let mut record = record(work, 2, 0, 1_000_000);
    record.item.source.clone_from(&file.source);
    let (first, until, machine) = (&file.first_day, &file.until_day, &record.item.machine);
    record.item.external_id = format!("{first}-{until}/{ORGANISATION}/{work}/{machine}");
    record
}

impl World {
    /// Takes one work of a source file in.
    pub(crate) async fn hand_in(
        &self,
        file: &SourceFile,
        work: u64,
        now: i64,
    ) -> ledger::Result<Vec<Outcome>> {
        self.book.take_in_file(file, &[work_of(file, work)], &tariff(), now).await
    }

    /// A world with an 18-decimals token, the operator and three providers registered, and two deposits configured.
    pub(crate) async fn new() -> Self {
        let folder = Folder { folder: tempfile::tempdir().unwrap(), is_damaged: Cell::new(false) };
        let ledger = Ledger::open(&folder.file(), identity()).await.unwrap();
        let (chain, book) = (ChainWriter::new(ledger.clone()), BookWriter::new(ledger.clone()));
        let reader = Reader::new(ledger.clone());
        let mut world = Self { folder, ledger, chain, book, reader, blocks: Vec::new(), salt: 0 };
        let deposits = vec![deposit_key(1).id(), deposit_key(2).id()];
        let organisation = Organisation { name: ORGANISATION.into(), token: token(), deposits };
        let attester = statement::address_of(attester().verifying_key());
        world.book.set_organisations(&[organisation], attester, 0).await.unwrap();
        let mut events = vec![Event::TokenRegistered { token: token(), decimals: 18 }];
        events.extend(
            (1..=4).map(|provider| Event::Registered { provider, payout: payout(provider) }),
        );
        world.mine(events).await;
        for machine in 2..=4 {
            world
                .book
                .set_payee(&format!("machine-{machine}"), payout(machine), (0, 0))
                .await
                .unwrap();
        }
        world.finalise(0).await;
        world
    }

    /// The same chain under a new ledger: that of a file copied here earlier, or none.
    pub(crate) async fn after_loss(&self, backup: Option<&Path>) -> Self {
        self.after_loss_with(backup, &[1, 2]).await
    }

    /// The same, with these deposits in the configuration.
    pub(crate) async fn after_loss_with(&self, backup: Option<&Path>, deposits: &[u8]) -> Self {
        let world = self.lost(backup, deposits).await;
        world.read_on(self).await;
        world
    }

    /// The same without a backup, of which so many blocks are read.
    pub(crate) async fn after_loss_behind(&self, blocks: usize) -> Self {
        let world = self.lost(None, &[1, 2]).await;
        world.chain.apply(&world.blocks[..blocks]).await.unwrap();
        world
    }

    async fn lost(&self, backup: Option<&Path>, deposits: &[u8]) -> Self {
        let folder = Folder { folder: tempfile::tempdir().unwrap(), is_damaged: Cell::new(false) };
        if let Some(backup) = backup {
            for entry in std::fs::read_dir(backup).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
            }
        }
        let ledger = Ledger::open(&folder.file(), identity()).await.unwrap();
        let (chain, book) = (ChainWriter::new(ledger.clone()), BookWriter::new(ledger.clone()));
        let reader = Reader::new(ledger.clone());
        let (blocks, salt) = (self.blocks.clone(), self.salt + 1_000_000);
        let world = Self { folder, ledger, chain, book, reader, blocks, salt };
        let deposits = deposits.iter().map(|number| deposit_key(*number).id()).collect();
        let organisation = Organisation { name: ORGANISATION.into(), token: token(), deposits };
        let attester = statement::address_of(attester().verifying_key());
        world.book.set_organisations(&[organisation], attester, 0).await.unwrap();
        for machine in 2..=4 {
            let name = format!("machine-{machine}");
            world.book.set_payee(&name, payout(machine), (0, 0)).await.unwrap();
        }
        world
    }

    /// Reads the blocks that it has not read, as far as they are final elsewhere.
    pub(crate) async fn read_on(&self, elsewhere: &Self) {
        let from = self.chain.checkpoint().await.unwrap().map_or(0, |block| block.number);
        let missing: Vec<_> =
            self.blocks.iter().filter(|indexed| indexed.block.number > from).cloned().collect();
        self.chain.apply(&missing).await.unwrap();
        self.chain.set_finalised(elsewhere.chain.finalised().await.unwrap()).await.unwrap();
    }

    /// Copies the ledger's files as they are, as a backup of a ledger that nobody writes to.
    pub(crate) fn backup(&self) -> TempDir {
        let backup = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), backup.path().join(entry.file_name())).unwrap();
        }
        backup
    }

    /// Appends a block with these events.
    pub(crate) async fn mine(&mut self, events: Vec<Event>) {
        self.mine_at(self.blocks.len() as u64 + 1, events).await;
    }

    /// Appends a block of this time, seconds since 1970.
    pub(crate) async fn mine_at(&mut self, time: u64, events: Vec<Event>) {
        self.salt += 1;
        let number = self.blocks.len() as u64 + 1;
        let parent = self.blocks.last().map_or(B256::ZERO, |last| last.block.hash);
        let block = Block { number, hash: keccak256(self.salt.to_be_bytes()), parent, time };
        let facts = events.into_iter().enumerate().map(|(index, event)| Fact {
            log_index: index as u64,
            tx_hash: B256::repeat_byte(1),
            event,
        });
        let indexed = IndexedBlock { block, facts: facts.collect() };
        self.chain.apply(std::slice::from_ref(&indexed)).await.unwrap();
        self.blocks.push(indexed);
    }

    /// Makes every block final except the newest `keep`.
    pub(crate) async fn finalise(&self, keep: u64) {
        let number = (self.blocks.len() as u64).saturating_sub(keep);
        self.chain.set_finalised(number).await.unwrap();
    }

    /// Undoes the newest `depth` blocks, as far as they are not final. Returns how many.
    pub(crate) async fn reorg(&mut self, depth: u64) -> u64 {
        let head = self.blocks.len() as u64;
        let fork = head.saturating_sub(depth).max(self.chain.finalised().await.unwrap());
        self.chain.rollback_to(fork).await.unwrap();
        self.blocks.truncate(usize::try_from(fork).unwrap());
        head - fork
    }

    /// Mines the settlement of a statement.
    pub(crate) async fn settle(&mut self, statement: Statement) {
        let event = Event::Settled {
            deposit: statement.key.id(),
            epoch: statement.epoch,
            spent: statement.spent,
            manifest: statement.manifest,
            rows: statement.rows,
        };
        self.mine(vec![event]).await;
    }

    pub(crate) async fn fund(&mut self, deposit: u8, units: u64) {
        let key = deposit_key(deposit);
        self.mine(vec![Event::Funded { sender: key.requestor, key, units: Units::new(units) }])
            .await;
    }
}

/// Opens a file that this process had open before. A child that another test is starting meanwhile holds a copy of the lock
/// until it has become the other program, so that it is waited for.
pub(crate) async fn reopen(file: &Path) -> ledger::Result<Ledger> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Ledger::open(file, identity()).await {
            Err(Error::Locked(_)) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            opened => return opened,
        }
    }
}

/// Mines the settlement of a signed statement.
pub(crate) async fn settle(world: &mut World, signed: &SignedStatement) {
    world.settle(signed.statement.clone()).await;
}
