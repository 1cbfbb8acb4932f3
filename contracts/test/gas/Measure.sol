// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base} from "../Base.t.sol";
import {TestToken} from "../tokens/TestTokens.sol";

/// @notice Measures whole transactions and writes them to `snapshots/gas.json`.
/// @dev Run with `--isolate`, which makes each call of a test a transaction of its own, with cold
/// storage, calldata and the 21,000 of a transaction; `scripts/bench gas` does. Anything else would
/// write other figures into the snapshot, so that these tests skip themselves.
abstract contract Measure is Base {
    /// @dev EIP-7623: gas of a token of calldata below which no transaction costs; a zero byte is
    /// one token, any other byte four.
    uint256 private constant FLOOR_PER_TOKEN = 10;
    uint256 private constant TRANSACTION = 21_000;

    function setUp() public virtual override {
        vm.skip(!vm.envOr("QUITTANCE_GAS", false), "scripts/bench gas runs these tests");
        super.setUp();
    }

    /// @dev Compiled as the contract is, so that neither it nor its rivals pay for slow code.
    function compiled(string memory name, bytes memory arguments) internal returns (address) {
        return vm.deployCode(string.concat("out/", name, ".json"), arguments);
    }

    function deployToken(string memory name, string memory symbol, uint8 decimals)
        internal
        override
        returns (TestToken)
    {
        return TestToken(compiled("TestTokens.sol/TestToken", abi.encode(name, symbol, decimals)));
    }

    /// @dev Gas that a transaction with this call pays for.
    function gasOf(address target, bytes memory data) internal returns (uint256) {
        (bool success,) = target.call(data);
        assertTrue(success, "the measured call");
        uint256 gas = vm.lastCallGas().gasTotalUsed;
        uint256 floor = TRANSACTION + FLOOR_PER_TOKEN * tokensOf(data);
        return gas > floor ? gas : floor;
    }

    function tokensOf(bytes memory data) private pure returns (uint256 tokens) {
        for (uint256 i; i < data.length; ++i) {
            tokens += data[i] == 0 ? 1 : 4;
        }
    }

    function record(string memory name, uint256 value) internal {
        vm.snapshotValue("gas", name, value);
    }
}
