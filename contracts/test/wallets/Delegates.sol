// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @notice What an EIP-7702 account may delegate to: batches of calls, and no ERC-1271.
contract BatchDelegate {
    struct Call {
        address to;
        bytes data;
    }

    error NotTheAccount(address caller);

    function execute(Call[] calldata calls) external {
        require(msg.sender == address(this), NotTheAccount(msg.sender));
        for (uint256 i; i < calls.length; ++i) {
            (bool success, bytes memory answer) = calls[i].to.call(calls[i].data);
            if (!success) {
                assembly ("memory-safe") {
                    revert(add(answer, 0x20), mload(answer))
                }
            }
        }
    }
}

/// @notice The same, with the account's own key as its ERC-1271 signer.
contract SigningDelegate is BatchDelegate, IERC1271 {
    function isValidSignature(bytes32 digest, bytes calldata signature)
        external
        view
        returns (bytes4)
    {
        (address recovered,,) = ECDSA.tryRecoverCalldata(digest, signature);
        return recovered == address(this) ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}
