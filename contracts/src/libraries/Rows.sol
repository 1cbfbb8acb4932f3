// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Rows
/// @notice Checks a statement's packed rows: 10 bytes each, `uint32 provider ‖ uint48 units`,
/// big-endian.
library Rows {
    /// @dev Bytes of one row.
    uint256 internal constant SIZE = 10;

    // Three rows are checked at a time, in lanes of 80 bits from bit 0, the last of the three
    // lowest: units in the lane's bits 0 to 47, provider in bits 48 to 79.

    /// @dev The units of three rows.
    uint256 private constant UNITS =
        0x0000000000000000ffffffffffff00000000ffffffffffff00000000ffffffffffff;
    /// @dev The bit above each row's units.
    uint256 private constant ABOVE_UNITS = 1 << 48 | 1 << 128 | 1 << 208;
    /// @dev The providers of three rows.
    uint256 private constant PROVIDERS = 0xffffffff << 48 | 0xffffffff << 128 | 0xffffffff << 208;
    /// @dev The bit above each row's provider.
    uint256 private constant ABOVE_PROVIDERS = 1 << 80 | 1 << 160 | 1 << 240;

    /// @notice Checks the rows' form and adds them up.
    /// @return wellFormed Whether the length fits, no row is empty, and providers strictly ascend
    /// from 1.
    /// @return total Sum of the units, if well formed. Cannot overflow: a lane has room for 2^32
    /// rows.
    /// @return last The highest provider, if well formed; 0 if there are no rows.
    function check(bytes calldata rows)
        internal
        pure
        returns (bool wellFormed, uint256 total, uint256 last)
    {
        uint256 length = rows.length;
        if (length % SIZE != 0) return (false, 0, 0);
        // In assembly because this runs for every row of every statement: half the gas of one row
        // at a time.
        assembly ("memory-safe") {
            let place := rows.offset
            let end := add(place, length)
            wellFormed := 1
            // One or two rows first, if their number is no multiple of three.
            for { let threes := add(place, mod(length, 30)) } lt(place, threes) {
                place := add(place, 10)
            } {
                let row := shr(176, calldataload(place))
                let units := and(row, 0xffffffffffff)
                let provider := shr(48, row)
                wellFormed := and(wellFormed, and(gt(provider, last), gt(units, 0)))
                total := add(total, units)
                last := provider
            }
            let sums := 0
            let passed := or(ABOVE_UNITS, ABOVE_PROVIDERS)
            for {} lt(place, end) { place := add(place, 30) } {
                let three := shr(16, calldataload(place))
                let units := and(three, UNITS)
                let providers := and(three, PROVIDERS)
                // Each provider's predecessor, in the provider's lane.
                let previous := or(shl(208, last), shr(80, providers))
                sums := add(sums, units)
                // Adding 2^48 − 1 carries into the bit above if there is a unit. Subtracting the
                // predecessor and one leaves the bit above standing if the provider is greater.
                passed := and(
                    passed,
                    or(
                        and(add(units, UNITS), ABOVE_UNITS),
                        and(
                            sub(or(providers, ABOVE_PROVIDERS), add(previous, ABOVE_UNITS)),
                            ABOVE_PROVIDERS
                        )
                    )
                )
                last := and(shr(48, three), 0xffffffff)
            }
            wellFormed := and(wellFormed, eq(passed, or(ABOVE_UNITS, ABOVE_PROVIDERS)))
            total := add(
                total,
                add(
                    shr(160, sums),
                    add(
                        and(shr(80, sums), 0xffffffffffffffffffff),
                        and(sums, 0xffffffffffffffffffff)
                    )
                )
            )
        }
    }
}
