// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Settlement} from "../src/Settlement.sol";
import {Base, DepositKey, Outcome, Statement, Vm} from "./Base.t.sol";
import {BlocklistToken} from "./tokens/TestTokens.sol";

/// @notice The journal in slot 0 is the fold over every event of the contract, in order.
contract JournalTest is Base {
    bytes32 internal word;
    uint256 internal folded;

    function setUp() public override {
        vm.recordLogs();
        super.setUp();
    }

    /// @dev Folds the events emitted since the last call and compares.
    function assertFolded(uint256 events) internal {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        uint256 before = folded;
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].emitter != address(settlement)) continue;
            assertEq(logs[i].topics.length, 2);
            ++folded;
            bytes32 entry =
                keccak256(abi.encodePacked(logs[i].topics[0], logs[i].topics[1], logs[i].data));
            bytes24 hash = bytes24(keccak256(abi.encodePacked(word, entry)));
            word = bytes32(abi.encodePacked(hash, uint64(folded)));
        }
        assertEq(folded - before, events, "events");
        assertEq(vm.load(address(settlement), 0), word); // I11
        (uint64 count, bytes24 last) = settlement.journal();
        assertEq(count, folded);
        assertEq(last, bytes24(word));
    }

    function test_Journal_StartsAtZero() public {
        Settlement fresh = deploySettlement(THAW_PERIOD);
        (uint64 count, bytes24 hash) = fresh.journal();
        assertEq(count, 0);
        assertEq(hash, bytes24(0));
        assertEq(vm.load(address(fresh), 0), bytes32(0));
    }

    function test_Journal_IsNotWrittenByCallsThatRevert() public {
        bytes32 before = vm.load(address(settlement), 0);
        address[] memory payouts = new address[](2);
        payouts[0] = stranger;
        vm.expectRevert();
        settlement.register(payouts);
        vm.expectRevert();
        settlement.registerToken(address(usd));
        assertEq(vm.load(address(settlement), 0), before); // I11
    }

    function test_Journal_FoldsEveryEventInOrder() public {
        assertFolded(2);
        BlocklistToken token = new BlocklistToken();
        settlement.registerToken(address(token));
        assertFolded(1);
        registerProviders(5);
        assertFolded(5);

        DepositKey memory key = hosted(address(token));
        fund(key, 1000);
        assertFolded(1);
        DepositKey memory other = bound(address(usd));
        fund(other, 500);
        assertFolded(1);

        thaw(key, 400);
        thaw(key, 0);
        thaw(key, 300);
        assertFolded(3);

        Statement memory first = statementFor(key, bytes.concat(row(1, 10), row(2, 20)));
        Statement memory second = statementFor(other, row(3, 30));
        Outcome[] memory outcomes = settlement.settle(batch(first, first, second));
        assertOutcome(outcomes[1], Outcome.WrongEpoch);
        assertFolded(3);
        pay(key, "");
        assertFolded(1);

        token.setBlocked(payoutAddress(2), true);
        uint32[] memory numbers = new uint32[](4);
        (numbers[0], numbers[1], numbers[2], numbers[3]) = (1, 2, 4, 9);
        settlement.claim(address(token), numbers);
        assertFolded(2);

        vm.startPrank(payoutAddress(3));
        settlement.claimTo(3, address(usd), stranger, 0, "");
        settlement.setPayout(3, stranger, 0, "");
        vm.stopPrank();
        assertFolded(2);

        skip(THAW_PERIOD);
        vm.prank(requestor.addr);
        settlement.withdraw(key, stranger);
        assertFolded(1);
    }

    function testFuzz_Journal_FoldsEventsOfAnyLength(uint8 providers, uint48 units) public {
        uint32 count = uint32(_bound(providers, 1, 40));
        registerProviders(count);
        DepositKey memory key = hosted(address(usd));
        fund(key, type(uint64).max);
        settleOne(statementFor(key, rowsOf(1, count, 1, units)));
        assertFolded(count + 4);
    }
}
