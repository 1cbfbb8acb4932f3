//! `init` and `deploy`: an installation, and the contract it works with.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use alloy::{
    eips::BlockNumberOrTag,
    network::EthereumWallet,
    primitives::{Address, B256},
    providers::{Provider, ProviderBuilder},
    signers::local::PrivateKeySigner,
};
use contracts::{
    Settlement,
    deploy::{
        DEPOSIT_HELPER_INPUT, DeployError, SETTLEMENT_INPUT, THAW_PERIOD, constructor_arguments,
        helper_constructor_arguments,
    },
};
use indexer::Finality;
use ledger::{Ledger, book::BookWriter, read::Reader};
use serde_json::json;

use crate::{
    Error, Result,
    config::{self, Chain, Config, FILE_NAME, Files, Http, Pace, Policy},
    keys::{self, Keys, Password, TxKey},
};

/// Pause between looks for a transaction that was sent.
const POLL: Duration = Duration::from_secs(1);

/// Writes a configuration and new keys into a folder, for the chain behind an endpoint. Returns what to do next.
pub async fn init(
    folder: &Path,
    rpc_url: &str,
    operator_payout: Option<Address>,
    finality: Finality,
) -> Result<String> {
    if folder.join(FILE_NAME).exists() {
        let path = folder.join(FILE_NAME).display().to_string();
        return Err(Error::Config { path, reason: "it exists already and is not replaced".into() });
    }
    let url = rpc_url.parse().map_err(|_| Error::Usage("--rpc-url is not a URL".into()))?;
    let provider = config::lone_provider(url, finality);
    let id = provider.get_chain_id().await.map_err(Error::endpoint("eth_chainId"))?;
    let genesis = genesis(&provider).await?;
    let start_block =
        provider.get_block_number().await.map_err(Error::endpoint("eth_blockNumber"))?;
    let contract = contracts::deploy::address_of(THAW_PERIOD, B256::ZERO);
    let code = provider.get_code_at(contract).await.map_err(Error::endpoint("eth_getCode"))?;
    // A contract that is there already has a past, which has to be read.
    let start_block = if code.is_empty() { start_block } else { 0 };
    let (attester, sender) = (keys::random(), keys::random());
    let address = |key: &B256| {
        PrivateKeySigner::from_bytes(key).map_or(Address::ZERO, |signer| signer.address())
    };
    let config = Config {
        chain: Chain::new((id, genesis), rpc_url, (contract, start_block), finality),
        endpoints: Vec::new(),
        files: Files::default(),
        policy: Policy { operator_payout, attester: address(&attester), ..Policy::default() },
        http: Http::default(),
        signer: None,
        pace: Pace::default(),
        tokens: Vec::new(),
        organisations: Vec::new(),
        folder: folder.to_owned(),
    };
    config.check()?;
    let password = match keys::given_password()? {
        Some(password) => Password::Given(password),
        None => Password::Stored(keys::random().to_string()),
    };
    std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
    Keys::create(&config, &attester, &sender, &keys::random(), &password)?;
    config.write()?;
    Ok(format!(
        "wrote {}\n  chain     {id}\n  contract  {contract} (where `quittance deploy` will put it)\n  \
         attester  {} (requestors name it in their deposits)\n  sender    {}\n\n\
         next: send gas money to the sender, add [[token]] and [[organisation]] entries, run `quittance deploy`",
        folder.join(FILE_NAME).display(),
        address(&attester),
        address(&sender),
    ))
}

/// Hash of block 0, asked for by its number: what an endpoint calls earliest is the oldest block that it has kept.
async fn genesis(provider: &impl Provider) -> Result<B256> {
    let block = provider.get_block_by_number(BlockNumberOrTag::Number(0)).await;
    let block = block.map_err(Error::endpoint("eth_getBlockByNumber"))?;
    let hash = block.filter(|block| block.header.number == 0).map(|block| block.header.hash);
    hash.ok_or_else(|| {
        Error::Usage(
            "the endpoint does not tell block 0 of its chain; name another by --rpc-url".into(),
        )
    })
}

/// Deploys the contract and its deposit helper and registers the configured tokens, from the sender's account. What is
/// there already is left. Each transaction is accounted for before it is sent. Writes what explorers need to verify both.
pub async fn deploy(config: &Config) -> Result<String> {
    refuse_other_contract(config)?;
    let keys = Keys::open(config)?;
    let sender = keys.sender.address();
    let TxKey::Local(key) = keys.sender else {
        return Err(Error::Usage(
            "quittance deploy signs with the key file of the sender; take [signer] out of the configuration for it".into(),
        ));
    };
    let book = open_book(config).await?;
    let provider = signing_provider(config, key).await?;
    if provider.get_balance(sender).await.map_err(Error::endpoint("eth_getBalance"))?.is_zero() {
        return Err(Error::Usage(format!(
            "the sender {sender} has no gas money; send it some first"
        )));
    }
    let account = Account::new(book, sender, &provider).await?;
    account.for_what_is_missing(contracts::deploy::address_of(THAW_PERIOD, B256::ZERO)).await?;
    let deployment = contracts::deploy(&provider, THAW_PERIOD, B256::ZERO).await?;
    let verb = if deployment.is_new { "deployed" } else { "found" };
    let mut report = format!("{verb} the contract at {} from {sender}", deployment.address);
    let contract = Settlement::new(deployment.address, &provider);
    for token in &config.tokens {
        if contract.unitOf(token.address).call().await.map_err(Error::call("unitOf"))? == 0 {
            account.for_one_more().await?;
            let sent = contract
                .registerToken(token.address)
                .send()
                .await
                .map_err(Error::call("registerToken"))?;
            sent.watch().await.map_err(DeployError::from)?;
            report.push_str(&format!("\nregistered {} at {}", token.symbol, token.address));
        }
    }
    let helper = contracts::deploy::helper_address_of(deployment.address, B256::ZERO);
    account.for_what_is_missing(helper).await?;
    let helper =
        contracts::deploy::deploy_helper(&provider, deployment.address, B256::ZERO).await?;
    let verb = if helper.is_new { "deployed" } else { "found" };
    report.push_str(&format!("\n{verb} the deposit helper at {}", helper.address));
    let folder = write_verification(config, deployment.address, helper.address)?;
    report
        .push_str(&format!("\nwrote what explorers verify the source by to {}", folder.display()));
    report.push_str("\nnext: quittance serve");
    Ok(report)
}

