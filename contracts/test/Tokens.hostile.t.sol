// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base, Deposit, DepositKey, TestToken} from "./Base.t.sol";
import {PausableToken, ShrinkingToken} from "./tokens/HostileTokens.sol";
import {BlocklistToken} from "./tokens/TestTokens.sol";

/// @notice A token that stops, shrinks or shuts the contract out loses nobody's books, and harms
/// nobody who holds other tokens.
contract HostileTokensTest is Base {
    function setUp() public override {
        super.setUp();
        registerProviders(2);
        prepare(address(usd));
    }

    /// @dev Deposits 1000, credits two providers with 100 and 200, thaws 500.
    function prepare(address token) internal returns (bytes32 id) {
        DepositKey memory key = hosted(token);
        id = fund(key, 1000);
        pay(key, bytes.concat(row(1, 100), row(2, 200)));
        thaw(key, 500);
    }

    function bothProviders() internal pure returns (uint32[] memory list) {
        list = new uint32[](2);
        (list[0], list[1]) = (1, 2);
    }

    /// @dev Everybody leaves with everything.
    function assertAllLeave(address token) internal {
        uint64[] memory paid = settlement.claim(token, bothProviders());
        assertEq(paid[0], 100);
        assertEq(paid[1], 200);
        skip(THAW_PERIOD);
        vm.prank(requestor.addr);
        settlement.withdraw(hosted(token), requestor.addr); // I10
        assertEq(TestToken(token).balanceOf(requestor.addr), 500);
        assertEq(TestToken(token).balanceOf(address(settlement)), 200); // I1
    }

    function test_PausedToken_LosesNothing() public {
        PausableToken token = new PausableToken();
        settlement.registerToken(address(token));
        bytes32 id = prepare(address(token));
        token.mint(requestor.addr, 1);
        vm.prank(requestor.addr);
        token.approve(address(settlement), 1);
        token.setPaused(true);

        vm.expectRevert(PausableToken.Paused.selector);
        vm.prank(requestor.addr);
        settlement.deposit(hosted(address(token)), 1);
        skip(THAW_PERIOD);
        vm.expectRevert(PausableToken.Paused.selector);
        vm.prank(requestor.addr);
        settlement.withdraw(hosted(address(token)), requestor.addr);
        assertEq(settlement.claim(address(token), bothProviders())[0], 0);
        assertCredit(address(token), 1, 100); // I5
        assertEq(settlement.depositOf(id).thawing, 500);
        pay(hosted(address(token)), "");

        assertAllLeave(address(usd)); // I6
        token.setPaused(false);
        vm.prank(requestor.addr);
        token.transfer(stranger, 1);
        assertAllLeave(address(token));
    }

    function test_TokenThatBlocksTheContract_LosesNothing() public {
        BlocklistToken token = new BlocklistToken();
        settlement.registerToken(address(token));
        prepare(address(token));
        token.setBlocked(address(settlement), true);

        vm.expectRevert(
            abi.encodeWithSelector(BlocklistToken.Blocked.selector, address(settlement))
        );
        this.fundFurther(address(token));

        assertAllLeave(address(usd)); // I6
        token.setBlocked(address(settlement), false);
        assertAllLeave(address(token));
    }

    /// @dev External, so that its revert can be expected.
    function fundFurther(address token) external {
        fund(hosted(token), 1);
    }

    function test_ShrunkenToken_HarmsItsOwnHoldersOnly() public {
        ShrinkingToken token = new ShrinkingToken();
        settlement.registerToken(address(token));
        bytes32 id = prepare(address(token));
        token.shrink(address(settlement));
        token.shrink(address(settlement));
        token.shrink(address(settlement));

        // 125 of 1000 are left: the first claim is paid, the second waits.
        uint64[] memory paid = settlement.claim(address(token), bothProviders());
        assertEq(paid[0], 100);
        assertEq(paid[1], 0);
        assertCredit(address(token), 2, 200); // I5
        assertState(id, Deposit(700, 500, 300, 1, uint32(vm.getBlockTimestamp()) + THAW_PERIOD));

        assertAllLeave(address(usd)); // I6
        token.mint(address(settlement), 175);
        assertEq(settlement.claim(address(token), one(uint32(2)))[0], 200);
    }
}
