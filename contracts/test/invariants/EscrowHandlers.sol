// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {DepositKey, IEscrow} from "../../src/interfaces/IEscrow.sol";
import {ITokens} from "../../src/interfaces/ITokens.sol";
import {BlocklistToken, NoToken, TestToken} from "../tokens/TestTokens.sol";
import {World} from "./World.sol";

/// @title EscrowHandlers
/// @notice Deposits, thaws, withdrawals and the registration of tokens, by those who may and those
/// who may not.
abstract contract EscrowHandlers is World {
    /// @notice Calls of each handler, and those in which it did its work rather than nothing.
    mapping(bytes4 handler => uint256) public calls;
    mapping(bytes4 handler => uint256) public successes;

    /// @dev Time passes between calls only by handlers, so that it can be aimed at.
    uint256 internal time = block.timestamp;

    /// @dev Grows with whatever those who a deposit's key names do to it.
    mapping(uint256 index => uint256) internal version;

    modifier handler(uint256 seed) {
        ++calls[msg.sig];
        _seed(seed);
        vm.warp(time);
        uint256 before = held[address(reentrant)];
        _;
        if (held[address(reentrant)] != before) _C20_tokensCannotEnter();
    }

    /// @dev C20: a token that calls back during its own transfer is kept out by the guard.
    function _C20_tokensCannotEnter() private {
        if (reentrant.target() == address(0)) return;
        _hold(
            bytes4(reentrant.takeLastError())
                == ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector,
            "C20: a token entered"
        );
    }

    function _succeeded() internal {
        ++successes[msg.sig];
    }

    function deposit(uint256 seed) external handler(seed) {
        uint256 index = _choose(keys.length);
        uint256 tried;
        while (_room(index) == 0 || _stopped(keys[index].token)) {
            if (++tried > keys.length) return;
            index = (index + 1) % keys.length;
        }
        // Half of the deposits are funded by somebody else.
        address from = _choose(2) == 0 ? keys[index].requestor : _stranger();
        _fund(index, from, uint64(_amount(_room(index))));
        _succeeded();
    }

    function depositRefused(uint256 seed) external handler(seed) {
        uint256 index = _choose(keys.length);
        DepositKey memory key = keys[index];
        uint256 room = _room(index);
        uint256 units = 1 + _choose(1000);
        bytes memory expected;
        uint256 fault = _choose(6);
        if (fault == 0) {
            key.requestor = address(0);
            expected = abi.encodeWithSelector(IEscrow.IncompleteKey.selector);
        } else if (fault == 1) {
            key.signer = address(0);
            expected = abi.encodeWithSelector(IEscrow.IncompleteKey.selector);
        } else if (fault == 2) {
            units = 0;
            expected = abi.encodeWithSelector(IEscrow.ZeroUnits.selector);
        } else if (fault == 3) {
            key.token = address(this);
            expected = abi.encodeWithSelector(ITokens.TokenNotRegistered.selector, key.token);
        } else if (fault == 4 && room < type(uint64).max) {
            units = room + 1;
            expected = abi.encodeWithSelector(IEscrow.DepositTooLarge.selector, units, room);
        } else {
            key.token = address(feeToken);
            units = 100 + _choose(1 << 40);
            expected = abi.encodeWithSelector(
                ITokens.TokenDeliveredLess.selector, key.token, units, units - units / 100
            );
        }
        _refused(
            requestors[_choose(3)],
            abi.encodeCall(settlement.deposit, (key, uint64(units))),
            expected
        );
        _succeeded();
    }

    function thaw(uint256 seed) external handler(seed) {
        uint256 index = _choose(keys.length);
        for (uint256 i; i < keys.length && balanceOf[ids[index]] == 0; ++i) {
            index = (index + 1) % keys.length;
        }
        uint256 balance = balanceOf[ids[index]];
        _expectThaw(index, balance == 0 || _choose(8) == 0 ? 0 : _amount(balance));
        _succeeded();
    }

    function _expectThaw(uint256 index, uint256 units) internal {
        bytes32 id = ids[index];
        ++version[index];
        _beforeCallBy(keys[index].requestor);
        settlement.thaw(keys[index], uint64(units));
        _thaw(id, units);
        _announce(IEscrow.Thawed.selector, id, abi.encode(units, thawEndsOf[id]));
        bytes32[] memory writes = _after();
        _checkDeposit(id, Cause.Other);
        _finish(writes);
    }

    function thawRefused(uint256 seed) external handler(seed) {
        uint256 index = _choose(keys.length);
        DepositKey memory key = keys[index];
        uint256 balance = balanceOf[ids[index]];
        address from = _anybody();
        if (from == key.requestor) {
            if (balance == type(uint64).max) return;
            _refused(
                from,
                abi.encodeCall(settlement.thaw, (key, uint64(balance + 1))),
                abi.encodeWithSelector(IEscrow.ThawExceedsBalance.selector, balance + 1, balance)
            );
        } else {
            // Not even those who sign its statements.
            _refused(
                from,
                abi.encodeCall(settlement.thaw, (key, 0)),
                abi.encodeWithSelector(IEscrow.NotRequestor.selector, from, key.requestor)
            );
        }
        _succeeded();
    }

    function withdraw(uint256 seed) external handler(seed) {
        uint256 index = _thawing();
        if (thawingOf[ids[index]] == 0) {
            if (balanceOf[ids[index]] == 0) return;
            _expectThaw(index, _amount(balanceOf[ids[index]]));
        }
        if (time < thawEndsOf[ids[index]]) _warp(thawEndsOf[ids[index]]);
        address to = _choose(2) == 0 ? keys[index].requestor : _anybody();
        if (!_pays(keys[index].token, to, thawingOf[ids[index]])) {
            _expectNoWithdrawal(index, to);
            // Somewhere else, if that is what it takes.
            to = strangers[1];
            if (!_pays(keys[index].token, to, thawingOf[ids[index]])) return;
        }
        this.expectWithdrawal(index, to);
        _succeeded();
    }

    /// @dev A token that does not pay reverts the withdrawal, which takes nothing.
    function _expectNoWithdrawal(uint256 index, address to) private {
        _refused(
            keys[index].requestor,
            abi.encodeCall(settlement.withdraw, (keys[index], to)),
            _refusal(keys[index].token, to, thawingOf[ids[index]])
        );
    }

    /// @dev What a token that does not pay reverts with.
    function _refusal(address token, address to, uint256 units)
        internal
        view
        returns (bytes memory)
    {
        if (_stopped(token)) {
            return abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, token);
        }
        if (token == address(blocklist) && blocklist.blocked(to)) {
            return abi.encodeWithSelector(BlocklistToken.Blocked.selector, to);
        }
        return abi.encodeWithSelector(
            IERC20Errors.ERC20InsufficientBalance.selector,
            address(settlement),
            held[token],
            units * unitOf[token]
        );
    }

    /// @dev External, so that the books see the time to which `withdraw` has warped.
    function expectWithdrawal(uint256 index, address to) external {
        DepositKey memory key = keys[index];
        bytes32 id = ids[index];
        ++version[index];
        _beforeCallBy(key.requestor);
        settlement.withdraw(key, to);
        uint256 units = _withdraw(id);
        _announce(IEscrow.Withdrawn.selector, id, abi.encode(to, units));
        _announceTransfer(key.token, address(settlement), to, units * unitOf[key.token]);
        bytes32[] memory writes = _after();
        _checkDeposit(id, Cause.Withdrawal);
        _checkHeld(key.token);
        _finish(writes);
    }

    function withdrawRefused(uint256 seed) external handler(seed) {
        uint256 index = _choose(4) == 0 ? _choose(keys.length) : _thawing();
        DepositKey memory key = keys[index];
        bytes32 id = ids[index];
        address from = key.requestor;
        address to = from;
        bytes memory expected;
        uint256 fault = _choose(4);
        if (fault == 0) {
            to = _choose(2) == 0 ? address(0) : address(settlement);
            expected = abi.encodeWithSelector(ITokens.BadDestination.selector, to);
        } else if (fault == 1) {
            from = _stranger();
            to = from;
            expected = abi.encodeWithSelector(IEscrow.NotRequestor.selector, from, key.requestor);
        } else if (thawingOf[id] == 0) {
            expected = abi.encodeWithSelector(IEscrow.NothingThawing.selector);
        } else {
            if (time >= thawEndsOf[id]) return;
            // The last second before its end is too early.
            if (fault == 2) _warp(thawEndsOf[id] - 1);
            expected = abi.encodeWithSelector(IEscrow.StillThawing.selector, thawEndsOf[id]);
        }
        _refused(from, abi.encodeCall(settlement.withdraw, (key, to)), expected);
        _succeeded();
    }

    function registerToken(uint256 seed) external handler(seed) {
        uint8 decimals = uint8(_choose(25));
        _expectRegistration(address(new NoToken(decimals)), decimals);
        _succeeded();
    }

    function registerTokenRefused(uint256 seed) external handler(seed) {
        address token = tokens[_choose(tokens.length)];
        uint256 fault = _choose(4);
        bytes4 problem =
            fault == 0 ? ITokens.TokenAlreadyRegistered.selector : ITokens.NotAToken.selector;
        bytes memory expected = abi.encodeWithSelector(problem, token);
        if (fault == 1) {
            token = strangers[0];
            expected = abi.encodeWithSelector(problem, token);
        } else if (fault == 2) {
            token = address(settlement);
            expected = abi.encodeWithSelector(problem, token);
        } else if (fault == 3) {
            uint8 decimals = uint8(25 + _choose(231));
            token = address(new NoToken(decimals));
            expected = abi.encodeWithSelector(ITokens.TooManyDecimals.selector, token, decimals);
        }
        _refused(_anybody(), abi.encodeCall(settlement.registerToken, (token)), expected);
        _succeeded();
    }

    /// @dev C1, C12: money that anybody gives to the contract is nobody's, and changes no books.
    function donate(uint256 seed) external handler(seed) {
        address token = tokens[_choose(tokens.length)];
        if (token == address(reentrant) || _stopped(token)) token = tokens[0];
        address from = _stranger();
        uint256 amount = _amount(1 << 60);
        _beforeCallBy(from);
        // Some tokens return nothing.
        (bool success,) = token.call(abi.encodeCall(IERC20.transfer, (address(settlement), amount)));
        _hold(success, "a donation failed");
        donated[token] += amount;
        _announceTransfer(token, from, address(settlement), amount);
        bytes32[] memory writes = _after();
        _checkHeld(token);
        _finish(writes);
        _succeeded();
    }

    function pass(uint256 seed) external handler(seed) {
        uint256 choice = _choose(4);
        uint256 index = _thawing();
        uint256 end = thawEndsOf[ids[index]];
        // To the last second of a thaw, to its end, or anywhere.
        if (choice == 0 && end > time) _warp(end - 1);
        else if (choice == 1 && end > time) _warp(end);
        else _warp(time + _choose(3 days));
        _succeeded();
    }

    function _warp(uint256 to) internal {
        time = to;
        vm.warp(to);
    }

    /// @dev Units that still fit the deposit.
    function _room(uint256 index) internal view returns (uint256) {
        return MAX_UNITS - balanceOf[ids[index]] - spentOf[ids[index]];
    }

    /// @dev A deposit from which something is thawing, if there is one.
    function _thawing() internal returns (uint256 index) {
        index = _choose(keys.length);
        for (uint256 i; i < keys.length && thawingOf[ids[index]] == 0; ++i) {
            index = (index + 1) % keys.length;
        }
    }

    function _stopped(address token) internal view returns (bool) {
        return token == address(moody) && token != address(0) && moody.stopped();
    }

    /// @dev Whether the token will pay.
    function _pays(address token, address to, uint256 units) internal view returns (bool) {
        if (_stopped(token)) return false;
        if (token == address(blocklist) && blocklist.blocked(to)) return false;
        return units * unitOf[token] <= held[token];
    }
}
