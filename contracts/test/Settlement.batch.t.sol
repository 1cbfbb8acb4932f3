// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base, Deposit, DepositKey, ISettlement, Outcome, Statement} from "./Base.t.sol";

/// @notice Several statements in one call: each stands alone, in the order given, and a skipped one
/// stops no other.
contract SettleBatchTest is Base {
    DepositKey internal usdKey;
    DepositKey internal glmKey;
    bytes32 internal usdId;
    bytes32 internal glmId;

    function setUp() public override {
        super.setUp();
        registerProviders(4);
        usdKey = hosted(address(usd));
        glmKey = bound(address(glm));
        usdId = fund(usdKey, 1000);
        glmId = fund(glmKey, 1000);
    }

    function test_Skips_ABadStatementAmongGoodOnes() public {
        Statement memory first = statementFor(usdKey, row(1, 10));
        Statement memory bad = statementFor(hosted(stranger), row(1, 10));
        Statement memory last = statementFor(glmKey, row(1, 20));

        bytes32 badId = settlement.depositId(bad.key);
        bytes32 digest = digestOf(bad, 10);
        vm.expectEmit(address(settlement));
        emit ISettlement.Settled(usdId, 1, 10, first.manifest, first.rows);
        vm.expectEmit(address(settlement));
        emit ISettlement.Skipped(badId, digest, Outcome.InsufficientBalance);
        vm.expectEmit(address(settlement));
        emit ISettlement.Settled(glmId, 1, 20, last.manifest, last.rows);
        Outcome[] memory outcomes = settlement.settle(batch(first, bad, last));

        assertEq(outcomes.length, 3);
        assertOutcome(outcomes[0], Outcome.Settled);
        assertOutcome(outcomes[1], Outcome.InsufficientBalance);
        assertOutcome(outcomes[2], Outcome.Settled);
        assertCredit(address(usd), 1, 10);
        assertCredit(address(glm), 1, 20);
    }

    function test_Skips_ASecondStatementThatTheFirstLeftNoMoneyFor() public {
        Statement memory first = statementAt(usdKey, 1, 700, row(1, 700));
        Statement memory second = statementAt(usdKey, 2, 1400, row(1, 700));
        Outcome[] memory outcomes = settlement.settle(batch(first, second));
        assertOutcome(outcomes[0], Outcome.Settled);
        assertOutcome(outcomes[1], Outcome.InsufficientBalance);
        assertState(usdId, Deposit(300, 0, 700, 1, 0));
    }

    function test_Skips_TheSecondOfTwoCandidatesForOneEpoch() public {
        Statement memory first = statementAt(usdKey, 1, 10, row(1, 10));
        Statement memory second = statementAt(usdKey, 1, 20, row(1, 20));
        Outcome[] memory outcomes = settlement.settle(batch(first, second, first));
        assertOutcome(outcomes[0], Outcome.Settled);
        assertOutcome(outcomes[1], Outcome.WrongEpoch);
        assertOutcome(outcomes[2], Outcome.WrongEpoch);
        assertState(usdId, Deposit(990, 0, 10, 1, 0)); // I3
    }

    function test_Skips_StatementsOutOfEpochOrder() public {
        Statement memory first = statementAt(usdKey, 1, 10, row(1, 10));
        Statement memory second = statementAt(usdKey, 2, 30, row(1, 20));
        Outcome[] memory outcomes = settlement.settle(batch(second, first));
        assertOutcome(outcomes[0], Outcome.WrongEpoch);
        assertOutcome(outcomes[1], Outcome.Settled);
        assertOutcome(settleOne(second), Outcome.Settled);
        assertState(usdId, Deposit(970, 0, 30, 2, 0));
    }

    function test_Settle_SeveralStatementsOfOneDepositInEpochOrder() public {
        Outcome[] memory outcomes = settlement.settle(
            batch(
                statementAt(usdKey, 1, 10, row(1, 10)),
                statementAt(usdKey, 2, 10, ""),
                statementAt(usdKey, 3, 40, bytes.concat(row(1, 10), row(2, 20)))
            )
        );
        for (uint256 i; i < 3; ++i) {
            assertOutcome(outcomes[i], Outcome.Settled);
        }
        assertState(usdId, Deposit(960, 0, 40, 3, 0));
        assertCredit(address(usd), 1, 20);
        assertCredit(address(usd), 2, 20);
    }

    function test_Settle_AnySplitAndOrderGivesTheSameState() public {
        Statement memory a = statementAt(usdKey, 1, 10, row(1, 10));
        Statement memory b = statementAt(usdKey, 2, 30, row(2, 20));
        Statement memory c = statementAt(glmKey, 1, 7, row(1, 7));
        uint256 start = vm.snapshotState();

        settlement.settle(batch(a, b, c));
        bytes32 together = stateHash();

        vm.revertToState(start);
        settlement.settle(batch(c));
        settlement.settle(batch(a));
        settlement.settle(batch(b));
        assertEq(stateHash(), together); // I8

        vm.revertToState(start);
        settlement.settle(batch(b, a, c));
        settlement.settle(batch(a, b));
        assertEq(stateHash(), together); // I8
    }

    function test_Settle_StrangersCallsChangeNothingOfAValidStatement() public {
        Statement memory statement = statementFor(usdKey, bytes.concat(row(1, 10), row(2, 20)));
        Statement memory forged = statementFor(usdKey, statement.rows);
        forged.signature = "";
        pay(hostedWithSalt("other"), row(1, 5));

        vm.startPrank(stranger);
        settlement.register(one(stranger));
        settlement.claim(address(usd), one(uint32(1)));
        usd.mint(stranger, 100);
        usd.approve(address(settlement), 100);
        settlement.deposit(usdKey, 100);
        settlement.settle(batch(forged));
        vm.stopPrank();

        assertOutcome(settleOne(statement), Outcome.Settled); // I6
        assertState(usdId, Deposit(1070, 0, 30, 1, 0));
    }

    function hostedWithSalt(bytes32 salt) internal returns (DepositKey memory key) {
        key = hosted(address(usd));
        key.salt = salt;
        fund(key, 100);
    }

    function stateHash() internal view returns (bytes32) {
        return keccak256(
            abi.encode(
                settlement.depositOf(usdId),
                settlement.depositOf(glmId),
                settlement.creditOf(address(usd), 1),
                settlement.creditOf(address(usd), 2),
                settlement.creditOf(address(glm), 1)
            )
        );
    }
}
