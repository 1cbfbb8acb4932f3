// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base} from "../Base.t.sol";
import {DepositHelperBase, Order} from "../DepositHelperBase.t.sol";
import {TestToken} from "../tokens/TestTokens.sol";
import {Measure} from "./Measure.sol";

/// @notice What a deposit costs by each signed route, into a deposit that is in use already.
contract RoutesTest is DepositHelperBase, Measure {
    function setUp() public override(DepositHelperBase, Measure) {
        super.setUp();
    }

    function deployToken(string memory name, string memory symbol, uint8 decimals)
        internal
        override(Base, Measure)
        returns (TestToken)
    {
        return super.deployToken(name, symbol, decimals);
    }

    function gasOfRoute(uint256 pair) private returns (uint256) {
        assertCredited(payer.addr, orderOf(pair));
        bytes memory data = calldataOf(orderOf(pair));
        vm.prank(payer.addr);
        return gasOf(address(helper), data);
    }

    function test_Gas_DepositByEachRoute() public {
        record("deposit_by_permit_steady", gasOfRoute(0));
        record("deposit_by_authorization_steady", gasOfRoute(2));
        record("deposit_by_permit2_steady", gasOfRoute(3));
    }
}
