// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base, Deposit, DepositKey, Outcome, Statement} from "./Base.t.sol";

/// @notice What `settle` makes of rows, wherever among others they stand: the deployed code reads
/// them several at a time.
contract SettleRowsTest is Base {
    uint48 private constant MOST = type(uint48).max;
    uint32 private constant PROVIDERS = 40;

    DepositKey internal key;
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        registerProviders(PROVIDERS);
        key = hosted(address(usd));
        id = fund(key, type(uint64).max);
    }

    function assertMalformed(bytes memory rows) internal {
        Statement memory statement = Statement(key, 1, "", rows, "", "");
        assertOutcome(settleOne(statement), Outcome.MalformedRows);
    }

    /// @dev `count` rows for the providers 2, 4, …, of which row `place` is replaced.
    function rowsWith(uint32 count, uint32 place, uint32 number, uint48 units)
        internal
        pure
        returns (bytes memory rows)
    {
        for (uint32 i; i < count; ++i) {
            rows = bytes.concat(rows, i == place ? row(number, units) : row(2 * (i + 1), 7));
        }
    }

    function test_Skips_EveryKindOfMistakeAtEveryPlace() public {
        for (uint32 count = 1; count <= 10; ++count) {
            for (uint32 i; i < count; ++i) {
                uint32 predecessor = 2 * i;
                uint32 successor = 2 * (i + 2);
                assertMalformed(rowsWith(count, i, predecessor + 2, 0));
                assertMalformed(rowsWith(count, i, predecessor, 7));
                if (i != 0) assertMalformed(rowsWith(count, i, predecessor - 1, 7));
                if (i != 0) assertMalformed(rowsWith(count, i, 0, 7));
                if (i + 1 < count) {
                    assertMalformed(rowsWith(count, i, successor, 7));
                    assertMalformed(rowsWith(count, i, successor + 1, 7));
                    assertMalformed(rowsWith(count, i, type(uint32).max, MOST));
                }
            }
        }
        assertState(id, Deposit(type(uint64).max, 0, 0, 0, 0));
    }

    function test_Skips_EveryLengthThatIsNoNumberOfRows() public {
        bytes memory rows = rowsWith(7, 7, 0, 0);
        for (uint256 length = rows.length; length > 0; --length) {
            assembly ("memory-safe") {
                mstore(rows, length)
            }
            if (length % 10 != 0) assertMalformed(rows);
        }
    }

    function test_Skips_AnUnregisteredProviderAtTheEndOnly() public {
        for (uint32 count = 1; count <= 10; ++count) {
            bytes memory rows = rowsWith(count, count - 1, PROVIDERS + 1, 7);
            assertOutcome(settleOne(statementFor(key, rows)), Outcome.UnknownProvider);
            pay(key, rowsWith(count, count - 1, PROVIDERS, 7));
        }
    }

    /// @dev The submitter writes more rows behind the signed ones, where only their length ends
    /// them.
    function test_Settle_CreditsNothingBehindTheRows() public {
        for (uint32 count = 1; count <= 9; ++count) {
            for (uint32 first = 4; first <= 7; ++first) {
                bytes memory rows = rowsOf(first, count, 1, 7);
                Statement memory statement = statementFor(key, rows);
                statement.rows = rowsOf(first, count + 4, 1, 7);
                bytes memory data = abi.encodeCall(settlement.settle, (batch(statement)));
                uint256 start = vm.snapshotState();
                setWord(data, offsetOfRows(data), rows.length);
                (bool success,) = address(settlement).call(data);
                assertTrue(success);
                assertEq(settlement.depositOf(id).spent, 7 * count);
                for (uint32 i = 1; i <= PROVIDERS; ++i) {
                    bool named = i >= first && i < first + count;
                    assertCredit(address(usd), i, named ? 7 : 0); // I4
                }
                vm.revertToState(start);
            }
        }
    }

    /// @dev Where the length of the first statement's rows stands: behind the selector, the list's
    /// offset and length, and the statement's own offset; the offset of its rows is its eighth word.
    function offsetOfRows(bytes memory data) internal pure returns (uint256) {
        uint256 statement = 4 + 3 * 32;
        return statement + getWord(data, statement + 7 * 32);
    }

    function getWord(bytes memory data, uint256 offset) internal pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := mload(add(add(data, 0x20), offset))
        }
    }

    function setWord(bytes memory data, uint256 offset, uint256 value) internal pure {
        assembly ("memory-safe") {
            mstore(add(add(data, 0x20), offset), value)
        }
    }

    function test_Settle_WritesNoWordButThoseOfItsRows() public {
        pay(key, "");
        for (uint32 first = 1; first <= 9; ++first) {
            for (uint32 count = 1; count <= 9; ++count) {
                Statement memory statement = statementFor(key, rowsOf(first, count, 1, 7));
                vm.record();
                assertOutcome(settleOne(statement), Outcome.Settled);
                (, bytes32[] memory writes) = vm.accesses(address(settlement));
                // Deposit, journal, and a word for every four numbers.
                assertEq(writes.length, 2 + (first + count - 1) / 4 - first / 4 + 1);
            }
        }
    }

    /// @dev Four rows of which the first three fill a word up to its last lane: only the number that
    /// the fourth names is credited with it, however its bits resemble the missing one's.
    function test_Settle_TakesNoDistantRowForTheLastOfAWord() public {
        vm.record();
        settlement.providerCount();
        (bytes32[] memory reads,) = vm.accesses(address(settlement));
        vm.store(address(settlement), reads[0], bytes32(uint256(type(uint32).max)));
        for (uint32 first = 4; first <= 12; first += 4) {
            for (uint32 fourth = first + 3; fourth <= 40; ++fourth) {
                assertFourCredited(first, fourth, 9);
            }
            for (uint32 shift = 1; shift <= 24; ++shift) {
                assertFourCredited(first, (first + 3) << shift, 9);
            }
            assertFourCredited(first, 1 << 24, uint48(first + 3) << 40);
        }
    }

    function assertFourCredited(uint32 first, uint32 fourth, uint48 units) internal {
        uint256 start = vm.snapshotState();
        bytes memory rows = bytes.concat(row(first, 7), row(first + 1, 7), row(first + 2, 1 << 40));
        pay(key, bytes.concat(rows, row(fourth, units)));
        assertCredit(address(usd), first, 7);
        assertCredit(address(usd), first + 1, 7);
        assertCredit(address(usd), first + 2, 1 << 40);
        assertCredit(address(usd), fourth, units);
        vm.revertToState(start);
    }

    function test_Settle_OneUnitGoesAllTheWay() public {
        DepositKey memory bit = hosted(address(usd));
        bit.salt = "bit";
        fund(bit, 3);
        pay(bit, bytes.concat(row(1, 1), row(2, 1)));
        assertEq(settlement.claim(address(usd), one(uint32(1)))[0], 1);
        vm.prank(payoutAddress(2));
        assertEq(settlement.claimTo(2, address(usd), stranger, 0, ""), 1);
        thaw(bit, 1);
        skip(THAW_PERIOD);
        vm.prank(requestor.addr);
        settlement.withdraw(bit, stranger);
        assertEq(usd.balanceOf(payoutAddress(1)), 1);
        assertEq(usd.balanceOf(stranger), 2);

        fund(bit, 1);
        pay(bit, row(1, 1));
        assertCredit(address(usd), 1, 1);
    }

    function test_Settle_DebitsWhatItCreditsAtEveryLength() public {
        for (uint32 count = 1; count <= 10; ++count) {
            for (uint32 first = 1; first <= 5; ++first) {
                assertMoved(first, count, MOST - count);
            }
        }
    }

    function testFuzz_Settle_DebitsWhatItCredits(uint32 first, uint32 count, uint48 units) public {
        first = uint32(_bound(first, 1, PROVIDERS));
        count = uint32(_bound(count, 1, PROVIDERS + 1 - first));
        assertMoved(first, count, uint48(_bound(units, 1, MOST - PROVIDERS)));
    }

    /// @dev Pays `count` providers from `first` on, each one unit more than the one before it.
    function assertMoved(uint32 first, uint32 count, uint48 units) internal {
        Deposit memory state = settlement.depositOf(id);
        uint64[] memory credits = new uint64[](PROVIDERS + 1);
        bytes memory rows;
        uint64 total;
        for (uint32 i; i < count; ++i) {
            rows = bytes.concat(rows, row(first + i, units + i));
            total += units + i;
        }
        for (uint32 i = 1; i <= PROVIDERS; ++i) {
            credits[i] = settlement.creditOf(address(usd), i);
        }

        pay(key, rows);
        uint64 balance = state.balance - total;
        assertState(id, Deposit(balance, 0, state.spent + total, state.epoch + 1, 0)); // I4
        for (uint32 i = 1; i <= PROVIDERS; ++i) {
            if (i >= first && i < first + count) credits[i] += units + (i - first);
            assertCredit(address(usd), i, credits[i]); // I4
        }
    }
}
