//! Reading: every balance and every status is a query over facts, promises and intents.

mod slots;

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use contracts::eip712::DepositKey;
use futures_util::TryStreamExt;
use serde::Serialize;
use sqlx::{SqliteConnection, sqlite::SqliteRow};

pub use self::slots::{Anchors, Attempt, AttemptKind, Memory, Slot, SlotKind};
use crate::{
    Amount, Error, Ledger, ProviderNumber, Result, Turnover, Unit, Units,
    book::{Import, Work},
    chain::{Block, Content},
    manifest::{Leaf, Paid},
    rules::{
        self, Credit, DepositEvent, DepositState, MovedPayout, Naming, OpenItem, Position, Verdict,
    },
    sql::{Columns, integer},
    statement::Row as StatementRow,
    workload::{Record, Token},
};

/// The reading capability: cannot write.
#[derive(Debug, Clone)]
pub struct Reader(Ledger);

/// A deposit that pays for an organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FundingDeposit {
    /// Its id.
    pub id: B256,
    /// Its key, once it was seen on chain.
    pub key: Option<DepositKey>,
    /// Its state at the checkpoint.
    pub state: DepositState,
    /// Remainders that its settled statements owe, by provider.
    pub carries: BTreeMap<ProviderNumber, Amount>,
    /// Whether it can pay: it holds the organisation's token, and the attester is its only signer.
    pub is_usable: bool,
}

/// Everything that decides what an organisation can pay.
#[derive(Debug, Clone)]
pub struct Books {
    /// Address of its token.
    pub pays_in: Address,
    /// Its token, once its registration by the contract is final.
    pub token: Option<Token>,
    /// Its deposits, in the order in which they pay.
    pub deposits: Vec<FundingDeposit>,
    /// Its items that are not finally paid, oldest first.
    pub open: Vec<OpenItem>,
    /// Its money.
    pub position: Position,
    /// Why nothing may be stated for it, if something forbids it.
    pub freezes: Vec<Freeze>,
}

/// A deposit of which more was signed than this ledger knows: what that paid would be paid again, by this deposit or another
/// of its organisation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Freeze {
    /// The deposit.
    pub deposit: B256,
    /// The epoch that is not known, or not finally.
    pub epoch: u32,
    /// Why, and what ends it.
    pub reason: String,
}

/// A candidate for the next epoch of a deposit, as far as sending and replacing it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextCandidate {
    /// Row id of the statement.
    pub id: i64,
    /// What the deposit will have spent.
    pub spent: Units,
    /// Σ of its rows; zero for one that only retires its epoch.
    pub total: Units,
    /// Whether all its signatures are there.
    pub is_signed: bool,
    /// Whether it names work that others have paid since it was stated, or can pay: it is not signed.
    pub pays_again: bool,
    /// Whether it may settle on the deposit as it is at the checkpoint.
    pub fits: bool,
    /// Whose work it names, if it names any; its deposit may pay for another one by now.
    pub organisation: Option<String>,
}

/// The signed candidates of a deposit's next epoch that could settle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyDeposit {
    /// The deposit.
    pub deposit: B256,
    /// Row ids of the candidates, best first.
    pub candidates: Vec<i64>,
    /// Those of the other candidates of that epoch. One that is under way may settle all the same.
    pub others: Vec<i64>,
}

/// A statement of ours that is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsettledStatement {
    /// Row id.
    pub id: i64,
    /// Its deposit.
    pub deposit: B256,
    /// Its epoch.
    pub epoch: u32,
    /// Whether another statement has settled this epoch.
    pub is_overtaken: bool,
    /// Whether all its signatures are there.
    pub is_signed: bool,
}

/// A statement with all that `settle` needs.
#[derive(Debug, Clone)]
pub struct SignedStatement {
    /// Row id.
    pub id: i64,
    /// What was signed.
    pub statement: crate::statement::Statement,
    /// Its digest.
    pub digest: B256,
    /// The signer's signature.
    pub signature: Vec<u8>,
    /// The cosigner's, empty if the deposit names none.
    pub cosignature: Vec<u8>,
}

/// A leaf, and source and external id of the workload behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedLeaf {
    /// The leaf.
    pub leaf: Leaf,
    /// Source and external id; `None` for a carry or a fee.
    pub name: Option<(String, String)>,
}

/// A decision about a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Source of the workload.
    pub source: String,
    /// Its external id.
    pub external_id: String,
    /// `hold`, `release`, `dispute` or `pay`.
    pub verdict: String,
}

/// How far a ledger has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Progress {
    /// Number of the last indexed block.
    pub checkpoint: u64,
    /// Its time, seconds since 1970.
    pub time: u64,
    /// Highest indexed block that is final.
    pub finalised: u64,
}

/// Gas and fees of the transactions of one kind, from tx receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Spending {
    /// Transactions mined.
    pub transactions: u64,
    /// Gas used.
    pub gas: u64,
    /// Fees paid, wei.
    pub fee: Amount,
}

impl Reader {
    /// A reader of a ledger.
    pub const fn new(ledger: Ledger) -> Self {
        Self(ledger)
    }

    /// The ledger it reads.
    pub const fn ledger(&self) -> &Ledger {
        &self.0
    }

    /// How far the ledger has come.
    pub async fn progress(&self) -> Result<Progress> {
        let mut conn = self.0.reader().acquire().await?;
        let block = checkpoint(&mut conn).await?;
        let finalised = finalised(&mut conn).await?;
        let (checkpoint, time) = block.map_or((0, 0), |block| (block.number, block.time));
        Ok(Progress { checkpoint, time, finalised })
    }

    /// Names of all organisations.
    pub async fn organisations(&self) -> Result<Vec<String>> {
        let rows = sqlx::query("select name from organisation order by name")
            .fetch_all(self.0.reader())
            .await?;
        rows.iter().map(|row| row.text("name")).collect()
    }

    /// An organisation's books.
    pub async fn books(&self, organisation: &str) -> Result<Option<Books>> {
        // One transaction, so that items and their leaves are seen as of one moment while the indexer writes.
        let mut tx = self.0.reader().begin().await?;
        books(&mut tx, organisation).await
    }

    /// All tokens that the contract has registered, final or not.
    pub async fn tokens(&self) -> Result<Vec<Token>> {
        let rows = sqlx::query("select token, decimals from token_registered order by token")
            .fetch_all(self.0.reader())
            .await?;
        rows.iter().map(token).collect()
    }

    /// Ids and keys of all deposits ever seen on chain.
    pub async fn deposits(&self) -> Result<Vec<(B256, DepositKey)>> {
        let rows =
            sqlx::query("select * from deposit order by id").fetch_all(self.0.reader()).await?;
        rows.iter().map(|row| Ok((row.b256("id")?, key(row)?))).collect()
    }

    /// State of a deposit at the checkpoint.
    pub async fn deposit_state(&self, id: B256) -> Result<DepositState> {
        let mut conn = self.0.reader().acquire().await?;
        deposit_state(&mut conn, id).await
    }

    /// Number of providers at the checkpoint.
    pub async fn provider_count(&self) -> Result<ProviderNumber> {
        let row = sqlx::query("select coalesce(max(provider), 0) as n from registered")
            .fetch_one(self.0.reader())
            .await?;
        row.u32("n")
    }

    /// Payout address of every provider at the checkpoint.
    pub async fn payouts(&self) -> Result<BTreeMap<ProviderNumber, Address>> {
        let rows = sqlx::query(
            "select provider, payout, block, log_index from registered
             union all select provider, payout, block, log_index from payout_set
             order by block, log_index",
        )
        .fetch_all(self.0.reader())
        .await?;
        rows.iter().map(|row| Ok((row.u32("provider")?, row.address("payout")?))).collect()
    }

