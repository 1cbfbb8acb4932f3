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
    function _emitRecorded(bytes32 topic0, bytes32 topic1, bytes memory data) internal {
        _journal = _record(_journal, topic0, topic1, data);
    }

    /// @dev Emits the event `topic0(topic1 indexed, data)` and returns the journal that follows
    /// `word`.
    function _record(bytes32 word, bytes32 topic0, bytes32 topic1, bytes memory data)
        internal
        returns (bytes32)
    {
        bytes memory raw = bytes.concat(topic0, topic1, data);
        bytes32 entry;
        // Logs straight from the bytes that were hashed, so that journal and log cannot differ.
        assembly ("memory-safe") {
            entry := keccak256(add(raw, 0x20), mload(raw))
            log2(add(raw, 0x60), sub(mload(raw), 0x40), topic0, topic1)
        }
        bytes24 hash = bytes24(keccak256(bytes.concat(word, entry)));
        // A count of 2^64 events is out of reach of any chain's gas.
        unchecked {
            return bytes32(hash) | bytes32(uint256(uint64(uint256(word)) + 1));
        }
    }
}
