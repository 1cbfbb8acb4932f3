//! What lies beside the database, manifests and orders, and what people order over HTTP, with one fault each.

use std::{cell::RefCell, fs, io::Write, path::PathBuf, sync::Once};

use alloy::primitives::{Address, B256};
use contracts::{eip712::DepositKey, rows::RowsError};
use ledger::{
    Amount, Identity, Ledger, Units,
    book::{BookWriter, Copied, Import, Order, Sighting, Work},
    manifest::{Leaf, Secret},
    rules::Verdict,
    statement::{Row, Statement, pack},
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use relayer::{config::Config, decide::Decision, manifests::Manifests, recover::CutOff};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Message, configs::GOOD, rng, share};

const SECRET: Secret = Secret::new(B256::repeat_byte(5));

/// An installation, and where it keeps what it needs when the database is lost.
struct Place {
    folder: TempDir,
    manifests: Manifests,
    files: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::parse(GOOD, folder.path()).unwrap();
        let files = config.path(&config.files.manifests);
        fs::create_dir_all(&files).unwrap();
        Self { manifests: Manifests::new(&config, SECRET), folder, files }
    }

    /// A ledger that knows nothing.
    async fn book(&self) -> BookWriter {
        let (chain_id, contract, genesis, start_block) = (1, Address::ZERO, B256::ZERO, 0);
        let identity = Identity { chain_id, contract, genesis, start_block };
        let ledger = Ledger::open(&self.folder.path().join("ledger.db"), identity).await.unwrap();
        BookWriter::new(ledger)
    }
}

fn word(rng: &mut StdRng) -> B256 {
    rng.random::<[u8; 32]>().into()
}

/// A statement of two rows for two pieces of work and a carry.
fn import(rng: &mut StdRng) -> Import {
    let mut address = || Address::from(rng.random::<[u8; 20]>());
    let (requestor, signer, token) = (address(), address(), address());
    let key = DepositKey { requestor, signer, cosigner: Address::ZERO, token, salt: word(rng) };
    let row = |provider, units| {
        let carry = Amount::new(7);
        Row { provider, units: Units::new(units), carry_in: Amount::ZERO, carry_out: carry }
    };
    let rows = vec![row(6, 61), row(9, 1 << 47)];
    let work = |external_id: &str, settled| Work {
        source: "salad".into(),
        external_id: external_id.into(),
        revision: 2,
        settled,
        machine: "m".into(),
        started_ms: 1,
        stopped_ms: 2,
        fixed: B256::repeat_byte(3),
    };
    let leaf = |workload, amount| Leaf { workload, provider: 6, amount, paid: None };
    let leaves = vec![
        (leaf(word(rng), 70), Some(work("a/1", Some(-3)))),
        (leaf(word(rng), -9), Some(work("a/2", None))),
        (leaf(B256::ZERO, 4), None),
    ];
    let statement = Statement {
        key,
        epoch: rng.random(),
        spent: Units::new(rng.random()),
        manifest: word(rng),
        rows: pack(&rows).unwrap(),
    };
    let (digest, organisation, fee_bps) = (word(rng), "acme".into(), 100);
    Import { statement, digest, rows, leaves, organisation, fee_bps }
}

