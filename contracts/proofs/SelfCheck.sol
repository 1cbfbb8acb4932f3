// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Theorem} from "./Theorem.sol";

/// @notice False of every call that can complete. `scripts/prove` insists that the solver refutes all
/// nine steps: a step that could never complete would prove anything.
contract NothingEverCompletes is Theorem {
    constructor(uint256 a, bytes32 b, address c, uint256 e) Theorem(a, b, c, e) {}

    function follows() internal pure override returns (bool) {
        return false;
    }
}