    /// Every credit that is not zero at the checkpoint, for people. One of which more was claimed than came, which breaks L10, is
    /// no number to show.
    pub async fn credits(&self) -> Result<Vec<Credit>> {
        let credits = self.credits_by_payer().await?.into_iter().filter_map(Result::ok);
        let credits = credits.map(|(credit, _)| credit);
        Ok(credits.filter(|credit| credit.units > Units::ZERO).collect())
    }

    /// Every credit that there ever was, as it is at the checkpoint: Σ settled rows − Σ claims.
    pub async fn credits_ever(&self) -> Result<Vec<Credit>> {
        self.credits_by_payer().await?.into_iter().map(|of| of.map(|(credit, _)| credit)).collect()
    }

    /// The credits that are not zero, of providers that a deposit of an organisation here has paid in that token, or one that
    /// an attester here signs for: it may be one of whom nobody knows any more. The contract is everybody's: what others pay
    /// each other is not pushed at this operator's cost.
    pub async fn own_credits(&self) -> Result<Vec<Credit>> {
        let credits: Vec<_> = self.credits_by_payer().await?.into_iter().collect::<Result<_>>()?;
        let own =
            credits.into_iter().filter(|(credit, is_own)| *is_own && credit.units > Units::ZERO);
        Ok(own.map(|(credit, _)| credit).collect())
    }

    /// Every credit that there ever was, and whether a deposit of ours paid any of it; an error in the place of one of which
    /// more was claimed than came. All rows are read once.
    async fn credits_by_payer(&self) -> Result<Vec<Result<(Credit, bool)>>> {
        let mut tx = self.0.reader().begin().await?;
        let mut came = turnovers(&mut tx, SETTLED_ROWS).await?;
        let mut went = turnovers(&mut tx, CLAIMS).await?;
        for key in went.keys() {
            came.entry(*key).or_default();
        }
        let credit = |((provider, token), (came, is_own)): (_, (Turnover, bool))| {
            let (went, _) = went.remove(&(provider, token)).unwrap_or_default();
            Ok((Credit { provider, token, units: came.less(went)? }, is_own))
        };
        Ok(came.into_iter().map(credit).collect())
    }

    /// Every claim that was paid.
    pub async fn claims(&self) -> Result<Vec<Credit>> {
        let rows = sqlx::query(CLAIMS).fetch_all(self.0.reader()).await?;
        rows.iter().map(credit).collect()
    }

    /// Row ids of signed statements that anybody may settle: those of an epoch that is not over, but for what would pay work
    /// again, which is retired instead.
    pub async fn submittable(&self) -> Result<Vec<i64>> {
        let mut submittable = Vec::new();
        for statement in self.unsettled_statements().await? {
            if !statement.is_signed || statement.is_overtaken {
                continue;
            }
            let candidates = self.next_candidates(statement.deposit).await?;
            if !candidates.iter().any(|next| next.id == statement.id && next.pays_again) {
                submittable.push(statement.id);
            }
        }
        Ok(submittable)
    }

    /// Statements of ours that no fact settles.
    pub async fn unsettled_statements(&self) -> Result<Vec<UnsettledStatement>> {
        let rows = sqlx::query(
            "select t.id, t.deposit, t.epoch,
                exists (select 1 from settled s join statement o on o.id = s.statement
                        where o.deposit = t.deposit and o.epoch = t.epoch) as overtaken,
                (select count(*) from signature g where g.statement = t.id) as signatures,
                d.cosigner
             from statement t join deposit d on d.id = t.deposit
             where t.ours = 1 and not exists (select 1 from settled s where s.statement = t.id)
             order by t.id",
        )
        .fetch_all(self.0.reader())
        .await?;
        rows.iter()
            .map(|row| {
                let needed = if row.address("cosigner")? == Address::ZERO { 1 } else { 2 };
                Ok(UnsettledStatement {
                    id: row.int("id")?,
                    deposit: row.b256("deposit")?,
                    epoch: row.u32("epoch")?,
                    is_overtaken: row.flag("overtaken")?,
                    is_signed: row.int("signatures")? == needed,
                })
            })
            .collect()
    }

    /// Candidates for the next epoch of a deposit, those of the largest total first.
    pub async fn next_candidates(&self, deposit: B256) -> Result<Vec<NextCandidate>> {
        let mut tx = self.0.reader().begin().await?;
        let state = deposit_state(&mut tx, deposit).await?;
        next_candidates(&mut tx, deposit, &state).await
    }

    /// The largest total among the candidates for a deposit's next epoch: what an empty one, which retires the epoch, frees
    /// for another deposit.
    pub async fn at_stake(&self, deposit: B256) -> Result<Units> {
        let candidates = self.next_candidates(deposit).await?;
        Ok(candidates.iter().map(|candidate| candidate.total).max().unwrap_or_default())
    }

    /// Every deposit with signed candidates of its next epoch that could settle at the checkpoint, best first: all may be
    /// sent, one settles.
    pub async fn ready_deposits(&self) -> Result<Vec<ReadyDeposit>> {
        let mut tx = self.0.reader().begin().await?;
        let rows = sqlx::query(
            "select distinct t.deposit from statement t join deposit d on d.id = t.deposit
             where t.ours = 1 and not exists (
                 select 1 from settled s join statement o on o.id = s.statement
                 where o.deposit = t.deposit and o.epoch = t.epoch)
             order by t.deposit",
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut ready = Vec::new();
        for row in rows {
            let deposit = row.b256("deposit")?;
            let state = deposit_state(&mut tx, deposit).await?;
            let all = next_candidates(&mut tx, deposit, &state).await?;
            let (candidates, others): (Vec<_>, Vec<_>) =
                all.iter().partition(|candidate| candidate.is_signed && candidate.fits);
            if !candidates.is_empty() {
                let ids = |some: Vec<&NextCandidate>| some.iter().map(|known| known.id).collect();
                ready.push(ReadyDeposit {
                    deposit,
                    candidates: ids(candidates),
                    others: ids(others),
                });
            }
        }
        Ok(ready)
    }

    /// A signed statement with its signatures.
    pub async fn signed_statement(&self, id: i64) -> Result<SignedStatement> {
        let mut conn = self.0.reader().acquire().await?;
        let (statement, digest) = statement(&mut conn, id).await?;
        let rows = sqlx::query("select signer, signature from signature where statement = ?")
            .bind(id)
            .fetch_all(&mut *conn)
            .await?;
        let by = |address: Address| -> Result<Vec<u8>> {
            for row in &rows {
                if row.address("signer")? == address {
                    return row.blob("signature");
                }
            }
            Ok(Vec::new())
        };
        let (signature, cosignature) = (by(statement.key.signer)?, by(statement.key.cosigner)?);
        Ok(SignedStatement { id, statement, digest, signature, cosignature })
    }

    /// Row id, deposit, epoch and digest of every statement that has a signature.
    pub async fn signed_digests(&self) -> Result<Vec<(i64, B256, u32, B256)>> {
        self.digests(
            "select id, deposit, epoch, digest from statement t
             where exists (select 1 from signature g where g.statement = t.id) order by id",
        )
        .await
    }

    /// Row id, deposit, epoch and digest of every statement whose manifest is known to have been published: it was signed here,
    /// or came back from there.
    pub async fn published_digests(&self) -> Result<Vec<(i64, B256, u32, B256)>> {
        self.digests(
            "select id, deposit, epoch, digest from statement t
             where exists (select 1 from signature g where g.statement = t.id)
                or exists (select 1 from imported m where m.statement = t.id) order by id",
        )
        .await
    }

    async fn digests(&self, query: &'static str) -> Result<Vec<(i64, B256, u32, B256)>> {
        let rows = sqlx::query(query).fetch_all(self.0.reader()).await?;
        rows.iter()
            .map(|row| {
                Ok((row.int("id")?, row.b256("deposit")?, row.u32("epoch")?, row.b256("digest")?))
            })
            .collect()
    }

    /// Rows of a statement, ascending by provider. Carries are zero where the leaves are not known.
    pub async fn rows(&self, statement: i64) -> Result<Vec<StatementRow>> {
        let mut conn = self.0.reader().acquire().await?;
        rows(&mut conn, statement).await
    }

    /// Leaves of a statement of ours, in their order, with the natural keys of the workloads behind them.
    pub async fn named_leaves(&self, statement: i64) -> Result<Vec<NamedLeaf>> {
        let mut conn = self.0.reader().acquire().await?;
        named_leaves(&mut conn, statement).await
    }

    /// A statement of ours with everything that its manifest says of it.
    pub async fn export(&self, id: i64) -> Result<Import> {
        let mut tx = self.0.reader().begin().await?;
        let (statement, digest) = statement(&mut tx, id).await?;
        let row = sqlx::query(
            "select t.fee_bps, coalesce(
                (select i.organisation from leaf l join item i on i.id = l.item where l.statement = t.id limit 1),
                (select f.organisation from funding f where f.deposit = t.deposit),
                (select p.organisation from paid_for p where p.deposit = t.deposit limit 1)) as organisation
             from statement t where t.id = ?",
        )
        .bind(id)
        .fetch_one(&mut *tx)
        .await?;
        let organisation =
            row.maybe_text("organisation")?.ok_or(Error::Corrupt("organisation of a statement"))?;
        let fee_bps =
            u16::try_from(row.int("fee_bps")?).map_err(|_| Error::Corrupt("fee of a statement"))?;
        let rows = rows(&mut tx, id).await?;
        let found = sqlx::query(
            "select l.workload, l.provider, l.amount, l.revision, l.settled, i.source, i.external_id, i.machine,
                i.started_ms, i.stopped_ms, i.fixed
             from leaf l left join item i on i.id = l.item where l.statement = ? order by l.position",
        )
        .bind(id)
        .fetch_all(&mut *tx)
        .await?;
        let leaves = found.iter().map(published_leaf).collect::<Result<_>>()?;
        Ok(Import { statement, digest, rows, leaves, organisation, fee_bps })
    }

