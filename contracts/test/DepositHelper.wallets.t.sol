// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ISafe} from "@safe-global/safe-smart-account/contracts/interfaces/ISafe.sol";
import {Vm} from "forge-std/Vm.sol";

import {IDepositHelper} from "../src/interfaces/IDepositHelper.sol";
import {DepositHelperBase, Order, Route} from "./DepositHelperBase.t.sol";
import {BatchDelegate, SigningDelegate} from "./wallets/Delegates.sol";
import {Safes} from "./wallets/Safes.sol";

/// @dev Newer than the pinned forge-std.
interface VmWithVersions {
    function setEvmVersion(string calldata version) external;
}

/// @notice Payers with code: EIP-7702 accounts and Safes. USDC and Permit2 ask their code, and either
/// it says yes and the deposit is credited, or nothing moves and the account still has its batch.
contract DepositHelperWalletsTest is DepositHelperBase, Safes {
    Vm.Wallet[] internal owners;

    function setUp() public override {
        // EIP-7702 came with this version.
        VmWithVersions(address(vm)).setEvmVersion("prague");
        super.setUp();
        deploySafes();
        Vm.Wallet[] memory created = createOwners(3);
        for (uint256 i; i < created.length; ++i) {
            owners.push(created[i]);
        }
    }

    function delegate(address implementation) internal {
        vm.signAndAttachDelegation(implementation, payer.privateKey);
        // The delegation takes effect with the next call.
        vm.prank(stranger);
        (bool success,) = stranger.call("");
        assertTrue(success);
        assertEq(
            payer.addr.code,
            implementation == address(0) ? bytes("") : abi.encodePacked(hex"ef0100", implementation)
        );
    }

    function test_RevertWhen_ADelegationKnowsNoSignatures() public {
        Order[] memory list = orders();
        delegate(address(new BatchDelegate()));
        for (uint256 i; i < list.length; ++i) {
            // A token that recovers the signer itself does not look at code.
            if (list[i].key.token == address(permitToken) && list[i].route == Route.Permit) {
                assertCredited(payer.addr, list[i]);
            } else {
                assertRefused(payer.addr, list[i]); // F14
            }
        }
        delegate(address(0));
        for (uint256 i; i < list.length; ++i) {
            if (i != 1) assertCredited(payer.addr, list[i]);
        }
    }

    function test_RevertWhen_ASafesOwnersAreTooFewOrOthers() public {
        ISafe safe = newSafe(owners, 2);
        Order[] memory list = ordersOf(safe);
        Vm.Wallet[] memory others = new Vm.Wallet[](2);
        (others[0], others[1]) = attester.addr < agent.addr ? (attester, agent) : (agent, attester);
        for (uint256 i; i < list.length; ++i) {
            bytes32 digest = digestOf(list[i]);
            list[i].signature = signMessage(safe, owners, 1, digest);
            assertRefused(stranger, list[i]);
            list[i].signature = signMessage(safe, others, 2, digest);
            assertRefused(stranger, list[i]);
            list[i].signature = signAll(owners, 2, digest);
            assertRefused(stranger, list[i]);
        }
    }

    function test_RevertWhen_AnotherSafeOfTheSameOwnersSigned() public {
        ISafe safe = newSafe(owners, 2);
        ISafe other = newSafe(owners, 2);
        Order[] memory list = ordersOf(safe);
        for (uint256 i; i < list.length; ++i) {
            list[i].signature = signMessage(other, owners, 2, digestOf(list[i]));
            assertRefused(stranger, list[i]); // F13
        }
    }

    function test_Deposit_TakesADelegationThatSigns() public {
        Order[] memory list = orders();
        delegate(address(new SigningDelegate()));
        for (uint256 i; i < list.length; ++i) {
            assertCredited(list[i].route == Route.Permit ? payer.addr : stranger, list[i]);
        }
    }

    function test_Deposit_InOneBatchWorksForEveryDelegation() public {
        delegate(address(new BatchDelegate()));
        Order memory order = draft(Route.Permit, address(usdc));
        BatchDelegate.Call[] memory calls = new BatchDelegate.Call[](2);
        calls[0] = BatchDelegate.Call(
            address(usdc), abi.encodeCall(IERC20.approve, (address(settlement), order.amount))
        );
        calls[1] = BatchDelegate.Call(
            address(settlement), abi.encodeCall(settlement.deposit, (order.key, 1000))
        );
        vm.prank(payer.addr);
        BatchDelegate(payer.addr).execute(calls);
        assertEq(settlement.depositOf(settlement.depositId(order.key)).balance, 1000);
    }

    function test_Deposit_TakesSafesOfOneAndOfSeveralOwners() public {
        for (uint256 threshold = 1; threshold <= 3; ++threshold) {
            ISafe safe = newSafe(owners, threshold);
            Order[] memory list = ordersOf(safe);
            for (uint256 i; i < list.length; ++i) {
                list[i].signature = signMessage(safe, owners, threshold, digestOf(list[i]));
                // One owner's signature has 65 bytes and goes the way of plain accounts.
                assertEq(list[i].signature.length, 65 * threshold);
                assertCredited(stranger, list[i]);
                assertRefused(stranger, list[i]);
            }
        }
    }

    /// @dev Unsigned orders of a Safe, which has the tokens and has approved Permit2.
    function ordersOf(ISafe safe) private returns (Order[] memory list) {
        list = new Order[](3);
        list[0] = draft(Route.Authorization, address(usdc));
        list[1] = draft(Route.Permit2, address(usdc));
        list[2] = draft(Route.Permit2, address(glmMainnet));
        for (uint256 i; i < list.length; ++i) {
            list[i].from = address(safe);
            vm.prank(payer.addr);
            IERC20(list[i].key.token).transfer(address(safe), list[i].amount);
            approve(address(safe), list[i].key.token, address(permit2), type(uint256).max);
        }
    }
}
