// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IRewards} from "../../src/interfaces/IRewards.sol";
import {AnyState} from "./AnyState.sol";

/// @title AnyCallCheckDeep
/// @notice One call of any function, by anybody, with any arguments, in any state.
/// @dev Bounds: lists of the lengths that the runner sets (0 and 1), byte strings of 0 and 65, so that
/// `settle` is called with empty and malformed statements; {SettlementCheck} has the others.
contract AnyCallCheckDeep is AnyState {
    /// @dev I3
    function check_I3_SpentAndEpochNeverFall(bytes32 id) public {
        uint64 spent = settlement.depositOf(id).spent;
        uint32 epoch = settlement.depositOf(id).epoch;
        _call();
        assert(settlement.depositOf(id).spent >= spent);
        assert(settlement.depositOf(id).epoch - epoch <= 1);
    }

    /// @dev I2: by which function a balance falls; who must call or sign is checked per function.
    function check_I2_ABalanceFallsByWithdrawOrSettleOnly(bytes32 id) public {
        uint64 balance = settlement.depositOf(id).balance;
        bytes4 selector = _call();
        if (selector == settlement.withdraw.selector || selector == settlement.settle.selector) {
            return;
        }
        assert(settlement.depositOf(id).balance >= balance);
    }

    /// @dev I5
    function check_I5_ACreditFallsByClaimsOnly(address any, uint32 provider) public {
        uint64 credit = settlement.creditOf(any, provider);
        bytes4 selector = _call();
        if (selector == IRewards.claim.selector || selector == IRewards.claimTo.selector) return;
        assert(settlement.creditOf(any, provider) >= credit);
    }

    function check_TheNumberOfProvidersNeverFalls() public {
        uint32 count = settlement.providerCount();
        _call();
        assert(settlement.providerCount() >= count);
    }

    /// @dev I6: what these two demand and do is checked in {RewardsCheck}.
    function check_I6_OnlySetPayoutAndClaimToChangeAProvider(uint32 provider) public {
        vm.assume(provider <= settlement.providerCount());
        (address payout, uint64 nonce) = settlement.payoutOf(provider);
        bytes4 selector = _call();
        if (selector == IRewards.setPayout.selector || selector == IRewards.claimTo.selector) {
            return;
        }
        (address nextPayout, uint64 nextNonce) = settlement.payoutOf(provider);
        assert(nextPayout == payout && nextNonce == nonce);
    }

    function check_AUnitNeverChanges(address any) public {
        uint64 unit = settlement.unitOf(any);
        vm.assume(unit != 0);
        _call();
        assert(settlement.unitOf(any) == unit);
    }

    /// @dev I11
    function check_I11_TheJournalNeverFalls() public {
        (uint64 count,) = settlement.journal();
        vm.assume(count < type(uint64).max - 8);
        _call();
        (uint64 next,) = settlement.journal();
        assert(next >= count);
    }

    function _call() private returns (bytes4) {
        _now();
        bytes memory data = svm.createCalldata("Settlement");
        vm.prank(_caller());
        (bool success,) = address(settlement).call(data);
        vm.assume(success);
        return bytes4(data);
    }
}
