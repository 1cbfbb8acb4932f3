//! The demo's world: contract, tokens, funded requestors, deposits, and an installation that knows them.

use std::{collections::BTreeMap, path::Path, time::Duration};

use alloy::{
    eips::BlockNumberOrTag,
    network::EthereumWallet,
    primitives::{Address, B256, U256, keccak256},
    providers::{DynProvider, Provider, ProviderBuilder},
    signers::local::{MnemonicBuilder, PrivateKeySigner, coins_bip39::English},
};
use contracts::{Settlement, TestToken, eip712::DepositKey};
use indexer::Finality;
use ledger::{Amount, Decimal, Unit, workload::Rate};

use super::{Input, chain_id, deposit_salt};
use crate::{
    Error, Result,
    anvil::{GENESIS_TIME, MNEMONIC, free_port},
    config::{Config, Files, Http, OrganisationConfig, Pace, Policy, TokenConfig},
    keys::{Keys, Password},
    screen::Screen,
};

/// Where a kept chain is written.
pub(super) const STATE_FILE: &str = "chain.json";
/// Seconds between blocks.
const BLOCK_TIME: u64 = 2;
/// Password of the demo's key files; they guard nothing.
const PASSWORD: &str = "demo";
/// The demo's tokens: name, symbol, decimals, USD per whole token.
const TOKENS: [(&str, &str, u8, &str); 2] =
    [("Test GLM", "TGLM", 18, "0.247"), ("Test USD", "TUSD", 6, "1")];

/// Indices of the mnemonic's accounts.
mod account {
    pub(super) const DEPLOYER: u32 = 0;
    pub(super) const SENDER: u32 = 1;
    pub(super) const ATTESTER: u32 = 2;
    pub(super) const OPERATOR: u32 = 3;
    pub(super) const FIRST_REQUESTOR: u32 = 10;
}

/// A chain with everything on it that the relayer needs.
pub(super) struct Chain {
    pub(super) provider: DynProvider,
    pub(super) config: Config,
}

/// An organisation with what its deposit needs.
struct Payer {
    name: String,
    token: usize,
    signer: PrivateKeySigner,
    needs: Amount,
}

impl Chain {
    /// Deploys, creates tokens, funds requestors, deposits, and writes the configuration.
    pub(super) async fn prepare(
        url: &str,
        folder: &Path,
        inputs: &[Input],
        push_threshold: u64,
        screen: &Screen,
    ) -> Result<Self> {
        let payers = payers(inputs)?;
        let mut wallet = EthereumWallet::new(signer(account::DEPLOYER)?);
        for payer in &payers {
            wallet.register_signer(payer.signer.clone());
        }
        let url_parsed = url.parse().map_err(|_| Error::Usage(format!("{url:?} is not a URL")))?;
        let provider = ProviderBuilder::new().wallet(wallet).connect_http(url_parsed).erased();
        provider.client().set_poll_interval(Duration::from_millis(5));
        give_gas(&provider, &payers).await?;

        let deployment =
            contracts::deploy(&provider, contracts::deploy::THAW_PERIOD, B256::ZERO).await?;
        let settlement = Settlement::new(deployment.address, provider.clone());
        let mut tokens = Vec::new();
        for (name, symbol, decimals, _) in TOKENS {
            let token = TestToken::deploy(&provider, name.into(), symbol.into(), decimals).await;
            let token = *token.map_err(Error::call("TestToken"))?.address();
            mined(settlement.registerToken(token), "registerToken").await?;
            tokens.push(token);
        }
        screen.done(format!(
            "deployed the contract at {} and {} tokens",
            deployment.address,
            tokens.len()
        ));

        let attester = signer(account::ATTESTER)?.address();
        let mut organisations = Vec::new();
        for payer in &payers {
            organisations
                .push(deposit(&provider, &settlement, payer, tokens[payer.token], attester).await?);
        }
        screen.done(format!("deposited for {} organisations", organisations.len()));
        let mut config =
            config(&provider, url, folder, deployment.address, (tokens, organisations)).await?;
        for token in &mut config.tokens {
            token.push_threshold_units = push_threshold;
        }
        write_installation(&config)?;
        let chain = Self { provider, config };
        chain.mine_by_itself(false).await?;
        Ok(chain)
    }

    /// Whether the chain mines each transaction at once, or only when told to, so that blocks come at the same points of
    /// every run.
    pub(super) async fn mine_by_itself(&self, does: bool) -> Result<()> {
        raw(&self.provider, "evm_setAutomine", (does,)).await
    }

    /// Mines a block.
    pub(super) async fn mine(&self) -> Result<()> {
        raw(&self.provider, "anvil_mine", (1,)).await
    }
}

fn signer(index: u32) -> Result<PrivateKeySigner> {
    let wallet = MnemonicBuilder::<English>::default()
        .phrase(MNEMONIC)
        .index(index)
        .and_then(|builder| builder.build());
    wallet.map_err(|error| Error::Key { path: "mnemonic".into(), reason: error.to_string() })
}

async fn raw(
    provider: &DynProvider,
    method: &'static str,
    params: impl serde::Serialize,
) -> Result<()> {
    let params = serde_json::value::to_raw_value(&params)?;
    provider
        .raw_request_dyn(method.into(), &params)
        .await
        .map(drop)
        .map_err(Error::endpoint(method))
}

/// Gives everybody native coins, and blocks their times.
async fn give_gas(provider: &DynProvider, payers: &[Payer]) -> Result<()> {
    raw(provider, "anvil_setBlockTimestampInterval", (BLOCK_TIME,)).await?;
    let mut accounts: Vec<_> = payers.iter().map(|payer| payer.signer.address()).collect();
    for index in [account::DEPLOYER, account::SENDER] {
        accounts.push(signer(index)?.address());
    }
    let coins = U256::from(1000) * U256::from(10).pow(U256::from(18));
    for address in accounts {
        raw(provider, "anvil_setBalance", (address, coins)).await?;
    }
    Ok(())
}