    /// Whether the ledger knows what a statement pays for.
    pub async fn is_own(&self, digest: B256) -> Result<bool> {
        let mut conn = self.0.reader().acquire().await?;
        is_own(&mut conn, digest).await
    }

    /// Why nothing may be stated for an organisation, if something forbids it.
    pub async fn freezes(&self, organisation: &str) -> Result<Vec<Freeze>> {
        let mut tx = self.0.reader().begin().await?;
        freezes(&mut tx, organisation).await
    }

    /// The work under a natural key as if it were open, paid or not, if there is any.
    pub async fn work(&self, source: &str, external_id: &str) -> Result<Option<OpenItem>> {
        let mut tx = self.0.reader().begin().await?;
        match known_item(&mut tx, source, external_id).await? {
            Some(known) => open_item(&mut tx, known.id).await,
            None => Ok(None),
        }
    }

    /// Remainders that a deposit's settled statements owe, by provider.
    pub async fn carries(&self, deposit: B256) -> Result<BTreeMap<ProviderNumber, Amount>> {
        let mut conn = self.0.reader().acquire().await?;
        carries(&mut conn, deposit).await
    }

    /// Addresses that machines are paid at and that have no number yet, in the order in which they were named.
    pub async fn unregistered_payees(&self) -> Result<Vec<Address>> {
        let rows = sqlx::query(
            "select p.address, min(p.id) as first from payee p
             where not exists (select 1 from registered r where r.payout = p.address)
             group by p.address order by first",
        )
        .fetch_all(self.0.reader())
        .await?;
        rows.iter().map(|row| row.address("address")).collect()
    }

    /// Of the addresses that are named last for machines, and one more, those whose number pays elsewhere at the checkpoint:
    /// whoever holds them said so on chain.
    pub async fn moved_payouts(&self, one_more: Option<Address>) -> Result<Vec<MovedPayout>> {
        let payouts = self.payouts().await?;
        let rows = sqlx::query(
            "select min(provider) as provider, payout from registered where payout = ? or payout in (
                select address from payee p where id = (select max(id) from payee where machine = p.machine))
             group by payout order by provider",
        )
        .bind(one_more.map(|address| address.to_vec()))
        .fetch_all(self.0.reader())
        .await?;
        let mut moved = Vec::new();
        for row in &rows {
            let (provider, named) = (row.u32("provider")?, row.address("payout")?);
            if let Some(payout) = payouts.get(&provider).copied().filter(|payout| *payout != named)
            {
                moved.push(MovedPayout { provider, named, payout });
            }
        }
        Ok(moved)
    }

    /// Number of a payout address whose registration is final: its lowest.
    pub async fn final_number_of(&self, payout: Address) -> Result<Option<ProviderNumber>> {
        let row = sqlx::query(
            "select min(r.provider) as n from registered r, chain where r.payout = ? and r.block <= chain.finalised",
        )
        .bind(payout.to_vec())
        .fetch_one(self.0.reader())
        .await?;
        row.maybe_int("n")?
            .map(|n| u32::try_from(n).map_err(|_| Error::Corrupt("provider")))
            .transpose()
    }

    /// Whether an address was ever registered, finally or not.
    pub async fn is_registered(&self, payout: Address) -> Result<bool> {
        let row = sqlx::query("select exists (select 1 from registered where payout = ?) as known")
            .bind(payout.to_vec())
            .fetch_one(self.0.reader())
            .await?;
        row.flag("known")
    }

    /// All decisions, in order.
    pub async fn decisions(&self) -> Result<Vec<Decision>> {
        let rows = sqlx::query(
            "select i.source, i.external_id, d.verdict from decision d join item i on i.id = d.item order by d.id",
        )
        .fetch_all(self.0.reader())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Decision {
                    source: row.text("source")?,
                    external_id: row.text("external_id")?,
                    verdict: row.text("verdict")?,
                })
            })
            .collect()
    }

    /// All closings: id and cutoff in ms, in order.
    pub async fn closings(&self) -> Result<Vec<(i64, i64)>> {
        let rows = sqlx::query("select id, until_ms from closing order by id")
            .fetch_all(self.0.reader())
            .await?;
        rows.iter().map(|row| Ok((row.int("id")?, row.int("until_ms")?))).collect()
    }

    /// Gas and fees by kind of transaction. Each slot counts once: by the tx receipt of its outcome, or as long as that is not
    /// final by the newest one, since a reorg gives a transaction another.
    pub async fn spending(&self) -> Result<BTreeMap<String, Spending>> {
        let rows = sqlx::query(
            "select kind, gas_used, fee from (
                select s.kind, r.gas_used, r.fee, row_number() over (
                    partition by s.id
                    order by o.attempt is r.attempt and o.block_hash = r.block_hash desc, r.block desc) as place
                from tx_receipt r join attempt a on a.id = r.attempt join slot s on s.id = a.slot
                left join outcome o on o.slot = s.id)
             where place = 1",
        )
        .fetch_all(self.0.reader())
        .await?;
        let mut spending: BTreeMap<String, Spending> = BTreeMap::new();
        for row in rows {
            let entry = spending.entry(row.text("kind")?).or_default();
            entry.transactions += 1;
            entry.gas += row.u64("gas_used")?;
            entry.fee = entry.fee.add(row.amount("fee")?)?;
        }
        Ok(spending)
    }

    /// Gas and number of rows of the last settling transaction with a tx receipt.
    pub async fn last_settle(&self) -> Result<Option<(u64, u64)>> {
        let row = sqlx::query(
            "select r.gas_used, (select count(*) from carried_statement c join \"row\" w on w.statement = c.statement
                where c.slot = s.id) as n
             from tx_receipt r join attempt a on a.id = r.attempt join slot s on s.id = a.slot
             where s.kind = 'settle' order by s.tx_nonce desc limit 1",
        )
        .fetch_optional(self.0.reader())
        .await?;
        row.map(|row| Ok((row.u64("gas_used")?, row.u64("n")?))).transpose()
    }

    /// How many rows one of the ledger's tables has.
    pub async fn count(&self, table: Table) -> Result<u64> {
        let query = match table {
            Table::Workloads => "select count(*) as n from workload",
            Table::Statements => "select count(*) as n from statement where ours = 1",
            Table::Settled => "select count(*) as n from settled",
            Table::Rows => {
                "select count(*) as n from settled s join \"row\" r on r.statement = s.statement"
            }
            Table::Claims => "select count(*) as n from claimed",
            Table::Skipped => "select count(*) as n from skipped",
        };
        sqlx::query(query).fetch_one(self.0.reader()).await?.u64("n")
    }
}

