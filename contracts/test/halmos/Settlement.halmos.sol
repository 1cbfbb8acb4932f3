// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Deposit} from "../../src/interfaces/IEscrow.sol";
import {Outcome, Statement} from "../../src/interfaces/ISettlement.sol";
import {AnyState} from "./AnyState.sol";

abstract contract OneStatement is AnyState {
    function _statement(bytes memory rows) internal returns (Statement memory statement) {
        statement.key = _key("key");
        statement.epoch = uint32(svm.createUint(32, "epoch"));
        statement.manifest = svm.createBytes32("manifest");
        statement.rows = rows;
        statement.signature = _signature();
        statement.cosignature = _signature();
    }

    function _assumeFits(Deposit memory state) internal pure {
        vm.assume(uint256(state.balance) + state.spent <= type(uint64).max);
    }

    function _settle(Statement memory statement) internal returns (Outcome) {
        Statement[] memory statements = new Statement[](1);
        statements[0] = statement;
        vm.prank(_caller());
        return settlement.settle(statements)[0];
    }
}

/// @title SettlementCheck
/// @notice What a statement does to any deposit and any credit, from any state.
/// @dev Bounds: one statement of no, one or two rows to a call; 65 bytes of signature; signers without
/// code (an ERC-1271 account is asked by a static call, which can change nothing). The recovery of
/// an address from a signature is any function; that it cannot be forged is assumed. What a deposit
/// holds and has spent is assumed to fit 64 bits together, which the theorem `ADepositFitsItsSlot`
/// proves of every reachable state: `settle` relies on it.
contract SettlementCheck is OneStatement {
    function check_I4_ASettledRowMovesItsUnits(uint32 provider, uint48 units) public {
        Statement memory statement = _statement(abi.encodePacked(provider, units));
        bytes32 id = settlement.depositId(statement.key);
        Deposit memory a = settlement.depositOf(id);
        _assumeFits(a);
        uint256 credit = settlement.creditOf(address(token), provider);
        if (_settle(statement) != Outcome.Settled) return;
        Deposit memory b = settlement.depositOf(id);
        assert(units != 0 && provider != 0 && provider <= settlement.providerCount());
        assert(uint256(b.balance) + units == a.balance);
        assert(b.spent == uint256(a.spent) + units);
        assert(settlement.creditOf(address(token), provider) == credit + units);
    }

    /// @dev I3
    function check_I3_ASettledStatementCountsOneEpoch(uint32 provider, uint48 units) public {
        Statement memory statement = _statement(abi.encodePacked(provider, units));
        bytes32 id = settlement.depositId(statement.key);
        Deposit memory a = settlement.depositOf(id);
        _assumeFits(a);
        if (_settle(statement) != Outcome.Settled) return;
        Deposit memory b = settlement.depositOf(id);
        assert(b.epoch == uint256(a.epoch) + 1 && statement.epoch == b.epoch);
        assert(b.thawing == (a.thawing < b.balance ? a.thawing : b.balance));
        assert(b.thawEnds == a.thawEnds);
    }

    /// @dev I2
    function check_I2_ASettledStatementHasEverySignature(uint32 provider, uint48 units) public {
        Statement memory statement = _statement(abi.encodePacked(provider, units));
        _assumeNoCode(statement.key.signer);
        _assumeNoCode(statement.key.cosigner);
        bytes32 id = settlement.depositId(statement.key);
        uint256 spent = uint256(settlement.depositOf(id).spent) + units;
        if (_settle(statement) != Outcome.Settled) return;
        bytes32 digest = _digest(
            abi.encode(
                keccak256(
                    "Statement(DepositKey key,uint32 epoch,uint64 spent,bytes32 manifest,bytes rows)"
                    "DepositKey(address requestor,address signer,address cosigner,address token,bytes32 salt)"
                ),
                id,
                statement.epoch,
                spent,
                statement.manifest,
                keccak256(statement.rows)
            )
        );
        address signer = _recover(digest, statement.signature);
        assert(signer == statement.key.signer && signer != address(0));
        if (statement.key.cosigner == address(0)) return;
        assert(_recover(digest, statement.cosignature) == statement.key.cosigner);
    }

    /// @dev I9
    function check_I9_ASkippedStatementChangesNothing(
        uint32 provider,
        uint48 units,
        bytes32 any,
        uint32 other
    ) public {
        Statement memory statement = _statement(abi.encodePacked(provider, units));
        Deposit memory a = settlement.depositOf(any);
        uint256 credit = settlement.creditOf(address(token), other);
        if (_settle(statement) == Outcome.Settled) return;
        assert(_same(a, settlement.depositOf(any)));
        assert(settlement.creditOf(address(token), other) == credit);
    }

    /// @dev I6
    function check_I6_AStatementLeavesOtherDeposits(uint32 provider, uint48 units, bytes32 other)
        public
    {
        Statement memory statement = _statement(abi.encodePacked(provider, units));
        vm.assume(other != settlement.depositId(statement.key));
        Deposit memory a = settlement.depositOf(other);
        _settle(statement);
        assert(_same(a, settlement.depositOf(other)));
    }

    /// @dev I5
    function check_I5_AStatementLowersNoCredit(
        uint32 provider,
        uint48 units,
        address any,
        uint32 other
    ) public {
        Statement memory statement = _statement(abi.encodePacked(provider, units));
        uint256 credit = settlement.creditOf(any, other);
        _settle(statement);
        uint256 next = settlement.creditOf(any, other);
        assert(next >= credit);
        if (any != address(token) || other != provider) assert(next == credit);
    }

    function check_AStatementSettlesOnce(uint32 provider, uint48 units) public {
        Statement memory statement = _statement(abi.encodePacked(provider, units));
        if (_settle(statement) != Outcome.Settled) return;
        assert(_settle(statement) == Outcome.WrongEpoch);
    }

    function check_AnEmptyStatementRetiresItsEpoch(address any, uint32 other) public {
        Statement memory statement = _statement("");
        bytes32 id = settlement.depositId(statement.key);
        Deposit memory a = settlement.depositOf(id);
        uint256 credit = settlement.creditOf(any, other);
        if (_settle(statement) == Outcome.Settled) a.epoch += 1;
        // What thaws is never more than the balance in a state that can be reached.
        vm.assume(a.thawing <= a.balance);
        assert(_same(a, settlement.depositOf(id)));
        assert(settlement.creditOf(any, other) == credit);
    }

    function check_AWrongEpochNeverSettles(uint32 provider, uint48 units) public {
        Statement memory statement = _statement(abi.encodePacked(provider, units));
        uint256 epoch = settlement.depositOf(settlement.depositId(statement.key)).epoch;
        vm.assume(statement.epoch != epoch + 1);
        assert(_settle(statement) == Outcome.WrongEpoch);
    }

    /// @dev A statement moves no token and no provider's address.
    function check_I6_AStatementLeavesPayoutsNoncesAndUnits(
        uint32 provider,
        uint48 units,
        uint32 other,
        address any
    ) public {
        Statement memory statement = _statement(abi.encodePacked(provider, units));
        (address payout, uint64 nonce) = settlement.payoutOf(other);
        uint64 unit = settlement.unitOf(any);
        uint256 held = token.balanceOf(address(settlement));
        _settle(statement);
        (address nextPayout, uint64 nextNonce) = settlement.payoutOf(other);
        assert(nextPayout == payout && nextNonce == nonce);
        assert(settlement.unitOf(any) == unit);
        assert(token.balanceOf(address(settlement)) == held);
    }

    /// @dev I11: one event, one count.
    function check_I11_AStatementIsCountedOnce(uint32 provider, uint48 units) public {
        Statement memory statement = _statement(abi.encodePacked(provider, units));
        (uint64 count,) = settlement.journal();
        vm.assume(count < type(uint64).max);
        _settle(statement);
        (uint64 next,) = settlement.journal();
        assert(next == count + 1);
    }
}

/// @title SettlementCheckDeep
/// @notice The same with two rows.
contract SettlementCheckDeep is OneStatement {
    /// @dev I4
    function check_I4_TwoSettledRowsMoveTheirUnits(uint32 p, uint48 a, uint32 q, uint48 b) public {
        Statement memory statement = _statement(abi.encodePacked(p, a, q, b));
        bytes32 id = settlement.depositId(statement.key);
        Deposit memory state = settlement.depositOf(id);
        _assumeFits(state);
        uint256 creditP = settlement.creditOf(address(token), p);
        uint256 creditQ = settlement.creditOf(address(token), q);
        if (_settle(statement) != Outcome.Settled) return;
        Deposit memory next = settlement.depositOf(id);
        uint256 sum = uint256(a) + b;
        assert(uint256(next.balance) + sum == state.balance);
        assert(next.spent == state.spent + sum);
        assert(p < q && q <= settlement.providerCount());
        assert(settlement.creditOf(address(token), p) == creditP + a);
        assert(settlement.creditOf(address(token), q) == creditQ + b);
    }
}
