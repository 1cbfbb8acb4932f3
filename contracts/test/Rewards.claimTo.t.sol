// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Settlement} from "../src/Settlement.sol";
import {Base, DepositKey, IRewards, ITokens} from "./Base.t.sol";
import {BlocklistToken} from "./tokens/TestTokens.sol";
import {OwnedWallet} from "./wallets/Wallets.sol";

/// @notice `claimTo` sends a credit where its payout address says, by calling or by a signature
/// that counts once.
contract ClaimToTest is Base {
    bytes32 private constant TYPEHASH =
        keccak256("ClaimTo(uint32 provider,address token,address to,uint64 nonce,uint64 deadline)");

    address internal destination = makeAddr("destination");
    uint64 internal deadline;

    function setUp() public override {
        super.setUp();
        registerProviders(4);
        prepare(address(usd));
        deadline = uint64(block.timestamp) + 1 hours;
    }

    function prepare(address token) internal {
        DepositKey memory key = hosted(token);
        fund(key, 1000);
        pay(key, bytes.concat(row(1, 100), row(2, 200)));
    }

    /// @dev Provider 1's signature to send its credit to `destination`.
    function signature(uint32 number, address token, uint64 claimNonce)
        internal
        returns (bytes memory)
    {
        bytes32 structHash = keccak256(
            abi.encode(TYPEHASH, number, token, destination, claimNonce, deadline)
        );
        return sign(provider, typedDigest(structHash));
    }

    function claimTo(bytes memory signed) internal returns (uint64) {
        vm.prank(stranger);
        return settlement.claimTo(1, address(usd), destination, deadline, signed);
    }

    function expectNotPayout() internal {
        vm.expectRevert(abi.encodeWithSelector(IRewards.NotPayout.selector, 1, provider.addr));
    }

    function claimNonceOf(uint32 number) internal view returns (uint64 claimNonce) {
        (, claimNonce) = settlement.payoutOf(number);
    }

    function test_RevertWhen_DestinationIsZero() public {
        vm.expectRevert(abi.encodeWithSelector(ITokens.BadDestination.selector, address(0)));
        vm.prank(provider.addr);
        settlement.claimTo(1, address(usd), address(0), 0, "");
    }

    function test_RevertWhen_DestinationIsTheContract() public {
        vm.expectRevert(abi.encodeWithSelector(ITokens.BadDestination.selector, settlement));
        vm.prank(provider.addr);
        settlement.claimTo(1, address(usd), address(settlement), 0, "");
    }

    function test_RevertWhen_TokenIsNotRegistered() public {
        vm.expectRevert(abi.encodeWithSelector(ITokens.TokenNotRegistered.selector, stranger));
        vm.prank(provider.addr);
        settlement.claimTo(1, stranger, destination, 0, "");
    }

    function test_RevertWhen_NumberIsUnknown() public {
        vm.expectRevert(abi.encodeWithSelector(IRewards.UnknownProvider.selector, 5));
        settlement.claimTo(5, address(usd), destination, deadline, "");
    }

    function test_RevertWhen_AStrangerCallsWithoutASignature() public {
        expectNotPayout();
        claimTo(""); // I6
    }

    function test_RevertWhen_AnotherProviderCalls() public {
        expectNotPayout();
        vm.prank(payoutAddress(2));
        settlement.claimTo(1, address(usd), destination, deadline, ""); // I6
    }

    function test_RevertWhen_TheSignatureNamesAnotherDestination() public {
        bytes memory signed = signature(1, address(usd), 0);
        destination = stranger;
        expectNotPayout();
        claimTo(signed); // I5
    }

    function test_RevertWhen_TheSignatureNamesAnotherToken() public {
        bytes memory signed = signature(1, address(glm), 0);
        expectNotPayout();
        claimTo(signed);
    }

    function test_RevertWhen_TheSignatureNamesAnotherNumber() public {
        settlement.register(one(provider.addr));
        bytes memory signed = signature(5, address(usd), 0);
        expectNotPayout();
        claimTo(signed);
    }

    function test_RevertWhen_TheSignatureNamesAnotherClaimNonce() public {
        bytes memory signed = signature(1, address(usd), 1);
        expectNotPayout();
        claimTo(signed);
    }

    function test_RevertWhen_TheDeadlineIsNotTheSignedOne() public {
        bytes memory signed = signature(1, address(usd), 0);
        deadline += 1;
        expectNotPayout();
        claimTo(signed);
    }

    function test_RevertWhen_TheSignatureIsForAnotherChain() public {
        bytes memory signed = signature(1, address(usd), 0);
        vm.chainId(block.chainid + 1);
        expectNotPayout();
        claimTo(signed); // I7
    }

    function test_RevertWhen_TheSignatureIsForAnotherContract() public {
        bytes memory signed = signature(1, address(usd), 0);
        settlement = deploySettlement(THAW_PERIOD);
        settlement.registerToken(address(usd));
        registerProviders(1);
        expectNotPayout();
        claimTo(signed); // I7
    }

    /// @dev ERC-1271 replay: two wallets of one owner hold two numbers.
    function test_RevertWhen_TheSignatureIsForAnotherWalletOfTheSameOwner() public {
        address[2] memory wallets =
            [address(new OwnedWallet(provider.addr)), address(new OwnedWallet(provider.addr))];
        for (uint32 i = 1; i <= 2; ++i) {
            vm.prank(payoutAddress(i));
            settlement.setPayout(i, wallets[i - 1], 0, "");
        }
        bytes memory signed = signature(2, address(usd), 1);
        vm.expectRevert(abi.encodeWithSelector(IRewards.NotPayout.selector, 1, wallets[0]));
        claimTo(signed); // I7
    }

    function test_RevertWhen_TheDeadlineHasPassed() public {
        bytes memory signed = signature(1, address(usd), 0);
        vm.warp(uint256(deadline) + 1);
        vm.expectRevert(abi.encodeWithSelector(IRewards.SignatureExpired.selector, deadline));
        claimTo(signed);
    }

    function test_RevertWhen_TheSignatureWasUsed() public {
        bytes memory signed = signature(1, address(usd), 0);
        claimTo(signed);
        pay(hosted(address(usd)), row(1, 50));
        expectNotPayout();
        claimTo(signed);
    }

    function test_RevertWhen_SetPayoutRaisedTheClaimNonce() public {
        bytes memory signed = signature(1, address(usd), 0);
        vm.prank(provider.addr);
        settlement.setPayout(1, provider.addr, 0, "");
        expectNotPayout();
        claimTo(signed);
    }

    function test_RevertWhen_ThereIsNoCredit() public {
        vm.expectRevert(abi.encodeWithSelector(IRewards.NothingToClaim.selector, 1, address(glm)));
        vm.prank(provider.addr);
        settlement.claimTo(1, address(glm), destination, 0, "");
        assertEq(claimNonceOf(1), 0);
    }

    function test_RevertWhen_TheTransferFails() public {
        BlocklistToken token = new BlocklistToken();
        settlement.registerToken(address(token));
        prepare(address(token));
        token.setBlocked(destination, true);
        vm.expectRevert(abi.encodeWithSelector(BlocklistToken.Blocked.selector, destination));
        vm.prank(provider.addr);
        settlement.claimTo(1, address(token), destination, 0, "");
        assertCredit(address(token), 1, 100); // I5
        assertEq(claimNonceOf(1), 0);
    }

    /// @dev The gas of the submitter cannot use up a signature without paying.
    function test_ClaimTo_WithAnyGasPaysOrChangesNothing() public {
        bytes memory data = abi.encodeCall(
            settlement.claimTo,
            (1, address(usd), destination, deadline, signature(1, address(usd), 0))
        );
        uint256 start = vm.snapshotState();
        uint256 paid;
        uint256 kept;
        for (uint256 gas = 20_000; gas <= 150_000; gas += 500) {
            (bool success,) = address(settlement).call{gas: gas}(data);
            assertEq(usd.balanceOf(destination), success ? 100 : 0);
            assertCredit(address(usd), 1, success ? 0 : 100); // I5
            assertEq(claimNonceOf(1), success ? 1 : 0);
            if (success) ++paid;
            else ++kept;
            vm.revertToState(start);
        }
        assertGt(paid, 0);
        assertGt(kept, 0);
    }

    function test_ClaimTo_ByThePayoutAddressNeedsNoSignatureAndNoDeadline() public {
        vm.expectEmit(address(settlement));
        emit IRewards.Claimed(1, address(usd), destination, 100, 1);
        vm.prank(provider.addr);
        uint64 units = settlement.claimTo(1, address(usd), destination, 0, "anything");

        assertEq(units, 100);
        assertEq(usd.balanceOf(destination), 100); // I5
        assertEq(usd.balanceOf(provider.addr), 0);
        assertCredit(address(usd), 1, 0);
        assertCredit(address(usd), 2, 200);
        assertEq(claimNonceOf(1), 1);
        assertEq(claimNonceOf(2), 0);
    }

    function test_ClaimTo_BySignatureCountsUntilItsDeadline() public {
        bytes memory signed = signature(1, address(usd), 0);
        vm.warp(deadline);
        vm.expectEmit(address(settlement));
        emit IRewards.Claimed(1, address(usd), destination, 100, 1);
        assertEq(claimTo(signed), 100);
        assertEq(usd.balanceOf(destination), 100);
        assertEq(claimNonceOf(1), 1);
    }

    function test_ClaimTo_TakesOneSignatureAfterAnother() public {
        claimTo(signature(1, address(usd), 0));
        pay(hosted(address(usd)), row(1, 50));
        assertEq(claimTo(signature(1, address(usd), 1)), 50);
        assertEq(claimNonceOf(1), 2);
    }

    function test_ClaimTo_SurvivesAClaimToThePayoutAddress() public {
        bytes memory signed = signature(1, address(usd), 0);
        settlement.claim(address(usd), one(uint32(1)));
        assertEq(claimNonceOf(1), 0);
        pay(hosted(address(usd)), row(1, 50));
        assertEq(claimTo(signed), 50); // I6
    }

    function test_ClaimTo_AsksAWalletThatIsThePayoutAddress() public {
        address wallet = address(new OwnedWallet(provider.addr));
        vm.prank(provider.addr);
        settlement.setPayout(1, wallet, 0, "");
        assertEq(claimTo(signature(1, address(usd), 1)), 100);
    }

    function test_ClaimTo_EmptiesABlockedProvider() public {
        BlocklistToken token = new BlocklistToken();
        settlement.registerToken(address(token));
        prepare(address(token));
        token.setBlocked(provider.addr, true);
        settlement.claim(address(token), one(uint32(1)));
        vm.prank(provider.addr);
        settlement.claimTo(1, address(token), destination, 0, ""); // I10
        assertEq(token.balanceOf(destination), 100);
    }
}