/// What [`Reader::count`] counts.
#[derive(Debug, Clone, Copy)]
pub enum Table {
    /// Records kept, revisions included.
    Workloads,
    /// Statements proposed by this ledger.
    Statements,
    /// Statements settled at the checkpoint, whoever proposed them.
    Settled,
    /// Rows of settled statements.
    Rows,
    /// Claims paid.
    Claims,
    /// Statements skipped.
    Skipped,
}

/// Deposits that ever paid for an organisation here, or name a key that attests here.
macro_rules! own_deposits {
    () => {
        "(select deposit from paid_for
          union select id from deposit where signer in (select attester from organisation))"
    };
}

const SETTLED_ROWS: &str = concat!(
    "select r.provider, d.token, r.units, t.ours = 1 or t.deposit in ",
    own_deposits!(),
    " as own
     from settled s join statement t on t.id = s.statement
     join deposit d on d.id = t.deposit join \"row\" r on r.statement = t.id"
);
const CLAIMS: &str = "select provider, token, units, 0 as own from claimed";

/// What a query of credits comes to for each provider and token, and whether any is by a deposit of ours. The rows of all years
/// are not held at once.
async fn turnovers(
    conn: &mut SqliteConnection,
    query: &'static str,
) -> Result<BTreeMap<(ProviderNumber, Address), (Turnover, bool)>> {
    let mut sums: BTreeMap<_, (Turnover, bool)> = BTreeMap::new();
    let mut rows = sqlx::query(query).fetch(conn);
    while let Some(row) = rows.try_next().await? {
        let Credit { provider, token, units } = credit(&row)?;
        let (sum, is_own) = sums.entry((provider, token)).or_default();
        *sum = sum.add(units)?;
        *is_own |= row.flag("own")?;
    }
    Ok(sums)
}

/// Whether the ledger knows what a statement pays for.
pub(crate) async fn is_own(conn: &mut SqliteConnection, digest: B256) -> Result<bool> {
    let row = sqlx::query("select 1 from statement where digest = ? and ours = 1")
        .bind(digest.to_vec())
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

/// What is known of an item by its natural key.
pub(crate) struct KnownItem {
    pub(crate) id: i64,
    pub(crate) fixed: B256,
    pub(crate) organisation: String,
}

pub(crate) async fn known_item(
    conn: &mut SqliteConnection,
    source: &str,
    external_id: &str,
) -> Result<Option<KnownItem>> {
    let row = sqlx::query(
        "select id, fixed, organisation from item where source = ? and external_id = ?",
    )
    .bind(source)
    .bind(external_id)
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(KnownItem {
            id: row.int("id")?,
            fixed: row.b256("fixed")?,
            organisation: row.text("organisation")?,
        })
    })
    .transpose()
}

/// The last indexed block.
pub(crate) async fn checkpoint(conn: &mut SqliteConnection) -> Result<Option<Block>> {
    block_at_or_below(conn, u64::MAX >> 1).await
}

pub(crate) async fn block_at_or_below(
    conn: &mut SqliteConnection,
    number: u64,
) -> Result<Option<Block>> {
    let row = sqlx::query("select * from block where number <= ? order by number desc limit 1")
        .bind(integer(number)?)
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Block {
        number: row.u64("number")?,
        hash: row.b256("hash")?,
        parent: row.b256("parent")?,
        time: row.u64("time")?,
    }))
}

pub(crate) async fn finalised(conn: &mut SqliteConnection) -> Result<u64> {
    sqlx::query("select finalised from chain").fetch_one(conn).await?.u64("finalised")
}

pub(crate) async fn deposit_key(
    conn: &mut SqliteConnection,
    id: B256,
) -> Result<Option<DepositKey>> {
    let row = sqlx::query("select * from deposit where id = ?")
        .bind(id.to_vec())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(key).transpose()
}

fn key(row: &SqliteRow) -> Result<DepositKey> {
    Ok(DepositKey {
        requestor: row.address("requestor")?,
        signer: row.address("signer")?,
        cosigner: row.address("cosigner")?,
        token: row.address("token")?,
        salt: row.b256("salt")?,
    })
}

fn token(row: &SqliteRow) -> Result<Token> {
    let decimals = u8::try_from(row.int("decimals")?).map_err(|_| Error::Corrupt("decimals"))?;
    Ok(Token { address: row.address("token")?, decimals, unit: Unit::of_decimals(decimals)? })
}

fn credit(row: &SqliteRow) -> Result<Credit> {
    Ok(Credit {
        provider: row.u32("provider")?,
        token: row.address("token")?,
        units: row.units("units")?,
    })
}

/// Folds a deposit's facts, in order, by the contract's own arithmetic.
pub(crate) async fn deposit_state(conn: &mut SqliteConnection, id: B256) -> Result<DepositState> {
    deposit_state_at(conn, id, u64::MAX >> 1).await
}

/// The same, by facts up to a block only.
pub(crate) async fn deposit_state_at(
    conn: &mut SqliteConnection,
    id: B256,
    block: u64,
) -> Result<DepositState> {
    let finalised = finalised(conn).await?;
    let until = integer(block)?;
    let rows = sqlx::query(
        "select 0 as kind, block, log_index, units, 0 as number from funded where deposit = ?1
         union all select 1, block, log_index, units, ends from thawed where deposit = ?1
         union all select 2, block, log_index, units, 0 from withdrawn where deposit = ?1
         union all select 3, s.block, s.log_index, t.spent, t.epoch
             from statement t join settled s on s.statement = t.id where t.deposit = ?1
         order by block, log_index",
    )
    .bind(id.to_vec())
    .fetch_all(conn)
    .await?;
    let is_within = |row: &&SqliteRow| row.int("block").is_ok_and(|block| block <= until);
    rows.iter().take_while(is_within).try_fold(DepositState::default(), |state, row| {
        let units = row.units("units")?;
        state.after(match row.int("kind")? {
            0 => DepositEvent::Funded(units, row.u64("block")? <= finalised),
            1 => DepositEvent::Thawed(units, row.u64("number")?),
            2 => DepositEvent::Withdrawn(units),
            _ => DepositEvent::Settled(row.u32("number")?, units),
        })
    })
}

