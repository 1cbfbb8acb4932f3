// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {IDepositHelper} from "../src/interfaces/IDepositHelper.sol";
import {ITokens} from "../src/interfaces/ITokens.sol";
import {Deposit} from "./Base.t.sol";
import {DepositHelperBase, Order, Route} from "./DepositHelperBase.t.sol";
import {
    HookedToken,
    Mood,
    MoodyToken,
    PhantomToken,
    RebasingToken,
    SkimmingToken,
    UnevenToken
} from "./tokens/BadTokens.sol";
import {TestToken} from "./tokens/TestTokens.sol";

/// @notice What single tokens do to the helper, from those of the main networks to those that lie,
/// skim, shrink, answer anything and call back.
contract DepositHelperTokensTest is DepositHelperBase {
    /// @dev An order by plain allowance, or by Permit2, of a registered token.
    function allowed(Route route, address token) internal returns (Order memory order) {
        if (settlement.unitOf(token) == 0) settlement.registerToken(token);
        order = draft(route, token);
        if (route == Route.Permit) approve(payer.addr, token, address(helper), order.amount);
        else order = signed(order);
    }

    function test_RevertWhen_TheTokenHasNoSuchRoute() public {
        address[3] memory tokens = [address(usdt), address(glmMainnet), address(glmPolygon)];
        for (uint256 i; i < tokens.length; ++i) {
            Order memory order = draft(Route.Permit, tokens[i]);
            order.signature = sign(payer, "anything");
            assertEq(assertRefused(payer.addr, order), IDepositHelper.AllowanceTooLow.selector); // F02
            order.route = Route.Authorization;
            assertRefused(payer.addr, order);
            order.signature = bytes.concat(order.signature, order.signature);
            assertRefused(payer.addr, order);
        }
        Order memory last = draft(Route.Authorization, address(permitToken));
        assertRefused(payer.addr, signed(last));
    }

    function test_RevertWhen_ADaiStylePermitGrantsNothing() public {
        Order memory order = draft(Route.Permit, address(glmMainnet));
        bytes32 structHash = keccak256(
            abi.encode(glmMainnet.PERMIT_TYPEHASH(), payer.addr, helper, 0, order.deadline, true)
        );
        order.signature = sign(
            payer, keccak256(abi.encodePacked(hex"1901", glmMainnet.DOMAIN_SEPARATOR(), structHash))
        );
        assertEq(assertRefused(payer.addr, order), IDepositHelper.AllowanceTooLow.selector); // F02
        assertEq(glmMainnet.nonces(payer.addr), 0);
    }

    function test_RevertWhen_UsdcIsPausedOrBlocksOneOfThem() public {
        Order[] memory list = orders();
        address[3] memory parties = [payer.addr, address(helper), address(settlement)];
        for (uint256 i; i < list.length; ++i) {
            if (list[i].key.token != address(usdc)) continue;
            usdc.setPaused(true);
            assertRefused(payer.addr, list[i]); // F17
            usdc.setPaused(false);
            for (uint256 j; j < parties.length; ++j) {
                usdc.setBlacklisted(parties[j], true);
                assertRefused(payer.addr, list[i]); // F16
                usdc.setBlacklisted(parties[j], false);
            }
        }
        assertCredited(payer.addr, list[2]);
    }

    function test_RevertWhen_UsdtTakesAFee() public {
        Order memory order = signed(draft(Route.Permit2, address(usdt)));
        usdt.setParams(10, 50e6);
        assertEq(assertRefused(payer.addr, order), IDepositHelper.UnexpectedBalance.selector); // F18
        usdt.setParams(0, 50e6);
        assertCredited(payer.addr, order);
    }

    function test_Deposit_TakesPolygonGlmApprovedByMetaTransaction() public {
        Order memory order = draft(Route.Permit, address(glmPolygon));
        bytes memory call_ = abi.encodeCall(IERC20.approve, (address(helper), order.amount));
        bytes32 structHash = keccak256(
            abi.encode(glmPolygon.META_TRANSACTION_TYPEHASH(), 0, payer.addr, keccak256(call_))
        );
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(
            payer,
            keccak256(abi.encodePacked(hex"1901", glmPolygon.getDomainSeperator(), structHash))
        );
        vm.prank(stranger);
        glmPolygon.executeMetaTransaction(payer.addr, call_, r, s, v);
        assertCredited(payer.addr, order);
        vm.prank(stranger);
        vm.expectRevert("Signer and signature do not match");
        glmPolygon.executeMetaTransaction(payer.addr, call_, r, s, v);
    }

    function test_RevertWhen_ATokenAcceptsAnyCallAndDoesNothing() public {
        PhantomToken token = new PhantomToken();
        settlement.registerToken(address(token));
        Order memory order = draft(Route.Permit, address(token));
        order.signature = sign(payer, "anything");
        assertEq(assertRefused(payer.addr, order), IDepositHelper.AllowanceTooLow.selector);
        order.route = Route.Authorization;
        assertEq(assertRefused(stranger, order), IDepositHelper.UnexpectedBalance.selector);
        order.signature = "";
        assertEq(assertRefused(stranger, order), IDepositHelper.UnexpectedBalance.selector);
    }

    function test_RevertWhen_ATokenSkims() public {
        SkimmingToken token = new SkimmingToken();
        settlement.registerToken(address(token));
        for (uint256 share = 1; share <= 5_000; share = share * 3 + 1) {
            token.setShare(share);
            Order memory order = draft(Route.Permit2, address(token));
            assertEq(
                assertRefused(payer.addr, signed(order)), IDepositHelper.UnexpectedBalance.selector
            ); // F18
            order.route = Route.Permit;
            approve(payer.addr, address(token), address(helper), order.amount);
            (bool success,) = submit(payer.addr, order);
            assertFalse(success);
            assertEq(token.balanceOf(address(helper)), 0);
            // With more here than is missing, which is not the payer's to spend.
            token.mint(address(helper), order.amount);
            (success,) = submit(payer.addr, order);
            assertFalse(success);
            assertEq(token.balanceOf(address(helper)), order.amount);
            token.seize(address(helper), order.amount);
            approve(payer.addr, address(token), address(helper), 0);
        }
    }

    function test_RevertWhen_AHookTakesTheTokensOnTheWay() public {
        HookedToken token = new HookedToken();
        Order memory order = allowed(Route.Permit2, address(token));
        token.armAfter(address(token), abi.encodeCall(token.seize, (address(helper), 1)));
        assertEq(assertRefused(payer.addr, order), IDepositHelper.UnexpectedBalance.selector);
    }

    function test_RevertWhen_OnlyTheSecondTransferIsUneven() public {
        UnevenToken token = new UnevenToken();
        Order memory order = allowed(Route.Permit2, address(token));
        token.leaveOneWithThePayer(address(settlement));
        assertEq(assertRefused(payer.addr, order), IDepositHelper.UnexpectedBalance.selector);
        token.keepOne(address(settlement));
        assertEq(assertRefused(payer.addr, order), ITokens.TokenDeliveredLess.selector); // F18
    }

    function test_RevertWhen_ATokenLiesOrRefuses() public {
        MoodyToken token = new MoodyToken();
        Mood[5] memory moods =
            [Mood.AnswersFalse, Mood.Lies, Mood.Reverts, Mood.BurnsGas, Mood.RevertsAtLength];
        address[2] memory recipients = [address(helper), address(settlement)];
        for (uint8 route; route <= uint8(Route.Permit2); route += uint8(Route.Permit2)) {
            Order memory order = allowed(Route(route), address(token));
            for (uint256 i; i < moods.length; ++i) {
                for (uint256 j; j < 2; ++j) {
                    token.setMood(moods[i], recipients[j]);
                    (bool success,) = submit(payer.addr, order);
                    assertFalse(success); // F20
                    assertEq(token.balanceOf(address(helper)), 0);
                    assertEq(token.balanceOf(payer.addr), 2 * order.amount * (route == 0 ? 1 : 2));
                    assertState(settlement.depositId(order.key), Deposit(0, 0, 0, 0, 0));
                }
            }
            token.setMood(Mood.Honest, address(0));
        }
    }

    function test_Deposit_TakesTokensThatAnswerNothingOrAtLength() public {
        Mood[2] memory moods = [Mood.AnswersNothing, Mood.AnswersAtLength];
        for (uint256 i; i < 2; ++i) {
            MoodyToken token = new MoodyToken();
            token.setMood(moods[i], address(0));
            assertCredited(payer.addr, allowed(Route.Permit, address(token))); // F40
            assertCredited(stranger, allowed(Route.Permit2, address(token)));
        }
    }

    function test_Deposit_TakesTokensThatKnowEip3009InItsFirstFormOnly() public {
        Order memory order = signed(draft(Route.Authorization, address(usdc)));
        string memory form =
            "receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)";
        vm.mockCallRevert(address(usdc), abi.encodePacked(bytes4(keccak256(bytes(form)))), "");
        assertCredited(stranger, order);
    }

    function test_Deposit_TakesWhatAShrunkTokenDelivers() public {
        RebasingToken token = new RebasingToken();
        settlement.registerToken(address(token));
        token.rebase(50);
        assertCredited(payer.addr, allowed(Route.Permit2, address(token)));
    }

    function test_Deposit_ResetsAnAllowanceThatATokenDoesNotLower() public {
        PhantomToken token = new PhantomToken();
        Order memory order = allowed(Route.Permit2, address(token));
        assertCredited(stranger, order);
        assertEq(token.allowance(address(helper), address(settlement)), 0);
    }

    /// @dev A token that calls back gives nobody more than was paid: the nested order is credited in
    /// full, from its own payer, or fails by itself.
    function test_Deposit_NestedInAnotherCreditsBothOrItself() public {
        for (uint256 i; i < 4; ++i) {
            HookedToken token = new HookedToken();
            Order memory order = allowed(i % 2 == 0 ? Route.Permit2 : Route.Permit, address(token));
            Order memory inner = draft(Route.Permit2, address(token));
            inner.key.salt = "inner";
            inner = signed(inner);
            if (i < 2) token.armBefore(address(helper), calldataOf(inner));
            else token.armAfter(address(helper), calldataOf(inner));

            uint256 held = token.balanceOf(payer.addr);
            (bool success,) = submit(payer.addr, order);
            uint256 outerUnits = settlement.depositOf(settlement.depositId(order.key)).balance;
            uint256 innerUnits = settlement.depositOf(settlement.depositId(inner.key)).balance;
            assertEq(outerUnits, success ? order.amount : 0);
            assertEq(held - token.balanceOf(payer.addr), outerUnits + innerUnits); // I1
            assertEq(token.balanceOf(address(settlement)), outerUnits + innerUnits);
            assertEq(token.balanceOf(address(helper)), 0); // F21
            assertEq(token.allowance(address(helper), address(settlement)), 0);
        }
    }
}
