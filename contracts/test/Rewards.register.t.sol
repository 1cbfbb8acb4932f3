// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base, IRewards, ITokens} from "./Base.t.sol";

/// @notice `register` numbers payout addresses from 1, in order, for anybody.
contract RegisterTest is Base {
    function setProviderCount(uint32 count) internal {
        vm.record();
        settlement.providerCount();
        (bytes32[] memory reads,) = vm.accesses(address(settlement));
        vm.store(address(settlement), reads[0], bytes32(uint256(count)));
        assertEq(settlement.providerCount(), count);
    }

    function three(address a, address b, address c) internal pure returns (address[] memory list) {
        list = new address[](3);
        (list[0], list[1], list[2]) = (a, b, c);
    }

    function assertPayout(uint32 number, address expected) internal view {
        (address payout, uint64 claimNonce) = settlement.payoutOf(number);
        assertEq(payout, expected);
        assertEq(claimNonce, 0);
    }

    function test_RevertWhen_AnAddressIsZero() public {
        vm.expectRevert(abi.encodeWithSelector(ITokens.BadDestination.selector, address(0)));
        settlement.register(three(provider.addr, address(0), stranger));
        assertEq(settlement.providerCount(), 0);
        assertPayout(1, address(0));
    }

    function test_RevertWhen_AnAddressIsTheContract() public {
        vm.expectRevert(abi.encodeWithSelector(ITokens.BadDestination.selector, settlement));
        settlement.register(three(provider.addr, stranger, address(settlement)));
    }

    function test_RevertWhen_NumbersRunOut() public {
        setProviderCount(type(uint32).max - 2);
        vm.expectRevert(IRewards.TooManyProviders.selector);
        settlement.register(three(provider.addr, stranger, requestor.addr));

        setProviderCount(type(uint32).max);
        vm.expectRevert(IRewards.TooManyProviders.selector);
        settlement.register(one(stranger));
    }

    function test_Register_NumbersFromOneInOrder() public {
        vm.expectEmit(address(settlement));
        emit IRewards.Registered(1, provider.addr);
        vm.expectEmit(address(settlement));
        emit IRewards.Registered(2, stranger);
        vm.expectEmit(address(settlement));
        emit IRewards.Registered(3, requestor.addr);
        vm.prank(stranger);
        uint32 first = settlement.register(three(provider.addr, stranger, requestor.addr));

        assertEq(first, 1);
        assertEq(settlement.providerCount(), 3);
        assertPayout(0, address(0));
        assertPayout(1, provider.addr);
        assertPayout(2, stranger);
        assertPayout(3, requestor.addr);
        assertPayout(4, address(0));
    }

    function test_Register_ContinuesWhereItStopped() public {
        registerProviders(5);
        assertEq(settlement.register(one(stranger)), 6);
        assertEq(settlement.providerCount(), 6);
        assertPayout(6, stranger);
        assertPayout(5, payoutAddress(5));
    }

    function test_Register_GivesOneAddressSeveralNumbers() public {
        assertEq(settlement.register(three(stranger, stranger, stranger)), 1);
        assertEq(settlement.register(one(stranger)), 4);
        assertPayout(1, stranger);
        assertPayout(4, stranger);
    }

    function test_Register_OfNobodyChangesNothing() public {
        registerProviders(2);
        (uint64 count,) = settlement.journal();
        assertEq(settlement.register(new address[](0)), 3);
        assertEq(settlement.providerCount(), 2);
        (uint64 countAfter,) = settlement.journal();
        assertEq(countAfter, count);
    }

    function test_Register_GivesTheLastNumber() public {
        setProviderCount(type(uint32).max - 1);
        assertEq(settlement.register(one(stranger)), type(uint32).max);
        assertPayout(type(uint32).max, stranger);
    }
}
