//! Configurations with one fault each.

use std::path::Path;

use rand::{Rng, seq::IndexedRandom};
use relayer::{Error, config::Config};

use crate::{Message, rng, share};

/// A whole configuration. Each line is one that a fault can be planted into.
pub(crate) const GOOD: &str = r#"[chain]
id = 31337
rpc_url = "https://rpc.example.org/v2/API-KEY"
contract = "0xdad4b439cb1959e5e85688c4fddb0f7282af623e"
start_block = 3
genesis = "0x74fed9cc1d0194a3b08f483f082e9a1b7f4ec532d66be19b35d68d9928174e0c"
finality = "tag"

[policy]
fee_bps = 100
attester = "0x426f7071cd3e175aa9f22c37dd83673f02edab9e"
operator_payout = "0x90f79bf6eb2c4f870365e785982e1f101e93b906"
holdback_hours = 0
native_usd = "0.20"

[http]
listen = "127.0.0.1:8437"

[[token]]
address = "0x5fbdb2315678afecb367f032d93f642f64180aa3"
symbol = "TUSD"
usd_per_token = "1"
rate_at_ms = 0

[[organisation]]
name = "org-01"
token = "0x5fbdb2315678afecb367f032d93f642f64180aa3"
deposits = ["0x3981bb610c93b635be3ca93218a3ae7d0fca464bbcc9109ea8f127a86a3d440a"]
"#;

fn complaint(text: &str) -> String {
    let error = Config::parse(text, Path::new("inst")).expect_err(text);
    let Error::Config { path, reason } = error else { panic!("another error: {error}") };
    assert_eq!(path, "inst/quittance.toml");
    assert!(!reason.contains("API-KEY"), "{reason}");
    reason
}

#[test]
fn the_configuration_without_a_fault_is_read() {
    let config = Config::parse(GOOD, Path::new("inst")).unwrap();
    assert_eq!(config.organisations.len(), 1);
    assert_eq!(config.policy.fee_bps, 100);
}

#[test]
fn every_fault_of_a_configuration_is_named_with_line_and_key() {
    let mut rng = rng(21);
    let lines: Vec<&str> = GOOD.lines().collect();
    for _ in 0..share(6).min(100_000) {
        let numbered: Vec<_> =
            lines.iter().enumerate().filter(|(_, line)| line.contains(" = ")).collect();
        let (place, line) = **numbered.choose(&mut rng).as_ref().unwrap();
        let (key, value) = line.split_once(" = ").unwrap();
        let mut bad: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let number = place + 1;
        let is_text = value.starts_with('"');
        let message = match rng.random_range(0..5) {
            0 => {
                bad[place] = format!("{key}_ = {value}");
                Message::Begins(format!("line {number}, {key}_: unknown field `{key}_`, expected "))
            }
            1 => {
                bad.insert(place, (*line).to_owned());
                Message::Begins(format!("line {}, {key}: duplicate key", number + 1))
            }
            2 => {
                bad[place] = format!("{key} = {}", if is_text { "7" } else { "\"x\"" });
                Message::Begins(format!("line {number}, {key}: "))
            }
            3 => {
                bad[place] = format!("{key} = ");
                Message::Begins(format!("line {number}, {key}: "))
            }
            _ => {
                bad[place] = format!("{key} {value}");
                Message::Begins(format!("line {number}, {key}: "))
            }
        };
        let reason = complaint(&bad.join("\n"));
        assert!(message.fits(&reason), "{}\nsays   {reason}\nshould {message:?}", bad[place]);
    }
}