/// A provider's credit by facts up to a block: Σ settled rows − Σ claims.
pub(crate) async fn credit_at(
    conn: &mut SqliteConnection,
    (token, provider): (Address, ProviderNumber),
    block: u64,
) -> Result<Units> {
    let rows = sqlx::query(
        "select 1 as settled, r.units from \"row\" r join settled s on s.statement = r.statement
             join statement t on t.id = s.statement join deposit d on d.id = t.deposit
             where r.provider = ?1 and d.token = ?2 and s.block <= ?3
         union all select 0, units from claimed where provider = ?1 and token = ?2 and block <= ?3",
    )
    .bind(i64::from(provider))
    .bind(token.to_vec())
    .bind(integer(block)?)
    .fetch_all(conn)
    .await?;
    let (mut came, mut went) = (Turnover::default(), Turnover::default());
    for row in &rows {
        let sum = if row.flag("settled")? { &mut came } else { &mut went };
        *sum = sum.add(row.units("units")?)?;
    }
    came.less(went)
}

/// What the last of a deposit's settled statements that names a provider carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Carried {
    /// How much; `None` if it is not known here what the statement paid.
    pub(crate) amount: Option<Amount>,
    /// Whether its epoch was cut off: what was stated since may rest on not knowing it.
    pub(crate) is_cut_off: bool,
}

/// What a deposit carries, by provider, as far as its settled statements tell.
pub(crate) async fn carried(
    conn: &mut SqliteConnection,
    deposit: B256,
) -> Result<BTreeMap<ProviderNumber, Carried>> {
    let rows = sqlx::query(
        "select r.provider, r.carry_out, r.carry_out is not null as known,
            max(t.epoch) <= coalesce((select max(epoch) from cut_off where deposit = ?1), 0) as cut_off
         from statement t join settled s on s.statement = t.id join \"row\" r on r.statement = t.id
         where t.deposit = ?1 group by r.provider",
    )
    .bind(deposit.to_vec())
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let amount = if row.flag("known")? { Some(row.amount("carry_out")?) } else { None };
            Ok((row.u32("provider")?, Carried { amount, is_cut_off: row.flag("cut_off")? }))
        })
        .collect()
}

/// Remainders that a deposit's settled statements owe, by provider. Where it is not known what the last one paid, nothing is:
/// what the one before it carried out came into that one.
pub(crate) async fn carries(
    conn: &mut SqliteConnection,
    deposit: B256,
) -> Result<BTreeMap<ProviderNumber, Amount>> {
    let carried = carried(conn, deposit).await?.into_iter();
    Ok(carried.filter_map(|(provider, carried)| Some((provider, carried.amount?))).collect())
}

/// Content and packed rows of a stored statement.
pub(crate) async fn statement_content(
    conn: &mut SqliteConnection,
    id: i64,
) -> Result<(Content, Vec<u8>)> {
    let row =
        sqlx::query("select * from statement where id = ?").bind(id).fetch_one(&mut *conn).await?;
    let content = Content {
        deposit: row.b256("deposit")?,
        epoch: row.u32("epoch")?,
        spent: row.units("spent")?,
        manifest: row.b256("manifest")?,
        digest: row.b256("digest")?,
    };
    Ok((content, crate::statement::pack(&rows(conn, id).await?)?))
}

/// A stored statement of a deposit whose key is known, and its digest.
pub(crate) async fn statement(
    conn: &mut SqliteConnection,
    id: i64,
) -> Result<(crate::statement::Statement, B256)> {
    let (content, rows) = statement_content(conn, id).await?;
    let Content { deposit, epoch, spent, manifest, digest } = content;
    let key = deposit_key(conn, deposit).await?.ok_or(Error::Corrupt("deposit of a statement"))?;
    Ok((crate::statement::Statement { key, epoch, spent, manifest, rows }, digest))
}

pub(crate) async fn rows(conn: &mut SqliteConnection, statement: i64) -> Result<Vec<StatementRow>> {
    let rows = sqlx::query(
        "select provider, units, coalesce(carry_in, zeroblob(16)) as carry_in,
            coalesce(carry_out, zeroblob(16)) as carry_out
         from \"row\" where statement = ? order by provider",
    )
    .bind(statement)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(StatementRow {
                provider: row.u32("provider")?,
                units: row.units("units")?,
                carry_in: row.amount("carry_in")?,
                carry_out: row.amount("carry_out")?,
            })
        })
        .collect()
}

pub(crate) async fn named_leaves(
    conn: &mut SqliteConnection,
    statement: i64,
) -> Result<Vec<NamedLeaf>> {
    let rows = sqlx::query(
        "select l.workload, l.provider, l.amount, l.item, l.revision, l.settled, i.source, i.external_id
         from leaf l left join item i on i.id = l.item where l.statement = ? order by l.position",
    )
    .bind(statement)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let name = match row.maybe_text("source")? {
                Some(source) => Some((source, row.text("external_id")?)),
                None => None,
            };
            Ok(NamedLeaf { leaf: leaf_of(row)?, name })
        })
        .collect()
}

/// Candidates of ours for the epoch that follows the deposit's, those of the largest total first.
pub(crate) async fn next_candidates(
    conn: &mut SqliteConnection,
    deposit: B256,
    state: &DepositState,
) -> Result<Vec<NextCandidate>> {
    let rows = sqlx::query(
        "select t.id, t.spent, (select count(*) from signature g where g.statement = t.id) as signatures, d.cosigner,
            (select i.organisation from leaf l join item i on i.id = l.item where l.statement = t.id limit 1) as organisation
         from statement t join deposit d on d.id = t.deposit
         where t.deposit = ? and t.epoch = ? and t.ours = 1 order by t.id",
    )
    .bind(deposit.to_vec())
    .bind(i64::from(state.epoch) + 1)
    .fetch_all(&mut *conn)
    .await?;
    // Of what was stated here no work is in two places: only what was said besides shows that others have paid it.
    let is_told_by_others = sqlx::query(
        "select exists (select 1 from imported) or exists (select 1 from cut_off) as told",
    )
    .fetch_one(&mut *conn)
    .await?
    .flag("told")?;
    let mut candidates = Vec::new();
    for row in rows {
        let (id, spent) = (row.int("id")?, row.units("spent")?);
        let needed = if row.address("cosigner")? == Address::ZERO { 1 } else { 2 };
        let mut total = Units::ZERO;
        for row in self::rows(conn, id).await? {
            total = total.add(row.units)?;
        }
        let is_signed = row.int("signatures")? == needed;
        // What is signed was looked at then; it may be public, and is not sent by us for that.
        let may_repeat = !is_signed || is_told_by_others;
        let pays_again = may_repeat && paid_again(conn, id).await?.is_some();
        let (is_sent, has_waited) = (false, false);
        let candidate =
            rules::Candidate { spent, total, is_signed, is_sent, has_waited, pays_again };
        let fits = candidate.fits(state);
        let organisation = row.maybe_text("organisation")?;
        candidates.push(NextCandidate {
            id,
            spent,
            total,
            is_signed,
            pays_again,
            fits,
            organisation,
        });
    }
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.total));
    Ok(candidates)
}

/// Settled statements that this ledger did not propose, of deposits that ever paid for an organisation. Where it is not known
/// whom a deposit paid for, and it names a key that attests here, they may be of anybody. A cut-off covers what was noticed by
/// then: of an epoch that had not settled, another candidate may settle later. What it covers, the chain tells, and not the name
/// of a file.
const SETTLED_BY_OTHERS: &str = "
select distinct t.deposit, t.epoch, '' as seen from statement t join settled s on s.statement = t.id
where t.ours = 0 and t.deposit in (
        select deposit from paid_for where organisation = ?1
        union select d.id from deposit d where d.signer in (select attester from organisation)
            and not exists (select 1 from paid_for f where f.deposit = d.id))
    and not exists (
        select 1 from unknown_statement u join cut_off c on c.at >= u.at
        where u.digest = t.digest and c.organisation = ?1 and c.deposit = t.deposit and c.epoch >= t.epoch)";

