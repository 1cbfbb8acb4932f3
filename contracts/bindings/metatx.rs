//! Approval of GLM on Polygon by meta-transaction.
//!
//! GLM on Polygon has no permit. As a token of the PoS bridge it carries out any call that its user signed, whoever
//! relays it, so that a requestor without native coin can approve Settlement, its deposit helper or Permit2. Only
//! `approve` of an exact amount is encoded here: what else a user could sign this way, nobody should ask for.
//!
//! The domain holds the chain id as its salt and has no `chainId`.

use alloy::{
    primitives::{Address, B256, Bytes, Signature, U256, address},
    sol,
    sol_types::{Eip712Domain, SolCall, SolStruct, eip712_domain},
};

/// GLM on Polygon.
pub const POLYGON_GLM: Address = address!("0B220b82F3eA3B7F6d9A1D8ab58930C064A2b5Bf");

/// The token's side of it.
#[allow(missing_docs, reason = "named as the token names them")]
mod token {
    super::sol! {
        #[derive(Debug, PartialEq, Eq)]
        struct MetaTransaction {
            uint256 nonce;
            address from;
            bytes functionSignature;
        }

        #[derive(Debug, PartialEq, Eq)]
        function approve(address spender, uint256 amount) external returns (bool);

        #[derive(Debug, PartialEq, Eq)]
        function getNonce(address user) external view returns (uint256);

        #[derive(Debug, PartialEq, Eq)]
        function executeMetaTransaction(
            address user,
            bytes functionSignature,
            bytes32 r,
            bytes32 s,
            uint8 v
        ) external payable returns (bytes);
    }
}

pub use token::{MetaTransaction, executeMetaTransactionCall, getNonceCall};

/// An approval of exactly `amount` base units, for its owner to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The token, [`POLYGON_GLM`] on Polygon.
    pub token: Address,
    /// Chain that the token is on.
    pub chain_id: u64,
    /// Who approves, and signs.
    pub owner: Address,
    /// Who may then take the tokens.
    pub spender: Address,
    /// Base units that the spender may take, in all.
    pub amount: U256,
    /// What [`getNonceCall`] answers for the owner; each meta-transaction of the owner raises it.
    pub meta_nonce: U256,
}

impl Approval {
    /// The domain in which the token's meta-transactions are signed.
    pub fn domain(&self) -> Eip712Domain {
        eip712_domain! {
            name: "Golem Network Token (PoS)",
            version: "1",
            verifying_contract: self.token,
            salt: U256::from(self.chain_id).into(),
        }
    }

    /// What the owner signs: this message in [`Self::domain`].
    pub fn message(&self) -> MetaTransaction {
        MetaTransaction { nonce: self.meta_nonce, from: self.owner, functionSignature: self.call() }
    }

    /// The digest of the message.
    pub fn digest(&self) -> B256 {
        self.message().eip712_signing_hash(&self.domain())
    }

    /// Calldata of the token with which anybody can relay the signed approval.
    pub fn calldata(&self, signature: &Signature) -> Bytes {
        executeMetaTransactionCall {
            user: self.owner,
            functionSignature: self.call(),
            r: signature.r().into(),
            s: signature.s().into(),
            v: if signature.v() { 28 } else { 27 },
        }
        .abi_encode()
        .into()
    }

    /// The call that the token carries out for the owner.
    fn call(&self) -> Bytes {
        token::approveCall { spender: self.spender, amount: self.amount }.abi_encode().into()
    }
}

#[cfg(test)]
mod tests {
    use alloy::{
        primitives::{b256, keccak256},
        signers::{SignerSync, local::PrivateKeySigner},
    };
    use serde_json::Value;

    use super::*;

    /// Made by viem, and executed by the token in test/PolygonGlm.t.sol.
    fn vectors() -> Vec<(Approval, Value)> {
        let vectors: Vec<Value> =
            serde_json::from_str(include_str!("../test/vectors/metatx.json")).unwrap();
        vectors.into_iter().map(|vector| (approval(&vector), vector)).collect()
    }

    fn approval(vector: &Value) -> Approval {
        let text = |name: &str| vector[name].as_str().unwrap();
        Approval {
            token: text("token").parse().unwrap(),
            chain_id: vector["chainId"].as_u64().unwrap(),
            owner: text("owner").parse().unwrap(),
            spender: text("spender").parse().unwrap(),
            amount: text("amount").parse().unwrap(),
            meta_nonce: text("metaNonce").parse().unwrap(),
        }
    }

    #[test]
    fn every_field_changes_the_digest() {
        let (approval, _) = vectors().swap_remove(0);
        let other = Address::repeat_byte(1);
        let changed = [
            Approval { token: other, ..approval },
            Approval { chain_id: approval.chain_id + 1, ..approval },
            Approval { owner: other, ..approval },
            Approval { spender: other, ..approval },
            Approval { amount: approval.amount + U256::ONE, ..approval },
            Approval { meta_nonce: approval.meta_nonce + U256::ONE, ..approval },
        ];
        for change in changed {
            assert_ne!(change.digest(), approval.digest(), "{change:?}");
        }
    }

    /// The separator that yagna has on record for GLM on Polygon.
    #[test]
    fn the_domain_is_that_of_the_token_on_polygon() {
        let (approval, _) = vectors().swap_remove(0);
        assert_eq!((approval.token, approval.chain_id), (POLYGON_GLM, 137));
        assert_eq!(
            approval.domain().separator(),
            b256!("804e8c6f5926bd56018ff8fa95b472e09d8b3612bf1b892f2d5e5f4365a5e95e")
        );
    }

    #[test]
    fn digest_and_calldata_are_those_of_another_stack() {
        let key = PrivateKeySigner::from_bytes(&keccak256("payer")).unwrap();
        for (approval, vector) in vectors() {
            assert_eq!(approval.domain().separator().to_string(), vector["domain"]);
            assert_eq!(approval.digest().to_string(), vector["digest"]);
            let signature = key.sign_hash_sync(&approval.digest()).unwrap();
            assert_eq!(approval.calldata(&signature).to_string(), vector["calldata"]);
        }
    }

    /// The same digest, put together by hand.
    #[test]
    fn the_digest_follows_from_the_published_types() {
        for (approval, _) in vectors() {
            let word = |value: U256| value.to_be_bytes::<32>().to_vec();
            let domain = keccak256(
                [
                    keccak256(
                        "EIP712Domain(string name,string version,address verifyingContract,bytes32 salt)",
                    )
                    .to_vec(),
                    keccak256("Golem Network Token (PoS)").to_vec(),
                    keccak256("1").to_vec(),
                    approval.token.into_word().to_vec(),
                    word(U256::from(approval.chain_id)),
                ]
                .concat(),
            );
            let call = [
                keccak256("approve(address,uint256)")[..4].to_vec(),
                approval.spender.into_word().to_vec(),
                word(approval.amount),
            ]
            .concat();
            let message = keccak256(
                [
                    keccak256(
                        "MetaTransaction(uint256 nonce,address from,bytes functionSignature)",
                    )
                    .to_vec(),
                    word(approval.meta_nonce),
                    approval.owner.into_word().to_vec(),
                    keccak256(call).to_vec(),
                ]
                .concat(),
            );
            let digest = keccak256([&[0x19, 0x01], domain.as_slice(), message.as_slice()].concat());
            assert_eq!(approval.digest(), digest);
        }
    }
}
