// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Settlement} from "../src/Settlement.sol";
import {Base, Deposit, DepositKey, Outcome, Statement} from "./Base.t.sol";

/// @notice Which ECDSA signatures count: those of the named keys over exactly this statement, in
/// this deposit, on this contract and chain.
contract SignaturesTest is Base {
    uint256 private constant ORDER =
        0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;

    /// @dev Read from the block, it could be read again after it has changed.
    uint256 private constant HOME = 31_337;

    DepositKey internal key;
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        registerProviders(4);
        key = bound(address(usd));
        id = fund(key, 1000);
    }

    function statement() internal returns (Statement memory) {
        return statementFor(key, bytes.concat(row(1, 10), row(3, 20)));
    }

    function assertRefused(Statement memory refused, Outcome reason) internal {
        assertOutcome(settleOne(refused), reason);
        assertState(id, Deposit(1000, 0, 0, 0, 0));
    }

    function split(bytes memory signature) internal pure returns (bytes32 r, bytes32 s, uint8 v) {
        assertEq(signature.length, 65);
        assembly ("memory-safe") {
            r := mload(add(signature, 0x20))
            s := mload(add(signature, 0x40))
            v := byte(0, mload(add(signature, 0x60)))
        }
    }

    function test_Skips_SwappedSignatures() public {
        Statement memory swapped = statement();
        (swapped.signature, swapped.cosignature) = (swapped.cosignature, swapped.signature);
        assertRefused(swapped, Outcome.BadSignature); // I9
    }

    function test_Skips_OneKeySigningForBoth() public {
        Statement memory half = statement();
        half.cosignature = half.signature;
        assertRefused(half, Outcome.BadCosignature); // I2
    }

    function test_Skips_HighS() public {
        Statement memory malleable = statement();
        (bytes32 r, bytes32 s, uint8 v) = split(malleable.signature);
        malleable.signature = abi.encodePacked(r, ORDER - uint256(s), v == 27 ? 28 : 27);
        assertRefused(malleable, Outcome.BadSignature);
    }

    function test_Skips_CompactSignatures() public {
        Statement memory compact = statement();
        (bytes32 r, bytes32 s, uint8 v) = split(compact.signature);
        compact.signature = abi.encodePacked(r, uint256(s) | (uint256(v - 27) << 255));
        assertEq(compact.signature.length, 64);
        assertRefused(compact, Outcome.BadSignature);
    }

    function test_Skips_SignaturesOfOtherLengths() public {
        Statement memory wrong = statement();
        bytes memory signature = wrong.signature;
        wrong.signature = bytes.concat(signature, hex"00");
        assertRefused(wrong, Outcome.BadSignature);
        wrong.signature = bytes.concat(hex"00", signature);
        assertRefused(wrong, Outcome.BadSignature);
        for (uint256 length; length < 65; length += 8) {
            wrong.signature = new bytes(length);
            assertRefused(wrong, Outcome.BadSignature);
        }
    }

    function test_Skips_RecoveryIdsBelow27() public {
        Statement memory raw = statement();
        (bytes32 r, bytes32 s, uint8 v) = split(raw.signature);
        raw.signature = abi.encodePacked(r, s, v - 27);
        assertRefused(raw, Outcome.BadSignature);
    }

    function test_Skips_SignaturesForAnotherChain() public {
        assertEq(block.chainid, HOME);
        Statement memory foreign = statement();
        vm.chainId(HOME + 1);
        assertRefused(foreign, Outcome.BadSignature); // I7
        vm.chainId(HOME);
        assertOutcome(settleOne(foreign), Outcome.Settled);
    }

    function test_Skips_SignaturesForAnotherContract() public {
        Statement memory foreign = statement();
        Settlement other = deploySettlement(THAW_PERIOD);
        Settlement own = settlement;
        settlement = other;
        settlement.registerToken(address(usd));
        registerProviders(4);
        fund(key, 1000);
        assertRefused(foreign, Outcome.BadSignature); // I7
        settlement = own;
        assertOutcome(settleOne(foreign), Outcome.Settled);
    }

    function test_Skips_SignaturesForAnotherDeposit() public {
        Statement memory moved = statement();
        moved.key.salt = "other";
        fund(moved.key, 1000);
        assertOutcome(settleOne(moved), Outcome.BadSignature); // I7
        assertState(settlement.depositId(moved.key), Deposit(1000, 0, 0, 0, 0));
    }

    function test_Skips_SignaturesForAnotherEpoch() public {
        Statement memory empty = statementFor(key, "");
        settleOne(empty);
        empty.epoch = 2;
        assertOutcome(settleOne(empty), Outcome.BadSignature); // I7
    }

    function test_Skips_SignaturesOverTheManifestOfAnother() public {
        Statement memory edited = statement();
        edited.manifest = ~edited.manifest;
        assertRefused(edited, Outcome.BadSignature); // I9
    }

    function test_Skips_SignaturesOverTheRowsOfAnother() public {
        Statement memory edited = statement();
        edited.rows = bytes.concat(row(1, 11), row(3, 19));
        assertRefused(edited, Outcome.BadSignature); // I9
        edited.rows = bytes.concat(row(2, 10), row(3, 20));
        assertRefused(edited, Outcome.BadSignature); // I9
    }

    /// @dev The fields that are signed, a bit each: five words of the key, epoch, manifest, rows.
    function flip(Statement memory target, uint256 field, uint256 bit) internal pure {
        DepositKey memory k = target.key;
        uint256 mask = 1 << (bit % 160);
        if (field == 0) k.requestor = address(uint160(k.requestor) ^ uint160(mask));
        else if (field == 1) k.signer = address(uint160(k.signer) ^ uint160(mask));
        else if (field == 2) k.cosigner = address(uint160(k.cosigner) ^ uint160(mask));
        else if (field == 3) k.token = address(uint160(k.token) ^ uint160(mask));
        else if (field == 4) k.salt ^= bytes32(1 << (bit % 256));
        else if (field == 5) target.epoch ^= uint32(1 << (bit % 32));
        else if (field == 6) target.manifest ^= bytes32(1 << (bit % 256));
        else flipByte(target.rows, bit);
    }

    function flipByte(bytes memory data, uint256 bit) internal pure {
        data[(bit / 8) % data.length] ^= bytes1(uint8(1 << (bit % 8)));
    }

    function testFuzz_Skips_StatementsWithAnyBitFlipped(uint256 field, uint256 bit) public {
        Statement memory flipped = statement();
        flip(flipped, field % 8, bit % 256);
        assertTrue(settleOne(flipped) != Outcome.Settled); // I9
        assertState(id, Deposit(1000, 0, 0, 0, 0));
        bytes32 flippedId = settlement.depositId(flipped.key);
        if (flippedId != id) assertState(flippedId, Deposit(0, 0, 0, 0, 0));
        assertCredit(address(usd), 1, 0);
        assertCredit(address(usd), 3, 0);
    }

    function testFuzz_Skips_SignaturesWithAnyBitFlipped(bool cosigner, uint256 bit) public {
        Statement memory flipped = statement();
        flipByte(cosigner ? flipped.cosignature : flipped.signature, bit);
        assertRefused(flipped, cosigner ? Outcome.BadCosignature : Outcome.BadSignature); // I9
    }

    function test_Settle_TakesTheSignaturesOfBothNamedKeys() public {
        assertOutcome(settleOne(statement()), Outcome.Settled);
        assertState(id, Deposit(970, 0, 30, 1, 0));
    }

    function test_StatementDigest_IsTheTypedDataHash() public {
        Statement memory signed = statement();
        bytes32 typeHash = keccak256(
            "Statement(DepositKey key,uint32 epoch,uint64 spent,bytes32 manifest,bytes rows)"
            "DepositKey(address requestor,address signer,address cosigner,"
            "address token,bytes32 salt)"
        );
        bytes32 structHash =
            keccak256(abi.encode(typeHash, id, 1, 30, signed.manifest, keccak256(signed.rows)));
        assertEq(digestOf(signed, 30), typedDigest(structHash));
    }
}
