//! Statements: recorded as content, checked against the books in the same commit, then signed.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::B256;
use k256::ecdsa::SigningKey;
use sqlx::SqliteConnection;

use super::BookWriter;
use crate::{
    Error, ProviderNumber, Result,
    chain::{Content, insert_statement},
    manifest::{CARRY, FEE, Leaf, Tree},
    read::{self, SignedStatement},
    rules::{self, Limits, Proposal},
    sql::{self, Columns, integer},
    statement::{self, Row, Statement},
    store, verify,
};

impl BookWriter {
    /// Records a candidate for the next epoch of a deposit: rows, leaves, manifest root and digest. Returns what is to be
    /// signed. From here on its leaves are live.
    ///
    /// Refused if the deposit moved on since the proposal was made, if another candidate of the epoch comes to the same
    /// sum, or if anything in it does not follow from the books as they are now.
    pub async fn record_statement(
        &self,
        deposit: B256,
        state: &rules::DepositState,
        proposal: &Proposal,
        fee_bps: u16,
    ) -> Result<SignedStatement> {
        let mut tx = self.0.begin().await?;
        let current = read::deposit_state(&mut tx, deposit).await?;
        if (current.epoch, current.spent) != (state.epoch, state.spent) {
            return Err(Error::Unsignable(format!(
                "deposit {deposit} moved on to epoch {}",
                current.epoch
            )));
        }
        let key = read::deposit_key(&mut tx, deposit)
            .await?
            .ok_or(Error::Corrupt("deposit of a proposal"))?;
        let statement = Statement {
            key,
            epoch: state.epoch.checked_add(1).ok_or(Error::Overflow("epoch"))?,
            spent: state.spent.add(proposal.total()?)?,
            manifest: Tree::new(&proposal.leaves).root(),
            rows: statement::pack(&proposal.rows)?,
        };
        let candidates = read::next_candidates(&mut tx, deposit, &current).await?;
        if candidates.iter().any(|other| other.spent == statement.spent) {
            return Err(Error::Unsignable(format!(
                "deposit {deposit} has a candidate for epoch {} that brings it to {} already; a successor could follow either",
                statement.epoch, statement.spent
            )));
        }
        refuse_stale(&mut tx, (deposit, statement.epoch), proposal, fee_bps).await?;
        let digest = statement.digest(&self.0.identity().domain());
        let content = Content {
            deposit,
            epoch: statement.epoch,
            spent: statement.spent,
            manifest: statement.manifest,
            digest,
        };
        let id = insert_own(&mut tx, &content, fee_bps, &proposal.rows).await?;
        insert_leaves(&mut tx, id, &proposal.leaves).await?;
        store::commit(tx, "statement").await?;
        Ok(SignedStatement {
            id,
            statement,
            digest,
            signature: Vec::new(),
            cosignature: Vec::new(),
        })
    }

    /// Signs a recorded statement with the attester's key and stores the signature.
    ///
    /// Enforces the signers' rules that recording leaves open: digest, manifest root and rows follow from the stored
    /// leaves, the epoch is the deposit's next, nobody else pays its work, nothing is unknown of the deposit, and the key is one
    /// that it names.
    pub async fn sign_statement(&self, id: i64, key: &SigningKey) -> Result<SignedStatement> {
        let mut tx = self.0.begin().await?;
        let (statement, digest) = read::statement(&mut tx, id).await?;
        let state = read::deposit_state(&mut tx, statement.key.id()).await?;
        let signer = statement::address_of(key.verifying_key());
        let refuse = |why: String| Err(Error::Unsignable(why));
        if statement.digest(&self.0.identity().domain()) != digest {
            return refuse(format!("statement {id} does not have the digest {digest}"));
        }
        if let Some(difference) = verify::statement_differences(&mut tx, id).await?.first() {
            return refuse(difference.to_string());
        }
        if Some(statement.epoch) != state.epoch.checked_add(1) {
            return refuse(format!(
                "statement {id} is for epoch {}, the deposit is at {}",
                statement.epoch, state.epoch
            ));
        }
        if let Some(why) = read::paid_again(&mut tx, id).await? {
            return refuse(format!("statement {id}: {why}"));
        }
        // Whose work it names, whoever the deposit pays for by now; it may name none.
        let organisations = sqlx::query(
            "select organisation from funding where deposit = ?1
             union select i.organisation from leaf l join item i on i.id = l.item where l.statement = ?2",
        )
        .bind(statement.key.id().to_vec())
        .bind(id)
        .fetch_all(&mut *tx)
        .await?;
        for row in organisations {
            let freezes = read::freezes(&mut tx, &row.text("organisation")?).await?;
            if let Some(freeze) = freezes.first() {
                return refuse(freeze.reason.clone());
            }
        }
        if ![statement.key.signer, statement.key.cosigner].contains(&signer) {
            return refuse(format!(
                "deposit {} does not name the key {signer}",
                statement.key.id()
            ));
        }
        let signature = statement::sign(key, digest)?;
        sqlx::query("insert into signature (statement, signer, signature) values (?, ?, ?) on conflict do nothing")
            .bind(id)
            .bind(signer.to_vec())
            .bind(signature.to_vec())
            .execute(&mut *tx)
            .await?;
        store::commit(tx, "signature").await?;
        read::Reader::new(self.0.clone()).signed_statement(id).await
    }
}

