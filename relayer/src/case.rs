//! The case for a second opinion: an installation's public record and its workload files, put before
//! [`crate::opinion`] as they are.

use std::{fs, path::PathBuf};

use alloy::primitives::B256;
use indexer::Endpoints;
use ledger::{
    Ledger,
    chain::{ChainWriter, Event as Fact},
    read::Reader,
};

use crate::{
    Error, Result,
    config::Config,
    opinion::{
        self, Case, Decimal, Decision, DepositKey, Event, Manifest, Organisation, Verdict,
        WorkloadFile,
    },
};

/// Gathers the case of an installation at the ledger's checkpoint. Of the ledger it takes the checkpoint, the decisions
/// and the closings, which nothing else records; `files` are to come in the order in which they were taken in.
pub(crate) async fn gather(
    config: &Config,
    ledger: &Ledger,
    endpoints: &Endpoints,
    files: &[PathBuf],
) -> Result<Case> {
    let checkpoint = ChainWriter::new(ledger.clone())
        .checkpoint()
        .await?
        .ok_or_else(|| Error::Usage("nothing is indexed yet; run quittance serve first".into()))?;
    let replay = indexer::replay::replay(endpoints, config.chain.start_block, &checkpoint).await?;
    let facts = replay.blocks.into_iter().flat_map(|block| block.facts);
    let reader = Reader::new(ledger.clone());
    let decisions = reader.decisions().await?.into_iter().map(|decision| Decision {
        verdict: match decision.verdict.as_str() {
            "pay" => Verdict::Pay,
            "release" => Verdict::Release,
            _ => Verdict::Hold,
        },
        source: decision.source,
        external_id: decision.external_id,
        at_ms: None,
    });
    let closings = reader.closings().await?;
    let tariff = config.tariff();
    Ok(Case {
        chain_id: config.chain.id,
        contract: config.chain.contract,
        secret: secret(config)?,
        operator: config.policy.operator_payout.filter(|_| tariff.fee_bps > 0),
        fee_bps: vec![tariff.fee_bps],
        rates: config
            .tokens
            .iter()
            .filter_map(|token| {
                let rate = Decimal::read(&token.usd_per_token.to_string())?;
                Some((token.address, vec![rate]))
            })
            .collect(),
        organisations: config
            .organisations
            .iter()
            .map(|organisation| Organisation {
                name: organisation.name.clone(),
                token: organisation.token,
                deposits: organisation.deposits.clone(),
            })
            .collect(),
        files: workload_files(config, files)?,
        decisions: decisions.collect(),
        events: facts.filter_map(|fact| event(fact.event)).collect(),
        manifests: manifests(config)?,
        closed_until: Some(closings.iter().map(|(_, until)| *until).max().unwrap_or(i64::MIN)),
        is_over: false,
    })
}

fn secret(config: &Config) -> Result<B256> {
    let path = config.path(&config.files.secret);
    let text = fs::read_to_string(&path).map_err(Error::file(&path))?;
    text.trim().parse().map_err(|_| Error::Key {
        path: path.display().to_string(),
        reason: "it must be 32 bytes in hex".into(),
    })
}

fn workload_files(config: &Config, paths: &[PathBuf]) -> Result<Vec<WorkloadFile>> {
    let source = &config.policy.earnings_source;
    paths
        .iter()
        .map(|path| {
            let content = fs::read(path).map_err(Error::file(path))?;
            let name = path.display().to_string();
            let file = opinion::file(&name, &content, source)
                .map_err(|reason| Error::Input { name, reason })?;
            Ok(WorkloadFile { source: source.clone(), file, at_ms: None })
        })
        .collect()
}

fn manifests(config: &Config) -> Result<Vec<Manifest>> {
    let folder = config.path(&config.files.manifests);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file(&folder)(error)),
    };
    let mut manifests = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::file(&folder))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read_to_string(&path).map_err(Error::file(&path))?;
            let name = path.display().to_string();
            manifests.push(Manifest::read(&text).map_err(|reason| Error::Input { name, reason })?);
        }
    }
    manifests.sort_by_key(|manifest| (manifest.deposit, manifest.epoch, manifest.digest));
    Ok(manifests)
}

/// An event as the opinion knows it; `None` for what moves no money.
fn event(event: Fact) -> Option<Event> {
    Some(match event {
        Fact::TokenRegistered { token, decimals } => Event::TokenRegistered { token, decimals },
        Fact::Registered { provider, payout } => Event::Registered { provider, payout },
        Fact::Funded { key, units, .. } => Event::Deposited {
            key: DepositKey {
                requestor: key.requestor,
                signer: key.signer,
                cosigner: key.cosigner,
                token: key.token,
                salt: key.salt,
            },
            units: units.get(),
        },
        Fact::Withdrawn { deposit, units, .. } => Event::Withdrawn { deposit, units: units.get() },
        Fact::Settled { deposit, epoch, spent, manifest, rows } => {
            Event::Settled { deposit, epoch, spent: spent.get(), root: manifest, rows }
        }
        Fact::Claimed { provider, token, units, .. } => {
            Event::Claimed { provider, token, units: units.get() }
        }
        Fact::Thawed { .. }
        | Fact::PayoutSet { .. }
        | Fact::Skipped { .. }
        | Fact::ClaimFailed { .. } => return None,
    })
}
