// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {TestToken} from "./TestTokens.sol";

/// @notice Returns nothing from its transfers, as USDT does.
contract SilentToken {
    uint8 public constant decimals = 6;

    mapping(address account => uint256) public balanceOf;
    mapping(address owner => mapping(address spender => uint256)) public allowance;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function approve(address spender, uint256 amount) external returns (bool) {
        allowance[msg.sender][spender] = amount;
        return true;
    }

    function transfer(address to, uint256 amount) external {
        balanceOf[msg.sender] -= amount;
        balanceOf[to] += amount;
    }

    function transferFrom(address from, address to, uint256 amount) external {
        allowance[from][msg.sender] -= amount;
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// @notice Answers false instead of reverting once it is stopped.
contract FalseToken is TestToken {
    bool public stopped;

    constructor() TestToken("False", "FLS", 6) {}

    function stop() external {
        stopped = true;
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        if (stopped) return false;
        return super.transfer(to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        if (stopped) return false;
        return super.transferFrom(from, to, amount);
    }
}

/// @notice Stops and starts all transfers when told to, as USDC does.
contract PausableToken is TestToken {
    error Paused();

    bool public paused;

    constructor() TestToken("Pausable", "PAU", 6) {}

    function setPaused(bool value) external {
        paused = value;
    }

    function _update(address from, address to, uint256 value) internal override {
        require(!paused, Paused());
        super._update(from, to, value);
    }
}

/// @notice Burns half of an account's balance when told to, as a rebase downwards does.
contract ShrinkingToken is TestToken {
    constructor() TestToken("Shrinking", "SHR", 6) {}

    function shrink(address account) external {
        _burn(account, balanceOf(account) / 2);
    }
}

/// @notice Answers a transfer, yes or by a revert, at a length that is dear to copy.
contract VerboseToken is TestToken {
    uint256 private constant LENGTH = 1_000_000;

    bool public verbose;
    bool public reverts;

    constructor() TestToken("Verbose", "VRB", 6) {}

    function speak(bool verbose_, bool reverts_) external {
        (verbose, reverts) = (verbose_, reverts_);
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        if (!verbose) return super.transfer(to, amount);
        bool refuse = reverts;
        if (!refuse) super.transfer(to, amount);
        assembly {
            mstore(0, 1)
            if refuse { revert(0, LENGTH) }
            return(0, LENGTH)
        }
    }
}

/// @notice Changes its decimals when told to.
contract ShiftingToken {
    uint256 public decimals;

    constructor(uint256 decimals_) {
        decimals = decimals_;
    }

    function shift(uint256 decimals_) external {
        decimals = decimals_;
    }
}
