// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Journal} from "./Journal.sol";
import {ITokens} from "./interfaces/ITokens.sol";

/// @title Tokens
/// @notice See {ITokens}. The only place where units become base units.
abstract contract Tokens is ITokens, Journal, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @dev Decimals that units keep; more are folded into the unit.
    uint256 private constant UNIT_DECIMALS = 6;
    /// @dev 10^(24 − 6) is the largest power of ten that fits the unit's 64 bits with room to
    /// spare.
    uint256 private constant MAX_DECIMALS = 24;

    mapping(address token => uint64 unit) private _units;

    /// @inheritdoc ITokens
    function registerToken(address token) external nonReentrant {
        require(_units[token] == 0, TokenAlreadyRegistered(token));
        require(token.code.length != 0, NotAToken(token));
        (bool answered, uint8 decimals) = SafeERC20.tryGetDecimals(IERC20(token));
        require(answered, NotAToken(token));
        require(decimals <= MAX_DECIMALS, TooManyDecimals(token, decimals));

        uint64 unit = decimals > UNIT_DECIMALS ? uint64(10 ** (decimals - UNIT_DECIMALS)) : 1;
        _units[token] = unit;
        _emitRecorded(abi.encode(TokenRegistered.selector, token, decimals, unit));
    }

    /// @inheritdoc ITokens
    function unitOf(address token) public view returns (uint64 unit) {
        return _units[token];
    }

    /// @dev Base units per unit, for functions that need a registered token.
    function _unitOf(address token) internal view returns (uint256 unit) {
        unit = _units[token];
        require(unit != 0, TokenNotRegistered(token));
    }

    /// @dev Takes `amount` base units from the caller and insists on receiving them in full.
    function _pull(address token, uint256 amount) internal {
        uint256 before = IERC20(token).balanceOf(address(this));
        IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = IERC20(token).balanceOf(address(this)) - before;
        require(received >= amount, TokenDeliveredLess(token, amount, received));
    }

    /// @dev Refuses destinations at which money would be lost or counted twice.
    function _checkDestination(address to) internal view {
        require(to != address(0) && to != address(this), BadDestination(to));
    }
}
