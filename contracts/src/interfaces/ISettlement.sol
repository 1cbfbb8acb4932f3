// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {DepositKey, IEscrow} from "./IEscrow.sol";
import {IJournal} from "./IJournal.sol";
import {IRewards} from "./IRewards.sol";
import {ITokens} from "./ITokens.sol";

/// @notice One deposit's payouts for one epoch, signed by every key that the deposit names.
/// @param key The deposit that pays.
/// @param epoch The deposit's epoch plus one.
/// @param manifest Merkle root over the workloads that the rows pay for. Signed, not interpreted.
/// @param rows Packed 10-byte rows `uint32 provider ‖ uint48 units`, units above zero, strictly
/// ascending by provider. No rows at all retire the epoch without moving money.
/// @param signature By the key's signer: 65 bytes of ECDSA, or whatever an ERC-1271 account
/// accepts.
/// @param cosignature By the key's cosigner; ignored if the key names none.
struct Statement {
    DepositKey key;
    uint32 epoch;
    bytes32 manifest;
    bytes rows;
    bytes signature;
    bytes cosignature;
}

/// @notice What became of a statement: settled, or skipped for a reason.
enum Outcome {
    Settled,
    /// The epoch is not the deposit's epoch plus one: it was settled before, or its predecessor was
    /// not.
    WrongEpoch,
    /// The rows' length is not a multiple of 10, a row pays nothing, or providers do not strictly
    /// ascend from 1.
    MalformedRows,
    /// A row names a number that nobody has registered.
    UnknownProvider,
    /// The rows pay more than the deposit holds.
    InsufficientBalance,
    /// The signer did not sign this statement in the deposit's present state.
    BadSignature,
    /// The cosigner did not sign this statement in the deposit's present state.
    BadCosignature
}

/// @title Settlement
/// @notice Moves money from deposits to providers' credits, by statements that every key a deposit
/// names has signed. Signed is the EIP-712 message
///
///     Statement(DepositKey key,uint32 epoch,uint64 spent,bytes32 manifest,bytes rows)
///     DepositKey(address requestor,address signer,address cosigner,address token,bytes32 salt)
///
/// in the domain (name "Quittance", version "1", chain id, this contract). `spent` is not sent: the
/// contract computes it as what the deposit has spent plus the sum of the rows, so that a signature
/// also pins the total of its predecessor.
interface ISettlement is IEscrow, IRewards, ITokens, IJournal {
    /// @notice Deposit `id` paid `rows`; it has now spent `spent` units in `epoch` statements.
    event Settled(bytes32 indexed id, uint32 epoch, uint64 spent, bytes32 manifest, bytes rows);
    /// @notice A statement of deposit `id` was skipped.
    /// @dev A hint that anyone can cause: a statement is dead only once another digest has settled
    /// its epoch.
    /// @param digest What its signers would have had to sign in the deposit's present state. For
    /// {Outcome.WrongEpoch}, {Outcome.MalformedRows} and {Outcome.UnknownProvider}, which no
    /// signature could cure, `spent` counts as 0.
    event Skipped(bytes32 indexed id, bytes32 digest, Outcome reason);

    /// @notice Too little gas is left to ask an ERC-1271 account; a skip is never the submitter's
    /// doing.
    error GasTooLow(uint256 left, uint256 needed);

    /// @notice Settles each statement that is valid and skips the others. Anyone may call it.
    /// @dev Emits {Settled} or {Skipped} for each, in order. Reverts as a whole only for malformed
    /// calldata, too little gas, or a credit that would reach 2^63 units.
    /// @return outcomes What became of each statement, for simulation by `eth_call`.
    function settle(Statement[] calldata statements) external returns (Outcome[] memory outcomes);

    /// @notice EIP-712 digest that the key's signers sign.
    /// @param spent What the deposit will have spent, in units, once this statement is settled.
    function statementDigest(
        DepositKey calldata key,
        uint32 epoch,
        uint64 spent,
        bytes32 manifest,
        bytes calldata rows
    ) external view returns (bytes32 digest);
}
