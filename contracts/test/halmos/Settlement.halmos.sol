// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Settlement} from "../../src/Settlement.sol";
import {Deposit, DepositKey} from "../../src/interfaces/IEscrow.sol";
import {Symbolic} from "./Symbolic.sol";

/// @dev A token whose transfers succeed or fail as the prover likes, and that delivers what it is
/// asked to. It does not call back; see {GuardCheck} for tokens that do.
contract AnyToken is Symbolic {
    mapping(address account => uint256) public balanceOf;

    function decimals() external returns (uint8) {
        return uint8(svm.createUint(8, "decimals"));
    }

    function transfer(address to, uint256 amount) external returns (bool) {
        return _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external returns (bool) {
        return _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) private returns (bool) {
        if (!svm.createBool("succeeds")) return false;
        require(balanceOf[from] >= amount && from != to);
        unchecked {
            balanceOf[from] -= amount;
            balanceOf[to] += amount;
        }
        return true;
    }
}

/// @title AnyState
/// @notice The contract in any state whatever, reachable or not: every storage slot is symbolic,
/// and so are the caller, the clock and every argument.
abstract contract AnyState is Symbolic {
    Settlement internal settlement;
    AnyToken internal token;

    function setUp() public virtual {
        settlement = new Settlement(7 days);
        token = new AnyToken();
        svm.enableSymbolicStorage(address(settlement));
        svm.enableSymbolicStorage(address(token));
    }

    /// @dev Any key whose token is the one that the prover has code for.
    function _key(string memory name) internal returns (DepositKey memory key) {
        key.requestor = svm.createAddress(name);
        key.signer = svm.createAddress(name);
        key.cosigner = svm.createAddress(name);
        key.token = address(token);
        key.salt = svm.createBytes32(name);
    }

    function _now() internal {
        vm.warp(svm.createUint(40, "now"));
    }

    /// @dev Any caller but the contract itself, which calls nothing of its own.
    function _caller() internal returns (address caller) {
        caller = svm.createAddress("caller");
        vm.assume(caller != address(settlement));
    }

    /// @dev The five fields keep what {Theorems.sol} proves of the model in every reachable state.
    function _assumeSound(Deposit memory state) internal pure {
        vm.assume(state.thawing <= state.balance);
        vm.assume(uint256(state.balance) + state.spent <= type(uint64).max);
    }

    function _same(Deposit memory a, Deposit memory b) internal pure returns (bool) {
        return a.balance == b.balance && a.thawing == b.thawing && a.spent == b.spent
            && a.epoch == b.epoch && a.thawEnds == b.thawEnds;
    }
}

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
    function check_I5_EscrowLeavesCredits(uint64 units, address to, address any, uint32 provider)
        public
    {
        _now();
        DepositKey memory key = _key("key");
        uint64 credit = settlement.creditOf(any, provider);
        address caller = _caller();
        vm.prank(caller);
        try settlement.deposit(key, units) {} catch {}
        assert(settlement.creditOf(any, provider) == credit);
        vm.prank(caller);
        try settlement.thaw(key, units) {} catch {}
        assert(settlement.creditOf(any, provider) == credit);
        vm.prank(caller);
        try settlement.withdraw(key, to) {} catch {}
        assert(settlement.creditOf(any, provider) == credit);
    }
}
