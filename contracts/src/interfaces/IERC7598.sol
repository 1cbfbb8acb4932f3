// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title EIP-3009 for accounts with code
/// @notice The form of `receiveWithAuthorization` that USDC 2.2 has beside that of EIP-3009: its
/// signature has any length, so that an ERC-1271 account can give one.
interface IERC7598 {
    /// @notice Moves `value` of `from` to the caller, who must be `to`.
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;
}
