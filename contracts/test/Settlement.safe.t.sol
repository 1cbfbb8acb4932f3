// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ISafe} from "@safe-global/safe-smart-account/contracts/interfaces/ISafe.sol";
import {Vm} from "forge-std/Vm.sol";

import {Base, Deposit, DepositKey, IRewards, Outcome, Statement} from "./Base.t.sol";
import {Safes} from "./wallets/Safes.sol";

/// @notice Real Safes in every role: they sign statements and claims through ERC-1271, within the gas
/// that the contract gives them, and use deposits by their own transactions.
contract SafeTest is Base, Safes {
    /// @dev What the contract gives an ERC-1271 account.
    uint256 private constant GAS_LIMIT = 250_000;

    bytes32 private constant DIGEST = keccak256("digest");

    Vm.Wallet[] internal owners;
    Vm.Wallet[] internal others;
    ISafe internal single;
    ISafe internal several;
    ISafe internal dozen;
    bytes internal signatureOfTwo;
    bytes internal signatureOfTwelve;

    function setUp() public override {
        super.setUp();
        deploySafes();
        Vm.Wallet[] memory created = createOwners(12);
        for (uint256 i; i < 3; ++i) {
            owners.push(created[i]);
            others.push(created[3 + i]);
        }
        Vm.Wallet[] memory first = new Vm.Wallet[](1);
        first[0] = created[0];
        single = newSafe(first, 1);
        several = newSafe(owners, 2);
        dozen = newSafe(created, 12);
        signatureOfTwo = signMessage(several, owners, 2, DIGEST);
        signatureOfTwelve = signMessage(dozen, created, 12, DIGEST);
        registerProviders(2);
    }

    function keyOf(ISafe signer, address cosigner) internal view returns (DepositKey memory) {
        return DepositKey(requestor.addr, address(signer), cosigner, address(usd), 0);
    }

    /// @dev The next statement of a funded deposit, over 10 units, with `count` signatures of `by`.
    function statementBy(ISafe safe, Vm.Wallet[] memory by, uint256 count)
        internal
        returns (Statement memory statement)
    {
        DepositKey memory key = keyOf(safe, address(0));
        if (settlement.depositOf(settlement.depositId(key)).balance == 0) fund(key, 1_000);
        statement = statementFor(key, row(1, 10));
        statement.signature = signMessage(safe, by, count, digestOf(statement, spentAfter(key)));
    }

    function spentAfter(DepositKey memory key) internal view returns (uint64) {
        return settlement.depositOf(settlement.depositId(key)).spent + 10;
    }

    function assertRefused(Statement memory statement) internal {
        Deposit memory state = settlement.depositOf(settlement.depositId(statement.key));
        assertOutcome(settleOne(statement), Outcome.BadSignature);
        assertState(settlement.depositId(statement.key), state); // I2
    }

    function test_Skips_StatementsOfOtherOwners() public {
        assertRefused(statementBy(single, others, 1));
        assertRefused(statementBy(several, others, 2));
    }

    function test_Skips_StatementsOfTooFewOwners() public {
        assertRefused(statementBy(several, owners, 1));
        Statement memory statement = statementBy(several, owners, 1);
        // The same owner twice is one owner.
        statement.signature = bytes.concat(statement.signature, statement.signature);
        assertRefused(statement);
        statement.signature = "";
        assertRefused(statement);
    }

    function test_Skips_StatementsThatOwnersSignedAsThemselves() public {
        Statement memory statement = statementBy(several, owners, 2);
        statement.signature = signAll(owners, 2, digestOf(statement, spentAfter(statement.key)));
        assertRefused(statement);
    }

    function test_Skips_StatementsSignedForAnotherSafeOfTheSameOwners() public {
        ISafe twin = newSafe(owners, 2);
        Statement memory statement = statementBy(several, owners, 2);
        Statement memory twins = statementBy(twin, owners, 2);
        // Neither the signature nor the whole statement of one Safe debits the other's deposit.
        bytes memory signature = statement.signature;
        statement.signature = twins.signature;
        assertRefused(statement); // F13
        statement.signature =
            signMessage(twin, owners, 2, digestOf(statement, spentAfter(statement.key)));
        assertRefused(statement);
        statement.signature = signature;
        statement.key.signer = address(twin);
        assertRefused(statement);
        statement.key.signer = address(several);
        assertOutcome(settleOne(statement), Outcome.Settled);
    }

    function test_Skips_StatementsOfAnOwnerWhoWasReplaced() public {
        Statement memory statement = statementBy(several, owners, 2);
        // 0x1 starts a Safe's list of owners; the newest first owner comes behind it.
        address[] memory list = several.getOwners();
        execute(
            several,
            owners,
            2,
            address(several),
            abi.encodeWithSignature(
                "swapOwner(address,address,address)", address(1), list[0], stranger
            )
        );
        assertRefused(statement);
    }

    function test_Settle_TakesASafeAsSigner() public {
        ISafe[2] memory safes = [single, several];
        for (uint256 i; i < 2; ++i) {
            Statement memory statement = statementBy(safes[i], owners, i + 1);
            assertOutcome(settleOne(statement), Outcome.Settled);
            assertState(settlement.depositId(statement.key), Deposit(990, 0, 10, 1, 0));
            // And once only.
            assertOutcome(settleOne(statement), Outcome.WrongEpoch);
        }
        assertCredit(address(usd), 1, 20);
    }

    function test_Settle_TakesAStatementThatASafeApprovedOnChain() public {
        DepositKey memory key = keyOf(several, address(0));
        fund(key, 1_000);
        Statement memory statement = statementFor(key, row(1, 10));
        statement.signature = "";
        assertRefused(statement);
        bytes32 digest = digestOf(statement, 10);
        approveMessage(several, digest);
        assertOutcome(settleOne(statement), Outcome.Settled);
    }

    /// @dev What SignMessageLib leaves behind: a mark in the Safe for the hash of a message.
    function approveMessage(ISafe safe, bytes32 digest) private {
        bytes32 structHash = keccak256(
            abi.encode(keccak256("SafeMessage(bytes message)"), keccak256(abi.encode(digest)))
        );
        bytes32 message = keccak256(abi.encodePacked(hex"1901", safe.domainSeparator(), structHash));
        uint256 slot = 7;
        vm.store(address(safe), keccak256(abi.encode(message, slot)), bytes32(uint256(1)));
        assertEq(safe.signedMessages(message), 1);
    }

    function test_Settle_TakesASafeAsCosigner() public {
        DepositKey memory key =
            DepositKey(requestor.addr, agent.addr, address(several), address(usd), 0);
        fund(key, 1_000);
        Statement memory statement = statementFor(key, row(1, 10));
        bytes32 digest = digestOf(statement, 10);
        statement.signature = sign(agent, digest);
        statement.cosignature = signMessage(several, owners, 1, digest);
        assertOutcome(settleOne(statement), Outcome.BadCosignature);
        statement.cosignature = signMessage(several, owners, 2, digest);
        assertOutcome(settleOne(statement), Outcome.Settled);
    }

    function test_Settle_TakesTwoSafesAsBothSigners() public {
        DepositKey memory key = keyOf(single, address(several));
        fund(key, 1_000);
        Statement memory statement = statementFor(key, row(1, 10));
        bytes32 digest = digestOf(statement, 10);
        // Each Safe's signature in the other's place is nobody's.
        statement.signature = signMessage(several, owners, 2, digest);
        statement.cosignature = signMessage(single, owners, 1, digest);
        assertOutcome(settleOne(statement), Outcome.BadSignature);
        (statement.signature, statement.cosignature) = (statement.cosignature, statement.signature);
        assertOutcome(settleOne(statement), Outcome.Settled);
    }

    function test_Gas_OfTwoOwnersStaysFarBelowTheLimit() public {
        assertLt(gasOfAnswer(several, signatureOfTwo), GAS_LIMIT / 8);
    }

    function test_Gas_OfTwelveOwnersStaysBelowTheLimit() public {
        assertLt(gasOfAnswer(dozen, signatureOfTwelve), GAS_LIMIT / 2);
    }

    /// @dev Everything that the Safe touches is cold, as in a transaction of its own: nothing has
    /// called it since {setUp}.
    function gasOfAnswer(ISafe safe, bytes memory signature) private returns (uint256 gas) {
        bytes memory question = abi.encodeCall(IERC1271.isValidSignature, (DIGEST, signature));
        (bool success, bytes memory answer) = address(safe).staticcall{gas: GAS_LIMIT}(question);
        gas = vm.lastCallGas().gasTotalUsed;
        emit log_named_uint("isValidSignature", gas);
        assertTrue(success);
        assertEq(abi.decode(answer, (bytes4)), IERC1271.isValidSignature.selector);
    }

    function test_DepositAndWithdraw_ByASafesTransactions() public {
        DepositKey memory key =
            DepositKey(address(several), attester.addr, address(0), address(usd), 0);
        bytes32 id = settlement.depositId(key);
        usd.mint(address(several), 1_000);
        run(several, address(usd), abi.encodeCall(usd.approve, (address(settlement), 1_000)));
        run(several, address(settlement), abi.encodeCall(settlement.deposit, (key, 1_000)));
        assertState(id, Deposit(1_000, 0, 0, 0, 0));

        pay(key, row(1, 10));
        run(several, address(settlement), abi.encodeCall(settlement.thaw, (key, 500)));
        uint32 ends = uint32(block.timestamp) + THAW_PERIOD;
        assertState(id, Deposit(990, 500, 10, 1, ends));
        skip(THAW_PERIOD);
        run(
            several,
            address(settlement),
            abi.encodeCall(settlement.withdraw, (key, address(several)))
        );
        assertState(id, Deposit(490, 0, 10, 1, 0));
        assertEq(usd.balanceOf(address(several)), 500); // I10
    }

    function run(ISafe safe, address to, bytes memory data) private {
        execute(safe, owners, 2, to, data);
    }

    function test_RevertWhen_ASafeDidNotSignTheClaim() public {
        uint32 number = settlement.register(one(address(several)));
        creditOf(number);
        uint64 deadline = uint64(block.timestamp);
        bytes32 digest = claimDigest(number, stranger, 0, deadline);
        ISafe twin = newSafe(owners, 2);
        bytes[3] memory signatures = [
            signMessage(several, owners, 1, digest),
            signMessage(several, others, 2, digest),
            signMessage(twin, owners, 2, digest)
        ];
        for (uint256 i; i < signatures.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IRewards.NotPayout.selector, number, several));
            settlement.claimTo(number, address(usd), stranger, deadline, signatures[i]); // I5
        }
    }

    function test_ClaimTo_SignedByASafe() public {
        uint32 number = settlement.register(one(address(several)));
        creditOf(number);
        uint64 deadline = uint64(block.timestamp);
        bytes memory signature =
            signMessage(several, owners, 2, claimDigest(number, stranger, 0, deadline));
        settlement.claimTo(number, address(usd), stranger, deadline, signature);
        assertEq(usd.balanceOf(stranger), 10);
        creditOf(number);
        vm.expectRevert(abi.encodeWithSelector(IRewards.NotPayout.selector, number, several));
        settlement.claimTo(number, address(usd), stranger, deadline, signature);
    }

    function test_Claim_PaysASafe() public {
        uint32 number = settlement.register(one(address(several)));
        creditOf(number);
        settlement.claim(address(usd), one(number));
        assertEq(usd.balanceOf(address(several)), 10);
    }

    function test_SetPayout_SignedByASafeAndByItsTransaction() public {
        uint32 number = settlement.register(one(address(several)));
        uint64 deadline = uint64(block.timestamp);
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256("SetPayout(uint32 provider,address payout,uint64 nonce,uint64 deadline)"),
                number,
                address(single),
                0,
                deadline
            )
        );
        bytes memory signature = signMessage(several, owners, 2, typedDigest(structHash));
        settlement.setPayout(number, address(single), deadline, signature);
        assertPayout(number, address(single), 1);

        execute(
            single,
            owners,
            1,
            address(settlement),
            abi.encodeCall(settlement.setPayout, (number, address(several), 0, ""))
        );
        assertPayout(number, address(several), 2);
    }

    function assertPayout(uint32 number, address payout, uint64 claimNonce) private view {
        (address actual, uint64 actualNonce) = settlement.payoutOf(number);
        assertEq(actual, payout);
        assertEq(actualNonce, claimNonce);
    }

    function creditOf(uint32 number) private {
        DepositKey memory key = hosted(address(usd));
        if (settlement.depositOf(settlement.depositId(key)).balance == 0) fund(key, 1_000);
        pay(key, row(number, 10));
    }

    function claimDigest(uint32 number, address to, uint64 claimNonce, uint64 deadline)
        private
        view
        returns (bytes32)
    {
        return typedDigest(
            keccak256(
                abi.encode(
                    keccak256(
                        "ClaimTo(uint32 provider,address token,address to,uint64 nonce,uint64 deadline)"
                    ),
                    number,
                    address(usd),
                    to,
                    claimNonce,
                    deadline
                )
            )
        );
    }
}
