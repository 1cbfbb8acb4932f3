// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {ISettlement} from "../interfaces/ISettlement.sol";

/// @title Signatures
/// @notice Decides whether an account signed a digest: ECDSA first, then ERC-1271.
/// @dev In this order an account that carries an EIP-7702 delegation, and so has code, can still
/// sign with its key. The account's answer is bounded in gas and in bytes read, so that no wallet
/// can hold up other statements.
library Signatures {
    /// @dev Gas that an ERC-1271 account gets: ample for a Safe with several owners or a passkey
    /// wallet.
    uint256 internal constant ERC1271_GAS = 250_000;
    /// @dev Gas that must be left for EIP-150's 63/64 to reach `ERC1271_GAS`, with room for the
    /// call itself.
    uint256 internal constant ERC1271_GAS_NEEDED = 258_000;

    /// @notice Whether `account` signed `digest`.
    /// @dev Reverts with {ISettlement.GasTooLow} if an ERC-1271 account could not get its full gas.
    function isValid(address account, bytes32 digest, bytes calldata signature)
        internal
        view
        returns (bool)
    {
        // A failed recovery gives zero.
        (address recovered,,) = ECDSA.tryRecoverCalldata(digest, signature);
        if (recovered == account && recovered != address(0)) return true;
        return account.code.length != 0 && _isValidERC1271(account, digest, signature);
    }

    function _isValidERC1271(address account, bytes32 digest, bytes calldata signature)
        private
        view
        returns (bool)
    {
        bytes memory question = abi.encodeCall(IERC1271.isValidSignature, (digest, signature));
        uint256 left = gasleft();
        require(left >= ERC1271_GAS_NEEDED, ISettlement.GasTooLow(left, ERC1271_GAS_NEEDED));
        bool success;
        bytes32 answer;
        assembly ("memory-safe") {
            success := staticcall(
                ERC1271_GAS,
                account,
                add(question, 0x20),
                mload(question),
                0,
                0x20
            )
            success := and(success, gt(returndatasize(), 0x1f))
            answer := mload(0)
        }
        return success && answer == bytes32(IERC1271.isValidSignature.selector);
    }
}
