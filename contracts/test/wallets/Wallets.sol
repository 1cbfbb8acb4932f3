// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @notice A wallet whose owner signs for it, like a Safe with one owner.
contract OwnedWallet is IERC1271 {
    address public immutable owner;

    constructor(address owner_) {
        owner = owner_;
    }

    function isValidSignature(bytes32 digest, bytes memory signature)
        public
        view
        virtual
        returns (bytes4)
    {
        (address recovered,,) = ECDSA.tryRecover(digest, signature);
        return recovered == owner ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// @notice Burns `toBurn` gas before it answers.
contract SlowWallet is OwnedWallet {
    uint256 public immutable toBurn;

    constructor(address owner_, uint256 toBurn_) OwnedWallet(owner_) {
        toBurn = toBurn_;
    }

    function isValidSignature(bytes32 digest, bytes memory signature)
        public
        view
        override
        returns (bytes4)
    {
        uint256 start = gasleft();
        bytes4 answer = super.isValidSignature(digest, signature);
        while (start - gasleft() < toBurn) {}
        return answer;
    }
}

/// @notice Says no when it gets less than `minimum` gas, like a wallet that gives up asking others.
contract DemandingWallet is OwnedWallet {
    uint256 public immutable minimum;

    constructor(address owner_, uint256 minimum_) OwnedWallet(owner_) {
        minimum = minimum_;
    }

    function isValidSignature(bytes32 digest, bytes memory signature)
        public
        view
        override
        returns (bytes4)
    {
        if (gasleft() < minimum) return bytes4(0xffffffff);
        return super.isValidSignature(digest, signature);
    }
}

/// @notice Answers every question with fixed bytes, or reverts with them.
contract ScriptedWallet {
    bytes public answer;
    bool public reverts;

    constructor(bytes memory answer_, bool reverts_) {
        answer = answer_;
        reverts = reverts_;
    }

    fallback() external {
        bytes memory data = answer;
        bool refuse = reverts;
        assembly ("memory-safe") {
            if refuse { revert(add(data, 0x20), mload(data)) }
            return(add(data, 0x20), mload(data))
        }
    }
}

/// @notice Answers `first` followed by many zero bytes.
contract VerboseWallet {
    uint256 private constant LENGTH = 200_000;

    bytes32 public immutable first;

    constructor(bytes32 first_) {
        first = first_;
    }

    fallback() external {
        bytes32 head = first;
        assembly {
            mstore(0, head)
            return(0, LENGTH)
        }
    }
}

/// @notice Says yes, but counts its answers, which a static call forbids.
contract CountingWallet {
    uint256 public count;

    function isValidSignature(bytes32, bytes calldata) external returns (bytes4) {
        ++count;
        return IERC1271.isValidSignature.selector;
    }
}

/// @notice Calls back whoever asks it, and says yes if any of its calls succeeds.
contract CallingWallet {
    address public immutable target;
    bytes[] public calls;

    constructor(address target_) {
        target = target_;
    }

    function add(bytes calldata call_) external {
        calls.push(call_);
    }

    function isValidSignature(bytes32, bytes calldata) external returns (bytes4) {
        for (uint256 i; i < calls.length; ++i) {
            // Bounded, since a guard that is written in a static call burns what it gets.
            (bool success,) = target.call{gas: 15_000}(calls[i]);
            if (success) return IERC1271.isValidSignature.selector;
        }
        return bytes4(0xffffffff);
    }
}
