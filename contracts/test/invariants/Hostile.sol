// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Settlement} from "../../src/Settlement.sol";
import {Statement} from "../../src/interfaces/ISettlement.sol";
import {FalseToken} from "../tokens/HostileTokens.sol";
import {ReentrantToken, TestToken} from "../tokens/TestTokens.sol";
import {OwnedWallet} from "../wallets/Wallets.sol";

/// @notice Answers false while it is stopped, and comes back.
contract MoodyToken is FalseToken {
    function resume() external {
        stopped = false;
    }
}

/// @notice Takes money away from anyone whenever it likes.
contract SlashingToken is TestToken {
    constructor() TestToken("Slashing", "SLASH", 6) {}

    function slash(address account, uint256 amount) external {
        _burn(account, amount);
    }
}

/// @notice Tells what its last attempt to enter came to, and forgets it.
contract ReentrantTester is ReentrantToken {
    function takeLastError() external returns (bytes memory answer) {
        answer = lastError;
        delete lastError;
    }
}

/// @notice A wallet that tries to enter the contract while it is asked for a signature.
contract ReentrantSigner is OwnedWallet {
    Settlement public immutable settlement;

    error Entered();

    constructor(address owner_, Settlement settlement_) OwnedWallet(owner_) {
        settlement = settlement_;
    }

    function isValidSignature(bytes32 digest, bytes memory signature)
        public
        view
        override
        returns (bytes4)
    {
        // By static calls, for the wallet is asked in one; each would succeed without the guard.
        _enter(abi.encodeCall(settlement.settle, (new Statement[](0))));
        _enter(abi.encodeCall(settlement.register, (new address[](0))));
        return super.isValidSignature(digest, signature);
    }

    function _enter(bytes memory data) private view {
        (bool success,) = address(settlement).staticcall{gas: 50_000}(data);
        require(!success, Entered());
    }
}
