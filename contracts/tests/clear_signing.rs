//! The descriptors of `clear-signing` tell wallets what the contracts have: no function, message or field is missing,
//! and none is left from before a change.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::{collections::BTreeMap, fs, path::Path};

use alloy::sol_types::SolStruct;
use contracts::eip712;
use serde_json::{Value, json};

const SETTLEMENT: &str = include_str!(concat!(env!("OUT_DIR"), "/Settlement.json"));
const HELPER: &str = include_str!(concat!(env!("OUT_DIR"), "/DepositHelper.json"));
const DOMAIN: &str =
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
const PERMIT2_DOMAIN: &str = "EIP712Domain(string name,uint256 chainId,address verifyingContract)";
/// What Permit2 puts in front of the witness's type.
const PERMIT2_STUB: &str = "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,\
                            uint256 deadline,";

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn descriptor(name: &str) -> Value {
    let path = folder().join("clear-signing").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// Functions of a contract that change state, as a descriptor's ABI has them.
fn functions(artifact: &str) -> Vec<Value> {
    let artifact: Value = serde_json::from_str(artifact).unwrap();
    let changes_state = |entry: &&Value| {
        entry["type"] == "function"
            && entry["stateMutability"] != "view"
            && entry["stateMutability"] != "pure"
    };
    let entry = |entry: &Value| {
        json!({
            "type": "function", "name": entry["name"], "stateMutability": entry["stateMutability"],
            "inputs": list(&entry["inputs"]).iter().map(parameter).collect::<Vec<_>>(),
        })
    };
    list(&artifact["abi"]).iter().filter(changes_state).map(entry).collect()
}

/// A parameter without what the compiler says about its type's origin.
fn parameter(value: &Value) -> Value {
    let mut kept = json!({ "name": value["name"], "type": value["type"] });
    if let Some(components) = value.get("components") {
        kept["components"] = list(components).iter().map(parameter).collect();
    }
    kept
}

/// The function's signature with the names of its parameters, by which a descriptor calls it.
fn signature(function: &Value) -> String {
    format!("{}({})", text(&function["name"]), named(&function["inputs"]))
}

fn named(parameters: &Value) -> String {
    let named = list(parameters).iter().map(|parameter| {
        let kind = text(&parameter["type"]);
        let kind = match kind.strip_prefix("tuple") {
            Some(suffix) => format!("({}){suffix}", named(&parameter["components"])),
            None => kind.to_string(),
        };
        format!("{kind} {}", text(&parameter["name"]))
    });
    named.collect::<Vec<_>>().join(",")
}

/// Paths of all values in parameters, and their types.
fn leaves(parameters: &Value, prefix: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for parameter in list(parameters) {
        let (name, kind) = (text(&parameter["name"]), text(&parameter["type"]));
        let (kind, path) = match kind.strip_suffix("[]") {
            Some(element) => (element, format!("{prefix}{name}.[]")),
            None => (kind, format!("{prefix}{name}")),
        };
        if kind == "tuple" {
            all.extend(leaves(&parameter["components"], &format!("{path}.")));
        } else {
            all.insert(path, kind.to_string());
        }
    }
    all
}

/// Paths of all values in an EIP-712 type, and their types.
fn leaves_of_type(types: &Value, name: &str, prefix: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for field in list(&types[name]) {
        let (field, kind) = (text(&field["name"]), text(&field["type"]));
        if types.get(kind).is_some() {
            all.extend(leaves_of_type(types, kind, &format!("{prefix}{field}.")));
        } else {
            all.insert(format!("{prefix}{field}"), kind.to_string());
        }
    }
    all
}

/// Fields of a format by their full paths.
fn shown<'a>(fields: &'a Value, prefix: &str) -> BTreeMap<String, &'a Value> {
    let mut all = BTreeMap::new();
    for field in list(fields) {
        let path = format!("{prefix}{}", text(&field["path"]));
        match field.get("fields") {
            Some(nested) => all.extend(shown(nested, &format!("{path}."))),
            None => assert!(all.insert(path, field).is_none(), "a path is shown twice"),
        }
    }
    all
}

/// Each value is shown, in a way that suits its type, or named as left out; and nothing else is.
fn assert_covers(format: &Value, leaves: &BTreeMap<String, String>) {
    assert!(!text(&format["intent"]).is_empty());
    let shown = shown(&format["fields"], "");
    let excluded: Vec<_> = list(&format["excluded"]).iter().map(text).collect();
    let required: Vec<_> = list(&format["required"]).iter().map(text).collect();
    assert!(shown.keys().map(String::as_str).eq({
        let mut sorted = required.clone();
        sorted.sort_unstable();
        sorted
    }));
    let known = shown.keys().map(String::as_str).chain(excluded.iter().copied());
    for path in known {
        assert!(leaves.contains_key(path), "no value is at {path}");
    }
    for (path, kind) in leaves {
        let Some(field) = shown.get(path) else {
            let is_signature = excluded.contains(&path.as_str()) && path.ends_with("signature");
            assert!(is_signature, "{path} is neither shown nor a signature that is left out");
            continue;
        };
        let name = path.rsplit('.').next().unwrap();
        let is_time = ["deadline", "validAfter", "validBefore"].contains(&name);
        let expected = match kind.as_str() {
            "address" => "addressName",
            "uint64" | "uint256" if is_time => "date",
            "uint256" if name == "amount" => "tokenAmount",
            _ => "raw",
        };
        assert_eq!(field["format"], expected, "{path}");
        assert!(!text(&field["label"]).is_empty());
        if expected == "date" {
            assert_eq!(field["params"]["encoding"], "timestamp");
        }
        if expected == "tokenAmount" {
            // The token whose base units they are: named beside the amount, or by the key.
            let beside = path.replace("amount", "token");
            let token = if leaves.contains_key(&beside) { &beside } else { "key.token" };
            assert_eq!(leaves[token], "address");
            assert_eq!(field["params"]["tokenPath"], *token);
        }
        if path.ends_with("token") {
            assert_eq!(field["params"]["types"], json!(["token"]));
        }
    }
}

