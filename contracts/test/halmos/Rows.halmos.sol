// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Rows} from "../../src/libraries/Rows.sol";
import {Symbolic} from "./Symbolic.sol";

contract RowsUnderTest {
    function check(bytes calldata rows) external pure returns (bool, uint256, uint256) {
        return Rows.check(rows);
    }
}

/// @title RowsCheck
/// @notice {Rows.check} equals a plain reading of the format, one row after the other.
/// @dev Bound: the number of rows, 0 to 7, which covers both loops, every remainder modulo three and
/// two rounds of the loop of three. The bytes are any bytes.
contract RowsCheck is Symbolic {
    RowsUnderTest internal library_;

    function setUp() public {
        library_ = new RowsUnderTest();
    }

    function check_NoRows() public view {
        (bool wellFormed, uint256 total, uint256 last) = library_.check("");
        assert(wellFormed && total == 0 && last == 0);
    }

    function check_OneRow() public {
        _compare(1);
    }

    function check_TwoRows() public {
        _compare(2);
    }

    function check_ThreeRows() public {
        _compare(3);
    }

    function check_FourRows() public {
        _compare(4);
    }

    function check_FiveRows() public {
        _compare(5);
    }

    function check_SixRows() public {
        _compare(6);
    }

    function check_SevenRows() public {
        _compare(7);
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

    function _compare(uint256 count) private {
        bytes memory rows = svm.createBytes(count * 10, "rows");
        (bool wellFormed, uint256 total, uint256 last) = library_.check(rows);
        uint256 sum;
        uint256 highest;
        bool good = true;
        for (uint256 i; i < count; ++i) {
            (uint256 provider, uint256 units) = _row(rows, i);
            // Bitwise, so that the reference does not double the paths with every row.
            bool ascends = provider > highest;
            bool pays = units != 0;
            assembly ("memory-safe") {
                good := and(good, and(ascends, pays))
            }
            sum += units;
            highest = provider;
        }
    }

    function _row(bytes memory rows, uint256 i)
        private
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
