// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base, DepositKey, IRewards, ITokens} from "./Base.t.sol";
import {FalseToken, SilentToken, VerboseToken} from "./tokens/HostileTokens.sol";
import {BlocklistToken} from "./tokens/TestTokens.sol";

/// @notice `claim` lets anybody push credits to their payout addresses, and one that cannot be paid
/// neither loses its credit nor stops another.
contract ClaimTest is Base {
    function setUp() public override {
        super.setUp();
        registerProviders(8);
        credit(address(usd));
    }

    /// @dev Credits number `n` with `100 + n` units, 1 to 5.
    function credit(address token) internal {
        DepositKey memory key = hosted(token);
        fund(key, 515);
        pay(key, bytes.concat(row(1, 101), row(2, 102), row(3, 103), row(4, 104), row(5, 105)));
    }

    function numbers(uint32 a, uint32 b, uint32 c) internal pure returns (uint32[] memory list) {
        list = new uint32[](3);
        (list[0], list[1], list[2]) = (a, b, c);
    }

    function claimAs(address caller, address token, uint32[] memory list)
        internal
        returns (uint64[] memory)
    {
        vm.prank(caller);
        return settlement.claim(token, list);
    }

    function journalCount() internal view returns (uint64 count) {
        (count,) = settlement.journal();
    }

    function test_RevertWhen_TokenIsNotRegistered() public {
        vm.expectRevert(abi.encodeWithSelector(ITokens.TokenNotRegistered.selector, stranger));
        settlement.claim(stranger, one(uint32(1)));
    }

    function test_Claim_PassesOverUnknownNumbers() public {
        uint64 count = journalCount();
        uint64[] memory paid = claimAs(stranger, address(usd), numbers(0, 9, type(uint32).max));
        assertEq(paid.length, 3);
        assertEq(paid[0] + paid[1] + paid[2], 0);
        assertEq(journalCount(), count);
    }

    function test_Claim_PassesOverEmptyCredits() public {
        uint64 count = journalCount();
        uint64[] memory paid = claimAs(stranger, address(usd), numbers(6, 3, 8));
        assertEq(paid[0], 0);
        assertEq(paid[1], 103);
        assertEq(paid[2], 0);
        assertEq(journalCount(), count + 1);
    }

    function test_Claim_PaysANumberThatIsNamedTwiceOnce() public {
        uint64[] memory paid = claimAs(stranger, address(usd), numbers(2, 2, 2));
        assertEq(paid[0], 102);
        assertEq(paid[1] + paid[2], 0);
        assertEq(usd.balanceOf(payoutAddress(2)), 102);
        assertEq(usd.balanceOf(address(settlement)), 413); // I1
    }

    function test_Claim_LeavesTheCreditOfABlockedPayoutAndPaysTheOthers() public {
        BlocklistToken token = new BlocklistToken();
        settlement.registerToken(address(token));
        credit(address(token));
        token.setBlocked(payoutAddress(2), true);

        vm.expectEmit(address(settlement));
        emit IRewards.Claimed(1, address(token), payoutAddress(1), 101, 0);
        vm.expectEmit(address(settlement));
        emit IRewards.ClaimFailed(2, address(token), 102);
        vm.expectEmit(address(settlement));
        emit IRewards.Claimed(3, address(token), payoutAddress(3), 103, 0);
        uint64[] memory paid = claimAs(stranger, address(token), numbers(1, 2, 3));

        assertEq(paid[0], 101);
        assertEq(paid[1], 0);
        assertEq(paid[2], 103);
        assertCredit(address(token), 1, 0);
        assertCredit(address(token), 2, 102); // I5
        assertCredit(address(token), 3, 0);
        assertEq(token.balanceOf(address(settlement)), 311); // I1

        token.setBlocked(payoutAddress(2), false);
        assertEq(claimAs(stranger, address(token), one(uint32(2)))[0], 102); // I10
        assertEq(token.balanceOf(payoutAddress(2)), 102);
    }

    function test_Claim_LeavesTheCreditWhenTheTokenAnswersFalse() public {
        FalseToken token = new FalseToken();
        settlement.registerToken(address(token));
        credit(address(token));
        token.stop();
        vm.expectEmit(address(settlement));
        emit IRewards.ClaimFailed(1, address(token), 101);
        assertEq(claimAs(stranger, address(token), one(uint32(1)))[0], 0);
        assertCredit(address(token), 1, 101); // I5
    }

    function test_Claim_LeavesTheCreditWhenTheTokenIsGone() public {
        vm.etch(address(usd), "");
        assertEq(claimAs(stranger, address(usd), one(uint32(1)))[0], 0);
        assertCredit(address(usd), 1, 101); // I5
    }

    function test_Claim_CopiesNoLongAnswer() public {
        VerboseToken token = new VerboseToken();
        settlement.registerToken(address(token));
        credit(address(token));

        token.speak(true, false);
        uint256 start = vm.snapshotState();
        vm.prank(address(settlement));
        uint256 left = gasleft();
        (bool success,) = address(token).call{gas: 10_000_000}(
            abi.encodeCall(token.transfer, (payoutAddress(1), 101))
        );
        // The call above has paid twice for the answer: the token's memory and this test's.
        uint256 forAnAnswer = (left - gasleft()) / 2;
        assertTrue(success);
        vm.revertToState(start);

        left = gasleft();
        assertEq(claimAs(stranger, address(token), one(uint32(1)))[0], 101);
        assertLt(left - gasleft(), forAnAnswer + forAnAnswer / 4);

        token.speak(true, true);
        left = gasleft();
        assertEq(claimAs(stranger, address(token), one(uint32(2)))[0], 0);
        assertLt(left - gasleft(), forAnAnswer + forAnAnswer / 4);
        assertCredit(address(token), 2, 102);
    }

    /// @dev The gas of the submitter can leave a credit in place, never lose it.
    function test_Claim_WithAnyGasPaysOrLeavesTheCredit() public {
        bytes memory data = abi.encodeCall(settlement.claim, (address(usd), one(uint32(1))));
        uint256 start = vm.snapshotState();
        uint256 paid;
        uint256 kept;
        for (uint256 gas = 20_000; gas <= 120_000; gas += 500) {
            (bool success,) = address(settlement).call{gas: gas}(data);
            uint64 left = settlement.creditOf(address(usd), 1);
            assertEq(left + usd.balanceOf(provider.addr), 101); // I5
            if (left == 0) ++paid;
            else ++kept;
            if (!success) assertEq(left, 101);
            vm.revertToState(start);
        }
        assertGt(paid, 0);
        assertGt(kept, 0);
    }

    function test_Claim_ByAStrangerPaysThePayoutAddress() public {
        vm.expectEmit(address(settlement));
        emit IRewards.Claimed(1, address(usd), provider.addr, 101, 0);
        uint64[] memory paid = claimAs(stranger, address(usd), one(uint32(1)));

        assertEq(paid.length, 1);
        assertEq(paid[0], 101);
        assertEq(usd.balanceOf(provider.addr), 101); // I5
        assertEq(usd.balanceOf(stranger), 0);
        assertEq(usd.balanceOf(address(settlement)), 414); // I1
        assertCredit(address(usd), 1, 0);
        assertCredit(address(usd), 2, 102); // I6
        assertCredit(address(usd), 3, 103);
    }

    /// @dev Only address zero stands for nobody.
    function test_Claim_PaysTheLowestAddress() public {
        settlement.register(one(address(1)));
        DepositKey memory key = hosted(address(usd));
        fund(key, 10);
        pay(key, row(9, 10));
        assertEq(claimAs(stranger, address(usd), one(uint32(9)))[0], 10);
        assertEq(usd.balanceOf(address(1)), 10);
    }

    function test_Claim_PaysInAnyOrder() public {
        uint64[] memory paid = claimAs(stranger, address(usd), numbers(5, 1, 4));
        assertEq(paid[0], 105);
        assertEq(paid[1], 101);
        assertEq(paid[2], 104);
    }

    function test_Claim_OfNobodyChangesNothing() public {
        uint64 count = journalCount();
        assertEq(claimAs(stranger, address(usd), new uint32[](0)).length, 0);
        assertEq(journalCount(), count);
    }

    function test_Claim_KeepsTokensApart() public {
        credit(address(glm));
        claimAs(stranger, address(glm), one(uint32(1)));
        assertEq(glm.balanceOf(provider.addr), 101e12);
        assertEq(glm.balanceOf(address(settlement)), 414e12);
        assertCredit(address(glm), 1, 0);
        assertCredit(address(usd), 1, 101);
    }

    function test_Claim_PaysTokensThatReturnNothing() public {
        SilentToken token = new SilentToken();
        settlement.registerToken(address(token));
        credit(address(token));
        assertEq(claimAs(stranger, address(token), one(uint32(1)))[0], 101);
        assertEq(token.balanceOf(provider.addr), 101);
    }

    function test_Claim_PaysThePresentPayoutAddress() public {
        vm.prank(provider.addr);
        settlement.setPayout(1, requestor.addr, 0, "");
        vm.expectEmit(address(settlement));
        emit IRewards.Claimed(1, address(usd), requestor.addr, 101, 1);
        claimAs(stranger, address(usd), one(uint32(1)));
        assertEq(usd.balanceOf(requestor.addr), 101);
    }

    function test_Claim_PaysEveryNumberOfOneAddress() public {
        settlement.register(one(provider.addr));
        DepositKey memory key = hosted(address(usd));
        fund(key, 10);
        pay(key, row(9, 10));
        claimAs(stranger, address(usd), numbers(1, 9, 9));
        assertEq(usd.balanceOf(provider.addr), 111);
    }

    /// forge-config: default.isolate = true
    function test_Claim_DoesNotMakeTheNextStatementDearer() public {
        DepositKey memory key = hosted(address(usd));
        fund(key, 1000);
        // Four numbers that share a storage word, so that nothing else keeps it from zero.
        bytes memory rows = rowsOf(4, 4, 1, 1);
        pay(key, rows);
        uint256 start = vm.snapshotState();
        pay(key, rows);
        uint256 unclaimed = vm.lastCallGas().gasTotalUsed;

        vm.revertToState(start);
        claimAs(stranger, address(usd), numbers(4, 5, 6));
        claimAs(stranger, address(usd), one(uint32(7)));
        pay(key, rows);
        assertEq(vm.lastCallGas().gasTotalUsed, unclaimed); // I6
    }

    function testFuzz_Claim_PaysEachItsOwnCredit(uint48[8] memory units, uint8 claimed) public {
        DepositKey memory key = hosted(address(glm));
        bytes memory rows;
        uint64 total;
        for (uint32 i; i < 8; ++i) {
            units[i] = uint48(_bound(units[i], 1, type(uint48).max));
            rows = bytes.concat(rows, row(i + 1, units[i]));
            total += units[i];
        }
        fund(key, total);
        pay(key, rows);

        uint256 left = total;
        for (uint32 i; i < 8; ++i) {
            if ((claimed >> i) & 1 == 0) continue;
            settlement.claim(address(glm), one(i + 1));
            left -= units[i];
        }
        for (uint32 i; i < 8; ++i) {
            bool isClaimed = (claimed >> i) & 1 == 1;
            assertCredit(address(glm), i + 1, isClaimed ? 0 : units[i]);
            assertEq(glm.balanceOf(payoutAddress(i + 1)), isClaimed ? uint256(units[i]) * 1e12 : 0);
        }
        assertEq(glm.balanceOf(address(settlement)), left * 1e12); // I1, I5
    }
}