/// Every organisation of the input, alternating between the tokens, with what all its work would cost.
fn payers(inputs: &[Input]) -> Result<Vec<Payer>> {
    let mut names: Vec<_> = inputs
        .iter()
        .flat_map(Input::records)
        .map(|record| record.item.organisation.clone())
        .collect();
    names.sort();
    names.dedup();
    let mut needs: BTreeMap<String, Amount> = BTreeMap::new();
    for record in inputs.iter().flat_map(Input::records) {
        let organisation = &record.item.organisation;
        let place = names.binary_search(organisation).unwrap_or_default();
        let (_, _, decimals, usd) = TOKENS[place % TOKENS.len()];
        let rate = Rate { usd_per_token: usd.parse()?, source: "static".into(), at_ms: 0 };
        let amount = record.amount(&rate, decimals)?;
        let sum = needs.entry(organisation.clone()).or_default();
        *sum = sum.add(amount)?;
    }
    names
        .into_iter()
        .enumerate()
        .map(|(index, name)| {
            let number =
                u32::try_from(index).map_err(|_| Error::Usage("too many organisations".into()))?;
            let needs = needs.get(&name).copied().unwrap_or_default();
            let signer = signer(account::FIRST_REQUESTOR + number)?;
            Ok(Payer { name, token: index % TOKENS.len(), signer, needs })
        })
        .collect()
}

/// Mints, approves and deposits what an organisation's work costs, with the fee and a twentieth more.
async fn deposit(
    provider: &DynProvider,
    settlement: &Settlement::SettlementInstance<DynProvider>,
    payer: &Payer,
    token: Address,
    attester: Address,
) -> Result<OrganisationConfig> {
    let requestor = payer.signer.address();
    let unit = Unit::of_decimals(TOKENS[payer.token].2)?;
    let amount = payer.needs.add(payer.needs.share(600)?)?;
    let units = ledger::Units::new(unit.split(amount)?.0.get() + 1);
    let amount = U256::from(unit.amount(units).base_units());
    let erc20 = TestToken::new(token, provider.clone());
    mined(erc20.mint(requestor, amount).from(requestor), "mint").await?;
    mined(erc20.approve(*settlement.address(), amount).from(requestor), "approve").await?;
    let salt = deposit_salt(&payer.name);
    let key = DepositKey { requestor, signer: attester, cosigner: Address::ZERO, token, salt };
    mined(settlement.deposit(key.clone().into(), units.get()).from(requestor), "deposit").await?;
    Ok(OrganisationConfig { name: payer.name.clone(), token, deposits: vec![key.id()] })
}

/// Sends a call and waits until it is mined, successfully.
async fn mined<D: alloy::contract::CallDecoder>(
    call: alloy::contract::CallBuilder<&DynProvider, D>,
    name: &'static str,
) -> Result<()> {
    let pending = call.send().await.map_err(Error::call(name))?;
    let receipt =
        pending.get_receipt().await.map_err(|error| Error::Stalled(format!("{name}: {error}")))?;
    if receipt.status() {
        Ok(())
    } else {
        Err(Error::Stalled(format!("{name} was mined and failed")))
    }
}

async fn config(
    provider: &DynProvider,
    url: &str,
    folder: &Path,
    contract: Address,
    (tokens, organisations): (Vec<Address>, Vec<OrganisationConfig>),
) -> Result<Config> {
    let genesis = provider
        .get_block_by_number(BlockNumberOrTag::Earliest)
        .await
        .map_err(Error::endpoint("eth_getBlockByNumber"))?
        .map_or(B256::ZERO, |block| block.header.hash);
    let tokens = TOKENS.iter().zip(tokens).map(|((_, symbol, _, usd), address)| {
        let usd_per_token: Decimal = usd.parse()?;
        let (symbol, rate_source) = ((*symbol).to_owned(), "static".to_owned());
        let rate_at_ms = i64::try_from(GENESIS_TIME * 1000).unwrap_or_default();
        Ok(TokenConfig {
            address,
            symbol,
            usd_per_token,
            rate_source,
            rate_at_ms,
            push_threshold_units: 0,
        })
    });
    let policy = Policy {
        fee_bps: 100,
        attester: signer(account::ATTESTER)?.address(),
        operator_payout: Some(signer(account::OPERATOR)?.address()),
        native_usd: Some("0.20".parse()?),
        ..Policy::default()
    };
    Ok(Config {
        chain: crate::config::Chain::new(
            (chain_id(provider).await?, genesis),
            url,
            (contract, 0),
            Finality::Tag,
        ),
        endpoints: Vec::new(),
        files: Files::default(),
        policy,
        http: Http { listen: format!("127.0.0.1:{}", free_port()?) },
        signer: None,
        pace: Pace::default(),
        tokens: tokens.collect::<Result<_>>()?,
        organisations,
        folder: folder.to_owned(),
    })
}

/// Writes configuration and keys, so that `quittance serve` can go on with them.
fn write_installation(config: &Config) -> Result<()> {
    std::fs::create_dir_all(&config.folder).map_err(Error::file(&config.folder))?;
    let key = |index| Ok::<_, Error>(signer(index)?.to_bytes());
    let secret = keccak256("the demo's secret");
    Keys::create(
        config,
        &key(account::ATTESTER)?,
        &key(account::SENDER)?,
        &secret,
        &Password::Stored(PASSWORD.into()),
    )?;
    config.write()
}
