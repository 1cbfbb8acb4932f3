// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Permit2
/// @notice What is used of the Permit2 contract, which lives at
/// 0x000000000022D473030F116dDEE9F6B43aC78BA3 on most chains.
interface IPermit2 {
    /// @notice The token and the amount of base units that a signature permits.
    struct TokenPermissions {
        address token;
        uint256 amount;
    }

    /// @notice What the owner signs, besides spender and witness.
    struct PermitTransferFrom {
        TokenPermissions permitted;
        uint256 nonce;
        uint256 deadline;
    }

    /// @notice What the spender asks for.
    struct SignatureTransferDetails {
        address to;
        uint256 requestedAmount;
    }

    /// @notice Moves tokens of `owner`, who signed the permit for the caller as spender together
    /// with `witness`.
    /// @dev An owner with code is asked by ERC-1271 only, whatever its key could sign.
    /// @param witness EIP-712 struct hash of further data that the signature covers.
    /// @param witnessTypeString The rest of the signed type, from the witness's type on.
    function permitWitnessTransferFrom(
        PermitTransferFrom calldata permit,
        SignatureTransferDetails calldata transferDetails,
        address owner,
        bytes32 witness,
        string calldata witnessTypeString,
        bytes calldata signature
    ) external;
}
