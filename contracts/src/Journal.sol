// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IJournal} from "./interfaces/IJournal.sol";

/// @title Journal
/// @notice See {IJournal}. First in the order of inheritance, so that its slot is number 0.
abstract contract Journal is IJournal {
    /// @dev The slot as {IJournal} describes it. Every function that emits loads it once, hands it
    /// through `_record`, and stores it once; the reentrancy guard keeps other writers out in
    /// between.
    bytes32 internal _journal;

    /// @inheritdoc IJournal
    function journal() external view returns (uint64 count, bytes24 hash) {
        bytes32 word = _journal;
        // Casting to bytes24 is meant: it keeps the upper 24 bytes.
        // forge-lint: disable-next-line(unsafe-typecast)
        return (uint64(uint256(word)), bytes24(word));
    }

    /// @dev Emits one event and stores the journal: for functions that emit only once.
    function _emitRecorded(bytes memory raw) internal {
        _journal = _record(_journal, raw);
    }

    /// @dev Emits the event `raw`, which is topic0 ‖ topic1 ‖ data, and returns the journal that
    /// follows `word`.
    function _record(bytes32 word, bytes memory raw) internal returns (bytes32) {
        bytes32 hash;
        // Logs straight from the bytes that were hashed, so that journal and log cannot differ.
        assembly ("memory-safe") {
            let start := add(raw, 0x20)
            let length := mload(raw)
            mstore(0x00, word)
            mstore(0x20, keccak256(start, length))
            hash := keccak256(0x00, 0x40)
            log2(add(start, 0x40), sub(length, 0x40), mload(start), mload(add(start, 0x20)))
        }
        // A count of 2^64 events is out of reach of any chain's gas.
        uint256 mask = type(uint64).max;
        unchecked {
            return bytes32(uint256(hash) & ~mask | (uint256(word) + 1) & mask);
        }
    }
}
