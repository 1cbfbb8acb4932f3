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

    /// @dev The units of a row.
    uint256 private constant UNITS = (1 << 48) - 1;

    /// @notice Credit of `provider` in its word.
    function get(uint256 word, uint256 provider) internal pure returns (uint256 units) {
        return (word >> ((provider & 3) << 6)) & LANE_MASK;
    }

    /// @notice The word with the provider's credit at zero.
    function clear(uint256 word, uint256 provider) internal pure returns (uint256 next) {
        return word & ~(LANE_MASK << ((provider & 3) << 6));
    }

    /// @notice Empties the provider's lane among the words that start at storage slot `base`.
    /// @return units What the lane held.
    /// @return word The provider's word as it was.
    function take(uint256 base, uint256 provider) internal returns (uint256 units, uint256 word) {
        word = load(base, provider);
        units = get(word, provider);
        if (units != 0) store(base, provider, clear(word, provider));
    }

    /// @notice The word of `provider`.
    function load(uint256 base, uint256 provider) internal view returns (uint256 word) {
        assembly ("memory-safe") {
            word := sload(add(base, shr(2, provider)))
        }
    }

    /// @notice Replaces the word of `provider`.
    function store(uint256 base, uint256 provider, uint256 word) internal {
        assembly ("memory-safe") {
            sstore(add(base, shr(2, provider)), word)
        }
    }

    /// @notice Adds well-formed rows to the words that start at storage slot `base`.
    /// @dev Each word is read and written once, however many of its lanes the rows name, since rows
    /// ascend. A lane without its mark is below 2^63 and a row below 2^48, so that a sum never
    /// reaches the next lane, and shows in the mark's place if it no longer fits.
    /// @return fits Whether every credit stays below 2^63; if not, the caller reverts.
    function credit(uint256 base, bytes calldata rows) internal returns (bool fits) {
        if (rows.length == 0) return true;
        // In assembly because this runs for every row of every statement. A row is `uint32 provider
        // ‖ uint48 units`: the first 30 bits of its word of calldata number the word of credits, the
        // next two the lane, and the 48 bits after them are the units.
        assembly ("memory-safe") {
            let place := rows.offset
            let end := add(place, rows.length)
            let slot := add(base, shr(226, calldataload(place)))
            let word := and(sload(slot), not(MARKS))
            let overflow := 0
            for {} lt(place, end) {} {
                let rest := calldataload(place)
                let next := add(base, shr(226, rest))
                if xor(slot, next) {
                    overflow := or(overflow, word)
                    sstore(slot, or(word, MARKS))
                    slot := next
                    word := and(sload(slot), not(MARKS))
                }
                // Rows ascend: if the fourth from here has the word's last lane, they fill it.
                let fourth := calldataload(add(place, 30))
                if eq(shr(224, fourth), or(shr(224, rest), 3)) {
                    if lt(add(place, 30), end) {
                        let low :=
                            or(and(shr(176, rest), UNITS), and(shr(32, rest), shl(64, UNITS)))
                        let high :=
                            or(
                                and(shl(112, rest), shl(128, UNITS)),
                                and(shl(16, fourth), shl(192, UNITS))
                            )
                        word := add(word, or(low, high))
                        place := add(place, 40)
                        continue
                    }
                }
                word := add(word, shl(and(shr(218, rest), 0xc0), and(shr(176, rest), UNITS)))
                place := add(place, 10)
            }
            overflow := or(overflow, word)
            sstore(slot, or(word, MARKS))
            fits := iszero(and(overflow, MARKS))
        }
    }
}