fn encode_type(types: &Value, name: &str) -> String {
    let one = |name: &str| {
        let fields = list(&types[name]).iter();
        let fields =
            fields.map(|field| format!("{} {}", text(&field["type"]), text(&field["name"])));
        format!("{name}({})", fields.collect::<Vec<_>>().join(","))
    };
    let others = types.as_object().unwrap().keys();
    let mut others: Vec<_> =
        others.filter(|other| *other != name && *other != "EIP712Domain").collect();
    others.sort();
    others.into_iter().fold(one(name), |encoded, other| encoded + &one(other))
}

/// Strings that the sources assign to constants with such a name, so that a new message is not forgotten.
fn constants(suffix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in ["src", "src/periphery"] {
        for entry in fs::read_dir(folder().join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "sol") {
                continue;
            }
            let source = fs::read_to_string(path).unwrap();
            for declaration in source.split(&format!("{suffix} =")).skip(1) {
                let literal = declaration.split(';').next().unwrap();
                found.push(literal.split('"').skip(1).step_by(2).collect());
            }
        }
    }
    found
}

/// Checks a descriptor of calldata against the contract's `count` functions that change state.
fn assert_describes(name: &str, artifact: &str, count: usize) {
    let descriptor = descriptor(name);
    let formats = descriptor["display"]["formats"].as_object().unwrap();
    let functions = functions(artifact);
    assert_eq!(functions.len(), count);
    assert_eq!(formats.len(), functions.len(), "formats of functions that there are not");
    let bound = list(&descriptor["context"]["contract"]["abi"]);
    assert_eq!(bound.len(), functions.len());
    for function in &functions {
        assert!(bound.contains(function), "the descriptor's ABI lacks {function}");
        let signature = signature(function);
        let format = formats.get(&signature).unwrap_or_else(|| panic!("no format: {signature}"));
        assert_covers(format, &leaves(&function["inputs"], ""));
    }
}

#[test]
fn every_function_that_changes_state_has_a_format() {
    assert_describes("calldata-settlement.json", SETTLEMENT, 9);
}

#[test]
fn every_function_of_the_deposit_helper_has_a_format() {
    assert_describes("calldata-deposit-helper.json", HELPER, 3);
}

#[test]
fn every_signed_message_has_a_format() {
    let descriptor = descriptor("eip712-settlement.json");
    let binding = &descriptor["context"]["eip712"];
    assert_eq!(binding["domain"], json!({ "name": "Quittance", "version": "1" }));
    let formats = descriptor["display"]["formats"].as_object().unwrap();
    let messages = [
        ("Statement", eip712::Statement::eip712_encode_type()),
        ("ClaimTo", eip712::ClaimTo::eip712_encode_type()),
        ("SetPayout", eip712::SetPayout::eip712_encode_type()),
    ];
    assert_eq!(formats.len(), messages.len());
    assert_eq!(list(&binding["schemas"]).len(), messages.len());
    for (name, encoded) in &messages {
        let mut schemas = list(&binding["schemas"]).iter();
        let schema = schemas.find(|schema| schema["primaryType"] == *name).expect("a schema");
        assert_eq!(encode_type(&schema["types"], name), *encoded);
        assert_eq!(
            encode_type(
                &json!({ "EIP712Domain": schema["types"]["EIP712Domain"] }),
                "EIP712Domain"
            ),
            DOMAIN
        );
        assert_covers(&formats[*name], &leaves_of_type(&schema["types"], name, ""));
    }
    let mut hashed = constants("_TYPEHASH");
    hashed.retain(|encoded| !encoded.starts_with("DepositKey("));
    hashed.sort();
    let mut described: Vec<_> = messages.into_iter().map(|(_, encoded)| encoded).collect();
    described.sort();
    assert_eq!(hashed, described.iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[test]
fn the_message_to_permit2_has_a_format() {
    let descriptor = descriptor("eip712-deposit-permit2.json");
    let binding = &descriptor["context"]["eip712"];
    let verifier = contracts::deploy::PERMIT2.to_string();
    assert_eq!(binding["domain"], json!({ "name": "Permit2", "verifyingContract": verifier }));
    let name = "PermitWitnessTransferFrom";
    let [schema] = &list(&binding["schemas"])[..] else { panic!("not one schema") };
    assert_eq!(schema["primaryType"], name);
    let types = &schema["types"];
    let [witness] = &constants("WITNESS_TYPE")[..] else { panic!("not one witness") };
    assert_eq!(encode_type(types, name), format!("{PERMIT2_STUB}{witness}"));
    let domain = json!({ "EIP712Domain": types["EIP712Domain"] });
    assert_eq!(encode_type(&domain, "EIP712Domain"), PERMIT2_DOMAIN);
    let formats = descriptor["display"]["formats"].as_object().unwrap();
    assert_eq!(formats.keys().collect::<Vec<_>>(), [name]);
    assert_covers(&formats[name], &leaves_of_type(types, name, ""));
}

#[test]
fn descriptors_name_no_deployment_before_there_is_one() {
    for (name, kind) in [
        ("calldata-settlement.json", "contract"),
        ("calldata-deposit-helper.json", "contract"),
        ("eip712-settlement.json", "eip712"),
        ("eip712-deposit-permit2.json", "eip712"),
    ] {
        assert_eq!(descriptor(name)["context"][kind]["deployments"], json!([]));
    }
}
