// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @notice An honest ERC-20 that anyone can mint, for tests and local chains.
contract TestToken is ERC20 {
    uint8 private immutable _decimals;

    constructor(string memory name, string memory symbol, uint8 decimals_) ERC20(name, symbol) {
        _decimals = decimals_;
    }

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function decimals() public view override returns (uint8) {
        return _decimals;
    }
}

/// @notice Keeps one percent of every transfer.
contract FeeToken is TestToken {
    constructor() TestToken("Fee", "FEE", 6) {}

    function _update(address from, address to, uint256 value) internal override {
        uint256 fee = from == address(0) || to == address(0) ? 0 : value / 100;
        super._update(from, to, value - fee);
        if (fee != 0) super._update(from, address(0xfee), fee);
    }
}

/// @notice Refuses to pay blocked accounts, as USDC does.
contract BlocklistToken is TestToken {
    error Blocked(address account);

    mapping(address account => bool) public blocked;

    constructor() TestToken("Blocklist", "BLK", 6) {}

    function setBlocked(address account, bool value) external {
        blocked[account] = value;
    }

    function _update(address from, address to, uint256 value) internal override {
        require(!blocked[to], Blocked(to));
        super._update(from, to, value);
    }
}

/// @notice Calls back whoever is set before each transfer, as ERC-777 does.
contract ReentrantToken is TestToken {
    address public target;
    bytes public payload;
    bytes public lastError;

    constructor() TestToken("Reentrant", "RE", 6) {}

    function arm(address target_, bytes calldata payload_) external {
        target = target_;
        payload = payload_;
    }

    function _update(address from, address to, uint256 value) internal override {
        if (target != address(0)) {
            (bool success, bytes memory answer) = target.call(payload);
            if (!success) lastError = answer;
        }
        super._update(from, to, value);
    }
}

/// @notice Answers `decimals()` and nothing else.
contract NoToken {
    uint8 public immutable decimals;

    constructor(uint8 decimals_) {
        decimals = decimals_;
    }
}
