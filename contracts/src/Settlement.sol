// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {Escrow} from "./Escrow.sol";
import {Journal} from "./Journal.sol";
import {Rewards} from "./Rewards.sol";
import {Deposit, DepositKey} from "./interfaces/IEscrow.sol";
import {ISettlement, Outcome, Statement} from "./interfaces/ISettlement.sol";
import {Rows} from "./libraries/Rows.sol";
import {Signatures} from "./libraries/Signatures.sol";

/// @title Settlement
/// @notice See {ISettlement}.
///
/// **Roles.** None. There is no owner, no pause, no upgrade and no function that only some account
/// may call, except those by which requestors and providers dispose of their own money.
///
/// **Tokens.** A registered token is assumed to move exactly what it is told to and never to change
/// balances by itself. One that takes a fee is refused at deposit. One that lies, rebases downwards
/// or stops can harm those who hold credits or deposits in it, and nobody else: books are kept per
/// token and its calls come last.
///
/// **Liveness.** Whoever holds a signed statement can settle it, and whoever pays the gas can push
/// a claim. A deposit's signers can stop paying, but not take back; its requestor can withdraw, but
/// not before `THAW_PERIOD` is over.
///
/// **Left out on purpose.** A cosignature that the key does not ask for is ignored, since refusing
/// it would protect nobody. A deposit's token need not be registered for an empty statement, which
/// moves nothing. `manifest` is not interpreted: its leaves are checked by whoever signs. Nothing
/// limits the length of `rows`; the chain's gas does. The amount that a claim moves is not
/// measured, because a token that cheats there cheats its own holders only.
contract Settlement is Journal, Escrow, Rewards, ISettlement {
    bytes32 internal constant STATEMENT_TYPEHASH = keccak256(
        "Statement(DepositKey key,uint32 epoch,uint64 spent,bytes32 manifest,bytes rows)"
        "DepositKey(address requestor,address signer,address cosigner,address token,bytes32 salt)"
    );

    /// @param thawPeriod Seconds between a thaw and its withdrawal, above zero.
    constructor(uint32 thawPeriod) Escrow(thawPeriod) EIP712("Quittance", "1") {}

    /// @inheritdoc ISettlement
    function settle(Statement[] calldata statements)
        external
        nonReentrant
        returns (Outcome[] memory outcomes)
    {
        outcomes = new Outcome[](statements.length);
        bytes32 word = _journal;
        for (uint256 i; i < statements.length; ++i) {
            bytes memory raw;
            (outcomes[i], raw) = _settle(statements[i]);
            word = _record(word, raw);
        }
        _journal = word;
    }

    /// @inheritdoc ISettlement
    function statementDigest(
        DepositKey calldata key,
        uint32 epoch,
        uint64 spent,
        bytes32 manifest,
        bytes calldata rows
    ) external view returns (bytes32 digest) {
        return _digest(depositId(key), epoch, spent, manifest, rows);
    }

    /// @dev Settles or skips one statement; `raw` is the event that says so.
    function _settle(Statement calldata statement)
        private
        returns (Outcome outcome, bytes memory raw)
    {
        bytes32 id = depositId(statement.key);
        (Deposit storage deposit, uint256 state) = _deposit(id);
        bytes calldata rows = statement.rows;
        uint256 total;
        bytes32 digest;
        (outcome, total, digest) = _check(statement, id, state, rows);
        if (outcome != Outcome.Settled) {
            return (outcome, abi.encode(Skipped.selector, id, digest, outcome));
        }

        state = _spend(deposit, state, total);
        _credit(statement.key.token, rows);
        raw = _settled(id, state, statement.manifest, rows);
    }

    /// @dev The event {Settled} as {Journal} takes it. Encoded with its topics in one piece, so
    /// that the rows are copied once.
    function _settled(bytes32 id, uint256 state, bytes32 manifest, bytes calldata rows)
        private
        pure
        returns (bytes memory raw)
    {
        raw = abi.encode(Settled.selector, id, _epoch(state), _spent(state), manifest, rows);
        // The offset of `rows` counts from the data, which starts after the topics: four words.
        assembly ("memory-safe") {
            mstore(add(raw, 0xc0), 0x80)
        }
    }

    /// @dev What becomes of the statement, cheapest checks first, and the sum of its rows if they
    /// are in order; see {ISettlement.Skipped} on `digest`.
    function _check(Statement calldata statement, bytes32 id, uint256 state, bytes calldata rows)
        private
        view
        returns (Outcome outcome, uint256 total, bytes32 digest)
    {
        uint256 spent;
        (outcome, total) = _checkRows(statement.epoch, state, rows);
        unchecked {
            // A sum of rows is below 2^80.
            if (outcome == Outcome.Settled) spent = _spent(state) + total;
        }
        digest = _digest(id, statement.epoch, spent, statement.manifest, rows);
        if (outcome != Outcome.Settled) return (outcome, total, digest);

        if (total > _balance(state)) {
            outcome = Outcome.InsufficientBalance;
        } else if (!Signatures.isValid(statement.key.signer, digest, statement.signature)) {
            outcome = Outcome.BadSignature;
        } else {
            address cosigner = statement.key.cosigner;
            if (cosigner == address(0)) return (outcome, total, digest);
            if (!Signatures.isValid(cosigner, digest, statement.cosignature)) {
                outcome = Outcome.BadCosignature;
            }
        }
    }

    /// @dev The checks that no signature could cure.
    function _checkRows(uint32 epoch, uint256 state, bytes calldata rows)
        private
        view
        returns (Outcome outcome, uint256 total)
    {
        unchecked {
            if (epoch != _epoch(state) + 1) return (Outcome.WrongEpoch, 0);
        }
        bool wellFormed;
        uint256 last;
        (wellFormed, total, last) = Rows.check(rows);
        if (!wellFormed) return (Outcome.MalformedRows, 0);
        if (last > providerCount) return (Outcome.UnknownProvider, 0);
        return (Outcome.Settled, total);
    }

    /// @dev `spent` is wider than its 64-bit field because an unaffordable sum of rows may not fit;
    /// such a digest names a statement in {Skipped} and is never compared with a signature.
    function _digest(bytes32 id, uint32 epoch, uint256 spent, bytes32 manifest, bytes calldata rows)
        private
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(
            keccak256(abi.encode(STATEMENT_TYPEHASH, id, epoch, spent, manifest, keccak256(rows)))
        );
    }
}
