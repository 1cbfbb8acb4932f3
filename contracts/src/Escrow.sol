// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {Tokens} from "./Tokens.sol";
import {Deposit, DepositKey, IEscrow} from "./interfaces/IEscrow.sol";

/// @title Escrow
/// @notice See {IEscrow}.
abstract contract Escrow is IEscrow, Tokens {
    using SafeERC20 for IERC20;

    bytes32 internal constant DEPOSIT_KEY_TYPEHASH = keccak256(
        "DepositKey(address requestor,address signer,address cosigner,address token,bytes32 salt)"
    );

    /// @inheritdoc IEscrow
    uint32 public immutable THAW_PERIOD;

    mapping(bytes32 id => Deposit) private _deposits;

    constructor(uint32 thawPeriod) {
        require(thawPeriod != 0, ZeroThawPeriod());
        THAW_PERIOD = thawPeriod;
    }

    /// @inheritdoc IEscrow
    function deposit(DepositKey calldata key, uint64 units) external nonReentrant {
        require(key.requestor != address(0) && key.signer != address(0), IncompleteKey());
        require(units != 0, ZeroUnits());
        uint256 unit = _unitOf(key.token);
        bytes32 id = depositId(key);
        Deposit memory state = _deposits[id];
        // Bounds the balance and, for every future statement, `spent` as well: their sum only grows
        // here.
        uint256 room = type(uint64).max - (uint256(state.balance) + state.spent);
        require(units <= room, DepositTooLarge(units, room));

        state.balance += units;
        _deposits[id] = state;
        _emitRecorded(abi.encode(Deposited.selector, id, key, msg.sender, units));
        _pull(key.token, units * unit);
    }

    /// @inheritdoc IEscrow
    function thaw(DepositKey calldata key, uint64 units) external nonReentrant {
        require(msg.sender == key.requestor, NotRequestor(msg.sender, key.requestor));
        bytes32 id = depositId(key);
        Deposit memory state = _deposits[id];
        require(units <= state.balance, ThawExceedsBalance(units, state.balance));

        state.thawing = units;
        state.thawEnds = units == 0 ? 0 : _thawEnd();
        _deposits[id] = state;
        _emitRecorded(abi.encode(Thawed.selector, id, units, state.thawEnds));
    }

    /// @inheritdoc IEscrow
    function withdraw(DepositKey calldata key, address to) external nonReentrant {
        require(msg.sender == key.requestor, NotRequestor(msg.sender, key.requestor));
        _checkDestination(to);
        bytes32 id = depositId(key);
        Deposit memory state = _deposits[id];
        uint64 units = state.thawing;
        require(units != 0, NothingThawing());
        require(block.timestamp >= state.thawEnds, StillThawing(state.thawEnds));

        state.balance -= units;
        state.thawing = 0;
        state.thawEnds = 0;
        _deposits[id] = state;
        _emitRecorded(abi.encode(Withdrawn.selector, id, to, units));
        IERC20(key.token).safeTransfer(to, units * _unitOf(key.token));
    }

    /// @inheritdoc IEscrow
    function depositId(DepositKey calldata key) public pure returns (bytes32 id) {
        return keccak256(abi.encode(DEPOSIT_KEY_TYPEHASH, key));
    }

    /// @inheritdoc IEscrow
    function depositOf(bytes32 id) external view returns (Deposit memory) {
        return _deposits[id];
    }

    /// @dev Deposit `id` for {Settlement}, which handles its slot as one word: balance in bits 0 to
    /// 63, thawing in 64 to 127, spent in 128 to 191, epoch in 192 to 223, thawEnds in 224 to 255.
    function _deposit(bytes32 id) internal view returns (Deposit storage state, uint256 word) {
        state = _deposits[id];
        assembly ("memory-safe") {
            word := sload(state.slot)
        }
    }

    function _balance(uint256 word) internal pure returns (uint256) {
        return word & type(uint64).max;
    }

    function _spent(uint256 word) internal pure returns (uint256) {
        return word >> 128 & type(uint64).max;
    }

    function _epoch(uint256 word) internal pure returns (uint256) {
        return word >> 192 & type(uint32).max;
    }

    /// @dev Moves `units` from balance to spent, counts the epoch, and returns the deposit's new
    /// word. What is not thawing is spent first. The caller has checked that the balance covers
    /// `units` and that the epoch is below 2^32 − 1, and `deposit` bounds balance and spent
    /// together: so no field reaches into another.
    function _spend(Deposit storage state, uint256 word, uint256 units)
        internal
        returns (uint256 next)
    {
        unchecked {
            next = word - units + (units << 128) + (1 << 192);
            uint256 thawing = next >> 64 & type(uint64).max;
            if (thawing > _balance(next)) next -= (thawing - _balance(next)) << 64;
        }
        assembly ("memory-safe") {
            sstore(state.slot, next)
        }
    }

    /// @dev Clamped rather than checked: from 2106 on the clock no longer fits, and a thaw must not
    /// become impossible.
    function _thawEnd() private view returns (uint32) {
        uint256 end = block.timestamp + THAW_PERIOD;
        // Casting to uint32 is safe: the branch has compared it.
        // forge-lint: disable-next-line(unsafe-typecast)
        return end < type(uint32).max ? uint32(end) : type(uint32).max;
    }
}
