// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";

import {Base, Deposit, DepositKey, ISettlement, Outcome, Statement, TestToken} from "./Base.t.sol";
import {
    CallingWallet,
    CountingWallet,
    DemandingWallet,
    OwnedWallet,
    ScriptedWallet,
    SlowWallet,
    VerboseWallet
} from "./wallets/Wallets.sol";

/// @notice Signers with code: ERC-1271 wallets get 250,000 gas and 32 bytes to say yes, and no
/// wallet can hold up other statements; accounts with a delegation still sign by ECDSA.
contract WalletsTest is Base {
    bytes32 private constant YES = bytes32(IERC1271.isValidSignature.selector);
    uint256 private constant GAS_NEEDED = 258_000;

    function setUp() public override {
        super.setUp();
        registerProviders(2);
    }

    /// @dev A statement over 10 units of a fresh deposit whose signer is `wallet`, signed by the
    /// attester.
    function statementBy(address wallet) internal returns (Statement memory statement) {
        DepositKey memory key = DepositKey(requestor.addr, wallet, address(0), address(usd), 0);
        fund(key, 1000);
        return statementFor(key, row(1, 10));
    }

    function assertRefused(address wallet) internal {
        Statement memory statement = statementBy(wallet);
        Statement memory other = statementBy(attester.addr);
        Outcome[] memory outcomes = settlement.settle(batch(statement, other));
        assertOutcome(outcomes[0], Outcome.BadSignature);
        assertOutcome(outcomes[1], Outcome.Settled);
        assertState(settlement.depositId(statement.key), Deposit(1000, 0, 0, 0, 0)); // I2
    }

    function assertAccepted(address wallet) internal {
        Statement memory statement = statementBy(wallet);
        assertOutcome(settleOne(statement), Outcome.Settled);
        assertState(settlement.depositId(statement.key), Deposit(990, 0, 10, 1, 0));
    }

    function settleWith(uint256 gas, Statement[] memory statements)
        internal
        returns (bool success, bytes memory answer)
    {
        return address(settlement).call{gas: gas}(abi.encodeCall(settlement.settle, (statements)));
    }

    function test_RevertWhen_TooLittleGasIsLeftToAskAWallet() public {
        Statement memory first = statementBy(attester.addr);
        Statement memory second = statementBy(address(new OwnedWallet(attester.addr)));
        (bool success, bytes memory answer) = settleWith(280_000, batch(first, second));

        assertFalse(success);
        assertEq(answer.length, 68);
        assertEq(bytes4(answer), ISettlement.GasTooLow.selector);
        uint256 left;
        uint256 needed;
        assembly ("memory-safe") {
            left := mload(add(answer, 0x24))
            needed := mload(add(answer, 0x44))
        }
        assertLt(left, needed);
        assertEq(needed, GAS_NEEDED);
        assertState(settlement.depositId(first.key), Deposit(1000, 0, 0, 0, 0));

        assertOutcome(settlement.settle(batch(first, second))[1], Outcome.Settled);
    }

    function test_RevertWhen_TooLittleGasIsLeftToAskACosigningWallet() public {
        DepositKey memory key = bound(address(usd));
        key.cosigner = address(new OwnedWallet(attester.addr));
        fund(key, 1000);
        (bool success, bytes memory answer) =
            settleWith(250_000, batch(statementFor(key, row(1, 10))));
        assertFalse(success);
        assertEq(bytes4(answer), ISettlement.GasTooLow.selector);
        pay(key, row(1, 10));
    }

    function test_Settle_IsNeverSkippedForTheSubmittersGas() public {
        address wallet = address(new DemandingWallet(attester.addr, 248_000));
        Statement[] memory statements = batch(statementBy(wallet));
        uint256 settled;
        for (uint256 gas = 20_000; gas < 500_000; gas += 1_500) {
            uint256 start = vm.snapshotState();
            (bool success, bytes memory answer) = settleWith(gas, statements);
            if (success) {
                assertOutcome(abi.decode(answer, (Outcome[]))[0], Outcome.Settled); // I6
                ++settled;
            }
            vm.revertToState(start);
        }
        assertGt(settled, 0);
    }

    /// @dev What `settle` finds left is the gas given less a constant.
    function test_Settle_AsksAWalletWithExactlyTheGasNeeded() public {
        Statement[] memory statements = batch(statementBy(address(new OwnedWallet(attester.addr))));
        (bool success, bytes memory answer) = settleWith(GAS_NEEDED, statements);
        assertFalse(success);
        uint256 gas = 2 * GAS_NEEDED - leftIn(answer);
        (success, answer) = settleWith(gas - 1, statements);
        assertFalse(success);
        assertEq(leftIn(answer), GAS_NEEDED - 1);
        (, answer) = settleWith(gas, statements);
        // Enough to ask; what else the statement needs is another matter.
        assertTrue(bytes4(answer) != ISettlement.GasTooLow.selector);
    }

    /// @dev The gas that was left, according to {ISettlement.GasTooLow}.
    function leftIn(bytes memory answer) internal pure returns (uint256 left) {
        assertEq(bytes4(answer), ISettlement.GasTooLow.selector);
        assembly ("memory-safe") {
            left := mload(add(answer, 0x24))
        }
    }

    function test_Skips_AccountsWithoutCodeEvenWithLittleGas() public {
        Statement memory statement = statementBy(stranger);
        (bool success, bytes memory answer) = settleWith(GAS_NEEDED / 2, batch(statement));
        assertTrue(success);
        assertOutcome(abi.decode(answer, (Outcome[]))[0], Outcome.BadSignature);
    }

    function test_Skips_AccountsWithoutCodeThatDidNotSign() public {
        assertRefused(stranger);
    }

    /// @dev ERC-1271 replay: both deposits' wallets take the owner's signature.
    function test_Skips_SignaturesForAnotherWalletOfTheSameOwner() public {
        Statement memory first = statementBy(address(new OwnedWallet(attester.addr)));
        Statement memory second = statementBy(address(new OwnedWallet(attester.addr)));
        second.signature = first.signature;
        assertOutcome(settleOne(second), Outcome.BadSignature); // I7
        assertOutcome(settleOne(first), Outcome.Settled);
    }

    function test_Skips_WalletsOfAnotherOwner() public {
        assertRefused(address(new OwnedWallet(stranger)));
    }

    function test_Skips_WalletsThatAnswerAnythingElse() public {
        assertRefused(address(new ScriptedWallet(abi.encode(bytes4(0xffffffff)), false)));
        assertRefused(address(new ScriptedWallet(abi.encode(true), false)));
        assertRefused(address(new ScriptedWallet(abi.encode(uint256(YES) | 1), false)));
    }

    function test_Skips_WalletsThatAnswerNothing() public {
        assertRefused(address(new ScriptedWallet("", false)));
    }

    function test_Skips_WalletsThatAnswerTooBriefly() public {
        assertRefused(
            address(new ScriptedWallet(abi.encodePacked(IERC1271.isValidSignature.selector), false))
        );
        assertRefused(address(new ScriptedWallet(abi.encodePacked(bytes31(YES)), false)));
    }

    /// @dev The signer's yes is still in memory when the cosigner is asked.
    function test_Skips_CosigningWalletsThatAnswerTooBrieflyAfterAYes() public {
        address signer = address(new OwnedWallet(attester.addr));
        for (uint256 length; length < 32; ++length) {
            bytes memory answer = bytes.concat(YES);
            assembly ("memory-safe") {
                mstore(answer, length)
            }
            address cosigner = address(new ScriptedWallet(answer, false));
            DepositKey memory key = DepositKey(requestor.addr, signer, cosigner, address(usd), 0);
            fund(key, 10);
            Statement memory statement = statementFor(key, row(1, 10));
            statement.signature = statement.cosignature;
            assertOutcome(settleOne(statement), Outcome.BadCosignature); // I2
        }
    }

    function test_Skips_WalletsThatRevert() public {
        assertRefused(address(new ScriptedWallet("", true)));
        assertRefused(address(new ScriptedWallet(abi.encode(YES), true)));
    }

    function test_Skips_WalletsThatBurnAllTheirGas() public {
        assertRefused(address(new SlowWallet(attester.addr, type(uint256).max)));
    }

    function test_Skips_WalletsThatWriteState() public {
        CountingWallet wallet = new CountingWallet();
        assertRefused(address(wallet));
        assertEq(wallet.count(), 0);
    }

    /// @dev The wallet says yes only if one of its calls succeeds.
    function test_Skips_WalletsThatCallBack() public {
        CallingWallet wallet = new CallingWallet(address(settlement));
        Statement memory statement = statementBy(address(wallet));
        DepositKey memory key = statement.key;
        uint32[] memory numbers = new uint32[](0);
        wallet.add(abi.encodeCall(settlement.deposit, (key, 1)));
        wallet.add(abi.encodeCall(settlement.thaw, (key, 1)));
        wallet.add(abi.encodeCall(settlement.withdraw, (key, stranger)));
        wallet.add(abi.encodeCall(settlement.settle, (new Statement[](0))));
        wallet.add(abi.encodeCall(settlement.registerToken, (address(new TestToken("", "", 6)))));
        wallet.add(abi.encodeCall(settlement.register, (new address[](0))));
        wallet.add(abi.encodeCall(settlement.claim, (address(usd), numbers)));
        wallet.add(abi.encodeCall(settlement.claimTo, (1, address(usd), stranger, 0, "")));
        wallet.add(abi.encodeCall(settlement.setPayout, (1, stranger, 0, "")));
        assertOutcome(settleOne(statement), Outcome.BadSignature); // I6
    }

    function test_Skips_WalletsThatAnswerAtLengthWithoutSayingYes() public {
        assertRefused(address(new VerboseWallet(0)));
    }

    function test_Skips_DelegatedAccountsThatDidNotSign() public {
        vm.etch(stranger, address(new OwnedWallet(requestor.addr)).code);
        assertRefused(stranger);
    }

    function test_Skips_AWalletWithoutPayingForMoreThanItsShare() public {
        Statement memory burning =
            statementBy(address(new SlowWallet(attester.addr, type(uint256).max)));
        uint256 before = gasleft();
        settleOne(burning);
        assertLt(before - gasleft(), 350_000); // I6
    }

    function test_Settle_AsksAWallet() public {
        assertAccepted(address(new OwnedWallet(attester.addr)));
    }

    function test_Settle_AsksACosigningWallet() public {
        DepositKey memory key = bound(address(usd));
        key.cosigner = address(new OwnedWallet(attester.addr));
        bytes32 id = fund(key, 1000);
        pay(key, row(1, 10));
        assertState(id, Deposit(990, 0, 10, 1, 0));
    }

    function test_Settle_TakesSignaturesOfAnyLengthFromAWallet() public {
        Statement memory statement =
            statementBy(address(new ScriptedWallet(abi.encode(YES), false)));
        statement.signature = "";
        assertOutcome(settleOne(statement), Outcome.Settled);
        statement.epoch = 2;
        statement.signature = new bytes(1000);
        assertOutcome(settleOne(statement), Outcome.Settled);
    }

    /// @dev Says yes if the gas left after its first instruction, which takes 2, is 249,998:
    /// GAS PUSH3 EQ PUSH4 PUSH1 SHL MUL PUSH0 MSTORE PUSH1 PUSH0 RETURN.
    function test_Settle_GivesAWalletExactlyItsShareOfGas() public {
        address wallet = makeAddr("wallet");
        vm.etch(wallet, hex"5a6203d08e14631626ba7e60e01b025f5260205ff3");
        assertAccepted(wallet);
    }

    function test_Settle_WaitsForAWalletThatUsesNearlyAllItsGas() public {
        assertAccepted(address(new SlowWallet(attester.addr, 240_000)));
    }

    function test_Settle_ReadsNoMoreThanTheFirstWordOfAnAnswer() public {
        Statement memory statement = statementBy(address(new VerboseWallet(YES)));
        uint256 before = gasleft();
        assertOutcome(settleOne(statement), Outcome.Settled);
        assertLt(before - gasleft(), 350_000);
    }

    function test_Settle_CopiesNoLongAnswer() public {
        VerboseWallet wallet = new VerboseWallet(YES);
        Statement memory verbose = statementBy(address(wallet));
        Statement memory brief = statementBy(address(new OwnedWallet(attester.addr)));
        uint256 left = gasleft();
        assertOutcome(settleOne(brief), Outcome.Settled);
        uint256 forABriefOne = left - gasleft();

        left = gasleft();
        assembly {
            pop(staticcall(250000, wallet, 0, 0, 0, 0))
        }
        uint256 forTheAnswer = left - gasleft();

        left = gasleft();
        assertOutcome(settleOne(verbose), Outcome.Settled);
        assertLt(left - gasleft(), forABriefOne + forTheAnswer + forTheAnswer / 4);
    }

    function test_Settle_TakesTheKeySignatureOfADelegatedAccount() public {
        vm.etch(attester.addr, address(new ScriptedWallet("", true)).code);
        assertAccepted(attester.addr);
    }

    function test_Settle_AsksTheCodeOfADelegatedAccountForOtherSignatures() public {
        vm.etch(stranger, address(new OwnedWallet(attester.addr)).code);
        assertAccepted(stranger);
    }
}
