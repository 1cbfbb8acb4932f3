// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Settlement} from "../src/Settlement.sol";
import {Base, DepositKey, IRewards, ITokens} from "./Base.t.sol";
import {OwnedWallet} from "./wallets/Wallets.sol";

/// @notice `setPayout` hands a number and its credits over, by the present payout address only.
contract SetPayoutTest is Base {
    bytes32 private constant TYPEHASH =
        keccak256("SetPayout(uint32 provider,address payout,uint64 nonce,uint64 deadline)");

    address internal successor = makeAddr("successor");
    uint64 internal deadline;

    function setUp() public override {
        super.setUp();
        registerProviders(2);
        deadline = uint64(block.timestamp) + 1 hours;
    }

    /// @dev Provider 1's key's signature to hand `number` over to `successor`.
    function signature(uint32 number, uint64 claimNonce) internal returns (bytes memory) {
        bytes32 structHash =
            keccak256(abi.encode(TYPEHASH, number, successor, claimNonce, deadline));
        return sign(provider, typedDigest(structHash));
    }

    function setPayout(bytes memory signed) internal {
        vm.prank(stranger);
        settlement.setPayout(1, successor, deadline, signed);
    }

    function expectNotPayout() internal {
        vm.expectRevert(abi.encodeWithSelector(IRewards.NotPayout.selector, 1, provider.addr));
    }

    function assertPayout(address expected, uint64 expectedNonce) internal view {
        (address payout, uint64 claimNonce) = settlement.payoutOf(1);
        assertEq(payout, expected);
        assertEq(claimNonce, expectedNonce);
    }

    function test_RevertWhen_PayoutIsZero() public {
        vm.expectRevert(abi.encodeWithSelector(ITokens.BadDestination.selector, address(0)));
        vm.prank(provider.addr);
        settlement.setPayout(1, address(0), 0, "");
    }

    function test_RevertWhen_PayoutIsTheContract() public {
        vm.expectRevert(abi.encodeWithSelector(ITokens.BadDestination.selector, settlement));
        vm.prank(provider.addr);
        settlement.setPayout(1, address(settlement), 0, "");
    }

    function test_RevertWhen_NumberIsUnknown() public {
        vm.expectRevert(abi.encodeWithSelector(IRewards.UnknownProvider.selector, 0));
        settlement.setPayout(0, successor, deadline, "");
        vm.expectRevert(abi.encodeWithSelector(IRewards.UnknownProvider.selector, 3));
        settlement.setPayout(3, successor, deadline, "");
    }

    function test_RevertWhen_AStrangerCallsWithoutASignature() public {
        expectNotPayout();
        setPayout(""); // I6
    }

    function test_RevertWhen_AnotherProviderCalls() public {
        expectNotPayout();
        vm.prank(payoutAddress(2));
        settlement.setPayout(1, successor, deadline, ""); // I6
    }

    function test_RevertWhen_TheFormerPayoutAddressCalls() public {
        vm.startPrank(provider.addr);
        settlement.setPayout(1, successor, 0, "");
        vm.expectRevert(abi.encodeWithSelector(IRewards.NotPayout.selector, 1, successor));
        settlement.setPayout(1, provider.addr, deadline, "");
    }

    function test_RevertWhen_TheSignatureNamesAnotherPayout() public {
        bytes memory signed = signature(1, 0);
        successor = stranger;
        expectNotPayout();
        setPayout(signed);
    }

    function test_RevertWhen_TheSignatureNamesAnotherNumber() public {
        bytes memory signed = signature(2, 0);
        expectNotPayout();
        setPayout(signed);
    }

    function test_RevertWhen_TheSignatureNamesAnotherClaimNonce() public {
        bytes memory signed = signature(1, 1);
        expectNotPayout();
        setPayout(signed);
    }

    function test_RevertWhen_TheSignatureIsForClaimTo() public {
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256(
                    "ClaimTo(uint32 provider,address token,address to,uint64 nonce,uint64 deadline)"
                ),
                1,
                address(usd),
                successor,
                0,
                deadline
            )
        );
        bytes memory signed = sign(provider, typedDigest(structHash));
        expectNotPayout();
        setPayout(signed); // I7
    }

    function test_RevertWhen_TheSignatureIsForAnotherChain() public {
        bytes memory signed = signature(1, 0);
        vm.chainId(block.chainid + 1);
        expectNotPayout();
        setPayout(signed); // I7
    }

    function test_RevertWhen_TheSignatureIsForAnotherContract() public {
        bytes memory signed = signature(1, 0);
        settlement = deploySettlement(THAW_PERIOD);
        registerProviders(1);
        expectNotPayout();
        setPayout(signed); // I7
    }

    function test_RevertWhen_TheDeadlineHasPassed() public {
        bytes memory signed = signature(1, 0);
        vm.warp(uint256(deadline) + 1);
        vm.expectRevert(abi.encodeWithSelector(IRewards.SignatureExpired.selector, deadline));
        setPayout(signed);
    }

    function test_RevertWhen_TheSignatureWasUsed() public {
        bytes memory signed = signature(1, 0);
        setPayout(signed);
        vm.prank(successor);
        settlement.setPayout(1, provider.addr, 0, "");
        expectNotPayout();
        setPayout(signed);
    }

    function test_RevertWhen_ClaimToRaisedTheClaimNonce() public {
        DepositKey memory key = hosted(address(usd));
        fund(key, 10);
        pay(key, row(1, 10));
        bytes memory signed = signature(1, 0);
        vm.prank(provider.addr);
        settlement.claimTo(1, address(usd), stranger, 0, "");
        expectNotPayout();
        setPayout(signed);
    }

    function test_SetPayout_ByThePayoutAddressNeedsNoSignatureAndNoDeadline() public {
        vm.expectEmit(address(settlement));
        emit IRewards.PayoutSet(1, successor, 1);
        vm.prank(provider.addr);
        settlement.setPayout(1, successor, 0, "anything");
        assertPayout(successor, 1);
        (address other,) = settlement.payoutOf(2);
        assertEq(other, payoutAddress(2));
    }

    function test_SetPayout_BySignatureCountsUntilItsDeadline() public {
        bytes memory signed = signature(1, 0);
        vm.warp(deadline);
        vm.expectEmit(address(settlement));
        emit IRewards.PayoutSet(1, successor, 1);
        setPayout(signed);
        assertPayout(successor, 1);
    }

    function test_SetPayout_ToTheSameAddressRaisesTheClaimNonce() public {
        bytes memory signed = signature(1, 0);
        vm.prank(provider.addr);
        settlement.setPayout(1, provider.addr, 0, "");
        assertPayout(provider.addr, 1);
        expectNotPayout();
        setPayout(signed);
    }

    function test_SetPayout_HandsTheCreditsOver() public {
        DepositKey memory key = hosted(address(usd));
        fund(key, 10);
        pay(key, row(1, 10));
        setPayout(signature(1, 0));
        assertCredit(address(usd), 1, 10);
        vm.prank(successor);
        settlement.claimTo(1, address(usd), stranger, 0, "");
        assertEq(usd.balanceOf(stranger), 10);
    }

    function test_SetPayout_AsksAWalletThatIsThePayoutAddress() public {
        address wallet = address(new OwnedWallet(provider.addr));
        vm.prank(provider.addr);
        settlement.setPayout(1, wallet, 0, "");
        setPayout(signature(1, 1));
        assertPayout(successor, 2);
    }
}
