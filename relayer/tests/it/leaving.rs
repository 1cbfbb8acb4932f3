//! The commands of docs/leaving.md, run as they stand: everybody leaves with cast, their own key, and nothing else (I10).

use std::process::{Command, Stdio};

use alloy::{
    network::EthereumWallet,
    primitives::{Address, B256, Bytes, U256},
    providers::{DynProvider, Provider, ProviderBuilder},
    signers::{SignerSync, local::PrivateKeySigner},
};
use contracts::{
    Settlement::{DepositKey, SettlementInstance, Statement},
    TestToken::{self, TestTokenInstance},
    rows,
};

use crate::env::{Env, rpc};

const DOCUMENT: &str = include_str!("../../../docs/leaving.md");
/// Seconds.
const THAW_PERIOD: u32 = 3600;
// Accounts 0 to 4 of the well-known mnemonic.
const ATTESTER: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const REQUESTOR: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const PROVIDER: &str = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a";
const OTHER: &str = "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6";
const SUBMITTER: &str = "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a";

/// The block of the document with this name.
fn block(name: &str) -> &'static str {
    let start = DOCUMENT.split_once(&format!("```sh {name}\n")).unwrap().1;
    start.split_once("```").unwrap().0
}

/// Runs blocks of the document in one shell, with these variables set, and returns what they print.
fn run(env: &Env, names: &[&str], variables: &[(&str, &str)]) -> String {
    let cast = std::env::var("QUITTANCE_CAST").unwrap_or_else(|_| "cast".into());
    let blocks: String = names.iter().map(|name| block(name)).collect();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &format!("cast() {{ \"{cast}\" \"$@\"; }}\n{blocks}")])
        .env("ETH_RPC_URL", &env.anvil.url)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{names:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn address(key: &str) -> Address {
    key.parse::<PrivateKeySigner>().unwrap().address()
}

fn wallet(env: &Env, key: &str) -> DynProvider {
    let wallet = EthereumWallet::new(key.parse::<PrivateKeySigner>().unwrap());
    ProviderBuilder::new().wallet(wallet).connect_http(env.anvil.url.parse().unwrap()).erased()
}

struct World {
    env: Env,
    settlement: SettlementInstance<DynProvider>,
    token: TestTokenInstance<DynProvider>,
    key: DepositKey,
}

impl World {
    /// A deposit of 1,000 units.
    async fn new() -> Self {
        let env = Env::new().await;
        let provider = wallet(&env, REQUESTOR);
        let token = TestToken::deploy(provider.clone(), "T".into(), "T".into(), 6).await.unwrap();
        let deployed = contracts::deploy(&provider, THAW_PERIOD, B256::ZERO).await.unwrap();
        let settlement = SettlementInstance::new(deployed.address, provider);
        let key = DepositKey {
            requestor: address(REQUESTOR),
            signer: address(ATTESTER),
            cosigner: Address::ZERO,
            token: *token.address(),
            salt: B256::ZERO,
        };
        let world = Self { env, settlement, token, key };
        let amount = U256::from(1000);
        let (token, settlement) = (&world.token, &world.settlement);
        token.mint(address(REQUESTOR), amount).send().await.unwrap().watch().await.unwrap();
        token.approve(deployed.address, amount).send().await.unwrap().watch().await.unwrap();
        settlement.registerToken(*token.address()).send().await.unwrap().watch().await.unwrap();
        settlement.deposit(world.key.clone(), 1000).send().await.unwrap().watch().await.unwrap();
        world
    }

    async fn register(&self, payouts: &[Address]) {
        let sent = self.settlement.register(payouts.to_vec()).send().await.unwrap();
        sent.watch().await.unwrap();
    }

    /// Calldata that settles a signed statement of the deposit's first epoch.
    async fn statement(&self, payouts: &[(u32, u64)]) -> String {
        let rows = Bytes::from(rows::encode(payouts).unwrap());
        let spent = payouts.iter().map(|(_, units)| units).sum();
        let digest = self
            .settlement
            .statementDigest(self.key.clone(), 1, spent, B256::ZERO, rows.clone())
            .call()
            .await
            .unwrap();
        let signer: PrivateKeySigner = ATTESTER.parse().unwrap();
        let signature = signer.sign_hash_sync(&digest).unwrap().as_bytes().into();
        let statement = Statement {
            key: self.key.clone(),
            epoch: 1,
            manifest: B256::ZERO,
            rows,
            signature,
            cosignature: Bytes::new(),
        };
        self.settlement.settle(vec![statement]).calldata().to_string()
    }

    fn run(&self, names: &[&str], key: &str, variables: &[(&str, &str)]) -> String {
        let (contract, token) =
            (self.settlement.address().to_string(), self.token.address().to_string());
        let own = [("CONTRACT", contract.as_str()), ("TOKEN", &token), ("KEY", key)];
        run(&self.env, names, &[&own, variables].concat())
    }

    async fn balance(&self, of: Address) -> u64 {
        self.token.balanceOf(of).call().await.unwrap().to()
    }
}

#[tokio::test]
async fn providers_leave_with_cast_alone() {
    let world = World::new().await;
    let others = [address(OTHER), address(PROVIDER), address(OTHER), address(OTHER)];
    world.register(&others).await;
    let calldata = world.statement(&[(1, 100), (2, 200), (3, 300), (4, 50)]).await;
    world.run(&["statement"], SUBMITTER, &[("CALLDATA", &calldata)]);

    assert_eq!(world.run(&["provider"], PROVIDER, &[]), "2\n");
    assert_eq!(world.run(&["provider"], OTHER, &[]), "1\n3\n4\n");
    assert_eq!(world.run(&["provider-asks"], PROVIDER, &[("PROVIDER", "2")]), "200\n1\n");
    world.run(&["provider-claims"], PROVIDER, &[("PROVIDER", "2")]);
    assert_eq!(world.balance(address(PROVIDER)).await, 200);

    let elsewhere = Address::repeat_byte(0x77).to_string();
    let to = [("ELSEWHERE", elsewhere.as_str()), ("SUBMITTER", SUBMITTER)];
    world.run(&["provider-elsewhere"], OTHER, &[&to[..], &[("PROVIDER", "1")]].concat());
    assert_eq!(world.balance(Address::repeat_byte(0x77)).await, 100);
    world.run(&["provider-signed"], OTHER, &[&to[..], &[("PROVIDER", "3")]].concat());
    assert_eq!(world.balance(Address::repeat_byte(0x77)).await, 400);
    world.run(&["provider-moves"], OTHER, &[&to[..], &[("PROVIDER", "4")]].concat());
    world.run(&["provider-claims"], SUBMITTER, &[("PROVIDER", "4")]);
    assert_eq!(world.balance(Address::repeat_byte(0x77)).await, 450);
}

#[tokio::test]
async fn requestors_leave_with_cast_alone() {
    let world = World::new().await;
    let key = world.run(&["requestor"], REQUESTOR, &[]);
    let key = [("DEPOSIT_KEY", key.trim())];
    assert!(world.run(&["requestor-asks"], REQUESTOR, &key).starts_with("1000"));
    let told = world.run(&["requestor-asks", "requestor-thaws"], REQUESTOR, &key);
    assert!(told.contains(&THAW_PERIOD.to_string()), "{told}");
    rpc(&world.env.provider(), "evm_increaseTime", &format!("[{THAW_PERIOD}]")).await;
    rpc(&world.env.provider(), "anvil_mine", "[1]").await;
    world.run(&["requestor", "requestor-withdraws"], REQUESTOR, &key);
    assert_eq!(world.balance(address(REQUESTOR)).await, 1000);
    assert_eq!(world.balance(*world.settlement.address()).await, 0);
}
