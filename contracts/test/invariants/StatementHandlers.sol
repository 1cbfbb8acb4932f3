// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Deposit, DepositKey} from "../../src/interfaces/IEscrow.sol";
import {ISettlement, Outcome, Statement} from "../../src/interfaces/ISettlement.sol";
import {RewardHandlers} from "./RewardHandlers.sol";

/// @title StatementHandlers
/// @notice Settles statements: valid, skipped for every reason, broken, repeated, in any order.
abstract contract StatementHandlers is RewardHandlers {
    /// @dev What a simulation came to.
    error Simulated(uint256 result);

    /// @dev How the signatures of a statement are made.
    enum Fault {
        None,
        Signature,
        Cosignature,
        Both
    }

    struct Ahead {
        bytes call_;
        uint256 gas;
        uint256 version;
    }

    bytes32 private constant STATEMENT_TYPEHASH = keccak256(
        "Statement(DepositKey key,uint32 epoch,uint64 spent,bytes32 manifest,bytes rows)"
        "DepositKey(address requestor,address signer,address cosigner,address token,bytes32 salt)"
    );
    uint256 private constant REMEMBERED = 4;

    /// @dev Statements that were settled, to be tried again.
    bytes[REMEMBERED] private settledStatements;
    uint256 private settledCount;
    /// @dev Signed statements that nobody has settled yet.
    mapping(uint256 index => Ahead) private ahead;
    /// @notice How often each outcome came.
    mapping(Outcome outcome => uint256) public outcomes;

    /// @dev One valid statement.
    function settle(uint256 seed) external handler(seed) {
        uint256 index = _payer();
        Statement memory statement = _next(index, true);
        bytes32 id = ids[index];
        uint256 spent = settlement.depositOf(id).spent;
        uint256 credit = _sumOfCredits(statement);
        _same(
            uint256(
                settlement.statementDigest(
                    statement.key,
                    statement.epoch,
                    uint64(spent + _total(statement.rows)),
                    statement.manifest,
                    statement.rows
                )
            ),
            uint256(_digestOf(statement, id, spent + _total(statement.rows))),
            "I7: digest"
        );
        _settleOne(statement, Fault.None);
        _I4_rowsAreWhatWasSpentAndCredited(statement, id, spent, credit);
        _remember(statement);
        _succeeded();
    }

    /// @dev I4: Σ rows = change of `spent` = Σ change of credits.
    function _I4_rowsAreWhatWasSpentAndCredited(
        Statement memory statement,
        bytes32 id,
        uint256 spent,
        uint256 credit
    ) private view {
        uint256 total = _total(statement.rows);
        _same(settlement.depositOf(id).spent - spent, total, "I4: spent");
        _same(_sumOfCredits(statement) - credit, total, "I4: credits");
    }

    /// @dev No rows at all retire an epoch, of a deposit without money too.
    function settleEmpty(uint256 seed) external handler(seed) {
        uint256 index = _willing();
        Statement memory statement = _next(index, true);
        statement.rows = "";
        _signBy(statement, ids[index], Fault.None);
        if (_settleOne(statement, Fault.None) == Outcome.Settled) _succeeded();
    }

    /// @dev Several statements, valid and not, of any deposits, repetitions among them.
    function settleMany(uint256 seed) external handler(seed) {
        Statement[] memory statements = new Statement[](2 + _choose(4));
        Outcome[] memory expected = new Outcome[](statements.length);
        Fault[] memory faults = new Fault[](statements.length);
        uint256 settled;
        for (uint256 i; i < statements.length; ++i) {
            if (i != 0 && _choose(6) == 0) {
                // Once more, in the same transaction.
                (statements[i], faults[i]) = (statements[i - 1], faults[i - 1]);
            } else if (_choose(3) == 0) {
                (statements[i], faults[i]) = _faulty(1 + _choose(6));
            } else {
                statements[i] = _next(_payer(), true);
            }
            expected[i] = _expect(statements[i], faults[i]);
            if (expected[i] == Outcome.Settled) ++settled;
        }
        _settleAll(statements, expected);
        if (settled != 0) _succeeded();
    }

    /// @dev One statement that is skipped for one of the six reasons.
    function settleSkipped(uint256 seed) external handler(seed) {
        uint256 reason = 1 + _choose(6);
        (Statement memory statement, Fault fault) = _faulty(reason);
        if (uint256(_settleOne(statement, fault)) == reason) _succeeded();
    }

    /// @dev I9: a change of any bit of key, epoch, manifest or rows changes nothing but a Skipped
    /// event.
    function settleBroken(uint256 seed) external handler(seed) {
        uint256 index = _choose(keys.length);
        while (!willing[index] || !strict[index]) index = (index + 1) % keys.length;
        Statement memory statement = _next(index, true);
        uint256 bit = _choose(256);
        uint256 field = _choose(8);
        if (field == 0) {
            statement.key.requestor = _flip(statement.key.requestor, bit);
        } else if (field == 1) {
            statement.key.signer = _flip(statement.key.signer, bit);
        } else if (field == 2) {
            statement.key.cosigner = _flip(statement.key.cosigner, bit);
        } else if (field == 3) {
            statement.key.token = _flip(statement.key.token, bit);
        } else if (field == 4) {
            statement.key.salt ^= bytes32(1 << bit);
        } else if (field == 5) {
            statement.epoch ^= uint32(1 << (bit % 32));
        } else if (field == 6 || statement.rows.length == 0) {
            statement.manifest ^= bytes32(1 << bit);
        } else {
            uint256 place = _choose(statement.rows.length);
            statement.rows[place] ^= bytes1(uint8(1 << (bit % 8)));
        }
        Outcome outcome = _settleOne(statement, Fault.Signature);
        _hold(outcome != Outcome.Settled, "I9: a broken statement settled");
        _succeeded();
    }

    /// @dev C7: candidates of one epoch, all signed. The first settles, the others are dead, and so
    /// is a successor that was signed for another predecessor.
    function settleCandidates(uint256 seed) external handler(seed) {
        uint256 index = _payer();
        Statement[] memory statements = new Statement[](4);
        Outcome[] memory expected = new Outcome[](4);
        statements[0] = _next(index, true);
        statements[1] = _next(index, true);
        statements[2] = _next(index, true);
        // The successor of the second.
        statements[3] = _next(index, true);
        statements[3].epoch += 1;
        uint256 spent = spentOf[ids[index]] + _total(statements[1].rows);
        bool pinned = _total(statements[0].rows) != _total(statements[1].rows);
        _signFor(statements[3], ids[index], spent + _total(statements[3].rows));

        expected[0] = _expect(statements[0], Fault.None);
        expected[1] = _expect(statements[1], Fault.None);
        expected[2] = _expect(statements[2], Fault.None);
        expected[3] = _expect(statements[3], pinned ? Fault.Both : Fault.None);
        _hold(
            expected[0] == Outcome.Settled && expected[1] == Outcome.WrongEpoch
                && expected[2] == Outcome.WrongEpoch,
            "C7: two candidates settled"
        );
        _settleAll(statements, expected);
        _succeeded();
    }

    /// @dev I8: one by one in any order, the same statements come to the same.
    function settleInAnyOrder(uint256 seed) external handler(seed) {
        Statement[] memory statements = new Statement[](2 + _choose(3));
        Outcome[] memory expected = new Outcome[](statements.length);
        uint256[] memory of_ = new uint256[](statements.length);
        for (uint256 i; i < statements.length; ++i) {
            of_[i] = i != 0 && _choose(3) == 0 ? of_[i - 1] : _payer();
            statements[i] = _next(of_[i], true);
            expected[i] = _expect(statements[i], Fault.None);
            _hold(expected[i] == Outcome.Settled, "a valid statement was skipped");
        }
        uint256 result;
        try this.settleOneByOne(statements, _order(of_)) {}
        catch (bytes memory answer) {
            result = _resultOf(answer);
        }
        _settleAll(statements, expected);
        _same(_hashOfStates(statements), result, "I8: hash of the states");
        _succeeded();
    }

    /// @dev An order that keeps those of one deposit as they are.
    function _order(uint256[] memory of_) private returns (uint256[] memory order) {
        order = new uint256[](of_.length);
        bool[] memory taken = new bool[](of_.length);
        for (uint256 i; i < of_.length; ++i) {
            uint256 next = _choose(of_.length);
            while (taken[next]) next = (next + 1) % of_.length;
            for (uint256 j; j < next; ++j) {
                if (!taken[j] && of_[j] == of_[next]) {
                    next = j;
                    break;
                }
            }
            taken[next] = true;
            order[i] = next;
        }
    }

    /// @notice Settles statements in single calls, tells by an error what came of it, and undoes it.
    function settleOneByOne(Statement[] memory statements, uint256[] memory order) external {
        Statement[] memory single = new Statement[](1);
        for (uint256 i; i < order.length; ++i) {
            single[0] = statements[order[i]];
            settlement.settle(single);
        }
        revert Simulated(_hashOfStates(statements));
    }

    /// @dev C7: what was settled once is skipped for ever.
    function settleAgain(uint256 seed) external handler(seed) {
        if (settledCount == 0) return;
        uint256 count = settledCount < REMEMBERED ? settledCount : REMEMBERED;
        Statement memory statement = abi.decode(settledStatements[_choose(count)], (Statement));
        _same(
            uint256(_settleOne(statement, Fault.Signature)),
            uint256(Outcome.WrongEpoch),
            "C7: outcome of a repetition"
        );
        _succeeded();
    }

    /// @dev I6, *stranger non-interference*: somebody signs, nobody settles yet.
    function signAhead(uint256 seed) external handler(seed) {
        _signAhead(_payer());
        _succeeded();
    }

    function _signAhead(uint256 index) private {
        Statement[] memory statements = new Statement[](1);
        statements[0] = _next(index, true);
        bytes memory call_ = abi.encodeCall(settlement.settle, (statements));
        // The contract was not called before in this transaction: it is as cold as it will be then.
        try this.measure(call_, false) {}
        catch (bytes memory answer) {
            ahead[index] = Ahead(call_, _resultOf(answer), version[index]);
        }
    }

    /// @dev I6: whatever strangers did meanwhile, it settles, and no dearer than first simulated.
    function settleSignedAhead(uint256 seed) external handler(seed) {
        uint256 index = _choose(keys.length);
        for (uint256 i; i < keys.length && !_isAhead(index); ++i) {
            index = (index + 1) % keys.length;
        }
        if (!_isAhead(index)) {
            index = _payer();
            _signAhead(index);
            _letStrangersAct(index);
        }
        bytes memory call_ = ahead[index].call_;
        uint256 gas = ahead[index].gas;
        _before();
        (uint256 used, bytes memory answer) = this.measure(call_, true);
        _hold(used <= gas, "I6: gas of the statement grew");
        Statement memory statement = _statementIn(call_);
        Outcome[] memory expected = new Outcome[](1);
        expected[0] = _expect(statement, Fault.None);
        _hold(
            expected[0] == Outcome.Settled && keccak256(answer) == keccak256(abi.encode(expected)),
            "I6: a stranger made it invalid"
        );
        bytes32[] memory writes = _after();
        _checkStatement(statement);
        _finish(writes);
        _succeeded();
    }

    /// @dev Whether a statement waits, and those whom the key names did nothing else meanwhile.
    function _isAhead(uint256 index) private view returns (bool) {
        return ahead[index].gas != 0 && ahead[index].version == version[index];
    }

    /// @dev Some of what strangers could do to a deposit and those whom it pays.
    function _letStrangersAct(uint256 index) private {
        address token = keys[index].token;
        if (_room(index) != 0 && !_stopped(token)) _fund(index, _stranger(), 1);
        uint32[] memory numbers = new uint32[](3);
        for (uint256 i; i < 3; ++i) {
            numbers[i] = uint32(1 + _choose(providerCount));
        }
        _expectClaims(_stranger(), token, numbers);
        if (!strict[index]) return;
        Statement memory statement = _next(index, true);
        statement.manifest = 0;
        _settleOne(statement, Fault.Both);
    }

    /// @notice Makes a call of the contract and tells what it used. Undoes it unless it is to `keep`.
    function measure(bytes calldata call_, bool keep)
        external
        returns (uint256 used, bytes memory answer)
    {
        bool success;
        used = gasleft();
        (success, answer) = address(settlement).call(call_);
        used -= gasleft();
        _hold(success, "a settlement reverted");
        if (!keep) revert Simulated(used);
    }

    /// @dev C22, I6: the contract takes no ether and answers nothing but its functions.
    function callNonsense(uint256 seed) external handler(seed) {
        bytes memory data;
        uint256 value;
        uint256 choice = _choose(3);
        if (choice == 0) {
            value = 1;
        } else if (choice == 1) {
            value = 1;
            data = abi.encodeCall(settlement.registerToken, (tokens[0]));
        } else {
            data = abi.encode(_choose(type(uint256).max), seed, seed, seed);
        }
        address from = _stranger();
        vm.deal(from, value);
        vm.prank(from);
        (bool success, bytes memory answer) = address(settlement).call{value: value}(data);
        _hold(!success && answer.length == 0, "C22: the contract answered");
        _same(address(settlement).balance, 0, "C22: ether");
        _succeeded();
    }

    // Statements.

    /// @dev A deposit with money whose signers sign, if there is one.
    function _payer() internal returns (uint256 index) {
        index = _choose(keys.length);
        for (uint256 i; i < keys.length; ++i) {
            if (willing[index] && balanceOf[ids[index]] != 0) return index;
            index = (index + 1) % keys.length;
        }
        while (!willing[index]) index = (index + 1) % keys.length;
    }

    function _willing() private returns (uint256 index) {
        index = _choose(keys.length);
        while (!willing[index]) index = (index + 1) % keys.length;
    }

    /// @dev A statement for the deposit's next epoch that it can pay, signed if it is `signed`.
    function _next(uint256 index, bool signed) internal returns (Statement memory statement) {
        bytes32 id = ids[index];
        statement.key = keys[index];
        statement.epoch = uint32(epochOf[id] + 1);
        statement.manifest = bytes32(_choose(type(uint256).max));
        statement.rows = _chooseRows(balanceOf[id]);
        if (signed) _signBy(statement, id, Fault.None);
    }

    /// @dev Rows that come to at most the balance, scattered over words and lanes or dense.
    function _chooseRows(uint256 balance) private returns (bytes memory rows) {
        uint256 most = _choose(16) == 0 ? 30 : 1 + _choose(6);
        if (most > balance) most = balance;
        rows = new bytes(most * 10 + 32);
        uint256 provider = 1 + _choose(providerCount);
        uint256 step = 1 + _choose(7);
        if (most > 6) provider = 1 + provider % 5;
        uint256 count;
        // Sometimes to the last unit.
        bool all = _choose(12) == 0;
        for (; count < most && provider <= providerCount; provider += step) {
            uint256 share = (balance + most - 1 - count) / (most - count);
            if (share > MAX_ROW) share = MAX_ROW;
            uint256 units = all ? share : _amount(share);
            balance -= units;
            assembly ("memory-safe") {
                mstore(add(add(rows, 0x20), mul(count, 10)), shl(176, or(shl(48, provider), units)))
            }
            ++count;
        }
        assembly ("memory-safe") {
            mstore(rows, mul(count, 10))
        }
    }

    /// @dev A statement that ought to be skipped for this reason, and what is wrong with its
    /// signatures.
    function _faulty(uint256 reason) private returns (Statement memory statement, Fault fault) {
        uint256 index = _payer();
        if (reason == uint256(Outcome.InsufficientBalance)) {
            for (uint256 i; i < keys.length && balanceOf[ids[index]] >= 10 * MAX_ROW; ++i) {
                index = (index + 1) % keys.length;
            }
        } else if (reason == uint256(Outcome.BadSignature)) {
            // Any deposit in which somebody can refuse a signature.
            index = _choose(keys.length);
            while (agrees[keys[index].signer]) index = (index + 1) % keys.length;
        } else if (reason == uint256(Outcome.BadCosignature)) {
            index = _choose(keys.length);
            while (
                keys[index].cosigner == address(0) || refuses[keys[index].signer]
                    || agrees[keys[index].cosigner]
            ) {
                index = (index + 1) % keys.length;
            }
        }
        statement = _next(index, false);
        if (reason == uint256(Outcome.WrongEpoch)) {
            uint256 choice = _choose(3);
            statement.epoch = choice == 0
                ? statement.epoch - 1
                : choice == 1 ? statement.epoch + 1 : uint32(_choose(1 << 32));
            if (statement.epoch == epochOf[ids[index]] + 1) statement.epoch += 1;
        } else if (reason == uint256(Outcome.MalformedRows)) {
            statement.rows = _malformed(statement.rows);
        } else if (reason == uint256(Outcome.UnknownProvider)) {
            uint256 number =
                providerCount + 1 + (_choose(2) == 0 ? 0 : _choose(MAX_UINT32 - providerCount));
            statement.rows =
                bytes.concat(statement.rows, abi.encodePacked(uint32(number), uint48(1)));
        } else if (reason == uint256(Outcome.InsufficientBalance)) {
            statement.rows = _tooMuch(balanceOf[ids[index]]);
        } else if (reason == uint256(Outcome.BadSignature)) {
            fault = Fault.Signature;
        } else {
            fault = Fault.Cosignature;
        }
        _signBy(statement, ids[index], fault);
    }

    /// @dev Rows that come to more than the balance, by a single unit or by more; to less only if the
    /// balance is too large for a few rows.
    function _tooMuch(uint256 balance) private returns (bytes memory rows) {
        bool barely = _choose(2) == 0;
        uint256 provider;
        while (balance != type(uint256).max && provider < 50) {
            uint256 units = barely && balance < MAX_ROW ? balance + 1 : MAX_ROW;
            provider += 1 + _choose(4);
            rows = bytes.concat(rows, abi.encodePacked(uint32(provider), uint48(units)));
            balance = units > balance ? type(uint256).max : balance - units;
        }
    }

    function _malformed(bytes memory rows) private returns (bytes memory) {
        uint256 choice = _choose(6);
        bytes memory last = abi.encodePacked(uint32(providerCount), uint48(1));
        if (choice == 0) return bytes.concat(rows, new bytes(1 + _choose(9)));
        if (choice == 1) return bytes.concat(last, last);
        if (choice == 2) {
            return
                bytes.concat(
                    last, abi.encodePacked(uint32(1 + _choose(providerCount - 1)), uint48(1))
                );
        }
        if (choice == 3) return abi.encodePacked(uint32(1 + _choose(providerCount)), uint48(0));
        if (choice == 4) return bytes.concat(abi.encodePacked(uint32(0), uint48(1)), rows);
        // The third of three, which is checked together with two others.
        return abi.encodePacked(uint32(1), uint48(1), uint32(5), uint48(1), uint32(5), uint48(1));
    }

    /// @dev Signs for the deposit's state, except for what is to be wrong.
    function _signBy(Statement memory statement, bytes32 id, Fault fault) private {
        bytes32 digest = _digestOf(statement, id, spentOf[id] + _total(statement.rows));
        statement.signature = fault == Fault.Signature
            ? _wrong(statement, id, statement.key.signer, statement.key.cosigner)
            : _sign(statement.key.signer, digest);
        if (statement.key.cosigner == address(0)) {
            // What is not asked for is not looked at.
            if (_choose(8) == 0) statement.cosignature = hex"c0";
            return;
        }
        statement.cosignature = fault == Fault.Cosignature
            ? _wrong(statement, id, statement.key.cosigner, statement.key.signer)
            : _sign(statement.key.cosigner, digest);
    }

    /// @dev Signs as if the deposit would have spent this much.
    function _signFor(Statement memory statement, bytes32 id, uint256 spent) private view {
        bytes32 digest = _digestOf(statement, id, spent);
        statement.signature = _sign(statement.key.signer, digest);
        statement.cosignature = _sign(statement.key.cosigner, digest);
    }

    /// @dev I7: something that is not the signer's signature of this statement, in this contract, on
    /// this chain.
    function _wrong(Statement memory statement, bytes32 id, address signer, address other)
        private
        returns (bytes memory signature)
    {
        uint256 spent = spentOf[id] + _total(statement.rows);
        bytes32 digest = _digestOf(statement, id, spent);
        uint256 choice = _choose(12);
        if (choice == 0) return "";
        if (choice == 1) {
            // I2: neither a stranger nor the requestor, unless the key names it.
            address outsider = _choose(2) == 0 ? strangers[0] : statement.key.requestor;
            if (secretOf[outsider] != secretOf[signer]) return _sign(outsider, digest);
        }
        // The other key that the deposit names.
        if (choice == 2 && secretOf[other] != secretOf[signer]) return _sign(other, digest);
        if (choice == 3) return _sign(signer, _digestOf(statement, id, spent + 1));
        if (choice == 4) return _sign(signer, _digestOf(statement, ids[0] ^ bytes32(id), spent));
        if (choice == 5) return _sign(signer, _structHash(statement, id, spent));
        if (choice == 6) {
            return _sign(
                signer,
                _digestIn(block.chainid + 1, address(settlement), _structHash(statement, id, spent))
            );
        }
        if (choice == 7) {
            return _sign(
                signer, _digestIn(block.chainid, address(this), _structHash(statement, id, spent))
            );
        }
        if (choice == 8) {
            statement.epoch += 1;
            signature = _sign(signer, _digestOf(statement, id, spent));
            statement.epoch -= 1;
            return signature;
        }
        signature = _sign(signer, digest);
        if (signature.length == 0) return "";
        if (choice == 9) {
            signature[_choose(64)] ^= bytes1(uint8(1 << _choose(8)));
        } else if (choice == 10) {
            return _cut(signature, 64);
        } else {
            // The same point with the higher s.
            uint256 s;
            assembly ("memory-safe") {
                s := mload(add(signature, 0x40))
            }
            s = SECP256K1_ORDER - s;
            uint8 v = signature[64] == bytes1(uint8(27)) ? 28 : 27;
            bytes32 r;
            assembly ("memory-safe") {
                r := mload(add(signature, 0x20))
            }
            return abi.encodePacked(r, s, v);
        }
    }

    // What a statement ought to do.

    /// @dev What settling the statement ought to come to, after those announced before. Does it to
    /// the books and announces its event.
    function _expect(Statement memory statement, Fault fault) internal returns (Outcome outcome) {
        bytes32 id = _idOf(statement.key);
        uint256[] memory providers;
        uint256[] memory units;
        bytes32 digest;
        {
            bool whole;
            uint256 total;
            (whole, providers, units, total) = _unpack(statement.rows);
            Verdict verdict = _verdict(id, statement.epoch, providers, units);
            if (!whole && verdict != Verdict.WrongEpoch) verdict = Verdict.MalformedRows;
            outcome = Outcome(uint8(verdict));
            bool priced = outcome == Outcome.Settled || outcome == Outcome.InsufficientBalance;
            digest = _digestOf(statement, id, priced ? spentOf[id] + total : 0);
        }
        if (outcome == Outcome.Settled) outcome = _judge(statement.key, fault);
        ++outcomes[outcome];
        if (outcome != Outcome.Settled) {
            _announce(ISettlement.Skipped.selector, id, abi.encode(digest, outcome));
            return outcome;
        }
        _settle(id, statement.epoch, providers, units);
        _countSettled(id);
        ++version[uint256(statement.key.salt)];
        _announceSettled(statement, id);
    }

    /// @dev What the signatures come to.
    function _judge(DepositKey memory key, Fault fault) private view returns (Outcome) {
        bool signed = fault == Fault.None || fault == Fault.Cosignature || agrees[key.signer];
        if (!signed || refuses[key.signer]) return Outcome.BadSignature;
        if (key.cosigner == address(0)) return Outcome.Settled;
        bool cosigned = fault == Fault.None || fault == Fault.Signature || agrees[key.cosigner];
        if (!cosigned || refuses[key.cosigner]) return Outcome.BadCosignature;
        return Outcome.Settled;
    }

    function _announceSettled(Statement memory statement, bytes32 id) private {
        bytes memory data =
            abi.encode(statement.epoch, spentOf[id], statement.manifest, statement.rows);
        _announce(ISettlement.Settled.selector, id, data);
    }

    function _settleOne(Statement memory statement, Fault fault) internal returns (Outcome) {
        Statement[] memory statements = new Statement[](1);
        Outcome[] memory expected = new Outcome[](1);
        statements[0] = statement;
        expected[0] = _expect(statement, fault);
        _settleAll(statements, expected);
        return expected[0];
    }

    /// @dev Settles statements that ought to have these outcomes, and checks what they touch.
    function _settleAll(Statement[] memory statements, Outcome[] memory expected) internal {
        _beforeCallBy(_anybody());
        Outcome[] memory actual = settlement.settle(statements);
        _same(actual.length, expected.length, "outcomes");
        for (uint256 i; i < expected.length; ++i) {
            _same(uint256(actual[i]), uint256(expected[i]), "outcome");
        }
        bytes32[] memory writes = _after();
        for (uint256 i; i < expected.length; ++i) {
            if (expected[i] == Outcome.Settled) _checkStatement(statements[i]);
        }
        _finish(writes);
    }

    function _checkStatement(Statement memory statement) private {
        _checkDeposit(_idOf(statement.key), Cause.SignedStatement);
        bytes memory rows = statement.rows;
        for (uint256 i; i < rows.length; i += 10) {
            _checkCredit(statement.key.token, _rowAt(rows, i) >> 48);
        }
    }

    function _remember(Statement memory statement) private {
        settledStatements[settledCount % REMEMBERED] = abi.encode(statement);
        ++settledCount;
    }

    // Encodings, written apart from the contract's.

    function _unpack(bytes memory rows)
        private
        pure
        returns (bool whole, uint256[] memory providers, uint256[] memory units, uint256 total)
    {
        uint256 count = rows.length / 10;
        whole = rows.length == count * 10;
        providers = new uint256[](count);
        units = new uint256[](count);
        for (uint256 i; i < count; ++i) {
            uint256 row = _rowAt(rows, i * 10);
            providers[i] = row >> 48;
            units[i] = row & MAX_ROW;
            total += units[i];
        }
    }

    function _total(bytes memory rows) private pure returns (uint256 total) {
        for (uint256 i; i + 10 <= rows.length; i += 10) {
            total += _rowAt(rows, i) & MAX_ROW;
        }
    }

    function _rowAt(bytes memory rows, uint256 place) private pure returns (uint256 row) {
        assembly ("memory-safe") {
            row := shr(176, mload(add(add(rows, 0x20), place)))
        }
    }

    function _cut(bytes memory data, uint256 length) private pure returns (bytes memory) {
        assembly ("memory-safe") {
            mstore(data, length)
        }
        return data;
    }

    function _flip(address account, uint256 bit) private pure returns (address) {
        return address(uint160(account) ^ uint160(1 << (bit % 160)));
    }

    function _structHash(Statement memory statement, bytes32 id, uint256 spent)
        private
        pure
        returns (bytes32)
    {
        return keccak256(
            abi.encode(
                STATEMENT_TYPEHASH,
                id,
                statement.epoch,
                spent,
                statement.manifest,
                keccak256(statement.rows)
            )
        );
    }

    function _digestOf(Statement memory statement, bytes32 id, uint256 spent)
        private
        view
        returns (bytes32)
    {
        return _digest(_structHash(statement, id, spent));
    }

    function _sumOfCredits(Statement memory statement) private view returns (uint256 units) {
        bytes memory rows = statement.rows;
        for (uint256 i; i < rows.length; i += 10) {
            units += settlement.creditOf(statement.key.token, uint32(_rowAt(rows, i) >> 48));
        }
    }

    /// @dev Over the deposits and credits that the statements name.
    function _hashOfStates(Statement[] memory statements) private view returns (uint256 hash) {
        for (uint256 i; i < statements.length; ++i) {
            Deposit memory state = settlement.depositOf(_idOf(statements[i].key));
            hash = uint256(keccak256(abi.encode(hash, state)));
            bytes memory rows = statements[i].rows;
            for (uint256 j; j < rows.length; j += 10) {
                uint32 provider = uint32(_rowAt(rows, j) >> 48);
                uint64 units = settlement.creditOf(statements[i].key.token, provider);
                hash = uint256(keccak256(abi.encode(hash, provider, units)));
            }
        }
    }

    function _resultOf(bytes memory answer) private pure returns (uint256 result) {
        if (bytes4(answer) != Simulated.selector) {
            assembly ("memory-safe") {
                revert(add(answer, 0x20), mload(answer))
            }
        }
        assembly ("memory-safe") {
            result := mload(add(answer, 0x24))
        }
    }

    function _statementIn(bytes memory call_) private view returns (Statement memory) {
        return this.firstOf(call_);
    }

    /// @notice The first statement of a call of `settle`.
    function firstOf(bytes calldata call_) external pure returns (Statement memory) {
        return abi.decode(call_[4:], (Statement[]))[0];
    }
}
