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
            // Lowest lane: the providers of the three rows before, or the one row before.
            let before := shl(48, last)
            let unitsPassed := ABOVE_UNITS
            let providersPassed := ABOVE_PROVIDERS
            for {} lt(place, end) { place := add(place, 30) } {
                let three := shr(16, calldataload(place))
                let units := and(three, UNITS)
                let providers := and(three, PROVIDERS)
                sums := add(sums, units)
                // Adding 2^48 − 1 carries into the bit above if there is a unit.
                unitsPassed := and(unitsPassed, add(units, UNITS))
                // Likewise with 2^32 − 1 and the predecessor, moved to the provider's lane, taken
                // off: it carries if the provider is greater.
                providersPassed := and(
                    providersPassed,
                    sub(add(providers, PROVIDERS), or(shl(160, before), shr(80, providers)))
                )
                before := providers
            }
            last := and(shr(48, before), 0xffffffff)
            wellFormed := and(
                wellFormed,
                and(eq(unitsPassed, ABOVE_UNITS), eq(providersPassed, ABOVE_PROVIDERS))
            )
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
