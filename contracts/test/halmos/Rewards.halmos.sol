// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Settlement} from "../../src/Settlement.sol";
import {AnyState} from "./AnyState.sol";

contract DecimalsToken {
    uint8 public immutable decimals;

    constructor(uint8 answer) {
        decimals = answer;
    }
}

/// @title RewardsCheck
/// @notice What register, claim, claimTo and setPayout do to any credit and any payout address, from
/// any state.
/// @dev Bounds: one provider to a `claim`, one address to a `register`, 65 bytes of signature, payout
/// addresses without code wherever a signature decides. The recovery of an address from a
/// signature is any function; that it cannot be forged is assumed, not proved.
contract RewardsCheck is AnyState {
    address private _payout;
    uint64 private _nonce;

    /// @dev I5
    function check_I5_ClaimPaysAllOrLeavesAll(uint32 provider) public {
        uint64 credit = settlement.creditOf(address(token), provider);
        uint256 unit = settlement.unitOf(address(token));
        (address payout,) = settlement.payoutOf(provider);
        uint256 held = token.balanceOf(address(settlement));
        uint256 owned = token.balanceOf(payout);
        vm.prank(_caller());
        uint64 paid = settlement.claim(address(token), _one(provider))[0];
        uint64 left = settlement.creditOf(address(token), provider);
        assert(paid == 0 ? left == credit : paid == credit && left == 0);
        unchecked {
            assert(held - token.balanceOf(address(settlement)) == paid * unit);
            if (paid != 0) assert(token.balanceOf(payout) - owned == paid * unit);
        }
    }

    /// @dev I6
    function check_I6_ClaimLeavesOtherCredits(uint32 provider, address any, uint32 other) public {
        vm.assume(any != address(token) || other != provider);
        uint64 credit = settlement.creditOf(any, other);
        vm.prank(_caller());
        settlement.claim(address(token), _one(provider));
        assert(settlement.creditOf(any, other) == credit);
    }

    /// @dev I6
    function check_I6_ClaimLeavesPayoutsAndNonces(uint32 provider, uint32 other) public {
        (_payout, _nonce) = settlement.payoutOf(other);
        vm.prank(_caller());
        settlement.claim(address(token), _one(provider));
        (address payout, uint64 nonce) = settlement.payoutOf(other);
        assert(payout == _payout && nonce == _nonce);
    }

    /// @dev I2
    function check_I2_ClaimLeavesDeposits(uint32 provider, bytes32 id) public {
        bytes32 before = keccak256(abi.encode(settlement.depositOf(id)));
        vm.prank(_caller());
        settlement.claim(address(token), _one(provider));
        assert(keccak256(abi.encode(settlement.depositOf(id))) == before);
    }

    /// @dev I5
    function check_I5_ClaimToPaysTheWholeCredit(uint32 provider, address to) public {
        uint64 credit = settlement.creditOf(address(token), provider);
        uint256 amount = uint256(credit) * settlement.unitOf(address(token));
        uint256 held = token.balanceOf(address(settlement));
        uint256 owned = token.balanceOf(to);
        vm.prank(_caller());
        uint64 paid = settlement.claimTo(provider, address(token), to, 0, _signature());
        assert(paid == credit && paid != 0);
        assert(to != address(0) && to != address(settlement));
        assert(settlement.creditOf(address(token), provider) == 0);
        unchecked {
            assert(held - token.balanceOf(address(settlement)) == amount);
            assert(token.balanceOf(to) - owned == amount);
        }
    }

    /// @dev I6
    function check_I6_ClaimToNeedsThePayoutAddress(uint32 provider, address to, uint64 deadline)
        public
    {
        _now();
        (_payout, _nonce) = settlement.payoutOf(provider);
        _assumeNoCode(_payout);
        address caller = _caller();
        bytes memory signature = _signature();
        bytes32 digest = _digest(
            abi.encode(
                keccak256(
                    "ClaimTo(uint32 provider,address token,address to,uint64 nonce,uint64 deadline)"
                ),
                provider,
                address(token),
                to,
                _nonce,
                deadline
            )
        );
        vm.prank(caller);
        settlement.claimTo(provider, address(token), to, deadline, signature);
        assert(_payout != address(0));
        if (caller == _payout) return;
        assert(block.timestamp <= deadline);
        assert(_recover(digest, signature) == _payout);
    }

    /// @dev I6
    function check_I6_ClaimToLeavesOtherCredits(
        uint32 provider,
        address to,
        address any,
        uint32 other
    ) public {
        vm.assume(any != address(token) || other != provider);
        uint64 credit = settlement.creditOf(any, other);
        vm.prank(_caller());
        settlement.claimTo(provider, address(token), to, 0, _signature());
        assert(settlement.creditOf(any, other) == credit);
    }

    /// @dev I7
    function check_I7_ClaimToRaisesTheNonce(uint32 provider, address to) public {
        (_payout, _nonce) = settlement.payoutOf(provider);
        vm.prank(_caller());
        settlement.claimTo(provider, address(token), to, 0, _signature());
        (address payout, uint64 nonce) = settlement.payoutOf(provider);
        assert(payout == _payout && nonce == uint256(_nonce) + 1);
    }

    /// @dev I6
    function check_I6_ClaimToLeavesOtherProviders(uint32 provider, address to, uint32 other)
        public
    {
        vm.assume(other != provider);
        (_payout, _nonce) = settlement.payoutOf(other);
        vm.prank(_caller());
        settlement.claimTo(provider, address(token), to, 0, _signature());
        (address payout, uint64 nonce) = settlement.payoutOf(other);
        assert(payout == _payout && nonce == _nonce);
    }

    /// @dev I6
    function check_I6_SetPayoutNeedsThePayoutAddress(uint32 provider, address next, uint64 deadline)
        public
    {
        _now();
        (_payout, _nonce) = settlement.payoutOf(provider);
        _assumeNoCode(_payout);
        address caller = _caller();
        bytes memory signature = _signature();
        bytes32 digest = _digest(
            abi.encode(
                keccak256("SetPayout(uint32 provider,address payout,uint64 nonce,uint64 deadline)"),
                provider,
                next,
                _nonce,
                deadline
            )
        );
        vm.prank(caller);
        settlement.setPayout(provider, next, deadline, signature);
        assert(_payout != address(0));
        assert(next != address(0) && next != address(settlement));
        if (caller == _payout) return;
        assert(block.timestamp <= deadline);
        assert(_recover(digest, signature) == _payout);
    }

    /// @dev I7
    function check_I7_SetPayoutSetsAndRaisesTheNonce(uint32 provider, address next) public {
        (, _nonce) = settlement.payoutOf(provider);
        vm.prank(_caller());
        settlement.setPayout(provider, next, 0, _signature());
        (address payout, uint64 nonce) = settlement.payoutOf(provider);
        assert(payout == next && nonce == uint256(_nonce) + 1);
    }

    /// @dev I6
    function check_I6_SetPayoutLeavesOtherProviders(uint32 provider, address next, uint32 other)
        public
    {
        vm.assume(other != provider);
        (_payout, _nonce) = settlement.payoutOf(other);
        vm.prank(_caller());
        settlement.setPayout(provider, next, 0, _signature());
        (address payout, uint64 nonce) = settlement.payoutOf(other);
        assert(payout == _payout && nonce == _nonce);
    }

    /// @dev I5
    function check_I5_SetPayoutLeavesCredits(
        uint32 provider,
        address next,
        address any,
        uint32 other
    ) public {
        uint64 credit = settlement.creditOf(any, other);
        vm.prank(_caller());
        settlement.setPayout(provider, next, 0, _signature());
        assert(settlement.creditOf(any, other) == credit);
    }

    function check_RegisterAppendsOne(address next) public {
        uint256 count = settlement.providerCount();
        vm.prank(_caller());
        uint32 first = settlement.register(_one(next));
        assert(first == count + 1 && settlement.providerCount() == count + 1);
        (address payout,) = settlement.payoutOf(first);
        assert(payout == next && next != address(0) && next != address(settlement));
    }

    /// @dev I6
    function check_I6_RegisterLeavesOtherProviders(address next, uint32 other) public {
        vm.assume(other <= settlement.providerCount());
        (_payout, _nonce) = settlement.payoutOf(other);
        vm.prank(_caller());
        settlement.register(_one(next));
        (address payout, uint64 nonce) = settlement.payoutOf(other);
        assert(payout == _payout && nonce == _nonce);
    }

    /// @dev I5
    function check_I5_RegisterLeavesCredits(address next, address any, uint32 other) public {
        uint64 credit = settlement.creditOf(any, other);
        vm.prank(_caller());
        settlement.register(_one(next));
        assert(settlement.creditOf(any, other) == credit);
    }

    function check_AUnitIsSetOnce(address any) public {
        uint64 unit = settlement.unitOf(any);
        vm.prank(_caller());
        settlement.registerToken(address(token));
        assert(settlement.unitOf(any) == unit || (any == address(token) && unit == 0));
    }

    /// @dev The answers 0 to 31 of `decimals()`, one after the other, in a
    /// fresh contract: the prover does not know powers.
    function check_AUnitKeepsSixDecimals() public {
        Settlement fresh = new Settlement(7 days);
        for (uint256 decimals; decimals < 32; ++decimals) {
            DecimalsToken any = new DecimalsToken(uint8(decimals));
            try fresh.registerToken(address(any)) {
                assert(decimals <= 24);
                uint256 unit = 1;
                for (uint256 i = 6; i < decimals; ++i) {
                    unit *= 10;
                }
                assert(fresh.unitOf(address(any)) == unit);
            } catch {
                assert(decimals > 24);
            }
        }
    }

    function _one(uint32 number) private pure returns (uint32[] memory list) {
        list = new uint32[](1);
        list[0] = number;
    }

    function _one(address account) private pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = account;
    }
}
