//! The configuration file, `quittance.toml`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use alloy::{
    primitives::{Address, B256},
    providers::{DynProvider, Provider, ProviderBuilder},
};
use indexer::{Endpoints, Finality, HeaderHash, Settings, Upstream};
use ledger::{
    Decimal, Identity,
    book::{Organisation, Tariff},
    workload::Rate,
};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result, address,
    files::{Access, write_whole},
    sender::plan::Limits,
};

/// Name of the configuration file in its folder.
pub const FILE_NAME: &str = "quittance.toml";
/// Operator of the endpoint that `chain.rpc_url` names.
const DEFAULT_OPERATOR: &str = "default";

/// Everything that an operator sets. Unknown keys are refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The chain and the contract on it.
    pub chain: Chain,
    /// JSON-RPC endpoints, the preferred one first.
    #[serde(default, rename = "endpoint", skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointConfig>,
    /// Files of this installation, relative to the configuration.
    #[serde(default)]
    pub files: Files,
    /// How money is handled.
    pub policy: Policy,
    /// HTTP server of `quittance serve`.
    #[serde(default)]
    pub http: Http,
    /// Process that signs transactions, instead of the file `sender`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<SignerConfig>,
    /// How often `quittance serve` looks for something to do.
    #[serde(default)]
    pub pace: Pace,
    /// Tokens that organisations pay in.
    #[serde(default, rename = "token", skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenConfig>,
    /// Organisations that may send work.
    #[serde(default, rename = "organisation", skip_serializing_if = "Vec::is_empty")]
    pub organisations: Vec<OrganisationConfig>,
    /// Folder of the file.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// The chain and the contract on it. Fixed once the database exists.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// EIP-155 chain id.
    pub id: u64,
    /// The one JSON-RPC endpoint, of the operator "default", if there is no `[[endpoint]]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc_url: Option<String>,
    /// Operators of endpoints that have to agree on the final block. A majority of them if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<usize>,
    /// Whether a header's hash is computed from its fields, or taken from the endpoint where the chain's headers have
    /// fields that are not known here.
    #[serde(default, skip_serializing_if = "is_default")]
    pub header_hash: HeaderHash,
    /// Deepest reorg that is followed, blocks.
    #[serde(default = "default_max_reorg_depth")]
    pub max_reorg_depth: u64,
    /// Minutes after which a final block that stands still is an alarm.
    #[serde(default = "default_finality_alarm")]
    pub finality_alarm_minutes: u32,
    /// Address of the Settlement contract.
    #[serde(deserialize_with = "address::deserialize")]
    pub contract: Address,
    /// Block from which its events are read.
    pub start_block: u64,
    /// Hash of block 0.
    pub genesis: B256,
    /// Which blocks are final: `"tag"` or `{ depth = N }`.
    pub finality: Finality,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn default_max_reorg_depth() -> u64 {
    64
}

const fn default_finality_alarm() -> u32 {
    30
}

impl Chain {
    /// A chain, by id and block 0, behind one endpoint, with the contract and the block from which it is read.
    pub fn new(
        (id, genesis): (u64, B256),
        rpc_url: &str,
        (contract, start_block): (Address, u64),
        finality: Finality,
    ) -> Self {
        Self {
            id,
            rpc_url: Some(rpc_url.to_owned()),
            agreement: None,
            header_hash: HeaderHash::default(),
            max_reorg_depth: default_max_reorg_depth(),
            finality_alarm_minutes: default_finality_alarm(),
            contract,
            start_block,
            genesis,
            finality,
        }
    }
}

/// A JSON-RPC endpoint.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// Who runs it. Two endpoints of one operator are one vote.
    pub operator: String,
    /// Where it is.
    pub url: String,
}

impl fmt::Debug for EndpointConfig {
    /// Without its address, which often holds a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointConfig").field("operator", &self.operator).finish_non_exhaustive()
    }
}

impl fmt::Debug for Chain {
    /// Without the endpoint's address, which often holds a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("id", &self.id)
            .field("contract", &self.contract)
            .finish_non_exhaustive()
    }
}

