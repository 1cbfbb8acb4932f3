//! What is signed and hashed, against what it is signed and hashed over.

use alloy::{
    consensus::{Transaction, TxEnvelope},
    eips::eip2718::Decodable2718,
    primitives::keccak256,
};
use sqlx::SqliteConnection;

use super::{Found, money};
use crate::{Identity, Result, chain::Content, manifest::Tree, read, sql::Columns, statement};

pub(super) async fn check(
    conn: &mut SqliteConnection,
    identity: &Identity,
    found: &mut Found,
) -> Result<()> {
    statements(conn, identity, found).await?;
    attempts(conn, identity, found).await?;
    references(conn, found).await?;
    file(conn, found).await
}

/// L30 to L32: digests, signatures over them, and manifest roots.
async fn statements(
    conn: &mut SqliteConnection,
    identity: &Identity,
    found: &mut Found,
) -> Result<()> {
    let domain = identity.domain();
    for row in
        sqlx::query("select id, ours from statement order by id").fetch_all(&mut *conn).await?
    {
        let id = row.int("id")?;
        let (content, packed) = match read::statement_content(conn, id).await {
            Ok(content) => content,
            Err(error) => {
                found.add(
                    30,
                    format!("statement {id}"),
                    format!("its rows cannot be packed: {error}"),
                );
                continue;
            }
        };
        let Content { deposit, epoch, spent, manifest, digest } = content;
        let follows = statement::digest(&domain, deposit, epoch, spent, (manifest, &packed));
        if digest != follows {
            let problem = format!("stored digest {digest}, its content has {follows}");
            found.add(30, format!("statement {id}"), problem);
        }
        if row.flag("ours")? {
            let leaves = money::leaves(conn, &format!("[{id}]")).await?;
            let root = Tree::new(leaves.get(&id).map_or(&[], Vec::as_slice)).root();
            if root != manifest {
                let problem =
                    format!("its leaves have the root {root}, its manifest is {manifest}");
                found.add(32, format!("statement {id}"), problem);
            }
        }
        let signatures = sqlx::query("select signer, signature from signature where statement = ?")
            .bind(id)
            .fetch_all(&mut *conn)
            .await?;
        for row in signatures {
            let (signer, signature) = (row.address("signer")?, row.blob("signature")?);
            if statement::recover(digest, &signature).ok() != Some(signer) {
                let name = format!("signature of statement {id} by {signer}");
                found.add(31, name, "it is not by that key over that statement");
            }
        }
    }
    Ok(())
}

/// L33: that the signed bytes of an attempt are what its row and its slot say.
async fn attempts(
    conn: &mut SqliteConnection,
    identity: &Identity,
    found: &mut Found,
) -> Result<()> {
    let rows = sqlx::query(
        "select a.*, s.sender, s.tx_nonce from attempt a join slot s on s.id = a.slot order by a.id",
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let (name, raw) = (format!("attempt {}", row.int("id")?), row.blob("raw")?);
        if keccak256(&raw) != row.b256("hash")? {
            found.add(33, &name, "its bytes do not have its hash");
        }
        let Ok(tx) = TxEnvelope::decode_2718(&mut raw.as_slice()) else {
            found.add(33, &name, "its bytes are no signed transaction");
            continue;
        };
        let sender = row.address("sender")?;
        let signature = tx.signature().as_bytes();
        if statement::recover(tx.signature_hash(), &signature).ok() != Some(sender) {
            found.add(33, &name, format!("its bytes are not signed by {sender}"));
        }
        let signed = (
            tx.nonce(),
            tx.chain_id(),
            tx.gas_limit(),
            tx.max_fee_per_gas(),
            tx.max_priority_fee_per_gas(),
        );
        let stored = (
            row.u64("tx_nonce")?,
            Some(identity.chain_id),
            row.u64("gas_limit")?,
            row.amount("max_fee")?.base_units(),
            Some(row.amount("tip")?.base_units()),
        );
        if signed != stored {
            let problem = format!(
                "tx nonce, chain id, gas limit, fee and tip are {stored:?}, signed are {signed:?}"
            );
            found.add(33, name, problem);
        }
    }
    Ok(())
}

/// L34: that every reference between rows leads somewhere.
async fn references(conn: &mut SqliteConnection, found: &mut Found) -> Result<()> {
    let rows = sqlx::query("select \"table\" as name, \"parent\" as parent, count(*) as n from pragma_foreign_key_check group by 1, 2")
        .fetch_all(conn)
        .await?;
    for row in rows {
        let problem = format!(
            "{} rows refer to rows of {} that are not there",
            row.int("n")?,
            row.text("parent")?
        );
        found.add(34, row.text("name")?, problem);
    }
    Ok(())
}

/// L35: that the file is whole, its pages, indexes and checks.
async fn file(conn: &mut SqliteConnection, found: &mut Found) -> Result<()> {
    let rows = sqlx::query("select integrity_check as said from pragma_integrity_check")
        .fetch_all(conn)
        .await?;
    for row in rows {
        let said = row.text("said")?;
        if said != "ok" {
            found.add(35, "the file", said);
        }
    }
    Ok(())
}
