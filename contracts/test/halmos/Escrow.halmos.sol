// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Deposit, DepositKey} from "../../src/interfaces/IEscrow.sol";
import {AnyState} from "./AnyState.sol";

/// @title EscrowCheck
/// @notice What deposit, thaw and withdraw do to any deposit, from any state.
/// @dev Bounds: none but the token, one contract with symbolic balances and answers.
contract EscrowCheck is AnyState {
    function check_DepositAddsItsUnits(uint64 units) public {
        DepositKey memory key = _key("key");
        bytes32 id = settlement.depositId(key);
        Deposit memory a = settlement.depositOf(id);
        vm.prank(_caller());
        settlement.deposit(key, units);
        Deposit memory b = settlement.depositOf(id);
        assert(units != 0 && key.requestor != address(0) && key.signer != address(0));
        assert(b.balance == uint256(a.balance) + units);
        assert(uint256(b.balance) + b.spent <= type(uint64).max);
        assert(b.thawing == a.thawing && b.thawEnds == a.thawEnds);
        assert(b.spent == a.spent && b.epoch == a.epoch);
    }

    function check_DepositPullsExactlyFromItsCaller(uint64 units) public {
        DepositKey memory key = _key("key");
        address caller = _caller();
        uint256 held = token.balanceOf(address(settlement));
        uint256 owned = token.balanceOf(caller);
        uint256 amount = uint256(units) * settlement.unitOf(address(token));
        vm.prank(caller);
        settlement.deposit(key, units);
        assert(token.balanceOf(address(settlement)) - held == amount);
        assert(owned - token.balanceOf(caller) == amount);
    }

    function check_DepositNeedsARegisteredToken(uint64 units) public {
        DepositKey memory key = _key("key");
        vm.assume(settlement.unitOf(address(token)) == 0);
        vm.prank(_caller());
        try settlement.deposit(key, units) {
            assert(false);
        } catch {}
    }

    /// @dev I6
    function check_DepositLeavesOtherDeposits(uint64 units, bytes32 other) public {
        DepositKey memory key = _key("key");
        vm.assume(other != settlement.depositId(key));
        Deposit memory a = settlement.depositOf(other);
        vm.prank(_caller());
        settlement.deposit(key, units);
        assert(_same(a, settlement.depositOf(other)));
    }

    function check_ThawSetsTheAmountAndTheClock(uint64 units) public {
        _now();
        DepositKey memory key = _key("key");
        bytes32 id = settlement.depositId(key);
        Deposit memory a = settlement.depositOf(id);
        vm.prank(_caller());
        settlement.thaw(key, units);
        Deposit memory b = settlement.depositOf(id);
        assert(b.thawing == units && units <= a.balance);
        uint256 ends = block.timestamp + 7 days;
        if (units == 0) assert(b.thawEnds == 0);
        else if (ends < type(uint32).max) assert(b.thawEnds == ends);
        else assert(b.thawEnds == type(uint32).max);
        assert(b.balance == a.balance && b.spent == a.spent && b.epoch == a.epoch);
    }

    /// @dev I6
    function check_OnlyTheRequestorThaws(uint64 units) public {
        DepositKey memory key = _key("key");
        address caller = _caller();
        vm.assume(caller != key.requestor);
        vm.prank(caller);
        try settlement.thaw(key, units) {
            assert(false);
        } catch {}
    }

    function check_TheRequestorCanAlwaysThaw(uint64 units) public {
        _now();
        DepositKey memory key = _key("key");
        vm.assume(key.requestor != address(settlement));
        vm.assume(units <= settlement.depositOf(settlement.depositId(key)).balance);
        vm.prank(key.requestor);
        try settlement.thaw(key, units) {}
        catch {
            assert(false);
        }
    }

    function check_ThawLeavesOtherDeposits(uint64 units, bytes32 other) public {
        DepositKey memory key = _key("key");
        vm.assume(other != settlement.depositId(key));
        Deposit memory a = settlement.depositOf(other);
        vm.prank(_caller());
        settlement.thaw(key, units);
        assert(_same(a, settlement.depositOf(other)));
    }

    /// @dev I2
    function check_I2_WithdrawTakesWhatHasThawed(address to) public {
        _now();
        DepositKey memory key = _key("key");
        bytes32 id = settlement.depositId(key);
        Deposit memory a = settlement.depositOf(id);
        vm.prank(_caller());
        settlement.withdraw(key, to);
        Deposit memory b = settlement.depositOf(id);
        assert(a.thawing != 0 && block.timestamp >= a.thawEnds);
        assert(uint256(b.balance) + a.thawing == a.balance);
        assert(b.thawing == 0 && b.thawEnds == 0);
        assert(b.spent == a.spent && b.epoch == a.epoch);
    }

    /// @dev I2
    function check_I2_WithdrawPaysItsDestinationExactly(address to) public {
        _now();
        DepositKey memory key = _key("key");
        uint256 units = settlement.depositOf(settlement.depositId(key)).thawing;
        uint256 amount = units * settlement.unitOf(address(token));
        uint256 held = token.balanceOf(address(settlement));
        uint256 owned = token.balanceOf(to);
        vm.prank(_caller());
        settlement.withdraw(key, to);
        assert(to != address(0) && to != address(settlement));
        unchecked {
            assert(held - token.balanceOf(address(settlement)) == amount);
            assert(token.balanceOf(to) - owned == amount);
        }
    }

    /// @dev I2
    function check_I2_OnlyTheRequestorWithdraws(address to) public {
        _now();
        DepositKey memory key = _key("key");
        address caller = _caller();
        vm.assume(caller != key.requestor);
        vm.prank(caller);
        try settlement.withdraw(key, to) {
            assert(false);
        } catch {}
    }

    function check_WithdrawLeavesOtherDeposits(address to, bytes32 other) public {
        _now();
        DepositKey memory key = _key("key");
        vm.assume(other != settlement.depositId(key));
        Deposit memory a = settlement.depositOf(other);
        vm.prank(_caller());
        settlement.withdraw(key, to);
        assert(_same(a, settlement.depositOf(other)));
    }

    /// @dev I5
    function check_I5_DepositLeavesCredits(uint64 units, address any, uint32 provider) public {
        DepositKey memory key = _key("key");
        uint64 credit = settlement.creditOf(any, provider);
        vm.prank(_caller());
        settlement.deposit(key, units);
        assert(settlement.creditOf(any, provider) == credit);
    }

    /// @dev I5
    function check_I5_ThawLeavesCredits(uint64 units, address any, uint32 provider) public {
        DepositKey memory key = _key("key");
        uint64 credit = settlement.creditOf(any, provider);
        vm.prank(_caller());
        settlement.thaw(key, units);
        assert(settlement.creditOf(any, provider) == credit);
    }

    /// @dev I5
    function check_I5_WithdrawLeavesCredits(address to, address any, uint32 provider) public {
        _now();
        DepositKey memory key = _key("key");
        uint64 credit = settlement.creditOf(any, provider);
        vm.prank(_caller());
        settlement.withdraw(key, to);
        assert(settlement.creditOf(any, provider) == credit);
    }
}
