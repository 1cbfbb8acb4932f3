// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Base, Deposit, DepositKey, ITokens, Outcome} from "./Base.t.sol";
import {
    HookedToken,
    Mood,
    MoodyToken,
    RebasingToken,
    RedenominatingToken,
    SkimmingToken
} from "./tokens/BadTokens.sol";
import {Glm, PolygonGlm} from "./tokens/Glm.sol";
import {NoToken, TestToken} from "./tokens/TestTokens.sol";
import {Usdc, deployUsdc} from "./tokens/Usdc.sol";
import {Usdt} from "./tokens/Usdt.sol";

/// @notice Whatever a token does, in every function that calls it: nobody is credited with what did
/// not arrive, nobody's credit or deposit is lost, and those who hold other tokens notice nothing.
contract HostileTokensTest is Base {
    /// @dev No more than a transaction can have, so that a token cannot burn what the test needs.
    uint256 private constant TRANSACTION_GAS = 16_777_216;

    DepositKey internal usdKey;

    function setUp() public override {
        super.setUp();
        registerProviders(8);
        usdKey = bound(address(usd));
        fund(usdKey, 1000);
    }

    /// @dev A deposit of `token` that has credited providers 1 to 3 with 100 units each, holds 700
    /// more, and can withdraw 300 of them.
    function stock(address token) internal returns (DepositKey memory key) {
        settlement.registerToken(token);
        key = hosted(token);
        fund(key, 1000);
        pay(key, bytes.concat(row(1, 100), row(2, 100), row(3, 100)));
        thaw(key, 300);
        skip(THAW_PERIOD);
    }

    function call(address caller, bytes memory data) internal returns (bool success) {
        vm.prank(caller);
        (success,) = address(settlement).call{gas: TRANSACTION_GAS}(data);
    }

    function tryDeposit(DepositKey memory key, uint64 units) internal returns (bool) {
        uint256 amount = uint256(units) * settlement.unitOf(key.token);
        TestToken(key.token).mint(requestor.addr, amount);
        vm.prank(requestor.addr);
        TestToken(key.token).approve(address(settlement), amount);
        return call(requestor.addr, abi.encodeCall(settlement.deposit, (key, units)));
    }

    function tryWithdraw(DepositKey memory key) internal returns (bool) {
        return call(requestor.addr, abi.encodeCall(settlement.withdraw, (key, stranger)));
    }

    function tryClaimTo(address token) internal returns (bool) {
        return call(provider.addr, abi.encodeCall(settlement.claimTo, (1, token, stranger, 0, "")));
    }

    function claim(address token, uint32 first, uint32 last) internal returns (uint64 total) {
        uint32[] memory list = new uint32[](last - first + 1);
        for (uint32 i; i < list.length; ++i) {
            list[i] = first + i;
        }
        vm.prank(stranger);
        uint64[] memory paid = settlement.claim{gas: TRANSACTION_GAS}(token, list);
        for (uint256 i; i < paid.length; ++i) {
            total += paid[i];
        }
    }

    /// @dev Statements over `token` and over another token settle together, and the other token's
    /// provider and requestor get their money, whatever `token` is doing.
    function assertOthersUnharmed(address token) internal {
        uint256 start = vm.snapshotState();
        Outcome[] memory outcomes = settlement.settle(
            batch(statementFor(hosted(token), row(1, 5)), statementFor(usdKey, row(1, 7)))
        );
        assertOutcome(outcomes[0], Outcome.Settled);
        assertOutcome(outcomes[1], Outcome.Settled);
        assertEq(claim(address(usd), 1, 1), 7);
        assertEq(usd.balanceOf(provider.addr), 7);
        thaw(usdKey, 993);
        skip(THAW_PERIOD);
        assertTrue(tryWithdraw(usdKey));
        assertEq(usd.balanceOf(stranger), 993); // I10
        assertEq(usd.balanceOf(address(settlement)), 0); // I1
        vm.revertToState(start);
    }

    /// @dev What {stock} has left is untouched.
    function assertUntouched(DepositKey memory key, uint32 provider_) internal view {
        Deposit memory state = settlement.depositOf(settlement.depositId(key));
        assertEq(state.balance, 700, "balance");
        assertEq(state.thawing, 300, "thawing");
        assertCredit(key.token, provider_, 100);
    }

    /// @dev Everybody leaves with everything, and the books are empty.
    function assertEverybodyGetsOut(DepositKey memory key) internal {
        uint256 unit = settlement.unitOf(key.token);
        assertEq(claim(key.token, 1, 3), 300);
        assertTrue(tryWithdraw(key));
        thaw(key, 400);
        skip(THAW_PERIOD);
        assertTrue(tryWithdraw(key));
        assertEq(TestToken(key.token).balanceOf(stranger), 700 * unit);
        assertEq(TestToken(key.token).balanceOf(provider.addr), 100 * unit);
        assertEq(TestToken(key.token).balanceOf(address(settlement)), 0); // I10
    }

    function refusals() internal pure returns (Mood[6] memory) {
        return [
            Mood.AnswersFalse,
            Mood.Reverts,
            Mood.BurnsGas,
            Mood.RevertsAtLength,
            Mood.AnswersTwo,
            Mood.AnswersBriefly
        ];
    }

    function test_RevertWhen_ADepositIsSkimmed() public {
        SkimmingToken token = new SkimmingToken();
        settlement.registerToken(address(token));
        DepositKey memory key = hosted(address(token));
        // From a hundredth of a percent to a half.
        for (uint256 share = 1; share <= 5_000; share = share * 2 + 1) {
            token.setShare(share);
            token.mint(requestor.addr, 10_000);
            vm.startPrank(requestor.addr);
            token.approve(address(settlement), 10_000);
            vm.expectRevert(
                abi.encodeWithSelector(
                    ITokens.TokenDeliveredLess.selector, token, 10_000, 10_000 - share
                )
            );
            settlement.deposit(key, 10_000); // F18
            vm.stopPrank();
        }
        assertState(settlement.depositId(key), Deposit(0, 0, 0, 0, 0));
    }

    function test_RevertWhen_ADepositDoesNotArrive() public {
        MoodyToken token = new MoodyToken();
        DepositKey memory key = stock(address(token));
        Mood[6] memory moods = refusals();
        for (uint256 i; i <= moods.length; ++i) {
            token.setMood(i == moods.length ? Mood.Lies : moods[i], address(settlement));
            assertFalse(tryDeposit(key, 50)); // F20, F40
            assertUntouched(key, 1);
            assertOthersUnharmed(address(token));
        }
        token.setMood(Mood.Honest, address(0));
        assertEverybodyGetsOut(key);
    }

    function test_RevertWhen_AHookTakesTheDepositAway() public {
        HookedToken token = new HookedToken();
        DepositKey memory key = stock(address(token));
        uint256 start = vm.snapshotState();
        token.mint(address(this), 50);
        token.armAfter(address(token), abi.encodeCall(token.seize, (address(settlement), 1)));
        token.approve(address(settlement), 50);
        vm.expectRevert(abi.encodeWithSelector(ITokens.TokenDeliveredLess.selector, token, 50, 49));
        settlement.deposit(key, 50);
        // So that more leaves than arrives.
        token.armAfter(address(token), abi.encodeCall(token.seize, (address(settlement), 51)));
        vm.expectRevert();
        settlement.deposit(key, 50);
        assertUntouched(key, 1);
        vm.revertToState(start);
        assertEverybodyGetsOut(key);
    }

    function test_RevertWhen_AWithdrawalOrAClaimToIsNotPaid() public {
        MoodyToken token = new MoodyToken();
        DepositKey memory key = stock(address(token));
        Mood[6] memory moods = refusals();
        for (uint256 i; i < moods.length; ++i) {
            token.setMood(moods[i], stranger);
            assertFalse(tryWithdraw(key));
            assertFalse(tryClaimTo(address(token)));
            assertUntouched(key, 1); // I5
            (, uint64 claimNonce) = settlement.payoutOf(1);
            assertEq(claimNonce, 0);
            assertOthersUnharmed(address(token));
        }
        token.setMood(Mood.Honest, address(0));
        assertEverybodyGetsOut(key);
    }

    function test_RevertWhen_ATokenHasMoreThan24Decimals() public {
        TestToken token = new TestToken("", "", 25);
        vm.expectRevert(abi.encodeWithSelector(ITokens.TooManyDecimals.selector, token, 25));
        settlement.registerToken(address(token));
    }

    function test_Hooks_CannotEnterBeforeOrAfterATransfer() public {
        HookedToken token = new HookedToken();
        DepositKey memory key = stock(address(token));
        bytes[] memory calls = new bytes[](9);
        calls[0] = abi.encodeCall(settlement.deposit, (key, 1));
        calls[1] = abi.encodeCall(settlement.thaw, (key, 1));
        calls[2] = abi.encodeCall(settlement.withdraw, (key, stranger));
        calls[3] = abi.encodeCall(settlement.settle, (batch(statementFor(key, row(1, 1)))));
        calls[4] = abi.encodeCall(settlement.registerToken, (address(new TestToken("", "", 6))));
        calls[5] = abi.encodeCall(settlement.register, (one(stranger)));
        calls[6] = abi.encodeCall(settlement.claim, (address(token), one(uint32(1))));
        calls[7] = abi.encodeCall(settlement.claimTo, (1, address(token), stranger, 0, ""));
        calls[8] = abi.encodeCall(settlement.setPayout, (1, stranger, 0, ""));
        for (uint256 i; i < 2 * calls.length; ++i) {
            uint256 start = vm.snapshotState();
            if (i % 2 == 0) token.armBefore(address(settlement), calls[i / 2]);
            else token.armAfter(address(settlement), calls[i / 2]);
            // Minting would call the hook outside of the contract.
            deal(address(token), requestor.addr, 50);
            vm.startPrank(requestor.addr);
            token.approve(address(settlement), 50);
            settlement.deposit(key, 50);
            vm.stopPrank();
            assertKeptOut(token);
            assertTrue(tryWithdraw(key));
            assertKeptOut(token);
            assertTrue(tryClaimTo(address(token)));
            assertKeptOut(token);
            assertEq(claim(address(token), 1, 3), 200);
            assertKeptOut(token); // F21
            assertEq(token.balanceOf(stranger), 400);
            assertEq(token.balanceOf(address(settlement)), 450); // I1
            vm.revertToState(start);
        }
    }

    function assertKeptOut(HookedToken token) private view {
        assertFalse(token.lastSuccess());
        assertEq(
            bytes4(token.lastAnswer()),
            ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector
        );
    }

    function test_Deposit_CountsWhatWasAskedForEvenIfMoreArrives() public {
        HookedToken token = new HookedToken();
        DepositKey memory key = stock(address(token));
        token.mint(requestor.addr, 50);
        vm.startPrank(requestor.addr);
        token.approve(address(settlement), 50);
        token.armAfter(address(token), abi.encodeCall(token.mint, (address(settlement), 1_000)));
        settlement.deposit(key, 50);
        vm.stopPrank();
        assertEq(settlement.depositOf(settlement.depositId(key)).balance, 750); // F47
        assertEq(token.balanceOf(address(settlement)), 2_050); // I1
    }

    function test_Claim_KeepsTheCreditOfWhomATokenRefusesAndPaysTheOthers() public {
        MoodyToken token = new MoodyToken();
        DepositKey memory key = stock(address(token));
        Mood[6] memory moods = refusals();
        for (uint256 i; i < moods.length; ++i) {
            uint256 start = vm.snapshotState();
            token.setMood(moods[i], payoutAddress(1));
            assertEq(claim(address(token), 1, 3), 200); // F15
            assertUntouched(key, 1);
            assertEq(token.balanceOf(payoutAddress(2)), 100);
            assertEq(token.balanceOf(payoutAddress(3)), 100);
            assertOthersUnharmed(address(token));
            token.setMood(Mood.Honest, address(0));
            assertEq(claim(address(token), 1, 1), 100); // F17
            vm.revertToState(start);
        }
    }

    function test_Claim_PaysThroughTokensThatAnswerNothingOrAtLength() public {
        Mood[2] memory moods = [Mood.AnswersNothing, Mood.AnswersAtLength];
        for (uint256 i; i < 2; ++i) {
            MoodyToken token = new MoodyToken();
            DepositKey memory key = stock(address(token));
            token.setMood(moods[i], address(0));
            uint256 start = vm.snapshotState();
            assertTrue(tryDeposit(key, 50));
            vm.revertToState(start);
            start = vm.snapshotState();
            assertEverybodyGetsOut(key); // F20, F40
            vm.revertToState(start);
        }
    }

    function test_Claim_WithATokenThatLiesHarmsItsOwnHoldersOnly() public {
        MoodyToken token = new MoodyToken();
        DepositKey memory key = stock(address(token));
        token.setMood(Mood.Lies, payoutAddress(1));
        assertEq(claim(address(token), 1, 3), 300);
        assertEq(token.balanceOf(payoutAddress(1)), 0);
        assertEq(token.balanceOf(payoutAddress(2)), 100);
        assertEq(token.balanceOf(address(settlement)), 800); // I1
        assertOthersUnharmed(key.token);
    }

    function test_Claim_AtAnyGasPaysOrKeepsTheCredit() public {
        MoodyToken token = new MoodyToken();
        stock(address(token));
        Mood[3] memory moods = [Mood.Honest, Mood.BurnsGas, Mood.AnswersAtLength];
        for (uint256 i; i < moods.length; ++i) {
            token.setMood(moods[i], payoutAddress(1));
            uint256 paidTimes;
            for (uint256 gas = 20_000; gas < 6_000_000; gas += gas / 20) {
                uint256 start = vm.snapshotState();
                bytes memory data =
                    abi.encodeCall(settlement.claim, (address(token), one(uint32(1))));
                (bool success, bytes memory answer) = address(settlement).call{gas: gas}(data);
                uint64 paid = success ? abi.decode(answer, (uint64[]))[0] : 0;
                assertCredit(address(token), 1, 100 - paid); // F41, I5
                assertEq(token.balanceOf(provider.addr), paid);
                if (paid == 100) ++paidTimes;
                else assertEq(paid, 0);
                vm.revertToState(start);
            }
            assertEq(paidTimes != 0, moods[i] != Mood.BurnsGas);
        }
    }

    function test_WithdrawAndClaimTo_AtAnyGasPayOrChangeNothing() public {
        MoodyToken token = new MoodyToken();
        DepositKey memory key = stock(address(token));
        bytes[2] memory calls = [
            abi.encodeCall(settlement.withdraw, (key, stranger)),
            abi.encodeCall(settlement.claimTo, (1, address(token), stranger, 0, ""))
        ];
        for (uint256 i; i < 2; ++i) {
            uint256 paidTimes;
            for (uint256 gas = 20_000; gas < 300_000; gas += 1_000) {
                uint256 start = vm.snapshotState();
                vm.prank(i == 0 ? requestor.addr : provider.addr);
                (bool success,) = address(settlement).call{gas: gas}(calls[i]);
                assertEq(token.balanceOf(stranger), success ? (i == 0 ? 300 : 100) : 0);
                if (success) ++paidTimes;
                else assertUntouched(key, 1); // F41
                vm.revertToState(start);
            }
            assertGt(paidTimes, 0);
        }
    }

    function test_Skim_StartedAfterTheDepositIsBorneByWhoIsPaid() public {
        SkimmingToken token = new SkimmingToken();
        DepositKey memory key = stock(address(token));
        token.setShare(1_000);
        assertFalse(tryDeposit(key, 50));
        assertEq(claim(address(token), 1, 3), 300);
        assertTrue(tryWithdraw(key));
        assertEq(token.balanceOf(payoutAddress(2)), 90);
        assertEq(token.balanceOf(stranger), 270);
        // Exactly what left the books left the contract, the fee included.
        assertEq(token.balanceOf(address(settlement)), 400); // I1
        assertOthersUnharmed(address(token));
    }

    function test_Rebase_LeavesTheLastUnpaidWithTheirCreditAndOthersAlone() public {
        RebasingToken token = new RebasingToken();
        DepositKey memory key = stock(address(token));
        token.rebase(50);
        // 500 are left for 1,000: the first come, the first served.
        assertTrue(tryWithdraw(key));
        assertEq(claim(address(token), 1, 3), 200);
        assertCredit(address(token), 3, 100); // F19
        assertOthersUnharmed(address(token));
        // Anybody can make it whole, which is all that a gift does.
        token.mint(address(settlement), 500);
        assertEq(settlement.depositOf(settlement.depositId(key)).balance, 400); // F47
        assertEq(claim(address(token), 1, 3), 100);
        assertEq(token.balanceOf(payoutAddress(3)), 100);
    }

    function test_Gift_ChangesNoBooks() public {
        DepositKey memory key = stock(address(new MoodyToken()));
        (uint64 count,) = settlement.journal();
        TestToken(key.token).mint(address(settlement), 12_345);
        assertUntouched(key, 2); // F47
        (uint64 later,) = settlement.journal();
        assertEq(later, count);
        assertEq(claim(key.token, 1, 3), 300);
        assertTrue(tryWithdraw(key));
        assertEq(TestToken(key.token).balanceOf(address(settlement)), 400 + 12_345);
    }

    function test_Unit_StaysWhatItWasWhenATokenChangesItsDecimals() public {
        RedenominatingToken token = new RedenominatingToken();
        DepositKey memory key = stock(address(token));
        uint8[3] memory later = [0, 6, 255];
        for (uint256 i; i < later.length; ++i) {
            token.redenominate(later[i]);
            assertEq(settlement.unitOf(address(token)), 1e12);
            vm.expectRevert(abi.encodeWithSelector(ITokens.TokenAlreadyRegistered.selector, token));
            settlement.registerToken(address(token));
            assertOthersUnharmed(address(token));
        }
        assertEverybodyGetsOut(key);
    }

    function test_Tokens_OfAnyDecimalsGoTheWholeWay() public {
        uint8[5] memory decimals = [0, 2, 6, 7, 24];
        uint64[5] memory units = [uint64(1), 1, 1, 10, 1e18];
        for (uint256 i; i < decimals.length; ++i) {
            DepositKey memory key = stock(address(new TestToken("", "", decimals[i])));
            assertEq(settlement.unitOf(key.token), units[i]);
            uint256 start = vm.snapshotState();
            assertEverybodyGetsOut(key);
            vm.revertToState(start);
        }
    }

    function test_Tokens_OfTheMainNetworksGoTheWholeWay() public {
        address[4] memory tokens = [
            address(deployUsdc()),
            address(new Usdt()),
            address(new Glm()),
            address(new PolygonGlm())
        ];
        for (uint256 i; i < tokens.length; ++i) {
            settlement.registerToken(tokens[i]);
            DepositKey memory key = hosted(tokens[i]);
            uint256 amount = 1000 * uint256(settlement.unitOf(tokens[i]));
            TestToken(tokens[i]).mint(requestor.addr, amount);
            vm.startPrank(requestor.addr);
            (bool approved,) = tokens[i].call(
                abi.encodeWithSignature("approve(address,uint256)", settlement, amount)
            );
            assertTrue(approved);
            settlement.deposit(key, 1000);
            vm.stopPrank();
            pay(key, bytes.concat(row(1, 100), row(2, 100), row(3, 100)));
            thaw(key, 300);
            skip(THAW_PERIOD);
            assertOthersUnharmed(tokens[i]);
            uint256 start = vm.snapshotState();
            assertEverybodyGetsOut(key);
            vm.revertToState(start);
        }
    }

    function test_Usdc_PausedOrUpgradedWaitsAndResumes() public {
        Usdc usdc = deployUsdc();
        DepositKey memory key = stock(address(usdc));
        vm.prank(requestor.addr);
        usdc.approve(address(settlement), 50);
        usdc.setPaused(true);
        assertStopped(key);
        usdc.setPaused(false);
        // Upgraded to something that fails, and back.
        address broken = address(new NoToken(6));
        address working = address(new Usdc());
        usdc.upgradeTo(broken);
        assertEq(claim(address(usdc), 1, 3), 0); // F17
        assertFalse(tryWithdraw(key));
        assertUntouched(key, 1);
        assertOthersUnharmed(address(usdc));
        vm.store(
            address(usdc),
            bytes32(uint256(keccak256("eip1967.proxy.implementation")) - 1),
            bytes32(uint256(uint160(working)))
        );
        assertEverybodyGetsOut(key);
    }

    function test_Usdc_BlockingTheContractFreezesUsdcAndNothingElse() public {
        Usdc usdc = deployUsdc();
        DepositKey memory key = stock(address(usdc));
        vm.prank(requestor.addr);
        usdc.approve(address(settlement), 50);
        usdc.setBlacklisted(address(settlement), true);
        assertStopped(key); // F16
        usdc.setBlacklisted(address(settlement), false);
        assertEverybodyGetsOut(key);
    }

    function test_Usdc_BlockingTheRequestorStopsItsDepositsAndNotItsWithdrawals() public {
        Usdc usdc = deployUsdc();
        DepositKey memory key = stock(address(usdc));
        usdc.setBlacklisted(requestor.addr, true);
        assertFalse(tryDeposit(key, 50)); // F16
        assertEverybodyGetsOut(key); // I10
    }

    function test_Usdt_WithItsFeeOnRefusesDepositsAndPaysTheRest() public {
        Usdt usdt = new Usdt();
        settlement.registerToken(address(usdt));
        DepositKey memory key = hosted(address(usdt));
        usdt.mint(requestor.addr, 2_000);
        vm.startPrank(requestor.addr);
        usdt.approve(address(settlement), 2_000);
        settlement.deposit(key, 1_000);
        usdt.setParams(20, 50e6);
        vm.expectRevert(
            abi.encodeWithSelector(ITokens.TokenDeliveredLess.selector, usdt, 1_000, 998)
        );
        settlement.deposit(key, 1_000); // F18
        vm.stopPrank();
        pay(key, row(1, 1_000));
        assertEq(claim(address(usdt), 1, 1), 1_000);
        assertEq(usdt.balanceOf(provider.addr), 998);
        assertEq(usdt.balanceOf(address(settlement)), 0); // I1
    }

    /// @dev The token moves for nobody, everything stays in place, and others notice nothing.
    function assertStopped(DepositKey memory key) private {
        TestToken(key.token).mint(requestor.addr, 50);
        assertFalse(call(requestor.addr, abi.encodeCall(settlement.deposit, (key, 50))));
        assertEq(claim(key.token, 1, 3), 0);
        assertFalse(tryWithdraw(key));
        assertFalse(tryClaimTo(key.token));
        assertUntouched(key, 1);
        assertUntouched(key, 3);
        assertOthersUnharmed(key.token);
    }
}
