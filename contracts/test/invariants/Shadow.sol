// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {CommonBase} from "forge-std/Base.sol";
import {Vm} from "forge-std/Vm.sol";

import {Settlement} from "../../src/Settlement.sol";
import {Deposit, DepositKey, IEscrow} from "../../src/interfaces/IEscrow.sol";
import {IRewards} from "../../src/interfaces/IRewards.sol";
import {ISettlement, Outcome} from "../../src/interfaces/ISettlement.sol";
import {ITokens} from "../../src/interfaces/ITokens.sol";
import {BooksOfStatements} from "../model/Books.sol";

/// @title Shadow
/// @notice Watches the contract from three sides and insists that they agree after every call: the
/// shadow ledger, driven by what a call ought to do; a replay, driven by the logs alone; and the
/// contract's storage.
/// @dev A call is watched as follows. `_before` starts recording. The handler makes the call, tells
/// the books what it ought to have done, and announces each event and each transfer. `_after` reads
/// the logs, and compares them with the announced ones and with the journal. Then the handler checks
/// whatever the call may touch by `_check…`, and `_finish` insists that no other slot of the contract
/// was written. Whatever was not touched therefore still is what an earlier call found.
abstract contract Shadow is BooksOfStatements, CommonBase {
    /// @notice Something differs from what it should be.
    error Differs(string what, uint256 actual, uint256 expected);
    /// @notice Something that must hold does not.
    error Broken(string what);

    /// @dev What may lower a deposit's balance, and what may not.
    enum Cause {
        Other,
        Withdrawal,
        SignedStatement
    }

    uint256 private constant LANE_MASK = (1 << 63) - 1;
    uint256 private constant MARKS =
        0x8000000000000000800000000000000080000000000000008000000000000000;
    bytes32 private constant TRANSFER = keccak256("Transfer(address,address,uint256)");

    Settlement public immutable settlement;

    // What the books leave out.
    mapping(uint256 provider => address) internal payoutOf;
    mapping(uint256 provider => uint256) internal claimNonceOf;
    /// @dev Base units that the contract ought to hold, donations included.
    mapping(address token => uint256) internal held;
    /// @dev Base units that somebody gave to the contract.
    mapping(address token => uint256) internal donated;
    /// @dev Tokens that do not log their transfers.
    mapping(address token => bool) internal silent;
    /// @dev Tokens that took from the contract what was not theirs. I1 holds for all others.
    mapping(address token => bool) internal lied;

    // What the logs alone tell.
    mapping(bytes32 id => Deposit) private replayedDeposit;
    mapping(bytes32 id => address) private replayedToken;
    mapping(address token => mapping(uint256 provider => uint256)) private replayedCredit;
    mapping(uint256 provider => address) private replayedPayout;
    mapping(uint256 provider => uint256) private replayedNonce;
    mapping(address token => uint256) private replayedUnit;
    uint256 private replayedCount;
    /// @dev The fold over the logs.
    bytes32 private folded;

    /// @dev The fold over the announced events.
    bytes32 private announced;
    /// @dev Hashes over the transfers from and to the contract, announced and logged.
    bytes32 private announcedTransfers;
    bytes32 private loggedTransfers;

    /// @dev Deposits as the last check found them, and the statements settled since.
    mapping(bytes32 id => Deposit) private seen;
    mapping(bytes32 id => uint256) private settledSince;
    /// @dev Words of credits that have been in use.
    mapping(bytes32 slot => bool) private marked;

    mapping(bytes32 id => bytes32) private depositSlot;
    mapping(address token => uint256) private creditSlot;
    mapping(uint256 provider => bytes32) private providerSlot;
    mapping(bytes32 slot => uint256) private touched;
    uint256 private stamp;

    constructor(Settlement settlement_) {
        settlement = settlement_;
    }

    /// @dev Starts watching a call.
    function _before() internal {
        ++stamp;
        announcedTransfers = 0;
        vm.recordLogs();
        vm.record();
    }

    /// @dev Starts watching a call that `from` makes next.
    function _beforeCallBy(address from) internal {
        _before();
        vm.prank(from);
    }

    /// @dev Announces an event of the contract.
    function _announce(bytes32 topic0, bytes32 topic1, bytes memory data) internal {
        announced = _fold(announced, topic0, topic1, data);
    }

    /// @dev Announces a transfer from or to the contract, and books it.
    function _announceTransfer(address token, address from, address to, uint256 amount) internal {
        if (from == address(settlement)) held[token] -= amount;
        else held[token] += amount;
        if (!silent[token]) {
            announcedTransfers = _chain(announcedTransfers, token, from, to, amount);
        }
    }

    /// @dev Reads what was logged. Returns the slots of the contract that the call wrote.
    function _after() internal returns (bytes32[] memory writes) {
        (, writes) = vm.accesses(address(settlement));
        vm.stopRecord();
        _replay(vm.getRecordedLogs());
        _I11_journalIsTheFoldOverAllEvents();
        _I5_tokensMoveOnlyAsTheyShould();
    }

    /// @dev I11, and with it content and order of every event that the call ought to emit.
    function _I11_journalIsTheFoldOverAllEvents() private view {
        _hold(folded == announced, "I11: events");
        _hold(vm.load(address(settlement), 0) == folded, "I11: journal and fold");
    }

    /// @dev I5 and I2: tokens leave to the announced recipients only, in the announced amounts.
    function _I5_tokensMoveOnlyAsTheyShould() private view {
        _hold(loggedTransfers == announcedTransfers, "I5: tokens moved otherwise");
    }

    /// @dev I1, as an equality, since every donation is known.
    function _checkHeld(address token) internal view {
        uint256 actual = IERC20(token).balanceOf(address(settlement));
        _same(actual, held[token], "I1: balance of the contract");
        if (!lied[token]) {
            uint256 owed = unitOf[token] * (balances[token] + credits[token]);
            _same(actual, owed + donated[token], "I1: solvency");
        }
    }

    /// @dev The deposit is what the books and the logs say, and became so in a way that I2 and I3
    /// allow.
    function _checkDeposit(bytes32 id, Cause cause) internal {
        Deposit memory state = settlement.depositOf(id);
        _same(state.balance, balanceOf[id], "balance");
        _same(state.thawing, thawingOf[id], "thawing");
        _same(state.spent, spentOf[id], "spent");
        _same(state.epoch, epochOf[id], "epoch");
        _same(state.thawEnds, thawEndsOf[id], "thawEnds");
        _I11_logsAloneRebuild(id, state);
        _I2_balanceFellOnlyBy(id, state, cause);
        _I3_spentGrewWithTheEpochOnly(id, state);
        seen[id] = state;

        if (depositSlot[id] == 0) {
            depositSlot[id] = _slotRead(abi.encodeCall(settlement.depositOf, (id)));
        }
        touched[depositSlot[id]] = stamp;
    }

    function _I11_logsAloneRebuild(bytes32 id, Deposit memory state) private view {
        Deposit memory replayed = replayedDeposit[id];
        _same(replayed.balance, state.balance, "I11: replayed balance");
        _same(replayed.thawing, state.thawing, "I11: replayed thawing");
        _same(replayed.spent, state.spent, "I11: replayed spent");
        _same(replayed.epoch, state.epoch, "I11: replayed epoch");
        _same(replayed.thawEnds, state.thawEnds, "I11: replayed thawEnds");
    }

    function _I2_balanceFellOnlyBy(bytes32 id, Deposit memory state, Cause cause) private view {
        if (state.balance >= seen[id].balance) return;
        _hold(cause != Cause.Other, "I2: a balance fell");
        if (cause == Cause.SignedStatement) {
            _hold(settledSince[id] != 0, "I2: fell without a statement");
        } else {
            _hold(
                block.timestamp >= seen[id].thawEnds && seen[id].thawing != 0,
                "I2: fell before its thaw ended"
            );
        }
    }

    function _I3_spentGrewWithTheEpochOnly(bytes32 id, Deposit memory state) private {
        uint256 grown = state.epoch - seen[id].epoch;
        _same(grown, settledSince[id], "I3: statements settled");
        _hold(state.spent >= seen[id].spent, "I3: spent fell");
        _hold(grown != 0 || state.spent == seen[id].spent, "I3: spent without statement");
        _hold(state.thawing <= state.balance, "more is thawing than there is");
        if (grown != 0) delete settledSince[id];
    }

    /// @dev Counts a statement that ought to have settled.
    function _countSettled(bytes32 id) internal {
        ++settledSince[id];
    }

    /// @dev The word in which the provider's credit lies, all four lanes, is what the books and the
    /// logs say, and once used never becomes zero again.
    function _checkCredit(address token, uint256 provider) internal {
        bytes32 slot = bytes32(creditSlot[token] + (provider >> 2));
        if (touched[slot] == stamp) return;
        touched[slot] = stamp;
        uint256 word = uint256(vm.load(address(settlement), slot));
        uint256 first = provider & ~uint256(3);
        for (uint256 lane; lane < 4; ++lane) {
            uint256 units = (word >> (lane << 6)) & LANE_MASK;
            _same(units, creditOf[token][first + lane], "credit");
            _same(replayedCredit[token][first + lane], units, "I11: replayed credit");
        }
        if (word != 0) marked[slot] = true;
        if (marked[slot]) _hold(word & MARKS == MARKS, "I6: a mark was cleared");
        _same(settlement.creditOf(token, uint32(provider)), creditOf[token][provider], "creditOf");
    }

    function _checkProvider(uint256 provider) internal {
        (address payout, uint64 claimNonce) = settlement.payoutOf(uint32(provider));
        _hold(payout == payoutOf[provider], "payout address");
        _hold(replayedPayout[provider] == payout, "I11: replayed payout address");
        _same(claimNonce, claimNonceOf[provider], "claim nonce");
        _same(replayedNonce[provider], claimNonce, "I11: replayed claim nonce");
        if (providerSlot[provider] == 0) {
            providerSlot[provider] =
                _slotRead(abi.encodeCall(settlement.payoutOf, (uint32(provider))));
        }
        touched[providerSlot[provider]] = stamp;
    }

    function _checkProviderCount() internal {
        _same(settlement.providerCount(), providerCount, "providerCount");
        _same(replayedCount, providerCount, "I11: replayed providerCount");
        touched[_slotRead(abi.encodeCall(settlement.providerCount, ()))] = stamp;
    }

    /// @dev For a token that was registered just now.
    function _checkRegistration(address token) internal {
        creditSlot[token] =
            uint256(_slotRead(abi.encodeCall(settlement.creditOf, (token, uint32(0)))));
        touched[_slotRead(abi.encodeCall(settlement.unitOf, (token)))] = stamp;
        _checkUnit(token);
    }

    function _checkUnit(address token) internal view {
        _same(settlement.unitOf(token), unitOf[token], "unit");
        _same(replayedUnit[token], unitOf[token], "I11: replayed unit");
    }

    /// @dev C12, I6: of the contract's storage the call wrote the journal, and what was checked.
    function _finish(bytes32[] memory writes) internal view {
        for (uint256 i; i < writes.length; ++i) {
            _hold(writes[i] == 0 || touched[writes[i]] == stamp, "I6: wrote what it may not touch");
        }
    }

    /// @dev Makes a call that has to fail with exactly this error, and to change nothing.
    function _refused(address from, bytes memory data, bytes memory expected) internal {
        vm.prank(from);
        (bool success, bytes memory answer) = address(settlement).call(data);
        _hold(!success, "a call succeeded, has to fail");
        if (keccak256(answer) != keccak256(expected)) {
            // The error that came says more than that it is another one.
            assembly ("memory-safe") {
                revert(add(answer, 0x20), mload(answer))
            }
        }
        _hold(vm.load(address(settlement), 0) == folded, "a failing call left a trace");
    }

    function _same(uint256 actual, uint256 expected, bytes32 what) internal pure {
        if (actual != expected) revert Differs(_text(what), actual, expected);
    }

    function _hold(bool holds, bytes32 what) internal pure {
        if (!holds) revert Broken(_text(what));
    }

    /// @dev What is wrong is passed as a word, which costs nothing while nothing is.
    function _text(bytes32 what) private pure returns (string memory) {
        uint256 length;
        while (length < 32 && what[length] != 0) ++length;
        return string(_start(abi.encodePacked(what), length));
    }

    function _start(bytes memory data, uint256 length) private pure returns (bytes memory) {
        assembly ("memory-safe") {
            mstore(data, length)
        }
        return data;
    }

    /// @dev The only slot that a view function reads.
    function _slotRead(bytes memory view_) private returns (bytes32) {
        vm.record();
        (bool success,) = address(settlement).staticcall(view_);
        (bytes32[] memory reads,) = vm.accesses(address(settlement));
        _hold(success && reads.length != 0, "a view failed");
        for (uint256 i = 1; i < reads.length; ++i) {
            _hold(reads[i] == reads[0], "a view reads more than one slot");
        }
        return reads[0];
    }

    function _replay(Vm.Log[] memory logs) private {
        bytes32 word = folded;
        bytes32 moved;
        for (uint256 i; i < logs.length; ++i) {
            Vm.Log memory log = logs[i];
            if (log.emitter == address(settlement)) {
                _hold(log.topics.length == 2, "an event without its two topics");
                word = _fold(word, log.topics[0], log.topics[1], log.data);
                _apply(log.topics[0], log.topics[1], log.data);
            } else if (log.topics[0] == TRANSFER) {
                address from = address(uint160(uint256(log.topics[1])));
                address to = address(uint160(uint256(log.topics[2])));
                if (from == address(settlement) || to == address(settlement)) {
                    moved = _chain(moved, log.emitter, from, to, uint256(bytes32(log.data)));
                }
            }
        }
        folded = word;
        loggedTransfers = moved;
    }

    /// @dev Does to the replay what an event tells.
    function _apply(bytes32 topic0, bytes32 topic1, bytes memory data) private {
        if (topic0 == ISettlement.Settled.selector) {
            _applySettled(topic1, data);
        } else if (topic0 == IEscrow.Deposited.selector) {
            (DepositKey memory key,, uint64 units) = abi.decode(data, (DepositKey, address, uint64));
            replayedDeposit[topic1].balance += units;
            replayedToken[topic1] = key.token;
        } else if (topic0 == IEscrow.Thawed.selector) {
            (replayedDeposit[topic1].thawing, replayedDeposit[topic1].thawEnds) =
                abi.decode(data, (uint64, uint32));
        } else if (topic0 == IEscrow.Withdrawn.selector) {
            (, uint64 units) = abi.decode(data, (address, uint64));
            Deposit storage state = replayedDeposit[topic1];
            state.balance -= units;
            state.thawing = 0;
            state.thawEnds = 0;
        } else if (topic0 == IRewards.Claimed.selector) {
            (address token,, uint64 units, uint64 claimNonce) =
                abi.decode(data, (address, address, uint64, uint64));
            replayedCredit[token][uint256(topic1)] -= units;
            replayedNonce[uint256(topic1)] = claimNonce;
        } else if (topic0 == IRewards.PayoutSet.selector) {
            (replayedPayout[uint256(topic1)], replayedNonce[uint256(topic1)]) =
                abi.decode(data, (address, uint64));
        } else if (topic0 == IRewards.Registered.selector) {
            replayedPayout[uint256(topic1)] = abi.decode(data, (address));
            _same(uint256(topic1), ++replayedCount, "I11: number of the next provider");
        } else if (topic0 == ITokens.TokenRegistered.selector) {
            (, replayedUnit[address(uint160(uint256(topic1)))]) = abi.decode(data, (uint8, uint64));
        } else {
            _hold(
                topic0 == ISettlement.Skipped.selector || topic0 == IRewards.ClaimFailed.selector,
                "an unknown event"
            );
        }
    }

    function _applySettled(bytes32 id, bytes memory data) private {
        (uint32 epoch, uint64 spent,, bytes memory rows) =
            abi.decode(data, (uint32, uint64, bytes32, bytes));
        Deposit storage state = replayedDeposit[id];
        uint256 sum;
        address token = replayedToken[id];
        for (uint256 i; i < rows.length; i += 10) {
            uint256 row;
            assembly ("memory-safe") {
                row := shr(176, mload(add(add(rows, 0x20), i)))
            }
            replayedCredit[token][row >> 48] += row & MAX_ROW;
            sum += row & MAX_ROW;
        }
        _same(spent - state.spent, sum, "I4: rows and what they spent");
        _same(epoch, state.epoch + 1, "I3: epoch");
        state.balance -= uint64(sum);
        state.spent = spent;
        state.epoch = epoch;
        if (state.thawing > state.balance) state.thawing = state.balance;
    }

    function _fold(bytes32 word, bytes32 topic0, bytes32 topic1, bytes memory data)
        private
        pure
        returns (bytes32)
    {
        bytes32 entry = keccak256(bytes.concat(topic0, topic1, data));
        uint256 hash = uint256(keccak256(bytes.concat(word, entry)));
        return bytes32((hash >> 64 << 64) | (uint64(uint256(word)) + 1));
    }

    function _chain(bytes32 chain, address token, address from, address to, uint256 amount)
        private
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(chain, token, from, to, amount));
    }
}