/// Files of this installation, relative to the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    /// The ledger.
    pub database: PathBuf,
    /// Folder of manifests, one file per signed statement.
    pub manifests: PathBuf,
    /// Folders that hold a copy of each manifest, on other disks. Nothing is signed while one cannot be written.
    pub manifest_copies: Vec<PathBuf>,
    /// Encrypted key that signs statements.
    pub attester: PathBuf,
    /// Encrypted key that sends transactions. Holds gas money and no authority.
    pub sender: PathBuf,
    /// 32 bytes in hex from which workload ids are salted.
    pub secret: PathBuf,
    /// Password of both keys, if it is not in `QUITTANCE_PASSWORD`.
    pub password: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            database: "quittance.db".into(),
            manifests: "manifests".into(),
            manifest_copies: Vec::new(),
            attester: "keys/attester.json".into(),
            sender: "keys/sender.json".into(),
            secret: "keys/secret".into(),
            password: "keys/password".into(),
        }
    }
}

/// How money is handled.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Source name under which the daily earnings files are kept.
    #[serde(default = "default_source")]
    pub earnings_source: String,
    /// The operator's fee, ten-thousandths of what is paid to providers.
    #[serde(default)]
    pub fee_bps: u16,
    /// Address of the attester's key, which deposits name as their signer.
    #[serde(deserialize_with = "address::deserialize")]
    pub attester: Address,
    /// Where the fee is paid. Without it no fee is taken.
    #[serde(default, deserialize_with = "address::deserialize_if_set")]
    pub operator_payout: Option<Address>,
    /// Hours that work waits after its end before it is paid, time for disputes.
    #[serde(default)]
    pub holdback_hours: u32,
    /// Hours after the end of work within which its record is taken in.
    #[serde(default = "default_record_lag")]
    pub record_lag_hours: u32,
    /// Minutes that a key may take to sign what it is shown.
    #[serde(default = "default_sign_timeout")]
    pub sign_timeout_minutes: u32,
    /// Hours before the end of a thaw at which work that is still held is decided, time for settling.
    #[serde(default = "default_settle_margin")]
    pub settle_margin_hours: u32,
    /// Hours after which a machine's new payout address acts. Its first one acts at once.
    #[serde(default = "default_address_delay")]
    pub address_delay_hours: u32,
    /// `serve` closes a period every so many minutes; 0 leaves it to commands.
    #[serde(default)]
    pub close_every_minutes: u32,
    /// Most that a batch may cost, ten-thousandths of the value that it moves. Above, it waits and says so.
    #[serde(default = "default_max_fee_bps")]
    pub max_fee_bps: u16,
    /// USD per whole native coin, for judging fees. Without it fees are not judged.
    #[serde(default)]
    pub native_usd: Option<Decimal>,
    /// Highest price that is paid for gas, in gwei.
    #[serde(default = "default_max_gas_gwei")]
    pub max_gas_gwei: u32,
    /// Seconds after which a transaction that is not mined is replaced by one that pays more.
    #[serde(default = "default_bump_after")]
    pub bump_after_seconds: u32,
    /// Seconds between two examinations of the ledger by `serve`.
    #[serde(default = "default_check_every")]
    pub check_every_seconds: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            earnings_source: default_source(),
            fee_bps: 0,
            attester: Address::ZERO,
            operator_payout: None,
            holdback_hours: 0,
            record_lag_hours: default_record_lag(),
            sign_timeout_minutes: default_sign_timeout(),
            settle_margin_hours: default_settle_margin(),
            address_delay_hours: default_address_delay(),
            close_every_minutes: 0,
            max_fee_bps: default_max_fee_bps(),
            native_usd: None,
            max_gas_gwei: default_max_gas_gwei(),
            bump_after_seconds: default_bump_after(),
            check_every_seconds: default_check_every(),
        }
    }
}

impl Policy {
    /// Work that was done must be stated and settled before a requestor who thaws when it ends can withdraw.
    fn check_thaw(&self) -> std::result::Result<(), String> {
        let hours = [self.record_lag_hours, self.holdback_hours, self.settle_margin_hours];
        let minutes = hours.iter().map(|hours| u64::from(*hours) * 60).sum::<u64>()
            + u64::from(self.sign_timeout_minutes);
        let period = u64::from(contracts::deploy::THAW_PERIOD) / 60;
        if minutes < period {
            return Ok(());
        }
        Err(format!(
            "policy.record_lag_hours {} + holdback_hours {} + sign_timeout_minutes {} + settle_margin_hours {} come to \
             {minutes} minutes; they must stay below the thaw period of {period}, or a requestor can withdraw what it owes",
            self.record_lag_hours,
            self.holdback_hours,
            self.sign_timeout_minutes,
            self.settle_margin_hours
        ))
    }
}