#[test]
fn a_missing_field_and_a_value_out_of_range_say_what_is_right() {
    for key in [
        "id",
        "contract",
        "start_block",
        "genesis",
        "finality",
        "attester",
        "address",
        "symbol",
        "usd_per_token",
        "name",
        "deposits",
    ] {
        let text: Vec<_> =
            GOOD.lines().filter(|line| !line.starts_with(&format!("{key} = "))).collect();
        let reason = complaint(&text.join("\n"));
        assert!(reason.contains(&format!("missing field `{key}`")), "{reason}");
    }
    let token = "0x5fbdb2315678afecb367f032d93f642f64180aa3";
    let deposit = "0x3981bb610c93b635be3ca93218a3ae7d0fca464bbcc9109ea8f127a86a3d440a";
    let second = format!(
        "{GOOD}[[organisation]]\nname = \"org-02\"\ntoken = \"{token}\"\ndeposits = [\"{deposit}\"]\n"
    );
    let checked = "0x5FbDB2315678afecb367f032d93F642f64180aa3";
    let cases = [
        (GOOD.replace("fee_bps = 100", "fee_bps = 10001"), "policy.fee_bps is 10001; at most 10000 is the whole amount".to_owned()),
        (GOOD.replace("0x90f79bf6eb2c4f870365e785982e1f101e93b906", "0xdad4b439cb1959e5e85688c4fddb0f7282af623e"),
            "policy.operator_payout is the contract itself, which cannot be paid".into()),
        (GOOD.replace("usd_per_token = \"1\"", "usd_per_token = \"0.00\""), "usd_per_token of TUSD is zero; nothing could be priced".into()),
        (GOOD.replace(&format!("token = \"{token}\""), "token = \"0x1111111111111111111111111111111111111111\""),
            "organisation \"org-01\" pays in 0x1111111111111111111111111111111111111111, which no [[token]] describes".into()),
        (second.clone(), format!("deposit {deposit} pays for both \"org-01\" and \"org-02\"; a deposit pays for one")),
        (second.replace("org-02", "org-01"), "organisation \"org-01\" stands there twice; list its deposits in one".into()),
        (GOOD.replace(&format!("[\"{deposit}\"]"), &format!("[\"{deposit}\", \"{deposit}\"]")),
            format!("deposit {deposit} of \"org-01\" is listed twice; once is right")),
        (format!("{GOOD}[[token]]\naddress = \"{token}\"\nsymbol = \"X\"\nusd_per_token = \"1\"\n"),
            format!("token {checked} is described twice; once is right")),
    ];
    for (text, should) in cases {
        assert_eq!(complaint(&text), should);
    }
    for (from, to) in [
        ("usd_per_token = \"1\"", "usd_per_token = \"1e0\""),
        ("usd_per_token = \"1\"", "usd_per_token = \"-1\""),
        ("usd_per_token = \"1\"", "usd_per_token = 1.0"),
        ("usd_per_token = \"1\"", "usd_per_token = \"NaN\""),
        ("fee_bps = 100", "fee_bps = -1"),
        ("fee_bps = 100", "fee_bps = 65536"),
        ("fee_bps = 100", "fee_bps = 1.5"),
        ("finality = \"tag\"", "finality = \"soon\""),
        ("finality = \"tag\"", "finality = { depth = -1 }"),
        ("finality = \"tag\"", "finality = { tag = 1, depth = 2 }"),
        ("id = 31337", "id = 18446744073709551616"),
        ("rpc_url = ", "rpc_url = 5 #"),
        ("[chain]", "chain = \"https://rpc.example.org/v2/API-KEY\"\n[chains]"),
        ("genesis = \"0x74", "genesis = \"0x"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let reason = complaint(&GOOD.replace(from, to));
        assert!(reason.starts_with("line ") && reason.len() > 20, "{to}: {reason}");
    }
}

/// What would break it: plain hex, by which one wrong digit sends all that comes to that address to nobody.
#[test]
fn an_address_with_a_broken_checksum_or_of_nobody_is_refused_under_its_key() {
    let good = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";
    let signer = format!("{GOOD}[signer]\nlistens = \"127.0.0.1:8500\"\naddress = \"{good}\"\n");
    let is_address = |line: &&(usize, &str)| line.1.contains(" = \"0x") && line.1.len() < 70;
    let lines: Vec<_> = signer.lines().enumerate().collect();
    let addresses: Vec<_> = lines.iter().filter(is_address).collect();
    assert_eq!(addresses.len(), 6, "{addresses:?}");
    for (place, line) in addresses {
        let (key, _) = line.split_once(" = ").unwrap();
        let with = |address: &str| {
            let mut text: Vec<_> = lines.iter().map(|(_, line)| (*line).to_owned()).collect();
            text[*place] = format!("{key} = \"{address}\"");
            text.join("\n")
        };
        for bad in [
            &good.replace("90F7", "90f7"),
            &good.replace("90F7", "91F7"),
            &good.replace("0x", ""),
            "0x0000000000000000000000000000000000000000",
            "0x",
        ] {
            let should = format!(
                "line {}, {key}: {bad:?} is not an address: 0x and 40 hex digits, checksum intact, not zero",
                place + 1
            );
            assert_eq!(complaint(&with(bad)), should);
        }
    }
    for payout in [good, &good.to_lowercase()] {
        let text = GOOD.replace(&good.to_lowercase(), payout);
        let config = Config::parse(&text, Path::new("inst")).unwrap();
        assert_eq!(config.policy.operator_payout.unwrap().to_string(), good);
    }
}
