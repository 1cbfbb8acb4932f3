// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Journal
/// @notice A running hash over every event that the contract has emitted, in order.
/// @dev Every event of the contract has exactly two topics. For each of them
///
///     entry   = keccak256(topic0 ‖ topic1 ‖ data)
///     journal = bytes24(keccak256(journal ‖ entry)) ‖ uint64(count + 1)
///
/// where `journal` is the whole 32-byte slot, hash in the upper 24 bytes and count in the lower 8.
/// It is storage slot 0, so that `eth_getProof` against a finalised header proves content and order
/// of all events up to it.
interface IJournal {
    /// @notice The journal after the last completed call.
    /// @dev During a call of this contract it still shows the state before that call: it is written
    /// once, at the end.
    /// @return count Number of events emitted so far.
    /// @return hash Upper 24 bytes of the running hash.
    function journal() external view returns (uint64 count, bytes24 hash);
}
