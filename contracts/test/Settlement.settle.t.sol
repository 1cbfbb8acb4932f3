// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base, Deposit, DepositKey, IRewards, ISettlement, Outcome, Statement} from "./Base.t.sol";

/// @notice `settle` moves money by valid statements, skips every other with a reason, and reverts
/// for a credit that does not fit.
contract SettleTest is Base {
    DepositKey internal key;
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        registerProviders(8);
        key = hosted(address(usd));
        id = fund(key, 1000);
    }

    /// @dev Settles one statement that must be skipped with this reason and digest, and must leave
    /// deposit and credits alone.
    function assertSkipped(Statement memory statement, Outcome reason, bytes32 digest) internal {
        bytes32 target = settlement.depositId(statement.key);
        Deposit memory before = settlement.depositOf(target);
        uint64 credit = settlement.creditOf(statement.key.token, 1);
        vm.expectEmit(address(settlement));
        emit ISettlement.Skipped(target, digest, reason);
        assertOutcome(settleOne(statement), reason);
        assertState(target, before);
        assertCredit(statement.key.token, 1, credit);
    }

    function assertMalformed(bytes memory rows) internal {
        Statement memory statement = statementAt(key, 1, 10, rows);
        assertSkipped(statement, Outcome.MalformedRows, digestOf(statement, 0));
    }

    /// @dev The storage word that holds a provider's credit.
    function creditSlot(address token, uint32 number) internal returns (bytes32) {
        vm.record();
        settlement.creditOf(token, number);
        (bytes32[] memory reads,) = vm.accesses(address(settlement));
        return reads[0];
    }

    /// @dev The storage word that holds the number of providers.
    function countSlot() internal returns (bytes32) {
        vm.record();
        settlement.providerCount();
        (bytes32[] memory reads,) = vm.accesses(address(settlement));
        return reads[0];
    }

    function test_RevertWhen_ACreditWouldReach63Bits() public {
        bytes32 slot = creditSlot(address(usd), 1);
        vm.store(address(settlement), slot, bytes32(uint256(type(uint64).max - 9) << 64));
        assertCredit(address(usd), 1, (1 << 63) - 10);

        Statement memory statement = statementFor(key, row(1, 10));
        vm.expectRevert(IRewards.CreditOverflow.selector);
        settlement.settle(batch(statement));

        pay(key, row(1, 9));
        assertCredit(address(usd), 1, (1 << 63) - 1);
    }

    function test_RevertWhen_AnAddressInTheCalldataIsTooWide() public {
        bytes memory data =
            abi.encodeCall(settlement.settle, (batch(statementFor(key, row(1, 10)))));
        // Selector, offset and length of the list, offset of the statement: its first word.
        data[4 + 3 * 32] = 0x01;
        (bool success,) = address(settlement).call(data);
        assertFalse(success);
    }

    function test_Skips_SettledStatement() public {
        Statement memory statement = statementFor(key, row(1, 10));
        settleOne(statement);
        assertSkipped(statement, Outcome.WrongEpoch, digestOf(statement, 0)); // I3
    }

    function test_Skips_StatementAheadOfItsEpoch() public {
        Statement memory statement = statementAt(key, 2, 10, row(1, 10));
        assertSkipped(statement, Outcome.WrongEpoch, digestOf(statement, 0));
    }

    function test_Skips_EpochZero() public {
        Statement memory statement = statementAt(key, 0, 10, row(1, 10));
        assertSkipped(statement, Outcome.WrongEpoch, digestOf(statement, 0));
    }

    function test_Skips_RowsOfOddLength() public {
        assertMalformed(bytes.concat(row(1, 10), hex"00"));
        assertMalformed(hex"000000010000000000");
        // With the zero that follows in the calldata, its last row would be whole.
        assertMalformed(bytes.concat(row(1, 10), hex"000000020000000005"));
    }

    function test_Skips_RowWithoutUnits() public {
        assertMalformed(bytes.concat(row(1, 10), row(2, 0)));
    }

    function test_Skips_EqualProviders() public {
        assertMalformed(bytes.concat(row(1, 5), row(1, 5)));
    }

    function test_Skips_DescendingProviders() public {
        assertMalformed(bytes.concat(row(2, 5), row(1, 5)));
    }

    function test_Skips_ProviderZero() public {
        assertMalformed(row(0, 10));
    }

    function test_Skips_UnregisteredProvider() public {
        Statement memory statement = statementFor(key, bytes.concat(row(1, 5), row(9, 5)));
        assertSkipped(statement, Outcome.UnknownProvider, digestOf(statement, 0));
    }

    function test_Skips_RowsAboveTheBalance() public {
        Statement memory statement = statementFor(key, row(1, 1001));
        assertSkipped(statement, Outcome.InsufficientBalance, digestOf(statement, 1001));
    }

    function test_Skips_RowsWhoseSumExceeds64Bits() public {
        vm.store(address(settlement), countSlot(), bytes32(uint256(type(uint32).max)));
        uint32 count = (1 << 16) + 1;
        bytes memory rows = rowsOf(1, count, 1, type(uint48).max);
        uint256 total = uint256(count) * type(uint48).max;
        assertGt(total, type(uint64).max);
        fund(key, uint64(total));
        Statement memory statement = Statement(key, 1, "", rows, "", "");
        statement.signature = sign(attester, digestOf(statement, uint64(total)));
        assertOutcome(settleOne(statement), Outcome.InsufficientBalance);
        assertCredit(address(usd), 1, 0);
    }

    function test_Skips_EveryStatementAfterTheLastEpoch() public {
        vm.record();
        settlement.depositOf(id);
        (bytes32[] memory reads,) = vm.accesses(address(settlement));
        uint256 word = uint256(vm.load(address(settlement), reads[0]));
        vm.store(address(settlement), reads[0], bytes32(word | uint256(type(uint32).max) << 192));
        assertState(id, Deposit(1000, 0, 0, type(uint32).max, 0));
        Statement memory statement = statementAt(key, 0, 10, row(1, 10));
        assertSkipped(statement, Outcome.WrongEpoch, digestOf(statement, 0));
        statement.epoch = type(uint32).max;
        assertSkipped(statement, Outcome.WrongEpoch, digestOf(statement, 0)); // I3
    }

    function test_Skips_RowsOfADepositThatWasNeverFunded() public {
        key.token = stranger;
        Statement memory statement = statementFor(key, row(1, 1));
        assertSkipped(statement, Outcome.InsufficientBalance, digestOf(statement, 1));
    }

    function test_Skips_MissingSignature() public {
        Statement memory statement = statementFor(key, row(1, 10));
        statement.signature = "";
        assertSkipped(statement, Outcome.BadSignature, digestOf(statement, 10)); // I2
    }

    function test_Skips_SignatureByTheRequestorWhenItIsNotNamed() public {
        Statement memory statement = statementFor(key, row(1, 10));
        statement.signature = sign(requestor, digestOf(statement, 10));
        assertSkipped(statement, Outcome.BadSignature, digestOf(statement, 10)); // I2
    }

    function test_Skips_SignatureOverAnotherPredecessor() public {
        Statement memory statement = statementAt(key, 2, 30, row(1, 10));
        pay(key, row(1, 15));
        assertSkipped(statement, Outcome.BadSignature, digestOf(statement, 25));
    }

    function test_Skips_MissingCosignature() public {
        key = bound(address(usd));
        fund(key, 1000);
        Statement memory statement = statementFor(key, row(1, 10));
        statement.cosignature = "";
        assertSkipped(statement, Outcome.BadCosignature, digestOf(statement, 10)); // I2
    }

    function test_Skips_CosignatureWithoutSignature() public {
        key = bound(address(usd));
        fund(key, 1000);
        Statement memory statement = statementFor(key, row(1, 10));
        statement.signature = statement.cosignature;
        assertSkipped(statement, Outcome.BadSignature, digestOf(statement, 10)); // I2
    }

    function test_Skips_KeyWithoutSigner() public {
        key.signer = address(0);
        Statement memory statement = statementFor(key, "");
        statement.signature = "";
        assertSkipped(statement, Outcome.BadSignature, digestOf(statement, 0));
    }

    function test_Settle_OfNothingChangesNothing() public {
        (uint64 count, bytes24 hash) = settlement.journal();
        assertEq(settlement.settle(new Statement[](0)).length, 0);
        (uint64 countAfter, bytes24 hashAfter) = settlement.journal();
        assertEq(countAfter, count);
        assertEq(hashAfter, hash);
    }

    function test_Settle_MovesMoneyFromTheDepositToCredits() public {
        bytes memory rows = bytes.concat(row(1, 10), row(4, 20), row(8, 30));
        Statement memory statement = statementFor(key, rows);
        vm.expectEmit(address(settlement));
        emit ISettlement.Settled(id, 1, 60, statement.manifest, rows);
        vm.prank(stranger);
        assertOutcome(settlement.settle(batch(statement))[0], Outcome.Settled);

        assertState(id, Deposit(940, 0, 60, 1, 0)); // I3, I4
        assertCredit(address(usd), 1, 10);
        assertCredit(address(usd), 2, 0);
        assertCredit(address(usd), 4, 20);
        assertCredit(address(usd), 8, 30);
        assertCredit(address(glm), 1, 0);
        assertEq(usd.balanceOf(address(settlement)), 1000); // I1
    }

    function test_Settle_AddsToCredits() public {
        pay(key, row(1, 10));
        pay(key, bytes.concat(row(1, 5), row(2, 6)));
        assertState(id, Deposit(979, 0, 21, 2, 0));
        assertCredit(address(usd), 1, 15);
        assertCredit(address(usd), 2, 6);
    }

    function test_Settle_SpendsTheWholeBalance() public {
        pay(key, row(1, 1000));
        assertState(id, Deposit(0, 0, 1000, 1, 0));
    }

    function test_Settle_CountsUnitsInTokensWithMoreDecimals() public {
        key = hosted(address(glm));
        id = fund(key, 7);
        pay(key, row(1, 3));
        assertState(id, Deposit(4, 0, 3, 1, 0));
        assertCredit(address(glm), 1, 3);
    }

    function test_Settle_EmptyStatementRetiresItsEpoch() public {
        Statement memory rival = statementFor(key, row(1, 10));
        Statement memory statement = statementFor(key, "");
        vm.expectEmit(address(settlement));
        emit ISettlement.Settled(id, 1, 0, statement.manifest, "");
        assertOutcome(settleOne(statement), Outcome.Settled);
        assertState(id, Deposit(1000, 0, 0, 1, 0));
        assertOutcome(settleOne(rival), Outcome.WrongEpoch);
    }

    function test_Settle_NeedsBothSignaturesOfABoundDeposit() public {
        key = bound(address(usd));
        id = fund(key, 1000);
        pay(key, row(1, 10));
        assertState(id, Deposit(990, 0, 10, 1, 0));
    }

    function test_Settle_IgnoresACosignatureThatTheKeyDoesNotAskFor() public {
        Statement memory statement = statementFor(key, row(1, 10));
        statement.cosignature = "anything";
        assertOutcome(settleOne(statement), Outcome.Settled);
    }

    function test_Settle_SpendsFreeMoneyFirst() public {
        thaw(key, 600);
        uint32 ends = settlement.depositOf(id).thawEnds;
        pay(key, row(1, 400));
        assertState(id, Deposit(600, 600, 400, 1, ends));
        pay(key, row(1, 1));
        assertState(id, Deposit(599, 599, 401, 2, ends));
        pay(key, row(1, 599));
        assertState(id, Deposit(0, 0, 1000, 3, ends));
    }

    function test_Settle_WorksAfterTheThawEndedUnlessItWasWithdrawn() public {
        thaw(key, 1000);
        skip(THAW_PERIOD + 1 days);
        pay(key, row(1, 700));
        vm.prank(requestor.addr);
        settlement.withdraw(key, stranger);
        assertEq(usd.balanceOf(stranger), 300);
    }

    function test_Settle_NamesTheHighestProviderThereCanBe() public {
        vm.store(address(settlement), countSlot(), bytes32(uint256(type(uint32).max)));
        pay(key, bytes.concat(row(1, 1), row(type(uint32).max, 2)));
        assertCredit(address(usd), type(uint32).max, 2);
        assertCredit(address(usd), 1, 1);
    }

    function testFuzz_Settle_MovesExactlyTheSumOfItsRows(uint48[8] memory units) public {
        bytes memory rows;
        uint64 total;
        for (uint32 i; i < 8; ++i) {
            if (units[i] == 0) continue;
            rows = bytes.concat(rows, row(i + 1, units[i]));
            total += units[i];
        }
        fund(key, total + 1);
        pay(key, rows);
        assertState(id, Deposit(1001, 0, total, 1, 0)); // I4
        for (uint32 i; i < 8; ++i) {
            assertCredit(address(usd), i + 1, units[i]);
        }
    }
}