/// Refuses to pay for another contract than the configured one, before anything is stored or sent.
fn refuse_other_contract(config: &Config) -> Result<()> {
    let address = contracts::deploy::address_of(THAW_PERIOD, B256::ZERO);
    if address == config.chain.contract {
        return Ok(());
    }
    let reason = format!(
        "chain.contract is {}, this version of the contract is at {address}",
        config.chain.contract
    );
    Err(Error::Config { path: FILE_NAME.into(), reason })
}

/// A provider that signs with the sender's key. Fails if the endpoints serve another chain than the configured one: what that
/// says of the sender would be accounted for all the same.
async fn signing_provider(config: &Config, key: PrivateKeySigner) -> Result<impl Provider> {
    let endpoints = config.endpoints()?;
    let provider = endpoints.provider();
    // By itself first, so that a refusal is told as it is.
    provider.get_chain_id().await.map_err(Error::endpoint("eth_chainId"))?;
    endpoints.look().await?;
    provider.client().set_poll_interval(POLL);
    Ok(ProviderBuilder::new().wallet(EthereumWallet::new(key)).connect_provider(provider))
}

/// The ledger, for the transactions that deploying takes; nothing else may send meanwhile.
async fn open_book(config: &Config) -> Result<(Reader, BookWriter)> {
    let path = config.path(&config.files.database);
    let ledger = Ledger::open(&path, config.identity()).await?;
    Ok((Reader::new(ledger.clone()), BookWriter::new(ledger)))
}

/// The sending account of a deployment. Before each of its transactions is sent it is accounted for: whatever ends the process
/// then, the sender is not frozen for it.
struct Account<'a, P> {
    book: BookWriter,
    sender: Address,
    provider: &'a P,
    /// Whether the ledger knows all that the account has sent before. Otherwise nothing is accounted for: it stays frozen.
    is_known: bool,
}

impl<'a, P: Provider> Account<'a, P> {
    async fn new(
        (reader, book): (Reader, BookWriter),
        sender: Address,
        provider: &'a P,
    ) -> Result<Self> {
        let sent = provider.get_transaction_count(sender);
        let sent = sent.await.map_err(Error::endpoint("eth_getTransactionCount"))?;
        let is_known = reader.memory(sender).await?.next() >= sent;
        Ok(Self { book, sender, provider, is_known })
    }

    /// Accounts for the transaction that puts a contract to its address, if it is not there.
    async fn for_what_is_missing(&self, contract: Address) -> Result<()> {
        let code = self.provider.get_code_at(contract).await;
        if code.map_err(Error::endpoint("eth_getCode"))?.is_empty() {
            self.for_one_more().await?;
        }
        Ok(())
    }

    /// Accounts for the next transaction. That it may never be mined does no harm: its tx nonce goes to the first batch.
    async fn for_one_more(&self) -> Result<()> {
        if !self.is_known {
            return Ok(());
        }
        let next = self.provider.get_transaction_count(self.sender).pending();
        let next = next.await.map_err(Error::endpoint("eth_getTransactionCount"))?;
        let now = jiff::Timestamp::now().as_millisecond();
        Ok(self.book.adopt(self.sender, next + 1, "quittance deploy", now).await?)
    }
}

/// Writes each contract's standard JSON input, and a file that says which is where, to `verification/`.
fn write_verification(config: &Config, settlement: Address, helper: Address) -> Result<PathBuf> {
    let folder = config.folder.join("verification");
    std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    let mut contracts = Vec::new();
    for (name, input, address, arguments) in [
        ("Settlement", SETTLEMENT_INPUT, settlement, constructor_arguments(THAW_PERIOD)),
        ("DepositHelper", DEPOSIT_HELPER_INPUT, helper, helper_constructor_arguments(settlement)),
    ] {
        let file = format!("{name}.standard-input.json");
        let path = folder.join(&file);
        std::fs::write(&path, input.standard_json).map_err(Error::file(&path))?;
        contracts.push(json!({
            "contract": input.contract, "address": address.to_string(), "constructor_arguments": arguments,
            "compiler": contracts::deploy::COMPILER, "standard_input": file,
        }));
    }
    let path = folder.join("contracts.json");
    let listed = json!({ "chain_id": config.chain.id, "contracts": contracts });
    std::fs::write(&path, format!("{listed:#}\n")).map_err(Error::file(&path))?;
    Ok(folder)
}