/// Refuses a proposal that does not follow from the books as they are now: it was made from what was read before, and the
/// indexer may have written since.
async fn refuse_stale(
    conn: &mut SqliteConnection,
    (deposit, epoch): (B256, u32),
    proposal: &Proposal,
    fee_bps: u16,
) -> Result<()> {
    let refuse = |why: String| {
        Err(Error::Unsignable(format!("deposit {deposit}: {why}; the next turn proposes anew")))
    };
    let row = sqlx::query("select organisation from funding where deposit = ?")
        .bind(deposit.to_vec())
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return refuse("it pays for nobody".into()) };
    let books = read::books(conn, &row.text("organisation")?)
        .await?
        .ok_or(Error::Corrupt("organisation"))?;
    if let Some(freeze) = books.freezes.first() {
        return Err(Error::Unsignable(freeze.reason.clone()));
    }
    let Some(purse) = books.deposits.iter().find(|known| known.id == deposit && known.is_usable)
    else {
        return refuse("it cannot be paid from".into());
    };
    if proposal.total()? > purse.state.spendable() {
        return refuse("the rows exceed what is final and unspent".into());
    }
    if let Some(why) = rules::excess(proposal, Limits::default()) {
        return refuse(why);
    }
    if let Some(provider) = unregistered(conn, proposal).await? {
        return refuse(format!("the registration of provider {provider} is not final"));
    }
    let open: BTreeMap<_, _> = books.open.iter().map(|item| (item.item, item)).collect();
    let mut named = BTreeSet::new();
    for leaf in &proposal.leaves {
        let expected = match leaf.paid {
            Some(paid) if !named.insert(paid.item) => None,
            Some(paid) => match open.get(&paid.item) {
                Some(item) => item.payable((deposit, epoch))?,
                None => None,
            }
            .filter(|(_, revision, _)| *revision == paid.revision)
            .map(|(provider, _, due)| (provider, due)),
            None if leaf.workload == CARRY => {
                let carry = purse.carries.get(&leaf.provider).copied().unwrap_or_default();
                Some((leaf.provider, carry.signed()?))
            }
            None => {
                let fee = rules::fee_of(&proposal.leaves, fee_bps)?.signed()?;
                (leaf.workload == FEE).then_some((leaf.provider, fee))
            }
        };
        if expected != Some((leaf.provider, leaf.amount)) {
            return refuse(format!("leaf {} is not due as proposed", leaf.workload));
        }
    }
    Ok(())
}

/// A provider of the rows whose registration is not final, if there is one: a reorg could give its number to another.
async fn unregistered(
    conn: &mut SqliteConnection,
    proposal: &Proposal,
) -> Result<Option<ProviderNumber>> {
    let row = sqlx::query(
        "select coalesce(max(provider), 0) as n from registered, chain where block <= chain.finalised",
    )
    .fetch_one(conn)
    .await?;
    let count = row.u32("n")?;
    Ok(proposal.rows.iter().map(|row| row.provider).find(|provider| *provider > count))
}

/// Row id of a statement with its rows, from now on one of ours: a new one, or one that the chain showed first.
pub(super) async fn insert_own(
    conn: &mut SqliteConnection,
    content: &Content,
    fee_bps: u16,
    rows: &[Row],
) -> Result<i64> {
    let shown = sqlx::query("select id from statement where digest = ? and ours = 0")
        .bind(content.digest.to_vec())
        .fetch_optional(&mut *conn)
        .await?;
    if let Some(row) = shown {
        let id = row.int("id")?;
        adopt(conn, id, fee_bps, rows).await?;
        return Ok(id);
    }
    let id = insert_statement(conn, content, Some(fee_bps)).await?;
    insert_rows(conn, id, rows).await?;
    Ok(id)
}

/// Makes a statement that the chain showed first one of ours.
async fn adopt(conn: &mut SqliteConnection, id: i64, fee_bps: u16, rows: &[Row]) -> Result<()> {
    sqlx::query("update statement set ours = 1, fee_bps = ? where id = ?")
        .bind(i64::from(fee_bps))
        .bind(id)
        .execute(&mut *conn)
        .await?;
    for row in rows {
        sqlx::query(
            "update \"row\" set carry_in = ?, carry_out = ? where statement = ? and provider = ?",
        )
        .bind(sql::amount(row.carry_in))
        .bind(sql::amount(row.carry_out))
        .bind(id)
        .bind(i64::from(row.provider))
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

async fn insert_rows(conn: &mut SqliteConnection, statement: i64, rows: &[Row]) -> Result<()> {
    for row in rows {
        sqlx::query("insert into \"row\" (statement, provider, units, carry_in, carry_out) values (?, ?, ?, ?, ?)")
            .bind(statement)
            .bind(i64::from(row.provider))
            .bind(sql::units(row.units))
            .bind(sql::amount(row.carry_in))
            .bind(sql::amount(row.carry_out))
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

pub(super) async fn insert_leaves(
    conn: &mut SqliteConnection,
    statement: i64,
    leaves: &[Leaf],
) -> Result<()> {
    for (position, leaf) in leaves.iter().enumerate() {
        sqlx::query(
            "insert into leaf (statement, position, item, revision, settled, workload, provider, amount)
             values (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(statement)
        .bind(integer(position as u64)?)
        .bind(leaf.paid.map(|paid| paid.item))
        .bind(leaf.paid.map(|paid| i64::from(paid.revision)))
        .bind(leaf.paid.and_then(|paid| paid.settled).map(sql::signed))
        .bind(leaf.workload.to_vec())
        .bind(i64::from(leaf.provider))
        .bind(sql::signed(leaf.amount))
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}