fn default_source() -> String {
    "salad".into()
}

const fn default_record_lag() -> u32 {
    24
}

const fn default_sign_timeout() -> u32 {
    60
}

const fn default_settle_margin() -> u32 {
    24
}

const fn default_address_delay() -> u32 {
    24
}

const fn default_max_fee_bps() -> u16 {
    50
}

const fn default_max_gas_gwei() -> u32 {
    1_000
}

const fn default_bump_after() -> u32 {
    60
}

const fn default_check_every() -> u32 {
    3_600
}

/// HTTP server of `quittance serve`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port. Loopback unless a proxy with authentication stands before it.
    pub listen: String,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8437".into() }
    }
}

/// A process on this machine that holds the sender's key and signs digests over HTTP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignerConfig {
    /// Loopback address and port, as `127.0.0.1:8500`.
    pub listens: std::net::SocketAddr,
    /// The account that it signs for.
    #[serde(deserialize_with = "address::deserialize")]
    pub address: Address,
    /// Milliseconds after which an answer is no longer waited for.
    #[serde(default = "default_signer_timeout")]
    pub timeout_ms: u64,
}

const fn default_signer_timeout() -> u64 {
    10_000
}

/// How often `quittance serve` looks for something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pace {
    /// Pause between turns that found nothing to do, milliseconds.
    pub idle_ms: u32,
    /// Pause between looks for credits to push, while nothing else is to do, milliseconds.
    pub push_ms: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { idle_ms: 500, push_ms: 5_000 }
    }
}

impl Pace {
    /// Pause between turns that found nothing to do.
    pub fn idle(self) -> Duration {
        Duration::from_millis(self.idle_ms.into())
    }

    /// Pause between looks for credits to push.
    pub fn push(self) -> Duration {
        Duration::from_millis(self.push_ms.into())
    }
}

/// A token that organisations pay in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// The ERC-20 contract.
    #[serde(deserialize_with = "address::deserialize")]
    pub address: Address,
    /// Shown beside amounts.
    pub symbol: String,
    /// USD per whole token, as a decimal string.
    pub usd_per_token: Decimal,
    /// Where that rate comes from.
    #[serde(default = "default_rate_source")]
    pub rate_source: String,
    /// When it held, milliseconds since 1970.
    #[serde(default)]
    pub rate_at_ms: i64,
    /// Credits of at least so many units are pushed to the provider's wallet.
    #[serde(default = "default_threshold")]
    pub push_threshold_units: u64,
}

fn default_rate_source() -> String {
    "static".into()
}

const fn default_threshold() -> u64 {
    1_000_000
}

/// An organisation that may send work.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganisationConfig {
    /// Its name in the records.
    pub name: String,
    /// The token that it pays in.
    #[serde(deserialize_with = "address::deserialize")]
    pub token: Address,
    /// Ids of its deposits, in the order in which they pay.
    pub deposits: Vec<B256>,
}

