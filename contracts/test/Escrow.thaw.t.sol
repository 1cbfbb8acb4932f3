// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base, Deposit, DepositKey, IEscrow} from "./Base.t.sol";

/// @notice `thaw` lets the requestor, and nobody else, set what leaves the deposit and start the
/// clock; it moves no money.
contract ThawTest is Base {
    DepositKey internal key;
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        key = bound(address(usd));
        id = fund(key, 1000);
    }

    function testFuzz_RevertWhen_CallerIsNotTheRequestor(address caller) public {
        vm.assume(caller != requestor.addr);
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.NotRequestor.selector, caller, requestor.addr)
        );
        vm.prank(caller);
        settlement.thaw(key, 1); // I2
    }

    function test_RevertWhen_ANamedSignerThaws() public {
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.NotRequestor.selector, agent.addr, requestor.addr)
        );
        vm.prank(agent.addr);
        settlement.thaw(key, 1);
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.NotRequestor.selector, attester.addr, requestor.addr)
        );
        vm.prank(attester.addr);
        settlement.thaw(key, 1);
    }

    function test_RevertWhen_UnitsExceedTheBalance() public {
        vm.expectRevert(abi.encodeWithSelector(IEscrow.ThawExceedsBalance.selector, 1001, 1000));
        thaw(key, 1001);
    }

    function test_RevertWhen_TheDepositWasNeverFunded() public {
        key.salt = "other";
        vm.expectRevert(abi.encodeWithSelector(IEscrow.ThawExceedsBalance.selector, 1, 0));
        thaw(key, 1);
    }

    function test_Thaw_SetsTheAmountAndStartsTheClock() public {
        uint32 ends = uint32(block.timestamp) + THAW_PERIOD;
        vm.expectEmit(address(settlement));
        emit IEscrow.Thawed(id, 600, ends);
        thaw(key, 600);
        assertState(id, Deposit(1000, 600, 0, 0, ends));
        assertEq(usd.balanceOf(address(settlement)), 1000);
    }

    function test_Thaw_RestartsTheClock() public {
        thaw(key, 600);
        skip(THAW_PERIOD - 1);
        uint32 ends = uint32(block.timestamp) + THAW_PERIOD;
        vm.expectEmit(address(settlement));
        emit IEscrow.Thawed(id, 700, ends);
        thaw(key, 700);
        assertState(id, Deposit(1000, 700, 0, 0, ends));
    }

    function test_Thaw_RestartsTheClockForASmallerAmountToo() public {
        thaw(key, 600);
        skip(THAW_PERIOD);
        thaw(key, 100);
        assertState(id, Deposit(1000, 100, 0, 0, uint32(block.timestamp) + THAW_PERIOD));
    }

    function test_Thaw_OfZeroCancels() public {
        thaw(key, 600);
        vm.expectEmit(address(settlement));
        emit IEscrow.Thawed(id, 0, 0);
        thaw(key, 0);
        assertState(id, Deposit(1000, 0, 0, 0, 0));
    }

    function test_Thaw_KeepsSpentAndEpoch() public {
        registerProviders(1);
        pay(key, row(1, 100));
        thaw(key, 900);
        uint32 ends = uint32(block.timestamp) + THAW_PERIOD;
        assertState(id, Deposit(900, 900, 100, 1, ends)); // I3
    }

    function test_Thaw_StopsTheClockAtItsLastSecond() public {
        vm.warp(uint256(type(uint32).max) - 10);
        thaw(key, 1000);
        assertState(id, Deposit(1000, 1000, 0, 0, type(uint32).max));

        vm.warp(uint256(type(uint32).max) - THAW_PERIOD - 1);
        thaw(key, 1000);
        assertState(id, Deposit(1000, 1000, 0, 0, type(uint32).max - 1));

        vm.warp(uint256(type(uint32).max) + 365 days);
        thaw(key, 1000);
        vm.prank(requestor.addr);
        settlement.withdraw(key, stranger); // I10
        assertEq(usd.balanceOf(stranger), 1000);
    }
}
