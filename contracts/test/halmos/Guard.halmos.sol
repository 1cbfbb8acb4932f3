// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Settlement} from "../../src/Settlement.sol";
import {DepositKey} from "../../src/interfaces/IEscrow.sol";
import {Symbolic} from "./Symbolic.sol";

/// @dev A token that calls the contract back with any calldata, in every call that it gets but
/// `balanceOf`, and remembers whether that ever succeeded.
contract CallingToken is Symbolic {
    Settlement private immutable _settlement;
    bool public reentered;
    bool public called;

    constructor(Settlement settlement) {
        _settlement = settlement;
    }

    function balanceOf(address) external returns (uint256) {
        return svm.createUint(256, "balance");
    }

    function decimals() external returns (uint8) {
        // Asked by a static call.
        return uint8(svm.createUint(8, "decimals"));
    }

    function transfer(address, uint256) external returns (bool) {
        return _callBack();
    }

    function transferFrom(address, address, uint256) external returns (bool) {
        return _callBack();
    }

    function _callBack() private returns (bool) {
        called = true;
        (bool success,) = address(_settlement).call(svm.createCalldata("Settlement"));
        if (success) reentered = true;
        return true;
    }
}

/// @title GuardCheck
/// @notice Whatever a token calls back, no function that can change anything succeeds.
/// @dev Bounds: lists of the lengths that the runner sets (0 and 1) and byte strings of 65. `called`
/// shows that the token did get the call.
contract GuardCheck is Symbolic {
    Settlement internal settlement;
    CallingToken internal token;

    function setUp() public {
        settlement = new Settlement(7 days);
        token = new CallingToken(settlement);
        svm.enableSymbolicStorage(address(settlement));
    }

    function check_NothingReentersDeposit(DepositKey memory key, uint64 units) public {
        key.token = address(token);
        settlement.deposit(key, units);
        assert(token.called() && !token.reentered());
    }

    function check_NothingReentersWithdraw(DepositKey memory key, address to) public {
        key.token = address(token);
        vm.prank(key.requestor);
        settlement.withdraw(key, to);
        assert(token.called() && !token.reentered());
    }

    function check_NothingReentersClaim(uint32 provider) public {
        uint32[] memory providers = new uint32[](1);
        providers[0] = provider;
        uint64 paid = settlement.claim(address(token), providers)[0];
        assert((token.called() || paid == 0) && !token.reentered());
    }

    function check_NothingReentersClaimTo(uint32 provider, address to) public {
        (address payout,) = settlement.payoutOf(provider);
        vm.prank(payout);
        settlement.claimTo(provider, address(token), to, 0, "");
        assert(token.called() && !token.reentered());
    }
}
