// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base, Deposit, DepositKey, IEscrow, ITokens, Statement} from "./Base.t.sol";
import {SilentToken} from "./tokens/HostileTokens.sol";
import {BlocklistToken} from "./tokens/TestTokens.sol";

/// @notice `withdraw` pays what has thawed to the requestor's choice, not a second early and never
/// twice.
contract WithdrawTest is Base {
    DepositKey internal key;
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        key = bound(address(usd));
        id = fund(key, 1000);
        registerProviders(2);
    }

    function withdraw(address to) internal {
        vm.prank(requestor.addr);
        settlement.withdraw(key, to);
    }

    function testFuzz_RevertWhen_CallerIsNotTheRequestor(address caller) public {
        vm.assume(caller != requestor.addr);
        thaw(key, 1000);
        skip(THAW_PERIOD);
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.NotRequestor.selector, caller, requestor.addr)
        );
        vm.prank(caller);
        settlement.withdraw(key, caller); // I2
    }

    function test_RevertWhen_DestinationIsZero() public {
        thaw(key, 1000);
        skip(THAW_PERIOD);
        vm.expectRevert(abi.encodeWithSelector(ITokens.BadDestination.selector, address(0)));
        withdraw(address(0));
    }

    function test_RevertWhen_DestinationIsTheContract() public {
        thaw(key, 1000);
        skip(THAW_PERIOD);
        vm.expectRevert(abi.encodeWithSelector(ITokens.BadDestination.selector, settlement));
        withdraw(address(settlement));
    }

    function test_RevertWhen_NothingThaws() public {
        vm.expectRevert(IEscrow.NothingThawing.selector);
        withdraw(stranger);
    }

    function test_RevertWhen_TheThawHasASecondLeft() public {
        thaw(key, 1000);
        uint256 ends = vm.getBlockTimestamp() + THAW_PERIOD;
        vm.warp(ends - 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.StillThawing.selector, ends));
        withdraw(stranger); // I2
    }

    function test_RevertWhen_TheThawWasRestarted() public {
        thaw(key, 1000);
        skip(THAW_PERIOD);
        thaw(key, 1000);
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.StillThawing.selector, block.timestamp + THAW_PERIOD)
        );
        withdraw(stranger);
    }

    function test_RevertWhen_TheThawWasCancelled() public {
        thaw(key, 1000);
        skip(THAW_PERIOD);
        thaw(key, 0);
        vm.expectRevert(IEscrow.NothingThawing.selector);
        withdraw(stranger);
    }

    function test_RevertWhen_WithdrawnBefore() public {
        thaw(key, 600);
        skip(THAW_PERIOD);
        withdraw(stranger);
        vm.expectRevert(IEscrow.NothingThawing.selector);
        withdraw(stranger);
    }

    function test_RevertWhen_StatementsSpentEverythingThatThawed() public {
        thaw(key, 1000);
        pay(key, row(1, 1000));
        skip(THAW_PERIOD);
        vm.expectRevert(IEscrow.NothingThawing.selector);
        withdraw(stranger);
    }

    function test_RevertWhen_TheTokenRefuses() public {
        BlocklistToken token = new BlocklistToken();
        settlement.registerToken(address(token));
        key = bound(address(token));
        id = fund(key, 1000);
        thaw(key, 1000);
        Deposit memory before = settlement.depositOf(id);
        token.setBlocked(stranger, true);
        skip(THAW_PERIOD);

        vm.expectRevert(abi.encodeWithSelector(BlocklistToken.Blocked.selector, stranger));
        withdraw(stranger);
        assertState(id, before);

        withdraw(requestor.addr);
        assertEq(token.balanceOf(requestor.addr), 1000);
    }

    function test_Withdraw_PaysInTheSecondThatTheThawEnds() public {
        thaw(key, 600);
        skip(THAW_PERIOD);
        vm.expectEmit(address(settlement));
        emit IEscrow.Withdrawn(id, stranger, 600);
        withdraw(stranger);
        assertState(id, Deposit(400, 0, 0, 0, 0));
        assertEq(usd.balanceOf(stranger), 600);
        assertEq(usd.balanceOf(address(settlement)), 400); // I1
    }

    function test_Withdraw_ConvertsUnitsToBaseUnits() public {
        key = bound(address(glm));
        fund(key, 5);
        thaw(key, 2);
        skip(THAW_PERIOD);
        withdraw(stranger);
        assertEq(glm.balanceOf(stranger), 2e12);
        assertEq(glm.balanceOf(address(settlement)), 3e12);
    }

    function test_Withdraw_PaysInTokensThatReturnNothing() public {
        SilentToken token = new SilentToken();
        settlement.registerToken(address(token));
        key = bound(address(token));
        fund(key, 5);
        thaw(key, 5);
        skip(THAW_PERIOD);
        withdraw(stranger);
        assertEq(token.balanceOf(stranger), 5);
    }

    function test_Withdraw_PaysWhatStatementsLeftOfTheThaw() public {
        thaw(key, 600);
        skip(1 days);
        pay(key, bytes.concat(row(1, 450), row(2, 100)));
        skip(THAW_PERIOD);
        withdraw(stranger);
        assertState(id, Deposit(0, 0, 550, 1, 0));
        assertEq(usd.balanceOf(stranger), 450);
        assertEq(usd.balanceOf(address(settlement)), 550); // I1
    }

    function test_Withdraw_LeavesMoneyThatArrivedDuringTheThaw() public {
        thaw(key, 1000);
        fund(key, 300);
        skip(THAW_PERIOD);
        withdraw(stranger);
        assertState(id, Deposit(300, 0, 0, 0, 0));
        assertEq(usd.balanceOf(stranger), 1000);
    }

    function test_Withdraw_CannotOutrunAStatementSignedBeforeTheThawEnds() public {
        Statement memory statement = statementFor(key, row(1, 1000));
        thaw(key, 1000);
        skip(THAW_PERIOD - 1);
        settleOne(statement);
        assertCredit(address(usd), 1, 1000);
        assertState(id, Deposit(0, 0, 1000, 1, settlement.depositOf(id).thawEnds));
    }

    function testFuzz_Withdraw_PaysExactlyWhatThaws(uint64 balance, uint64 thawing, uint48 paid)
        public
    {
        balance = uint64(_bound(balance, 1, type(uint64).max));
        thawing = uint64(_bound(thawing, 1, balance));
        paid = uint48(_bound(paid, 1, type(uint48).max));
        key.salt = "fuzz";
        id = fund(key, balance);
        thaw(key, thawing);
        if (paid <= balance) pay(key, row(1, paid));
        else paid = 0;
        uint64 rest = balance - paid;
        uint64 expected = thawing < rest ? thawing : rest;
        skip(THAW_PERIOD);
        if (expected == 0) return;
        withdraw(stranger);
        assertState(id, Deposit(rest - expected, 0, paid, paid == 0 ? 0 : 1, 0));
        assertEq(usd.balanceOf(stranger), expected);
    }
}
