// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Rows} from "../../src/libraries/Rows.sol";
import {Symbolic} from "./Symbolic.sol";

contract RowsUnderTest {
    function check(bytes calldata rows) external pure returns (bool, uint256, uint256) {
        return Rows.check(rows);
    }
}

abstract contract RowsReading is Symbolic {
    RowsUnderTest internal library_;

    function setUp() public {
        library_ = new RowsUnderTest();
    }

    function _compareForm(bytes memory rows) internal view {
        (bool wellFormed,,) = library_.check(rows);
        (bool good,,) = _read(rows);
        assert(wellFormed == good);
    }

    function _compareTotal(bytes memory rows) internal view {
        (bool wellFormed, uint256 total, uint256 last) = library_.check(rows);
        (, uint256 sum, uint256 highest) = _read(rows);
        if (wellFormed) assert(total == sum && last == highest);
    }

    /// @dev The plain reading.
    function _read(bytes memory rows)
        private
        pure
        returns (bool good, uint256 sum, uint256 highest)
    {
        good = true;
        for (uint256 i; i < rows.length / 10; ++i) {
            (uint256 provider, uint256 units) = _row(rows, i);
            bool ascends = provider > highest;
            bool pays = units != 0;
            // Bitwise, so that the reading does not double the paths with every row.
            assembly ("memory-safe") {
                good := and(good, and(ascends, pays))
            }
            unchecked {
                sum += units;
            }
            highest = provider;
        }
    }

    function _row(bytes memory rows, uint256 i)
        internal
        pure
        returns (uint256 provider, uint256 units)
    {
        for (uint256 j; j < 4; ++j) {
            provider = provider << 8 | uint8(rows[i * 10 + j]);
        }
        for (uint256 j = 4; j < 10; ++j) {
            units = units << 8 | uint8(rows[i * 10 + j]);
        }
    }
}

/// @title RowsCheck
/// @notice {Rows.check} equals a plain reading of the format, one row after the other.
/// @dev Bound: the number of rows, 0 to 7, which covers both loops, every remainder modulo three and
/// two rounds of the loop of three. The bytes are any bytes.
contract RowsCheck is RowsReading {
    function check_NoRows() public view {
        (bool wellFormed, uint256 total, uint256 last) = library_.check("");
        assert(wellFormed && total == 0 && last == 0);
    }

    function check_OneRow() public {
        bytes memory rows = svm.createBytes(10, "rows");
        _compareForm(rows);
        _compareTotal(rows);
    }

    function check_TwoRows() public {
        bytes memory rows = svm.createBytes(20, "rows");
        _compareForm(rows);
        _compareTotal(rows);
    }

    function check_ThreeRows() public {
        bytes memory rows = svm.createBytes(30, "rows");
        _compareForm(rows);
        _compareTotal(rows);
    }

    function check_FourRows() public {
        bytes memory rows = svm.createBytes(40, "rows");
        _compareForm(rows);
        _compareTotal(rows);
    }

    function check_FiveRows() public {
        bytes memory rows = svm.createBytes(50, "rows");
        _compareForm(rows);
        _compareTotal(rows);
    }

    /// @dev Every length up to 39 that is no multiple of ten, whatever the bytes.
    function check_OtherLengthsAreMalformed() public {
        for (uint256 length = 1; length < 40; ++length) {
            if (length % 10 == 0) continue;
            (bool wellFormed, uint256 total, uint256 last) =
                library_.check(svm.createBytes(length, "rows"));
            assert(!wellFormed && total == 0 && last == 0);
        }
    }
}

/// @title RowsCheckDeep
/// @notice Two rounds of the loop of three, alone and after one row.
contract RowsCheckDeep is RowsReading {
    function check_FormOfSixRows() public {
        _compareForm(svm.createBytes(60, "rows"));
    }

    function check_TotalOfSixRows() public {
        _compareTotalInThrees(svm.createBytes(60, "rows"));
    }

    function check_FormOfSevenRows() public {
        _compareForm(svm.createBytes(70, "rows"));
    }

    function check_TotalOfSevenRows() public {
        _compareTotalInThrees(svm.createBytes(70, "rows"));
    }

    /// @dev Adds every third row first. The sum is the same in any order; in this one the prover
    /// finds it equal at once, and in another not within minutes.
    function _compareTotalInThrees(bytes memory rows) private view {
        (bool wellFormed, uint256 total, uint256 last) = library_.check(rows);
        uint256 count = rows.length / 10;
        uint256 head;
        uint256[3] memory sums;
        unchecked {
            for (uint256 i; i < count; ++i) {
                (uint256 provider, uint256 units) = _row(rows, i);
                if (i < count % 3) head += units;
                else sums[(i - count % 3) % 3] += units;
                if (i + 1 == count && wellFormed) assert(last == provider);
            }
            if (wellFormed) assert(total == head + (sums[0] + (sums[1] + sums[2])));
        }
    }
}
