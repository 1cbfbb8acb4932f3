// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Lanes
/// @notice Four 63-bit credits in one storage word, provider `p` in lane `p % 4` of word `p / 4`.
/// @dev The top bits of a word's lanes are set at its first use and never cleared. A claim
/// therefore never returns a word to zero, and cannot make the next settlement pay again for
/// filling it.
library Lanes {
    uint256 private constant LANE_MASK = (1 << 63) - 1;
    /// @dev The top bit of each lane.
    uint256 private constant MARKS =
        0x8000000000000000800000000000000080000000000000008000000000000000;

    /// @notice Credit of `provider` in its word.
    function get(uint256 word, uint256 provider) internal pure returns (uint256 units) {
        return (word >> ((provider & 3) << 6)) & LANE_MASK;
    }

    /// @notice The word with the provider's credit at zero.
    function clear(uint256 word, uint256 provider) internal pure returns (uint256 next) {
        return word & ~(LANE_MASK << ((provider & 3) << 6));
    }

    /// @notice Adds well-formed rows to the words that start at storage slot `base`.
    /// @dev Each word is read and written once, however many of its lanes the rows name, since rows
    /// ascend. A lane without its mark is below 2^63 and a row below 2^48, so that a sum never
    /// reaches the next lane, and shows in the mark's place if it no longer fits.
    /// @return fits Whether every credit stays below 2^63; if not, the caller reverts.
    function credit(uint256 base, bytes calldata rows) internal returns (bool fits) {
        if (rows.length == 0) return true;
        // In assembly because this runs for every row of every statement, at four fifths of the gas
        // of the compiler's code. A row is `uint32 provider ‖ uint48 units`: its bits 50 to 79
        // number the word, its bits 48 and 49 the lane; shifted by 42, these are the lane's place.
        assembly ("memory-safe") {
            let place := rows.offset
            let end := add(place, rows.length)
            let slot := add(base, shr(226, calldataload(place)))
            let word := and(sload(slot), not(MARKS))
            let overflow := 0
            for {} lt(place, end) { place := add(place, 10) } {
                let row := shr(176, calldataload(place))
                let next := add(base, shr(50, row))
                if xor(slot, next) {
                    overflow := or(overflow, word)
                    sstore(slot, or(word, MARKS))
                    slot := next
                    word := and(sload(slot), not(MARKS))
                }
                word := add(word, shl(and(shr(42, row), 0xc0), and(row, 0xffffffffffff)))
            }
            sstore(slot, or(word, MARKS))
            fits := iszero(and(or(overflow, word), MARKS))
        }
    }
}
