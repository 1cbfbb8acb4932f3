// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Base, DepositKey} from "./Base.t.sol";
import {ReentrantToken, TestToken} from "./tokens/TestTokens.sol";

/// @notice A token that calls back during its own transfers enters no function that moves money.
contract ReentrancyTest is Base {
    ReentrantToken internal token;
    DepositKey internal key;
    bytes[] internal calls;

    function setUp() public override {
        super.setUp();
        token = new ReentrantToken();
        settlement.registerToken(address(token));
        registerProviders(1);
        key = hosted(address(token));
        fund(key, 1000);
        pay(key, row(1, 100));
        thaw(key, 500);
        skip(THAW_PERIOD);

        uint32[] memory numbers = one(uint32(1));
        calls.push(abi.encodeCall(settlement.deposit, (key, 1)));
        calls.push(abi.encodeCall(settlement.thaw, (key, 1)));
        calls.push(abi.encodeCall(settlement.withdraw, (key, stranger)));
        calls.push(abi.encodeCall(settlement.settle, (batch(statementFor(key, row(1, 1))))));
        calls.push(abi.encodeCall(settlement.registerToken, (address(new TestToken("", "", 6)))));
        calls.push(abi.encodeCall(settlement.register, (one(stranger))));
        calls.push(abi.encodeCall(settlement.claim, (address(token), numbers)));
        calls.push(
            abi.encodeCall(settlement.claimTo, (1, address(token), stranger, type(uint64).max, ""))
        );
        calls.push(abi.encodeCall(settlement.setPayout, (1, stranger, type(uint64).max, "")));
    }

    /// @dev Makes `outer` while the token calls back with each function in turn.
    function assertKeptOut(function() internal outer) internal {
        for (uint256 i; i < calls.length; ++i) {
            uint256 start = vm.snapshotState();
            token.arm(address(settlement), calls[i]);
            outer();
            assertEq(
                bytes4(token.lastError()),
                ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector
            );
            vm.revertToState(start);
        }
    }

    function deposit() internal {
        fund(key, 10);
    }

    function withdraw() internal {
        vm.prank(requestor.addr);
        settlement.withdraw(key, stranger);
        assertEq(token.balanceOf(stranger), 500);
    }

    function claim() internal {
        settlement.claim(address(token), one(uint32(1)));
        assertEq(token.balanceOf(provider.addr), 100);
    }

    function claimTo() internal {
        vm.prank(provider.addr);
        settlement.claimTo(1, address(token), stranger, 0, "");
        assertEq(token.balanceOf(stranger), 100);
    }

    function test_Token_CannotEnterDuringDeposit() public {
        assertKeptOut(deposit);
    }

    function test_Token_CannotEnterDuringWithdraw() public {
        assertKeptOut(withdraw);
    }

    function test_Token_CannotEnterDuringClaim() public {
        assertKeptOut(claim); // I5
    }

    function test_Token_CannotEnterDuringClaimTo() public {
        assertKeptOut(claimTo); // I5
    }
}
