//! Statements: recorded as content, checked against the books in the same commit, then signed.

use std::collections::BTreeMap;

use alloy::primitives::B256;
use k256::ecdsa::SigningKey;
use sqlx::SqliteConnection;

use super::BookWriter;
use crate::{
    Error, Result,
    chain::{Content, insert_statement},
    manifest::{CARRY, Tree},
    read::{self, SignedStatement},
    rules::{self, Proposal},
    sql::{self, Columns, integer},
    statement::{self, Statement},
    store, verify,
};

impl BookWriter {
    /// Records the next statement of a deposit: rows, leaves, manifest root and digest. Returns what is to be signed.
    ///
    /// Refused if the deposit moved on since the proposal was made, or if another candidate of its epoch exists.
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
        let digest = statement.digest(&self.0.identity().domain());
        let candidates =
            sqlx::query("select 1 from statement where deposit = ? and epoch = ? and ours = 1")
                .bind(deposit.to_vec())
                .bind(i64::from(statement.epoch))
                .fetch_all(&mut *tx)
                .await?;
        if !candidates.is_empty() {
            return Err(Error::Unsignable(format!(
                "deposit {deposit} has a candidate for epoch {} already",
                statement.epoch
            )));
        }
        refuse_stale(&mut tx, deposit, proposal).await?;
        let content = Content {
            deposit,
            epoch: statement.epoch,
            spent: statement.spent,
            manifest: statement.manifest,
            digest,
        };
        let id = insert_statement(&mut tx, &content, Some(fee_bps)).await?;
        insert_rows(&mut tx, id, proposal).await?;
        insert_leaves(&mut tx, id, proposal).await?;
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
    /// Enforces the signers' rules that one candidate at a time leaves open: digest, manifest root and rows follow from
    /// the stored leaves, the epoch is the deposit's next, and the key is one that the deposit names.
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
    deposit: B256,
    proposal: &Proposal,
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
    let Some(purse) = books.deposits.iter().find(|known| known.id == deposit && known.is_usable)
    else {
        return refuse("it cannot be paid from".into());
    };
    if proposal.total()? > purse.state.spendable() {
        return refuse("the rows exceed what is final and unspent".into());
    }
    let open: BTreeMap<_, _> = books.open.iter().map(|item| (item.item, item)).collect();
    for leaf in &proposal.leaves {
        let expected = match leaf.paid {
            Some(paid) => match open.get(&paid.item) {
                Some(item) => item.payable()?,
                None => None,
            }
            .filter(|(_, revision, _)| *revision == paid.revision)
            .map(|(provider, _, due)| (provider, due)),
            None if leaf.workload == CARRY => {
                let carry = purse.carries.get(&leaf.provider).copied().unwrap_or_default();
                Some((leaf.provider, carry.signed()?))
            }
            None => Some((leaf.provider, leaf.amount)),
        };
        if expected != Some((leaf.provider, leaf.amount)) {
            return refuse(format!("leaf {} is not due as proposed", leaf.workload));
        }
    }
    Ok(())
}

async fn insert_rows(
    conn: &mut SqliteConnection,
    statement: i64,
    proposal: &Proposal,
) -> Result<()> {
    for row in &proposal.rows {
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

async fn insert_leaves(
    conn: &mut SqliteConnection,
    statement: i64,
    proposal: &Proposal,
) -> Result<()> {
    for (position, leaf) in proposal.leaves.iter().enumerate() {
        sqlx::query(
            "insert into leaf (statement, position, item, revision, workload, provider, amount)
             values (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(statement)
        .bind(integer(position as u64)?)
        .bind(leaf.paid.map(|paid| paid.item))
        .bind(leaf.paid.map(|paid| i64::from(paid.revision)))
        .bind(leaf.workload.to_vec())
        .bind(i64::from(leaf.provider))
        .bind(sql::signed(leaf.amount))
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}