impl Config {
    /// Reads `quittance.toml` in a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE_NAME);
        Self::parse(&fs::read_to_string(&path).map_err(Error::file(&path))?, folder)
    }

    /// The configuration that `text` describes, for the installation in a folder.
    pub fn parse(text: &str, folder: &Path) -> Result<Self> {
        let path = folder.join(FILE_NAME);
        let mut config: Self = toml::from_str(text)
            .map_err(|error| config_error(&path, toml_problem(text, &error)))?;
        config.folder = folder.to_owned();
        config.check()?;
        Ok(config)
    }

    /// Writes the file into its folder, for its owner only: addresses of endpoints hold their keys.
    pub fn write(&self) -> Result<()> {
        let path = self.folder.join(FILE_NAME);
        let text =
            toml::to_string_pretty(self).map_err(|error| config_error(&path, error.to_string()))?;
        write_whole(&path, text.as_bytes(), Access::Owner)
    }

    /// Refuses what each key by itself may say and all of them together may not.
    pub(crate) fn check(&self) -> Result<()> {
        self.find_fault().map_err(|reason| config_error(&self.folder.join(FILE_NAME), reason))
    }

    fn find_fault(&self) -> std::result::Result<(), String> {
        self.check_endpoints()?;
        if self.policy.fee_bps > 10_000 {
            return Err(format!(
                "policy.fee_bps is {}; at most 10000 is the whole amount",
                self.policy.fee_bps
            ));
        }
        self.policy.check_thaw()?;
        if self.pace.idle_ms == 0 {
            return Err("pace.idle_ms is 0; at least 1 leaves the endpoint some rest".into());
        }
        if self.policy.operator_payout == Some(self.chain.contract) {
            return Err(
                "policy.operator_payout is the contract itself, which cannot be paid".into()
            );
        }
        if let Some(token) = self.tokens.iter().find(|token| token.usd_per_token.is_zero()) {
            return Err(format!(
                "usd_per_token of {} is zero; nothing could be priced",
                token.symbol
            ));
        }
        for (index, token) in self.tokens.iter().enumerate() {
            if self.tokens[..index].iter().any(|other| other.address == token.address) {
                return Err(format!("token {} is described twice; once is right", token.address));
            }
        }
        let mut owners: BTreeMap<B256, &str> = BTreeMap::new();
        for (index, organisation) in self.organisations.iter().enumerate() {
            if self.organisations[..index].iter().any(|other| other.name == organisation.name) {
                let name = &organisation.name;
                return Err(format!(
                    "organisation {name:?} stands there twice; list its deposits in one"
                ));
            }
            if !self.tokens.iter().any(|token| token.address == organisation.token) {
                return Err(format!(
                    "organisation {:?} pays in {}, which no [[token]] describes",
                    organisation.name, organisation.token
                ));
            }
            for deposit in &organisation.deposits {
                if let Some(other) = owners.insert(*deposit, &organisation.name) {
                    if other == organisation.name {
                        return Err(format!(
                            "deposit {deposit} of {other:?} is listed twice; once is right"
                        ));
                    }
                    return Err(format!(
                        "deposit {deposit} pays for both {other:?} and {:?}; a deposit pays for one",
                        organisation.name
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_endpoints(&self) -> std::result::Result<(), String> {
        match (&self.chain.rpc_url, self.endpoints.len()) {
            (None, 0) => return Err("there is no [[endpoint]]; name an operator and a url".into()),
            (Some(_), 1..) => {
                return Err("chain.rpc_url and [[endpoint]] are both set; keep [[endpoint]]".into());
            }
            _ => {}
        }
        let operators = self.upstream_urls().map(|(operator, _)| operator);
        let operators = operators.collect::<BTreeSet<_>>().len();
        let needed = self.chain.agreement.unwrap_or(1);
        if !(1..=operators).contains(&needed) {
            return Err(format!(
                "chain.agreement is {needed}; there are {operators} operators of endpoints to agree"
            ));
        }
        for (operator, url) in self.upstream_urls() {
            if operator.is_empty() {
                return Err("an [[endpoint]] has an empty operator; name who runs it".into());
            }
            parse_url(operator, url)?;
        }
        Ok(())
    }

    fn upstream_urls(&self) -> impl Iterator<Item = (&str, &str)> {
        let alone = self.chain.rpc_url.iter().map(|url| (DEFAULT_OPERATOR, url.as_str()));
        let listed = self.endpoints.iter();
        alone.chain(listed.map(|endpoint| (endpoint.operator.as_str(), endpoint.url.as_str())))
    }

    /// The endpoints, held to what is configured.
    pub fn endpoints(&self) -> Result<Endpoints> {
        let mut upstreams = Vec::new();
        // One for all: making a client reads the system's certificates.
        let client = reqwest::Client::new();
        for (operator, url) in self.upstream_urls() {
            let url = parse_url(operator, url)
                .map_err(|reason| config_error(Path::new(FILE_NAME), reason))?;
            upstreams.push(upstream(operator, url, client.clone()));
        }
        let Chain { id, genesis, contract, finality, .. } = self.chain;
        let endpoints = Endpoints::new(upstreams, contract, finality).with_settings(Settings {
            agreement: self.chain.agreement,
            header_hash: self.chain.header_hash,
            max_reorg_depth: self.chain.max_reorg_depth,
            finality_alarm: Duration::from_secs(60 * u64::from(self.chain.finality_alarm_minutes)),
        });
        endpoints.expect_chain(id, genesis);
        Ok(endpoints)
    }

    /// A path of this installation.
    pub fn path(&self, relative: &Path) -> PathBuf {
        self.folder.join(relative)
    }

    /// What the ledger belongs to.
    pub const fn identity(&self) -> Identity {
        Identity {
            chain_id: self.chain.id,
            contract: self.chain.contract,
            genesis: self.chain.genesis,
            start_block: self.chain.start_block,
        }
    }

    /// What acceptance needs to know.
    pub fn tariff(&self) -> Tariff {
        let rate = |token: &TokenConfig| Rate {
            usd_per_token: token.usd_per_token.clone(),
            source: token.rate_source.clone(),
            at_ms: token.rate_at_ms,
        };
        let rates = self.tokens.iter().map(|token| (token.address, rate(token))).collect();
        let fee_bps = if self.policy.operator_payout.is_some() { self.policy.fee_bps } else { 0 };
        let address_delay = i64::from(self.policy.address_delay_hours) * 3_600_000;
        Tariff { fee_bps, rates, address_delay }
    }

    /// What bounds the sender.
    pub fn sending_limits(&self) -> Limits {
        Limits {
            cap: u128::from(self.policy.max_gas_gwei) * 1_000_000_000,
            bump_after_ms: i64::from(self.policy.bump_after_seconds) * 1000,
        }
    }

    /// Organisations as the ledger wants them.
    pub fn ledger_organisations(&self) -> Vec<Organisation> {
        let convert = |organisation: &OrganisationConfig| Organisation {
            name: organisation.name.clone(),
            token: organisation.token,
            deposits: organisation.deposits.clone(),
        };
        self.organisations.iter().map(convert).collect()
    }

    /// Configuration of a token.
    pub fn token(&self, address: Address) -> Option<&TokenConfig> {
        self.tokens.iter().find(|token| token.address == address)
    }
}

/// What is wrong with a text that is no configuration: line, key and problem. The line itself is not shown, since it may
/// hold the address of an endpoint, and with it a key.
fn toml_problem(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..start).unwrap_or_default();
    let number = before.matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let is_of_key = |c: char| c.is_ascii_alphanumeric() || "_-.[]".contains(c);
    let key = line.trim_start().split(|c| !is_of_key(c)).next().unwrap_or_default();
    let message = error.message();
    let message = match message.split_once('"') {
        Some((kind, rest)) if rest.contains("://") => {
            let after = rest.rsplit('"').next().unwrap_or_default();
            format!("{kind}\"…\"{after}")
        }
        _ => message.to_owned(),
    };
    format!("line {number}, {key}: {message}")
}

/// Reads an endpoint's address. What is wrong with it is said without it.
fn parse_url(operator: &str, url: &str) -> std::result::Result<Url, String> {
    url.parse().map_err(|_| {
        format!("the url of endpoint {operator} is not a URL; it begins with http:// or https://")
    })
}

/// The endpoint at an address, of which nothing that it answers tells a secret part.
fn upstream(operator: &str, url: Url, client: reqwest::Client) -> Upstream {
    let (operator, hidden) = (operator.to_owned(), hidden_parts(&url));
    let provider = ProviderBuilder::new().connect_reqwest(client, url).erased();
    Upstream { operator, provider, hidden }
}

/// A provider that asks one endpoint alone, for an installation that is yet to be made.
pub(crate) fn lone_provider(url: Url, finality: Finality) -> DynProvider {
    let alone = upstream(DEFAULT_OPERATOR, url, reqwest::Client::new());
    Endpoints::new(vec![alone], Address::ZERO, finality).provider()
}

/// What of an address may be a secret: names and passwords, and whatever is long enough to be a key.
fn hidden_parts(url: &Url) -> Vec<String> {
    const KEY: usize = 8;
    let long = |part: &str| (part.len() >= KEY).then(|| part.to_owned());
    let named = [url.username(), url.password().unwrap_or_default()];
    let named = named.into_iter().filter(|part| !part.is_empty()).map(str::to_owned);
    let path = url.path_segments().into_iter().flatten().filter_map(long);
    let query = url.query_pairs().filter_map(|(_, value)| long(&value));
    named.chain(path).chain(query).collect()
}

fn config_error(path: &Path, reason: String) -> Error {
    Error::Config { path: path.display().to_string(), reason }
}
