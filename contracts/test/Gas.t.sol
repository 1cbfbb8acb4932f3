// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base, DepositKey, Statement} from "./Base.t.sol";

/// @notice The relayer packs statements by an upper bound of their gas. It has to be one: a statement
/// that does not fit a transaction can never be settled.
contract GasBoundTest is Base {
    /// @dev As in `ledger::rules::gas_bound`, with the 21,000 of a transaction.
    function bound(uint256 rows, uint256 words) internal pure returns (uint256) {
        return 21_000 + 60_000 + words * 22_500 + rows * 600;
    }

    /// @dev Gas of a transaction that settles one statement: execution from cold storage, 21,000, and
    /// calldata by EIP-2028.
    function gasOf(bytes memory rows) internal returns (uint256 gas) {
        Statement[] memory statements = batch(statementFor(bound(address(usd)), rows));
        bytes memory data = abi.encodeCall(settlement.settle, (statements));
        gas = 21_000;
        for (uint256 i; i < data.length; ++i) {
            gas += data[i] == 0 ? 4 : 16;
        }
        vm.cool(address(settlement));
        uint256 before = gasleft();
        settlement.settle(statements);
        gas += before - gasleft();
    }

    function setUp() public override {
        super.setUp();
        registerProviders(2000);
        fund(bound(address(usd)), type(uint64).max >> 1);
    }

    function test_Gas_OfScatteredNewProvidersStaysBelowTheBound() public {
        uint48 units = type(uint48).max;
        assertLe(gasOf(rowsOf(4, 490, 4, units)), bound(490, 490));
    }

    function test_Gas_OfDenseNewProvidersStaysBelowTheBound() public {
        assertLe(gasOf(rowsOf(4, 1900, 1, type(uint48).max)), bound(1900, 475));
    }

    function test_Gas_OfOneRowStaysBelowTheBound() public {
        assertLe(gasOf(row(1, 1)), bound(1, 1));
        assertLe(gasOf(""), bound(0, 0));
    }
}
