//! What gas costs, of what each endpoint says. Pure.

use std::collections::BTreeSet;

use alloy::primitives::U256;
use serde_json::Value;

use super::agreement;

/// What prices follow from in a block, besides its time.
const OF_BLOCK: [&str; 4] = ["baseFeePerGas", "gasLimit", "gasUsed", "timestamp"];
/// In a history: the tips. Its base fees are those of blocks, which tell them themselves.
const OF_HISTORY: [&str; 1] = ["reward"];

/// An answer about prices in which each number is the one in the middle of what at least `needed` operators say. Were it one of
/// the answers, chosen by a figure over its numbers, others could be put in their place that come to the same. What else
/// stands in it is the first one's, but for base fees of a history and for transactions, which nobody asks for.
pub(super) fn middle<'a>(
    method: &str,
    said: &'a [(&'a str, Value)],
    needed: usize,
) -> Option<Value> {
    let fields = match method {
        "eth_feeHistory" => &OF_HISTORY[..],
        "eth_getBlockByNumber" => &OF_BLOCK[..],
        _ => return blend(said, needed),
    };
    // A list reads as one, too, where its parts come in the order of the fields.
    let object = |(operator, value): &'a (&'a str, Value)| Some((*operator, value.as_object()?));
    let said: Vec<_> = said.iter().filter_map(object).collect();
    let operators: BTreeSet<_> = said.iter().map(|(operator, _)| operator).collect();
    let (_, first) = said.first().filter(|_| operators.len() >= needed)?;
    let mut answer = (*first).clone();
    for field in fields {
        let told = said.iter().filter_map(|(operator, answer)| {
            // Chains of before EIP-1559 have no base fee.
            let none = (*field == "baseFeePerGas").then(|| Value::from("0x0"));
            let told = answer.get(*field).filter(|told| !told.is_null()).cloned();
            Some((*operator, told.or(none)?))
        });
        // Null stands for what too few tell: a history without tips.
        let middle = blend(&told.collect::<Vec<_>>(), needed).unwrap_or_default();
        answer.insert((*field).to_owned(), middle);
    }
    if method == "eth_feeHistory" {
        answer.remove("baseFeePerGas");
    }
    if let Some(transactions) = answer.get_mut("transactions") {
        *transactions = Value::Array(Vec::new());
    }
    Some(Value::Object(answer))
}

/// Numbers, or lists of them, number by number.
fn blend(said: &[(&str, Value)], needed: usize) -> Option<Value> {
    let lengths = said.iter().filter_map(|(who, value)| Some((*who, value.as_array()?.len())));
    let lengths = lengths.map(|(who, length)| (who, U256::from(length)));
    if let Some(length) = agreement::middle(lengths, needed) {
        let at = |index| {
            said.iter().filter_map(move |(who, list)| Some((*who, list.get(index)?.clone())))
        };
        let each = (0..length.try_into().ok()?)
            .map(|index: usize| blend(&at(index).collect::<Vec<_>>(), needed));
        return each.collect::<Option<Vec<_>>>().map(Value::Array);
    }
    let numbers = said.iter().filter_map(|(who, value)| {
        Some((*who, serde_json::from_value::<U256>(value.clone()).ok()?))
    });
    serde_json::to_value(agreement::middle(numbers, needed)?).ok()
}

#[cfg(test)]
mod tests {
    use alloy::rpc::types::FeeHistory;
    use serde_json::json;

    use super::*;

    #[test]
    fn each_number_is_the_middle_of_what_operators_say() {
        let history = |rewards: Value| json!({ "oldestBlock": "0x1", "baseFeePerGas": ["0x9"], "reward": rewards });
        let of = |said: [Value; 3]| {
            let said = ["a", "b", "c"].into_iter().zip(said).collect::<Vec<_>>();
            middle("eth_feeHistory", &said, 2).map(|answer| answer["reward"].clone())
        };
        let honest = || history(json!([["0x1", "0x2"], ["0x3", "0x4"]]));
        let sum = history(json!([["0x0", "0x5"], ["0x5", "0x0"]]));
        assert_eq!(of([sum, honest(), honest()]), Some(honest()["reward"].clone()));
        assert_eq!(of([history(json!([])), honest(), honest()]), Some(honest()["reward"].clone()));
        assert_eq!(
            of([honest(), history(json!(null)), history(json!(null))]),
            Some(json!(null)),
            "few tell"
        );
    }

    #[test]
    fn a_history_without_base_fees_is_read_by_its_tips() {
        let bare = json!({ "oldestBlock": "0x1", "gasUsedRatio": [], "reward": [["0x1"]] });
        let mut whole = bare.clone();
        whole["baseFeePerGas"] = json!(["0x9", "0x9"]);
        for said in [[&bare, &bare, &whole], [&whole, &whole, &bare]] {
            let said: Vec<_> = ["a", "b", "c"].into_iter().zip(said.map(Clone::clone)).collect();
            for needed in [2, 3] {
                let answer = middle("eth_feeHistory", &said, needed).unwrap();
                let read: FeeHistory = serde_json::from_value(answer).unwrap();
                assert_eq!(read.reward, Some(vec![vec![1]]));
            }
        }
    }

    #[test]
    fn a_block_is_priced_by_its_base_fee_its_gas_and_its_time() {
        let block = |base: &str, used: &str, time: &str| json!({ "number": "0x7", "baseFeePerGas": base, "gasLimit": "0x64", "gasUsed": used, "timestamp": time });
        let said = [
            ("a", block("0xa", "0xffff", "0x1")),
            ("b", block("0xa", "0x32", "0x5")),
            ("c", block("0xb", "0x33", "0x6")),
        ];
        let of = |said: &[(&str, Value)]| middle("eth_getBlockByNumber", said, 2);
        assert_eq!(of(&said), Some(block("0xa", "0x33", "0x5")));
        assert_eq!(of(&said[..2]), Some(block("0xa", "0x32", "0x1")));
        assert_eq!(of(&said[..1]), None, "one operator");
        let mut bare = said[0].clone();
        bare.1["baseFeePerGas"] = json!(null);
        bare.1["transactions"] = json!([{ "x": 1 }]);
        let priced = middle("eth_getBlockByNumber", &[bare, said[1].clone(), said[2].clone()], 3);
        let priced = priced.unwrap();
        assert_eq!(
            (&priced["baseFeePerGas"], &priced["transactions"]),
            (&json!("0xa"), &json!([]))
        );
    }

    #[test]
    fn the_middle_of_the_nodes_advice_is_taken() {
        let said = [("a", json!("0x64")), ("b", json!("0x2")), ("c", json!("0x3"))];
        assert_eq!(middle("eth_maxPriorityFeePerGas", &said, 2), Some(json!("0x3")));
    }
}