/// A fault in a manifest's text, and what has to be said of it.
fn fault(text: &str, rng: &mut StdRng) -> (String, Message) {
    let mut content: Value = serde_json::from_str(text).unwrap();
    let name = "its name is not made of its deposit, epoch and digest";
    let message = match rng.random_range(0..12) {
        0 => {
            let cut = text[..rng.random_range(0..text.len())].to_owned();
            return (cut, Message::Begins("EOF while parsing ".into()));
        }
        1 => {
            let length = text.len() + 1;
            return (
                format!("{text}}}"),
                Message::is(format!("trailing characters at line 1 column {length}")),
            );
        }
        2 => {
            let fields: Vec<_> = content.as_object().unwrap().keys().cloned().collect();
            let field = fields.choose(rng).unwrap();
            content.as_object_mut().unwrap().remove(field);
            Message::Begins(format!("missing field `{field}` at line 1 column "))
        }
        3 => {
            let doubled = format!(r#"{{"epoch":{},{}"#, content["epoch"], &text[1..]);
            return (doubled, Message::Begins("duplicate field `epoch` at line 1 column ".into()));
        }
        4 => {
            content["schema"] = json!("manifest/2");
            Message::is(r#"its schema is "manifest/2", not "manifest/1""#)
        }
        5 => {
            let field = ["requestor", "signer", "cosigner", "token"].choose(rng).unwrap();
            content[*field] = json!(Address::repeat_byte(1));
            Message::is(name)
        }
        6 => {
            content["epoch"] = json!(content["epoch"].as_u64().unwrap() ^ 1);
            Message::is(name)
        }
        7 => {
            content[*["salt", "digest"].choose(rng).unwrap()] = json!(word(rng));
            Message::is(name)
        }
        8 => {
            let index = rng.random_range(0..3);
            let bad = ["", "1.5", "1e3", "0x1", " 1", "170141183460469231731687303715884105728"];
            let bad = bad.choose(rng).unwrap();
            content["leaves"][index]["amount"] = json!(bad);
            Message::is(format!("the amount of leaf {index} is {bad:?}, not base units"))
        }
        9 => {
            content["leaves"][1]["settled"] = json!("much");
            Message::is(r#"leaf 1: settled is "much", not base units"#)
        }
        10 => rows_at_fault(&mut content, rng),
        _ => numbers_at_fault(&mut content, rng),
    };
    (content.to_string(), message)
}

fn rows_at_fault(content: &mut Value, rng: &mut StdRng) -> Message {
    let index = rng.random_range(0..2);
    let error = match rng.random_range(0..3) {
        0 => {
            content["rows"][index]["units"] = json!("0");
            RowsError::Units(index, 0)
        }
        1 => {
            content["rows"][index]["units"] = json!((1_u64 << 48).to_string());
            RowsError::Units(index, 1 << 48)
        }
        _ => {
            content["rows"][1]["provider"] = json!(6);
            RowsError::Order(1, 6, 6)
        }
    };
    Message::is(error.to_string())
}

/// Numbers that are none, or out of their range.
fn numbers_at_fault(content: &mut Value, rng: &mut StdRng) -> Message {
    let (field, bad, said) = [
        ("epoch", json!("1"), r#"invalid type: string "1", expected u32"#),
        ("epoch", json!(-1), "invalid value: integer `-1`, expected u32"),
        ("epoch", json!(1_u64 << 32), "invalid value: integer `4294967296`, expected u32"),
        ("epoch", json!(1.5), "invalid type: floating point `1.5`, expected u32"),
        ("fee_bps", json!(65_536), "invalid value: integer `65536`, expected u16"),
        ("rows", json!({}), "invalid type: map, expected a sequence"),
        ("leaves", Value::Null, "invalid type: null, expected a sequence"),
        ("digest", json!("0x11"), "invalid string length"),
        ("organisation", json!(7), "invalid type: integer `7`, expected a string"),
    ]
    .choose(rng)
    .unwrap()
    .clone();
    content[field] = bad;
    Message::Begins(said.to_owned())
}

#[tokio::test]
async fn a_manifest_with_one_fault_is_not_brought_back_and_says_which() {
    let mut rng = rng(16);
    let place = Place::new();
    for _ in 0..share(4) {
        let import = import(&mut rng);
        place.manifests.publish(&import).await.unwrap();
        let (deposit, epoch, digest) =
            (import.statement.key.id(), import.statement.epoch, import.digest);
        let seen = format!("{deposit}-{epoch}-{digest}.json");
        let sighting = Sighting { deposit, epoch, digest, seen, organisation: None };
        let read = place.manifests.read(&sighting).unwrap();
        assert_eq!(format!("{read:?}"), format!("{import:?}"));

        let path = place.files.join(&sighting.seen);
        let (bad, message) = fault(&fs::read_to_string(&path).unwrap(), &mut rng);
        fs::write(&path, &bad).unwrap();
        let said = place.manifests.read(&sighting).expect_err(&bad).to_string();
        let reason = said.strip_prefix(&format!("{}: {}: ", sighting.seen, path.display()));
        assert!(message.fits(reason.unwrap()), "{bad}\nsays   {said}\nshould {message:?}");

        fs::remove_file(&path).unwrap();
        let said = place.manifests.read(&sighting).unwrap_err().to_string();
        assert_eq!(said, format!("{}: no folder holds it", sighting.seen));
    }
}

fn order(rng: &mut StdRng) -> Order {
    let at_ms = rng.random_range(0..1_795_000_000_000);
    if rng.random() {
        let (machine, address) = (format!("m-{}", rng.random::<u32>()), rng.random::<[u8; 20]>());
        return Order::Payee { machine, address: address.into(), effective_ms: at_ms, at_ms };
    }
    let verdict =
        *[Verdict::Hold, Verdict::Release, Verdict::Dispute, Verdict::Pay].choose(rng).unwrap();
    let external_id = format!("w/{}", rng.random::<u32>());
    Order::Decision {
        source: "salad".into(),
        external_id,
        verdict,
        reason: "gr\u{fc}nde".into(),
        at_ms,
    }
}

/// The line of an order, sealed by whoever has the secret.
fn sealed(order: &str, secret: &Secret) -> String {
    format!(r#"{{"order":{order},"seal":"{}"}}"#, secret.seal(order.as_bytes()))
}

/// A line that is no order of this installation.
fn bad_line(rng: &mut StdRng) -> Vec<u8> {
    let text = serde_json::to_string(&order(rng)).unwrap();
    let line = sealed(&text, &SECRET);
    let bad = match rng.random_range(0..9) {
        0 => sealed(&text, &Secret::new(word(rng))),
        1 => line.replacen("\"at_ms\":", "\"at_ms\":1", 1),
        2 => line[..rng.random_range(1..line.len())].to_owned(),
        3 => format!("{},\"by\":\"me\"}}", &line[..line.len() - 1]),
        4 => sealed(&format!("{},\"by\":\"me\"}}", &text[..text.len() - 1]), &SECRET),
        5 => sealed(&text.replacen("\"kind\":\"", "\"kind\":\"no_", 1), &SECRET),
        6 => sealed(&text.replacen("\"at_ms\":", "\"at_ms\":0.5", 1), &SECRET),
        7 => format!("{line}{line}"),
        _ => return [line.as_bytes(), b"\xff"].concat(),
    };
    bad.into_bytes()
}

thread_local! {
    /// What the program told on this thread.
    static TOLD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what is told apart by thread. One subscriber serves all: what one thread asks to be told must not depend on whether
/// another asked first.
struct Told;

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        TOLD.with_borrow_mut(|told| told.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Keeps the orders of a place. Returns what is known then, and what was warned of.
fn keep(place: &Place) -> (Vec<Order>, String) {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        let told = tracing_subscriber::fmt().with_ansi(false).without_time().with_target(false);
        told.with_max_level(tracing::Level::WARN).with_writer(|| Told).init();
    });
    TOLD.take();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let known = runtime.block_on(async {
        let book = place.book().await;
        place.manifests.keep_orders(&book, 0).await.unwrap();
        book.orders(Copied::NONE).await.unwrap().0
    });
    (known, String::from_utf8(TOLD.take()).unwrap())
}

#[test]
fn a_line_that_is_no_order_of_this_installation_is_named_and_passed_over() {
    let mut rng = rng(17);
    for _ in 0..share(1) / 10 {
        let place = Place::new();
        let path = place.files.join("orders.jsonl");
        let (mut text, mut good, mut warned) = (Vec::new(), Vec::new(), String::new());
        for number in 1..=40 {
            if rng.random() {
                text.extend(bad_line(&mut rng));
                warned += &format!(
                    " WARN line {number} of {} is no order of this installation; it is passed over\n",
                    path.display()
                );
            } else {
                let order = order(&mut rng);
                text.extend(sealed(&serde_json::to_string(&order).unwrap(), &SECRET).as_bytes());
                good.push(order);
            }
            text.push(b'\n');
        }
        fs::write(&path, &text).unwrap();
        let (known, told) = keep(&place);
        assert_eq!(told, warned);
        // Decisions about work that is not known are remembered elsewhere.
        good.retain(|order| matches!(order, Order::Payee { .. }));
        assert_eq!(known, good);
    }
}

#[test]
fn a_decision_or_a_cut_off_with_one_fault_is_refused_for_it() {
    const DECISION: &str =
        r#"{"source":"salad","external_id":"w/1","verdict":"hold","reason":"ask first"}"#;
    let cut_off =
        format!(r#"{{"deposit":"{}","until_ms":5,"reason":"lost"}}"#, B256::repeat_byte(2));
    let decision = |text: &str| serde_json::from_str::<Decision>(text).map(drop);
    let cut = |text: &str| serde_json::from_str::<CutOff>(text).map(drop);
    decision(DECISION).unwrap();
    cut(&cut_off).unwrap();
    for (from, to, said) in [
        (r#""verdict":"hold","#, "", "missing field `verdict`"),
        (
            r#""reason":"#,
            r#""why":"#,
            "unknown field `why`, expected one of `source`, `external_id`, `verdict`, `reason`",
        ),
        (
            r#""hold""#,
            r#""Hold""#,
            "unknown variant `Hold`, expected one of `hold`, `release`, `dispute`, `pay`",
        ),
        (r#""w/1""#, "7", "invalid type: integer `7`, expected a string"),
        (r#""w/1""#, r#""w/1","external_id":"w/2""#, "duplicate field `external_id`"),
        (r#""ask first"}"#, r#""ask"#, "EOF while parsing a string"),
        (r#""ask first"}"#, r#""ask"}}"#, "trailing characters"),
    ] {
        assert!(DECISION.contains(from), "{from}");
        let error = decision(&DECISION.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{said} at line 1 column ")), "{to}: {error}");
    }
    for (from, to, said) in [
        (r#""until_ms":5,"#, "", "missing field `until_ms`"),
        ("5", "\"5\"", "invalid type: string \"5\", expected i64"),
        ("5", "9223372036854775808", "invalid value: integer `9223372036854775808`, expected i64"),
        ("5", "1e3", "invalid type: floating point `1000.0`, expected i64"),
        ("0x02", "0x", "invalid string length"),
        (
            r#""reason""#,
            r#""force":true,"reason""#,
            "unknown field `force`, expected one of `deposit`, `until_ms`, `reason`",
        ),
        ("lost\"}", "lo", "EOF while parsing a string"),
    ] {
        assert!(cut_off.contains(from), "{from}");
        let error = cut(&cut_off.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{said} at line 1 column ")), "{to}: {error}");
    }
}