/// Statements that were seen outside and are not known here. Those of a deposit of which nobody knows whom it paid for may be of
/// anybody. One whose epoch another has settled for good pays nothing; that one is known, or [`SETTLED_BY_OTHERS`] tells of it.
const UNKNOWN: &str = concat!(
    "
select u.deposit, u.epoch, u.seen from unknown_statement u
where (exists (select 1 from paid_for f where f.deposit = u.deposit and f.organisation = ?1)
        or not exists (select 1 from paid_for f where f.deposit = u.deposit))
    and not exists (
        select 1 from cut_off c
        where c.deposit = u.deposit and c.organisation = ?1 and c.epoch >= u.epoch and c.at >= u.at)
    and not exists (select 1 from statement t where t.digest = u.digest and t.ours = 1)
    and not exists (
        select 1 from statement t join settled s on s.statement = t.id, chain
        where t.deposit = u.deposit and t.epoch = u.epoch and s.block <= chain.finalised
            and (t.ours = 1 or t.digest <> u.digest and t.deposit in ",
    own_deposits!(),
    "))"
);

/// Statements that were brought back, as long as what followed them may be unknown as well.
const IMPORTED: &str = "
select t.deposit, t.epoch, 'block ' || max(i.until_block) as seen
from imported i join statement t on t.id = i.statement join paid_for f on f.deposit = t.deposit, chain
where f.organisation = ?1 and i.until_block > chain.finalised group by t.deposit, t.epoch";

/// What an organisation may not pay from, and why: epochs that the chain or a manifest knows and this ledger does not, and
/// what was imported and may not be all yet.
pub(crate) async fn freezes(
    conn: &mut SqliteConnection,
    organisation: &str,
) -> Result<Vec<Freeze>> {
    let mut freezes = unknown(conn, organisation).await?;
    let imported = (IMPORTED, "was imported, and waits for the finality of");
    freezes.extend(frozen_by(conn, organisation, &[imported]).await?);
    freezes.sort();
    freezes.dedup_by_key(|freeze| (freeze.deposit, freeze.epoch));
    Ok(freezes)
}

/// The epochs that the chain or a manifest knows and this ledger does not, of deposits that an organisation may not pay from.
pub(crate) async fn unknown(
    conn: &mut SqliteConnection,
    organisation: &str,
) -> Result<Vec<Freeze>> {
    let queries = [
        (SETTLED_BY_OTHERS, "settled, and this ledger does not know what for"),
        (UNKNOWN, "has a statement that this ledger did not propose, seen in"),
    ];
    frozen_by(conn, organisation, &queries).await
}

async fn frozen_by(
    conn: &mut SqliteConnection,
    organisation: &str,
    queries: &[(&'static str, &str)],
) -> Result<Vec<Freeze>> {
    let mut freezes = Vec::new();
    for (query, why) in queries {
        for row in sqlx::query(*query).bind(organisation).fetch_all(&mut *conn).await? {
            let (deposit, epoch, seen) =
                (row.b256("deposit")?, row.u32("epoch")?, row.text("seen")?);
            let reason =
                format!("epoch {epoch} of deposit {deposit} {why} {seen}").trim_end().to_owned();
            freezes.push(Freeze { deposit, epoch, reason });
        }
    }
    Ok(freezes)
}

/// A leaf as its row holds it.
pub(crate) fn leaf_of(row: &SqliteRow) -> Result<Leaf> {
    let paid = match row.maybe_int("item")? {
        Some(item) => {
            let (revision, settled) = (row.u32("revision")?, row.maybe_signed("settled")?);
            Some(Paid { item, revision, settled })
        }
        None => None,
    };
    let (workload, provider) = (row.b256("workload")?, row.u32("provider")?);
    Ok(Leaf { workload, provider, amount: row.signed("amount")?, paid })
}

/// A leaf and the work behind it, as they are published.
fn published_leaf(row: &SqliteRow) -> Result<(Leaf, Option<Work>)> {
    let leaf = Leaf {
        workload: row.b256("workload")?,
        provider: row.u32("provider")?,
        amount: row.signed("amount")?,
        paid: None,
    };
    let Some(source) = row.maybe_text("source")? else { return Ok((leaf, None)) };
    let work = Work {
        source,
        external_id: row.text("external_id")?,
        revision: row.u32("revision")?,
        settled: row.maybe_signed("settled")?,
        machine: row.text("machine")?,
        started_ms: row.int("started_ms")?,
        stopped_ms: row.int("stopped_ms")?,
        fixed: row.b256("fixed")?,
    };
    Ok((leaf, Some(work)))
}

/// Whether an item has to be among the open ones: a revision waits for money, a statement that names it is undecided, or it
/// is not finally paid.
pub(crate) async fn is_open(conn: &mut SqliteConnection, item: i64) -> Result<bool> {
    let waits = sqlx::query(
        "select coalesce(max(revision), -1) > coalesce((select max(revision) from accepted where item = ?1), -1) as waits
         from workload where item = ?1",
    )
    .bind(item)
    .fetch_one(&mut *conn)
    .await?
    .flag("waits")?;
    let is_stated = sqlx::query(
        "select 1 from leaf l join statement t on t.id = l.statement
         where l.item = ? and not exists (
             select 1 from settled s2 join statement t2 on t2.id = s2.statement, chain
             where t2.deposit = t.deposit and t2.epoch = t.epoch and s2.block <= chain.finalised)
         limit 1",
    )
    .bind(item)
    .fetch_optional(&mut *conn)
    .await?
    .is_some();
    Ok(waits || is_stated || due_finally(conn, item).await? != 0)
}

/// What an item still owes if only final statements count.
async fn due_finally(conn: &mut SqliteConnection, item: i64) -> Result<i128> {
    let Some(mut open) = open_item(conn, item).await? else { return Ok(0) };
    let finalised = finalised(conn).await?;
    let paid = sqlx::query(
        "select l.amount, l.revision from leaf l join settled s on s.statement = l.statement
         where l.item = ? and s.block <= ?",
    )
    .bind(item)
    .bind(integer(finalised)?)
    .fetch_all(&mut *conn)
    .await?;
    (open.settled, open.paid_revision) = (0, None);
    for row in paid {
        open.settled =
            open.settled.checked_add(row.signed("amount")?).ok_or(Error::Overflow("amount due"))?;
        open.paid_revision = open.paid_revision.max(Some(row.u32("revision")?));
    }
    open.due()
}

pub(crate) async fn books(
    conn: &mut SqliteConnection,
    organisation: &str,
) -> Result<Option<Books>> {
    let row = sqlx::query("select token, attester from organisation where name = ?")
        .bind(organisation)
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let (pays_in, attester) = (row.address("token")?, row.address("attester")?);
    // Nothing is promised by decimals that a reorg may change.
    let token = registered(conn, pays_in).await?.filter(|(_, is_final)| *is_final);
    let token = token.map(|(token, _)| token);
    let deposits = funding_deposits(conn, organisation, (pays_in, attester)).await?;
    let open = open_items(conn, organisation).await?;
    let position = match token {
        Some(token) => position(token, &deposits, &open)?,
        None => Position::default(),
    };
    let freezes = freezes(conn, organisation).await?;
    Ok(Some(Books { pays_in, token, deposits, open, position, freezes }))
}

/// A token as the contract registered it, and whether the registration is final.
pub(crate) async fn registered(
    conn: &mut SqliteConnection,
    address: Address,
) -> Result<Option<(Token, bool)>> {
    let row = sqlx::query(
        "select token, decimals, block <= (select finalised from chain) as is_final from token_registered where token = ?",
    )
    .bind(address.to_vec())
    .fetch_optional(conn)
    .await?;
    row.map(|row| Ok((token(&row)?, row.flag("is_final")?))).transpose()
}

async fn funding_deposits(
    conn: &mut SqliteConnection,
    organisation: &str,
    (token, attester): (Address, Address),
) -> Result<Vec<FundingDeposit>> {
    let rows = sqlx::query("select deposit from funding where organisation = ? order by position")
        .bind(organisation)
        .fetch_all(&mut *conn)
        .await?;
    let mut deposits = Vec::new();
    for row in rows {
        let id = row.b256("deposit")?;
        let key = deposit_key(conn, id).await?;
        let is_usable = key.as_ref().is_some_and(|key| {
            key.token == token && key.signer == attester && key.cosigner == Address::ZERO
        });
        let state = deposit_state(conn, id).await?;
        let carries = carries(conn, id).await?;
        deposits.push(FundingDeposit { id, key, state, carries, is_usable });
    }
    Ok(deposits)
}

fn position(token: Token, deposits: &[FundingDeposit], open: &[OpenItem]) -> Result<Position> {
    let mut position = Position::default();
    for deposit in deposits.iter().filter(|deposit| deposit.is_usable) {
        let state = deposit.state;
        let amount = |units| token.unit.amount(units);
        position.deposited = position.deposited.add(token.unit.turnover(state.deposited_final)?)?;
        position.withdrawn = position.withdrawn.add(token.unit.turnover(state.withdrawn)?)?;
        position.thawing = position.thawing.add(amount(state.thawing))?;
        position.settled = position.settled.add(amount(state.spent))?;
        for carry in deposit.carries.values() {
            position.carried = position.carried.add(*carry)?;
        }
    }
    for item in open {
        position.reserved = position.reserved.add(item.reserved()?)?;
    }
    Ok(position)
}

/// A subquery of what each accepted revision comes to, and the rate that led to it; no rate where a statement that was brought
/// back tells. Not a view: with one, SQLite's integrity check may leave pages out that belong to nothing.
macro_rules! promised {
    () => {
        "(select a.item, a.revision,
            coalesce((
                select r.amount from restated r where r.item = a.item and r.revision = a.revision
                order by r.id desc limit 1), a.amount) as amount,
            iif(exists (select 1 from restated r where r.item = a.item and r.revision = a.revision), null, a.rate) as rate,
            a.rate_source, a.rate_at
          from accepted a)"
    };
}
pub(crate) use promised;

/// Items as if they were open, given from where and which ones. `?1` is the time, ms, at which payees act.
macro_rules! select_items {
    ($from:literal, $which:literal) => {
        concat!(
            "select i.id, i.source, i.external_id, i.machine, i.stopped_ms, a.revision, a.amount,
                (select d.verdict from decision d where d.item = i.id order by d.id desc limit 1) as verdict,
                (select min(r.provider) from registered r, chain, payee p
                 where p.id = (select max(id) from payee where machine = i.machine and effective_ms <= ?1)
                   and r.payout = p.address and r.block <= chain.finalised) as provider,
                (select max(revision) from workload w where w.item = i.id) > coalesce(a.revision, -1) as waits,
                i.stopped_ms < (select max(until_ms) from cut_off where organisation = i.organisation) as is_cut_off
             from ",
            $from,
            " left join ",
            promised!(),
            " a on a.item = i.id
                and a.revision = (select max(revision) from accepted where item = i.id)
             where ",
            $which,
            " order by i.stopped_ms, i.source, i.external_id"
        )
    };
}

/// What statements say of items, given from where and which ones, in the order in which they settled.
macro_rules! select_leaves {
    ($from:literal, $which:literal) => {
        concat!(
            "select l.item, l.revision, l.amount, l.settled as told, l.provider, t.deposit, t.epoch,
                s.statement is not null as settled,
                exists (select 1 from settled s2 join statement t2 on t2.id = s2.statement, chain
                    where t2.deposit = t.deposit and t2.epoch = t.epoch and s2.block <= chain.finalised) as retired
             from ",
            $from,
            " join statement t on t.id = l.statement left join settled s on s.statement = t.id
             where ",
            $which,
            " order by s.block, s.log_index"
        )
    };
}

async fn open_items(conn: &mut SqliteConnection, organisation: &str) -> Result<Vec<OpenItem>> {
    let rows =
        sqlx::query(select_items!("open o join item i on i.id = o.item", "i.organisation = ?2"))
            .bind(now_ms(conn).await?)
            .bind(organisation)
            .fetch_all(&mut *conn)
            .await?;
    let leaves = sqlx::query(select_leaves!(
        "open o join item i on i.id = o.item join leaf l on l.item = o.item",
        "i.organisation = ?"
    ))
    .bind(organisation)
    .fetch_all(&mut *conn)
    .await?;
    items(conn, &rows, &leaves).await
}

/// One item as if it were open; `None` if there is none of this row id.
pub(crate) async fn open_item(conn: &mut SqliteConnection, item: i64) -> Result<Option<OpenItem>> {
    let rows = sqlx::query(select_items!("item i", "i.id = ?2"))
        .bind(now_ms(conn).await?)
        .bind(item)
        .fetch_all(&mut *conn)
        .await?;
    let leaves = sqlx::query(select_leaves!("leaf l", "l.item = ?"))
        .bind(item)
        .fetch_all(&mut *conn)
        .await?;
    Ok(items(conn, &rows, &leaves).await?.pop())
}

/// Time of the checkpoint, ms: the clock of what acts after a delay, the same for everybody who has the same blocks.
pub(crate) async fn now_ms(conn: &mut SqliteConnection) -> Result<i64> {
    let block = checkpoint(conn).await?;
    integer(block.map_or(0, |block| block.time).saturating_mul(1000))
}

async fn items(
    conn: &mut SqliteConnection,
    rows: &[SqliteRow],
    leaves: &[SqliteRow],
) -> Result<Vec<OpenItem>> {
    let mut stated = stated(leaves)?;
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        let item = row.int("id")?;
        let Stated { settled, paid_revision, live, paid_provider } =
            stated.remove(&item).unwrap_or_default();
        let accepted = match row.maybe_int("revision")? {
            Some(_) => Some((row.u32("revision")?, row.amount("amount")?)),
            None => None,
        };
        let verdict = match row.maybe_text("verdict")? {
            Some(name) => Some(Verdict::from_name(&name).ok_or(Error::Corrupt("verdict"))?),
            None => None,
        };
        let has_equal_digests = verdict.is_some() && has_equal_digests(conn, item).await?;
        items.push(OpenItem {
            item,
            source: row.text("source")?,
            external_id: row.text("external_id")?,
            machine: row.text("machine")?,
            stopped_ms: row.int("stopped_ms")?,
            accepted,
            waits: row.maybe_int("waits")? == Some(1),
            settled,
            paid_revision,
            live,
            provider: row.maybe_int("provider")?.map(|_| row.u32("provider")).transpose()?,
            paid_provider,
            verdict,
            has_equal_digests,
            is_cut_off: row.maybe_int("is_cut_off")? == Some(1),
        });
    }
    Ok(items)
}

/// Whether both sides reported a digest of an item's output, and the same.
async fn has_equal_digests(conn: &mut SqliteConnection, item: i64) -> Result<bool> {
    let row =
        sqlx::query("select body from workload where item = ? order by revision desc limit 1")
            .bind(item)
            .fetch_optional(conn)
            .await?;
    let Some(row) = row else { return Ok(false) };
    Ok(Record::from_body(&row.text("body")?)?.has_equal_digests())
}

/// What statements say of an item.
#[derive(Debug, Clone, Default)]
struct Stated {
    settled: i128,
    paid_revision: Option<u32>,
    live: Vec<Naming>,
    paid_provider: Option<ProviderNumber>,
}

/// What leaves say of their items, given in the order in which they settled. A leaf is live until another or its own
/// statement has finally settled its epoch.
fn stated(leaves: &[SqliteRow]) -> Result<BTreeMap<i64, Stated>> {
    let mut stated: BTreeMap<i64, Stated> = BTreeMap::new();
    for row in leaves {
        let amount = row.signed("amount")?;
        let entry = stated.entry(row.int("item")?).or_default();
        let is_settled = row.flag("settled")?;
        if is_settled {
            entry.paid_provider = Some(row.u32("provider")?);
            entry.paid_revision = entry.paid_revision.max(Some(row.u32("revision")?));
            entry.settled =
                entry.settled.checked_add(amount).ok_or(Error::Overflow("sum of leaves"))?;
        }
        if row.flag("retired")? {
            continue;
        }
        let (deposit, epoch) = (row.b256("deposit")?, row.u32("epoch")?);
        let known =
            entry.live.iter().position(|live| (live.deposit, live.epoch) == (deposit, epoch));
        let known = known.unwrap_or_else(|| {
            entry.live.push(Naming { deposit, epoch, largest: 0, smallest: 0, settled: 0 });
            entry.live.len() - 1
        });
        if let Some(live) = entry.live.get_mut(known) {
            live.largest = live.largest.max(amount);
            live.smallest = live.smallest.min(amount);
            if is_settled {
                live.settled = amount;
            }
        }
    }
    Ok(stated)
}

/// Why a statement that could settle would pay work once more, if it would: since it was stated, a cut-off has taken the work for
/// paid, or more of it has settled, or can settle elsewhere, than was known then.
pub(crate) async fn paid_again(conn: &mut SqliteConnection, id: i64) -> Result<Option<String>> {
    let leaves = sqlx::query(select_leaves!(
        "leaf own join statement mine on mine.id = own.statement join leaf l on l.item = own.item",
        "own.statement = ? and (t.deposit, t.epoch) <> (mine.deposit, mine.epoch)"
    ))
    .bind(id)
    .fetch_all(&mut *conn)
    .await?;
    let mut stated = stated(&leaves)?;
    let mut others: BTreeMap<i64, Others> = BTreeMap::new();
    for row in &leaves {
        let (item, leaf) = (row.int("item")?, PlacedLeaf::of(row)?);
        let others = others.entry(item).or_default();
        if row.flag("settled")? {
            if leaf.amount < 0 {
                others.taken_back.push((leaf, row.u32("revision")?));
            }
            others.has_told |= leaf.amount > 0 && leaf.told.is_some();
        }
        if !row.flag("retired")? {
            others.live.push(leaf);
        }
    }
    let own = sqlx::query(
        "select l.item, l.revision, l.amount, l.settled as told, i.source, i.external_id, t.deposit, t.epoch,
            coalesce(i.stopped_ms < (select max(until_ms) from cut_off where organisation = i.organisation), 0) as is_cut_off
         from leaf l join item i on i.id = l.item join statement t on t.id = l.statement
         where l.statement = ? order by l.position",
    )
    .bind(id)
    .fetch_all(conn)
    .await?;
    for row in own {
        let item = row.int("item")?;
        let known = stated.remove(&item).unwrap_or_default();
        let others = others.remove(&item).unwrap_or_default();
        if let Some(why) = repetition(&row, &known, &others)? {
            let (id, source) = (row.text("external_id")?, row.text("source")?);
            return Ok(Some(format!("work {id:?} of source {source:?} {why}")));
        }
    }
    Ok(None)
}

/// Leaves of one work in other places.
#[derive(Default)]
struct Others {
    /// Those that can settle or have not settled finally.
    live: Vec<PlacedLeaf>,
    /// Those that have settled, finally or not, and took back, with the revision that they name.
    taken_back: Vec<(PlacedLeaf, u32)>,
    /// Whether one of those that have settled, finally or not, paid, and tells what had settled before it.
    has_told: bool,
}

/// A leaf, as far as one of the same work in another place is concerned.
#[derive(Clone, Copy)]
pub(crate) struct PlacedLeaf {
    place: (B256, u32),
    pub(crate) amount: i128,
    /// What had settled before, if that is told.
    told: Option<i128>,
}

impl PlacedLeaf {
    pub(crate) fn of(row: &SqliteRow) -> Result<Self> {
        let place = (row.b256("deposit")?, row.u32("epoch")?);
        Ok(Self { place, amount: row.signed("amount")?, told: row.maybe_signed("told")? })
    }

    /// Whether it was stated when the other one had settled, though that is not seen here yet.
    fn follows(&self, other: &Self) -> bool {
        let after = other.told.and_then(|told| told.checked_add(other.amount));
        self.told.zip(after).is_some_and(|(told, after)| {
            if other.amount < 0 { told <= after } else { told >= after }
        })
    }

    /// Whether it is in another place, and neither of the two was stated when the other one had settled.
    pub(crate) fn is_apart_from(&self, other: &Self) -> bool {
        self.place != other.place && !self.follows(other) && !other.follows(self)
    }
}

/// Why a leaf would pay a work once more than others have paid it, or take back once more, if it would.
fn repetition(leaf: &SqliteRow, known: &Stated, others: &Others) -> Result<Option<String>> {
    let own = PlacedLeaf::of(leaf)?;
    if own.amount > 0 {
        if leaf.flag("is_cut_off")? {
            let why = "is regarded as paid since a cut-off, and it would pay it again";
            return Ok(Some(why.into()));
        }
        let is_paid = match own.told {
            Some(told) => known.settled > told,
            // Amounts do not tell, rates differ. What was stated since does, and was not known to it.
            None => others.has_told || known.paid_revision >= Some(leaf.u32("revision")?),
        };
        if is_paid {
            return Ok(Some("was paid meanwhile, and it would pay it again".into()));
        }
    }
    if own.amount < 0 {
        let revision = leaf.u32("revision")?;
        // That less has settled than was told is no sign of its own: blocks may not be read yet. Nor is a rival, where the work was
        // paid again since.
        let is_taken_back = match own.told {
            Some(told) => {
                known.settled < told
                    && others.taken_back.iter().any(|(other, _)| other.is_apart_from(&own))
            }
            None => others.taken_back.iter().any(|(_, taken)| *taken >= revision),
        };
        if is_taken_back {
            return Ok(Some("was taken back meanwhile, and it would take it back again".into()));
        }
    }
    let rival = others.live.iter().find(|other| other.is_apart_from(&own));
    Ok(rival.map(|PlacedLeaf { place: (deposit, epoch), .. }| {
        format!(
            "is in epoch {epoch} of deposit {deposit}, too, which can settle or has not settled finally"
        )
    }))
}

/// What an organisation can still spend, base units; see [`rules::available`].
impl Books {
    /// See [`rules::available`].
    pub fn available(&self, fee_bps: u16) -> Result<i128> {
        rules::available(&self.position, fee_bps)
    }
}

/// Lists an item among the open ones if it has to be there, and takes it out if not.
pub(crate) async fn refresh_open(conn: &mut SqliteConnection, item: i64) -> Result<()> {
    let query = if is_open(conn, item).await? {
        "insert into open (item) values (?) on conflict do nothing"
    } else {
        "delete from open where item = ?"
    };
    sqlx::query(query).bind(item).execute(conn).await?;
    Ok(())
}
