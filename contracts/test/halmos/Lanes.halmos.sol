// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Lanes} from "../../src/libraries/Lanes.sol";
import {Symbolic} from "./Symbolic.sol";

contract LanesUnderTest {
    mapping(address token => uint256[1 << 30]) private _credits;

    function get(uint256 word, uint256 provider) external pure returns (uint256) {
        return Lanes.get(word, provider);
    }

    function clear(uint256 word, uint256 provider) external pure returns (uint256) {
        return Lanes.clear(word, provider);
    }

    function credit(address token, bytes calldata rows) external returns (bool) {
        uint256[1 << 30] storage words = _credits[token];
        uint256 base;
        assembly ("memory-safe") {
            base := words.slot
        }
        return Lanes.credit(base, rows);
    }

    function wordOf(address token, uint256 provider) external view returns (uint256) {
        return _credits[token][provider >> 2];
    }
}

/// @title LanesCheck
/// @notice {Lanes} equals a plain reading of four 63-bit credits and four marks to a word, for any
/// stored words whatever.
/// @dev Bound: one row and two rows, which cover every pair of lanes, and the four rows of one word,
/// which the loop takes at once.
contract LanesCheck is Symbolic {
    uint256 private constant MARKS =
        0x8000000000000000800000000000000080000000000000008000000000000000;

    LanesUnderTest internal library_;

    function setUp() public {
        library_ = new LanesUnderTest();
        svm.enableSymbolicStorage(address(library_));
    }

    function check_GetReadsTheLane(uint256 word, uint32 provider) public view {
        assert(library_.get(word, provider) == _lane(word, provider));
    }

    function check_ClearEmptiesTheLane(uint256 word, uint32 provider) public view {
        uint256 next = library_.clear(word, provider);
        assert(_lane(next, provider) == 0);
    }

    function check_ClearTouchesNothingElse(uint256 word, uint32 provider) public view {
        uint256 next = library_.clear(word, provider);
        assert((next ^ word) >> ((provider % 4) * 64 + 63) == 0);
        assert((next ^ word) % (1 << ((provider % 4) * 64)) == 0);
        assert(next & MARKS == word & MARKS);
    }

    function check_NoRowsCreditNothing(address token, uint32 other) public {
        uint256 before = library_.wordOf(token, other);
        assert(library_.credit(token, ""));
        assert(library_.wordOf(token, other) == before);
    }

    function check_OneRowAddsToItsLane(address token, uint32 provider, uint48 units) public {
        uint256 credit = _lane(library_.wordOf(token, provider), provider);
        bool fits = library_.credit(token, abi.encodePacked(provider, units));
        assert(fits == (credit + units < 1 << 63));
        if (fits) assert(_lane(library_.wordOf(token, provider), provider) == credit + units);
    }

    function check_OneRowMarksItsWord(address token, uint32 provider, uint48 units) public {
        library_.credit(token, abi.encodePacked(provider, units));
        assert(library_.wordOf(token, provider) & MARKS == MARKS);
    }

    function check_OneRowLeavesOtherLanes(
        address token,
        uint32 provider,
        uint48 units,
        uint32 other
    ) public {
        vm.assume(other != provider);
        uint256 credit = _lane(library_.wordOf(token, other), other);
        bool fits = library_.credit(token, abi.encodePacked(provider, units));
        if (fits) assert(_lane(library_.wordOf(token, other), other) == credit);
    }

    function check_OneRowLeavesOtherTokens(
        address token,
        address otherToken,
        uint32 provider,
        uint48 units,
        uint32 other
    ) public {
        vm.assume(token != otherToken);
        uint256 before = library_.wordOf(otherToken, other);
        library_.credit(token, abi.encodePacked(provider, units));
        assert(library_.wordOf(otherToken, other) == before);
    }

    function check_TwoRowsAddToTheirLanes(
        address token,
        uint32 first,
        uint48 a,
        uint32 second,
        uint48 b
    ) public {
        vm.assume(first < second);
        uint256 creditA = _lane(library_.wordOf(token, first), first);
        uint256 creditB = _lane(library_.wordOf(token, second), second);
        bool fits = library_.credit(token, abi.encodePacked(first, a, second, b));
        bool fitsA = creditA + a < 1 << 63;
        bool fitsB = creditB + b < 1 << 63;
        assert(fits == (fitsA && fitsB));
        if (!fits) return;
        assert(_lane(library_.wordOf(token, first), first) == creditA + a);
        assert(_lane(library_.wordOf(token, second), second) == creditB + b);
    }

    function check_TwoRowsMarkTheirWords(
        address token,
        uint32 first,
        uint48 a,
        uint32 second,
        uint48 b
    ) public {
        vm.assume(first < second);
        library_.credit(token, abi.encodePacked(first, a, second, b));
        assert(library_.wordOf(token, first) & MARKS == MARKS);
        assert(library_.wordOf(token, second) & MARKS == MARKS);
    }

    function check_TwoRowsLeaveOtherLanes(
        address token,
        uint32 first,
        uint48 a,
        uint32 second,
        uint48 b,
        uint32 other
    ) public {
        vm.assume(first < second && other != first && other != second);
        uint256 credit = _lane(library_.wordOf(token, other), other);
        bool fits = library_.credit(token, abi.encodePacked(first, a, second, b));
        if (fits) assert(_lane(library_.wordOf(token, other), other) == credit);
    }

    /// @dev Four rows of one word go in at once.
    function check_FourRowsFillTheirWord(
        address token,
        uint32 index,
        uint48 a,
        uint48 b,
        uint48 c,
        uint48 d
    ) public {
        vm.assume(index < 1 << 30);
        uint256 word = library_.wordOf(token, index * 4);
        bool fits = library_.credit(token, _four(index * 4, a, b, c, d));
        bool low = _lane(word, 0) + a < 1 << 63 && _lane(word, 1) + b < 1 << 63;
        bool high = _lane(word, 2) + c < 1 << 63 && _lane(word, 3) + d < 1 << 63;
        assert(fits == (low && high));
        if (!fits) return;
        uint256 next = library_.wordOf(token, index * 4);
        assert(next & MARKS == MARKS);
        assert(_lane(next, 0) == _lane(word, 0) + a && _lane(next, 1) == _lane(word, 1) + b);
        assert(_lane(next, 2) == _lane(word, 2) + c && _lane(next, 3) == _lane(word, 3) + d);
    }

    function check_FourRowsLeaveOtherWords(
        address token,
        uint32 index,
        uint48 a,
        uint48 b,
        uint48 c,
        uint48 d,
        uint32 other
    ) public {
        vm.assume(index < 1 << 30 && other / 4 != index);
        uint256 before = library_.wordOf(token, other);
        library_.credit(token, _four(index * 4, a, b, c, d));
        assert(library_.wordOf(token, other) == before);
    }

    function _four(uint32 first, uint48 a, uint48 b, uint48 c, uint48 d)
        private
        pure
        returns (bytes memory)
    {
        return abi.encodePacked(first, a, first + 1, b, first + 2, c, first + 3, d);
    }

    function _lane(uint256 word, uint256 provider) private pure returns (uint256) {
        uint256 lane = provider % 4;
        if (lane == 0) return word % (1 << 63);
        if (lane == 1) return (word >> 64) % (1 << 63);
        if (lane == 2) return (word >> 128) % (1 << 63);
        return (word >> 192) % (1 << 63);
    }
}
