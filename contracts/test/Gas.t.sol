// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {DepositKey, Statement} from "./Base.t.sol";
import {Base} from "./Base.t.sol";

/// @notice Execution gas of the paths that decide what a payout costs, printed for a look; calldata
/// and the 21,000 of a transaction are added here as EIP-2028 counts them.
contract GasTest is Base {
    function test_Gas_Dense1000Steady() public {
        registerProviders(1000);
        DepositKey memory key = hosted(address(usd));
        fund(key, DEPOSITED);
        pay(key, rowsOf(1, 1000, 1, 70_000));
        Statement[] memory list = new Statement[](1);
        list[0] = statementFor(key, rowsOf(1, 1000, 1, 70_001));
        settlement.settle(list);
        emit log_named_uint("transaction per row", vm.lastCallGas().gasTotalUsed / 1000);
    }

    function intrinsic(bytes memory data) internal pure returns (uint256 gas) {
        gas = 21_000;
        for (uint256 i; i < data.length; ++i) {
            gas += data[i] == 0 ? 4 : 16;
        }
    }
}
