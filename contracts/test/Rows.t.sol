// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";

import {Rows} from "../src/libraries/Rows.sol";

/// @notice Gives {Rows} calldata.
contract RowsHarness {
    function check(bytes calldata rows) external pure returns (bool, uint256, uint256) {
        return Rows.check(rows);
    }
}

/// @notice `Rows.check` equals a reference that reads byte by byte.
contract RowsTest is Test {
    uint256 private constant MAX_UNITS = (1 << 48) - 1;
    uint256 private constant MAX_PROVIDER = (1 << 32) - 1;

    RowsHarness internal harness = new RowsHarness();

    function integer(bytes memory data, uint256 from, uint256 to)
        internal
        pure
        returns (uint256 value)
    {
        for (uint256 i = from; i < to; ++i) {
            value = value * 256 + uint8(data[i]);
        }
    }

    function read(bytes memory rows)
        internal
        pure
        returns (bool wellFormed, uint256 total, uint256 last)
    {
        if (rows.length % 10 != 0) return (false, 0, 0);
        for (uint256 i; i < rows.length; i += 10) {
            uint256 provider = integer(rows, i, i + 4);
            uint256 units = integer(rows, i + 4, i + 10);
            if (provider <= last || units == 0) return (false, 0, 0);
            last = provider;
            total += units;
        }
        return (true, total, last);
    }

    function assertEqualsReference(bytes memory rows) internal view returns (bool wellFormed) {
        (bool form, uint256 total, uint256 last) = harness.check(rows);
        (bool expectedForm, uint256 expectedTotal, uint256 expectedLast) = read(rows);
        assertEq(form, expectedForm, "wellFormed");
        if (!form) return false;
        assertEq(total, expectedTotal, "total");
        assertEq(last, expectedLast, "last");
        return true;
    }

    function draw(uint256 seed, string memory what, uint256 i) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, what, i)));
    }

    /// @dev Up to 40 well-formed rows, dense, sparse or ending at the highest provider, with units
    /// that are small, large or the most there can be.
    function wellFormedRows(uint256 seed) internal pure returns (bytes memory rows) {
        uint256 count = draw(seed, "count", 0) % 41;
        uint256 gap = draw(seed, "dense", 0) % 2 == 0 ? 3 : MAX_PROVIDER / 41;
        uint256 provider;
        for (uint256 i; i < count; ++i) {
            provider += 1 + draw(seed, "gap", i) % gap;
            if (i == count - 1 && draw(seed, "highest", 0) % 3 == 0) provider = MAX_PROVIDER;
            uint256 size = draw(seed, "size", i) % 3;
            uint256 units = size == 0 ? MAX_UNITS : draw(seed, "units", i) % MAX_UNITS + 1;
            if (size == 1) units = units % 3 + 1;
            rows = bytes.concat(rows, abi.encodePacked(uint32(provider), uint48(units)));
        }
    }

    function setProvider(bytes memory rows, uint256 i, uint256 provider) internal pure {
        for (uint256 j; j < 4; ++j) {
            rows[i * 10 + j] = bytes1(uint8(provider >> (24 - 8 * j)));
        }
    }

    /// @dev One way in which rows can be wrong, or happen to stay right.
    function mutate(bytes memory rows, uint256 kind, uint256 place) internal pure {
        uint256 count = rows.length / 10;
        uint256 i = place % count;
        uint256 provider = integer(rows, i * 10, i * 10 + 4);
        if (kind == 0) {
            rows[(place / 8) % rows.length] ^= bytes1(uint8(1 << (place % 8)));
        } else if (kind == 1) {
            setProvider(rows, (i + 1) % count, provider);
        } else if (kind == 2) {
            for (uint256 j = 4; j < 10; ++j) {
                rows[i * 10 + j] = 0;
            }
        } else if (kind == 3) {
            setProvider(rows, (i + 1) % count, provider - 1);
        } else if (kind == 4) {
            setProvider(rows, i, 0);
        } else if (kind == 5) {
            setProvider(rows, i, MAX_PROVIDER);
        } else {
            for (uint256 j = 4; j < 10; ++j) {
                rows[i * 10 + j] = 0xff;
            }
        }
    }

    function testFuzz_Check_OfAnyBytes(bytes memory rows) public view {
        assertEqualsReference(rows);
    }

    function testFuzz_Check_OfRandomRows(bytes10[] memory random) public view {
        bytes memory rows;
        for (uint256 i; i < random.length && i < 40; ++i) {
            rows = bytes.concat(rows, random[i]);
        }
        assertEqualsReference(rows);
    }

    function testFuzz_Check_OfWellFormedRows(uint256 seed) public view {
        assertTrue(assertEqualsReference(wellFormedRows(seed)));
    }

    function testFuzz_Check_OfMutatedRows(uint256 seed, uint256 kind, uint256 place) public view {
        bytes memory rows = wellFormedRows(seed);
        if (rows.length == 0) rows = abi.encodePacked(uint32(1), uint48(1));
        mutate(rows, kind % 7, place);
        assertEqualsReference(rows);
    }

    function testFuzz_Check_OfRowsCutShortOrLong(uint256 seed, uint256 cut) public view {
        bytes memory rows = bytes.concat(wellFormedRows(seed), new bytes(9));
        uint256 length = rows.length - cut % (rows.length + 1);
        assembly ("memory-safe") {
            mstore(rows, length)
        }
        assertEqualsReference(rows);
    }

    function test_Check_OfEveryKindOfMistakeAtEveryPlace() public view {
        for (uint256 count = 1; count <= 8; ++count) {
            for (uint256 i; i < count; ++i) {
                for (uint256 kind = 1; kind < 7; ++kind) {
                    bytes memory rows;
                    for (uint32 j; j < count; ++j) {
                        rows = bytes.concat(rows, abi.encodePacked(j * 2 + 1, uint48(7)));
                    }
                    mutate(rows, kind, i);
                    bool wellFormed = assertEqualsReference(rows);
                    if (kind == 2 || kind == 4) assertFalse(wellFormed);
                }
            }
        }
    }

    function test_Check_OfNoRows() public view {
        (bool wellFormed, uint256 total, uint256 last) = harness.check("");
        assertTrue(wellFormed);
        assertEq(total, 0);
        assertEq(last, 0);
    }

    function test_Check_SumsManyOfTheLargestRows() public view {
        bytes memory rows;
        for (uint32 i = 1; i <= 601; ++i) {
            rows = bytes.concat(rows, abi.encodePacked(i, uint48(MAX_UNITS)));
        }
        (bool wellFormed, uint256 total, uint256 last) = harness.check(rows);
        assertTrue(wellFormed);
        assertEq(total, 601 * MAX_UNITS);
        assertEq(last, 601);
    }
}
