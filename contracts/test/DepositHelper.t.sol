// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

import {IDepositHelper} from "../src/interfaces/IDepositHelper.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IPermit2} from "../src/interfaces/IPermit2.sol";
import {ITokens} from "../src/interfaces/ITokens.sol";
import {DepositKey, Settlement} from "./Base.t.sol";
import {DepositHelperBase, Order, PermitToken, Route} from "./DepositHelperBase.t.sol";
import {TestToken} from "./tokens/TestTokens.sol";
import {Usdc} from "./tokens/Usdc.sol";

/// @notice Every token by every route that fits it, in everything that can go wrong: the whole amount
/// is credited to the deposit that was signed for, or nothing moves; nothing is ever left at the
/// helper.
contract DepositHelperTest is DepositHelperBase {
    function test_RevertWhen_TheSettlementContractIsMissing() public {
        (bool success, bytes memory answer) =
            address(this).call(abi.encodeCall(this.deployFor, (stranger)));
        assertFalse(success);
        assertEq(
            bytes4(answer), IDepositHelper.NotAContract.selector, "deployment without settlement"
        );
    }

    function deployFor(address settlement_) external {
        // `deployCode` would hide the reason.
        bytes memory code = vm.getCode(helperArtifact());
        code = bytes.concat(code, abi.encode(settlement_, permit2));
        assembly ("memory-safe") {
            if iszero(create(0, add(code, 0x20), mload(code))) {
                returndatacopy(0, 0, returndatasize())
                revert(0, returndatasize())
            }
        }
    }

    function test_RevertWhen_SomebodyElseSigned() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            list[i].signature = sign(attester, digestOf(list[i]));
            assertRefused(payer.addr, list[i]);
            assertRefused(attester.addr, list[i]);
        }
    }

    function test_RevertWhen_TheSignatureIsMissingOrCut() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            bytes memory signature = list[i].signature;
            assembly ("memory-safe") {
                mstore(signature, 63)
            }
            assertRefused(payer.addr, list[i]);
            list[i].signature = "";
            assertRefused(payer.addr, list[i]);
        }
    }

    function test_RevertWhen_TheSignatureIsForAnotherToken() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            address signedFor = list[i].key.token;
            for (uint256 j; j < list.length; ++j) {
                list[i].key.token = list[j].key.token;
                if (list[i].key.token == signedFor) continue;
                list[i].amount = 1000 * uint256(settlement.unitOf(list[i].key.token));
                assertRefused(payer.addr, list[i]);
            }
        }
    }

    function test_RevertWhen_AnyFieldOfTheKeyIsAnother() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            // The caller's own permit serves whatever deposit the caller names.
            if (list[i].route == Route.Permit) continue;
            DepositKey memory key = list[i].key;
            list[i].key = DepositKey(stranger, key.signer, key.cosigner, key.token, key.salt);
            assertRefused(stranger, list[i]);
            list[i].key = DepositKey(key.requestor, stranger, key.cosigner, key.token, key.salt);
            assertRefused(stranger, list[i]);
            list[i].key = DepositKey(key.requestor, key.signer, stranger, key.token, key.salt);
            assertRefused(stranger, list[i]);
            list[i].key = DepositKey(key.requestor, key.signer, key.cosigner, key.token, "x");
            assertRefused(stranger, list[i]);
        }
    }

    function test_RevertWhen_TheAmountIsAnother() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            uint256 amount = list[i].amount;
            list[i].amount = amount / 2;
            assertRefused(payer.addr, list[i]);
            list[i].amount = 2 * amount;
            assertRefused(payer.addr, list[i]);
        }
    }

    function test_RevertWhen_TheSaltIsAnother() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            if (list[i].route == Route.Permit) continue;
            list[i].salt += 100;
            assertRefused(payer.addr, list[i]);
        }
    }

    function test_RevertWhen_TheSignatureHasExpired() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            uint256 start = vm.snapshotState();
            vm.warp(list[i].deadline + 1);
            assertRefused(payer.addr, list[i]);
            // EIP-3009 excludes the last second that the others include. F42
            vm.warp(list[i].deadline);
            if (list[i].route == Route.Authorization) assertRefused(payer.addr, list[i]);
            else assertCredited(payer.addr, list[i]);
            vm.revertToState(start);
        }
    }

    function test_RevertWhen_AnAuthorizationIsNotYetValid() public {
        Order memory order = draft(Route.Authorization, address(usdc));
        order.validAfter = block.timestamp;
        assertRefused(payer.addr, signed(order));
        vm.warp(block.timestamp + 1);
        assertCredited(payer.addr, order);
    }

    function test_RevertWhen_TheSignatureWasUsed() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            uint256 start = vm.snapshotState();
            assertCredited(payer.addr, list[i]);
            assertRefused(payer.addr, list[i]); // F06
            assertRefused(stranger, list[i]);
            vm.revertToState(start);
        }
    }

    function test_RevertWhen_TheSignatureIsForAnotherHelper() public {
        Order[] memory list = orders();
        IDepositHelper other = deployHelper(deploySettlement(THAW_PERIOD));
        ITokens registry = ITokens(address(other.SETTLEMENT()));
        for (uint256 i; i < list.length; ++i) {
            if (registry.unitOf(list[i].key.token) == 0) registry.registerToken(list[i].key.token);
            list[i].helper = other;
            assertRefused(payer.addr, list[i]); // F05
        }
    }

    function test_RevertWhen_TheChainIsAnother() public {
        Order[] memory list = orders();
        vm.chainId(block.chainid + 1);
        for (uint256 i; i < list.length; ++i) {
            assertRefused(payer.addr, list[i]); // F04
        }
    }

    function test_RevertWhen_TheAmountIsNotWholeUnits() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            if (settlement.unitOf(list[i].key.token) == 1) continue;
            list[i].amount += 1;
            assertEq(
                assertRefused(payer.addr, signed(list[i])), IDepositHelper.NotWholeUnits.selector
            );
            list[i].amount -= 2;
            assertEq(
                assertRefused(payer.addr, signed(list[i])), IDepositHelper.NotWholeUnits.selector
            );
        }
    }

    function test_RevertWhen_TheAmountIsZero() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            list[i].amount = 0;
            assertEq(assertRefused(payer.addr, signed(list[i])), IEscrow.ZeroUnits.selector);
        }
    }

    function test_RevertWhen_TheAmountExceedsWhatADepositCounts() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            uint256 unit = settlement.unitOf(list[i].key.token);
            list[i].amount = (1 << 64) * unit;
            TestToken(list[i].key.token).mint(payer.addr, list[i].amount);
            assertEq(
                assertRefused(payer.addr, signed(list[i])), IDepositHelper.AmountTooLarge.selector
            );
        }
    }

    function test_Deposit_TakesAllThatADepositCounts() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            uint256 start = vm.snapshotState();
            address token = list[i].key.token;
            list[i].amount = type(uint64).max * uint256(settlement.unitOf(token));
            TestToken(token).mint(payer.addr, list[i].amount);
            if (list[i].route == Route.Permit2) {
                approve(payer.addr, token, address(permit2), list[i].amount);
            }
            assertCredited(payer.addr, signed(list[i])); // F48
            vm.revertToState(start);
        }
    }

    function test_RevertWhen_TheTokenIsNotRegistered() public {
        Order memory order = draft(Route.Permit, address(permitToken));
        order.key.token = address(new PermitToken());
        for (uint8 route; route < 3; ++route) {
            order.route = Route(route);
            assertEq(assertRefused(payer.addr, signed(order)), ITokens.TokenNotRegistered.selector);
        }
    }

    function test_RevertWhen_TheKeyIsIncomplete() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            list[i].key.requestor = address(0);
            assertEq(assertRefused(payer.addr, signed(list[i])), IEscrow.IncompleteKey.selector);
        }
    }

    function test_RevertWhen_TheBalanceIsTooLow() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            uint256 start = vm.snapshotState();
            TestToken token = TestToken(list[i].key.token);
            uint256 rest = token.balanceOf(payer.addr) - list[i].amount + 1;
            vm.prank(payer.addr);
            (bool moved,) = address(token).call(abi.encodeCall(IERC20.transfer, (stranger, rest)));
            assertTrue(moved);
            assertRefused(payer.addr, list[i]);
            vm.revertToState(start);
        }
    }

    function test_RevertWhen_PermitTwoIsNotApproved() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            if (list[i].route != Route.Permit2) continue;
            approve(payer.addr, list[i].key.token, address(permit2), 0);
            assertRefused(payer.addr, list[i]);
        }
    }

    function test_RevertWhen_ThereIsNoPermitTwo() public {
        Order[] memory list = orders();
        vm.etch(address(permit2), "");
        for (uint256 i; i < list.length; ++i) {
            if (list[i].route == Route.Permit2) assertRefused(payer.addr, list[i]);
        }
        assertCredited(payer.addr, list[0]);
    }

    function test_RevertWhen_AStrangerUsesSomebodysPermit() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            if (list[i].route != Route.Permit) continue;
            assertEq(assertRefused(stranger, list[i]), IDepositHelper.AllowanceTooLow.selector); // I6
            // Nor once the permit is spent, when the allowance waits at the helper.
            uint256 start = vm.snapshotState();
            usePermit(list[i]);
            (bool success,) = submit(stranger, list[i]);
            assertFalse(success);
            assertEq(
                IERC20(list[i].key.token).allowance(payer.addr, address(helper)), list[i].amount
            );
            vm.revertToState(start);
        }
    }

    function test_Deposit_CreditsEveryTokenByEveryRoute() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            uint256 start = vm.snapshotState();
            assertCredited(payer.addr, list[i]);
            vm.revertToState(start);
        }
    }

    function test_Deposit_CreditsAgainWithANewSalt() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            uint256 start = vm.snapshotState();
            assertCredited(payer.addr, list[i]);
            list[i].salt += 100;
            assertCredited(payer.addr, signed(list[i]));
            vm.revertToState(start);
        }
    }

    function test_Deposit_RelayedByAStrangerDebitsTheSigner() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            if (list[i].route == Route.Permit) continue;
            uint256 start = vm.snapshotState();
            assertCredited(stranger, list[i]);
            vm.revertToState(start);
        }
    }

    function test_Deposit_SurvivesAStrangerWhoIsFirst() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            uint256 start = vm.snapshotState();
            if (list[i].route == Route.Permit) usePermit(list[i]); // F01
            else if (list[i].route == Route.Authorization) stealAuthorization(list[i]); // F03
            else stealPermit2(list[i]);
            assertCredited(payer.addr, list[i]);
            vm.revertToState(start);
        }
    }

    function test_Deposit_SubmittedByAStrangerFirstIsDoneOnce() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            if (list[i].route == Route.Permit) continue;
            uint256 start = vm.snapshotState();
            assertCredited(stranger, list[i]);
            assertRefused(payer.addr, list[i]);
            vm.revertToState(start);
        }
    }

    function test_Deposit_TakesAPlainAllowanceOfTheCaller() public {
        address[5] memory tokens = [
            address(usdc),
            address(usdt),
            address(glmMainnet),
            address(glmPolygon),
            address(permitToken)
        ];
        for (uint256 i; i < tokens.length; ++i) {
            Order memory order = draft(Route.Permit, tokens[i]);
            approve(payer.addr, tokens[i], address(helper), order.amount);
            assertCredited(payer.addr, order);
        }
    }

    function test_Deposit_TakesShortPermits() public {
        Order memory order = signed(draft(Route.Permit, address(permitToken)));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(payer, digestOf(order));
        order.signature = abi.encodePacked(r, bytes32(uint256(s) | (uint256(v - 27) << 255)));
        assertCredited(payer.addr, order);
    }

    function test_Deposit_NamesTheHelperAsPayer() public {
        Order memory order = signed(draft(Route.Authorization, address(usdc)));
        vm.expectEmit(address(settlement));
        emit IEscrow.Deposited(
            settlement.depositId(order.key), order.key, address(helper), uint64(order.amount)
        );
        assertCredited(stranger, order);
    }

    function test_Deposit_LeavesTokensSentByMistakeAlone() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            uint256 start = vm.snapshotState();
            TestToken token = TestToken(list[i].key.token);
            token.mint(address(helper), 5);
            (bool success,) = submit(payer.addr, list[i]);
            assertTrue(success);
            assertEq(token.balanceOf(address(helper)), 5);
            // Nor can anybody take them: an order without money behind it fails.
            list[i].amount = settlement.unitOf(address(token));
            token.mint(address(helper), list[i].amount);
            uint256 held = token.balanceOf(address(helper));
            (success,) = submit(stranger, list[i]);
            assertFalse(success);
            assertEq(token.balanceOf(address(helper)), held); // F47
            vm.revertToState(start);
        }
    }

    function test_Deposit_WithTooLittleGasSpendsNoSignature() public {
        Order[] memory list = orders();
        for (uint256 i; i < list.length; ++i) {
            bytes memory data = calldataOf(list[i]);
            bool credited;
            for (uint256 gas = 20_000; gas < 400_000; gas += 2_000) {
                uint256 start = vm.snapshotState();
                vm.prank(payer.addr);
                (bool success,) = address(helper).call{gas: gas}(data);
                if (success) {
                    credited = true;
                    assertEq(settlement.depositOf(settlement.depositId(list[i].key)).balance, 1000);
                } else {
                    assertCredited(payer.addr, list[i]); // F41
                }
                vm.revertToState(start);
            }
            assertTrue(credited, describe(list[i]));
        }
    }

    function test_Deposit_StaysBelowItsGasCeiling() public {
        for (uint256 i; i < PAIRS; ++i) {
            uint256 first = gasOf(i);
            uint256 later = gasOf(i);
            assertLt(first, 200_000, "first deposit");
            assertLt(later, first, "later deposit");
        }
    }

    /// @dev Gas of the call for one order into the pair's own deposit.
    function gasOf(uint256 pair) private returns (uint256 gas) {
        Order memory order = orderOf(pair);
        order.key.salt = bytes32(pair + 1);
        (bool success,) = submit(payer.addr, signed(order));
        gas = vm.lastCallGas().gasTotalUsed;
        assertTrue(success);
        emit log_named_uint(describe(order), gas);
    }

    function testFuzz_Deposit_CreditsWholeUnitsOrNothing(uint256 amount, uint256 which) public {
        Order memory order = orderOf(which % PAIRS);
        uint256 unit = settlement.unitOf(order.key.token);
        order.amount = bound(amount, 1, 1000 * unit);
        if (order.amount % unit == 0) assertCredited(payer.addr, signed(order));
        else assertRefused(payer.addr, signed(order));
    }

    function test_AuthorizationNonce_IsTheHashOfIdAndSalt() public view {
        DepositKey memory key = bound(address(usdc));
        assertEq(
            helper.authorizationNonce(key, "salt"),
            keccak256(bytes.concat(settlement.depositId(key), bytes32("salt")))
        );
    }

    /// @dev A stranger submits the permit to the token itself.
    function usePermit(Order memory order) private {
        bytes memory signature = order.signature;
        bytes32 r;
        bytes32 s;
        uint8 v;
        assembly ("memory-safe") {
            r := mload(add(signature, 0x20))
            s := mload(add(signature, 0x40))
            v := byte(0, mload(add(signature, 0x60)))
        }
        vm.prank(stranger);
        ERC20Permit(order.key.token)
            .permit(order.from, address(helper), order.amount, order.deadline, v, r, s);
    }

    /// @dev A stranger tries the authorisation at the token itself, in both of its functions.
    function stealAuthorization(Order memory order) private {
        bytes32 nonce = helper.authorizationNonce(order.key, bytes32(order.salt));
        vm.startPrank(stranger);
        vm.expectRevert("FiatTokenV2: caller must be the payee");
        usdc.receiveWithAuthorization(
            order.from,
            address(helper),
            order.amount,
            order.validAfter,
            order.deadline,
            nonce,
            order.signature
        );
        vm.expectRevert("FiatTokenV2: invalid signature");
        usdc.transferWithAuthorization(
            order.from,
            address(helper),
            order.amount,
            order.validAfter,
            order.deadline,
            nonce,
            order.signature
        );
        vm.stopPrank();
    }

    /// @dev A stranger tries the signature at Permit2 itself, for its own account and the helper's.
    function stealPermit2(Order memory order) private {
        string memory witnessType =
            "DepositKey witness)DepositKey(address requestor,address signer,address cosigner,address token,bytes32 salt)TokenPermissions(address token,uint256 amount)";
        bytes32 id = settlement.depositId(order.key);
        address[2] memory destinations = [stranger, address(helper)];
        for (uint256 i; i < 2; ++i) {
            vm.prank(stranger);
            vm.expectRevert(bytes4(keccak256("InvalidSigner()")));
            permit2.permitWitnessTransferFrom(
                IPermit2.PermitTransferFrom(
                    IPermit2.TokenPermissions(order.key.token, order.amount),
                    order.salt,
                    order.deadline
                ),
                IPermit2.SignatureTransferDetails(destinations[i], order.amount),
                order.from,
                id,
                witnessType,
                order.signature
            );
        }
    }
}
