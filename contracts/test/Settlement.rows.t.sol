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
