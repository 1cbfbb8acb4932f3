// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {
    Base,
    Deposit,
    DepositKey,
    IEscrow,
    IRewards,
    Outcome,
    Settlement,
    Statement,
    Vm
} from "./Base.t.sol";
import {Books, BooksOfStatements} from "./model/Books.sol";
import {FalseToken, SilentToken} from "./tokens/HostileTokens.sol";
import {BlocklistToken, FeeToken, ReentrantToken, TestToken} from "./tokens/TestTokens.sol";
import {
    CountingWallet,
    DemandingWallet,
    OwnedWallet,
    ScriptedWallet,
    SlowWallet,
    VerboseWallet
} from "./wallets/Wallets.sol";

/// @notice *Stranger non-interference*: after a valid statement is signed, whatever strangers do, it
/// settles, with the same effect, and for no more gas than when it was first simulated.
/// forge-config: default.isolate = true
contract StrangerNonInterferenceTest is Base {
    uint32 private constant PROVIDERS = 12;

    function setUp() public override {
        super.setUp();
        registerProviders(PROVIDERS);
    }

    /// @dev Something that a stranger can do.
    function interfere(DepositKey memory key, Statement memory statement, uint256 seed) private {
        uint256 choice = seed % 9;
        seed >>= 8;
        vm.startPrank(stranger);
        if (choice == 0) {
            // All that there is to claim, so that no lane of any word keeps anything.
            uint32[] memory numbers = new uint32[](PROVIDERS);
            for (uint32 i; i < PROVIDERS; ++i) {
                numbers[i] = i + 1;
            }
            settlement.claim(key.token, numbers);
        } else if (choice == 1) {
            settlement.register(one(stranger));
        } else if (choice == 2) {
            uint64 units = uint64(1 + seed % 1e6);
            uint256 amount = units * settlement.unitOf(key.token);
            TestToken(key.token).mint(stranger, amount);
            IERC20(key.token).approve(address(settlement), amount);
            settlement.deposit(key, units);
        } else if (choice == 3) {
            TestToken(key.token).mint(address(settlement), seed % 1e18);
        } else if (choice == 4) {
            // The statement itself with something else in it.
            statement.rows = row(uint32(1 + seed % PROVIDERS), 1);
            settlement.settle(batch(statement));
        } else if (choice == 5) {
            statement.signature = "";
            settlement.settle(batch(statement));
        } else if (choice == 6) {
            vm.expectRevert();
            settlement.thaw(key, 0);
        } else if (choice == 7) {
            // Its own deposit in the same token pays the same providers.
            (key.requestor, key.signer, key.cosigner) = (stranger, attester.addr, address(0));
            TestToken(key.token).mint(stranger, 1e24);
            IERC20(key.token).approve(address(settlement), 1e24);
            settlement.deposit(key, 100);
            vm.stopPrank();
            settleOne(statementFor(key, row(uint32(1 + seed % PROVIDERS), 7)));
            return;
        } else {
            vm.expectRevert();
            settlement.setPayout(uint32(1 + seed % PROVIDERS), stranger, type(uint64).max, "");
        }
        vm.stopPrank();
    }

    function testFuzz_StrangerNonInterference_ASignedStatementSettlesAsSimulated(
        uint256 seed,
        bool plain,
        uint8 acts
    ) public {
        DepositKey memory key = plain ? hosted(address(usd)) : bound(address(glm));
        bytes32 id = fund(key, DEPOSITED);
        uint256 first = 1 + seed % 6;
        // Most times all providers have been paid, and one has claimed it.
        if (seed % 4 != 0) pay(key, rowsOf(1, PROVIDERS, 1, 100));
        if (seed & 2048 != 0) settlement.claim(key.token, one(uint32(1)));
        bytes memory rows = rowsOf(uint32(first), 4, 2, uint48(1 + (seed >> 16) % 1e6));
        Statement memory statement = statementFor(key, rows);

        uint256 start = vm.snapshotState();
        assertOutcome(settleOne(statement), Outcome.Settled);
        uint256 simulated = vm.lastCallGas().gasTotalUsed;
        uint64 spent = settlement.depositOf(id).spent;
        vm.revertToState(start);

        uint64[] memory before = new uint64[](4);
        for (uint256 i; i < 1 + acts % 6; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            interfere(copyOf(key), copyOf(statement), seed);
        }
        for (uint32 i; i < 4; ++i) {
            before[i] = settlement.creditOf(key.token, uint32(first) + 2 * i);
        }
        assertOutcome(settleOne(statement), Outcome.Settled); // I6
        assertLe(vm.lastCallGas().gasTotalUsed, simulated, "gas"); // I6
        assertEq(settlement.depositOf(id).spent, spent);
        for (uint32 i; i < 4; ++i) {
            assertCredit(key.token, uint32(first) + 2 * i, before[i] + sum(rows) / 4);
        }
    }

    function copyOf(DepositKey memory key) private pure returns (DepositKey memory) {
        return abi.decode(abi.encode(key), (DepositKey));
    }

    function copyOf(Statement memory statement) private pure returns (Statement memory) {
        return abi.decode(abi.encode(statement), (Statement));
    }
}

/// @notice *No outrunning*: without the named keys, money leaves a deposit only after thawing unbroken
/// for the whole period, and each named key alone moves nothing.
contract NoOutrunningTest is Base {
    DepositKey private key;
    bytes32 private id;

    function setUp() public override {
        super.setUp();
        registerProviders(4);
        key = bound(address(usd));
        id = fund(key, DEPOSITED);
    }

    function testFuzz_NoOutrunning_EachKeyAloneMovesNothing(uint256 seed, uint48 units) public {
        units = uint48(bound(units, 1, DEPOSITED));
        Statement memory statement = statementFor(key, row(uint32(1 + seed % 4), units));
        Vm.Wallet[4] memory wallets = [requestor, agent, attester, provider];
        bytes32 digest = digestOf(statement, units);
        for (uint256 i; i < 4; ++i) {
            for (uint256 j; j < 4; ++j) {
                // Agent and attester, in this order, are the only pair that counts.
                if (i == 1 && j == 2) continue;
                statement.signature = sign(wallets[i], digest);
                statement.cosignature = sign(wallets[j], digest);
                Outcome expected = i == 1 ? Outcome.BadCosignature : Outcome.BadSignature;
                assertOutcome(settleOne(statement), expected); // I2
            }
        }
        address[3] memory others = [agent.addr, attester.addr, provider.addr];
        for (uint256 i; i < 3; ++i) {
            vm.startPrank(others[i]);
            bytes memory refusal =
                abi.encodeWithSelector(IEscrow.NotRequestor.selector, others[i], requestor.addr);
            vm.expectRevert(refusal);
            settlement.thaw(key, 1);
            vm.expectRevert(refusal);
            settlement.withdraw(key, others[i]);
            vm.stopPrank();
        }
        assertState(id, Deposit(DEPOSITED, 0, 0, 0, 0)); // I2
    }

    /// @dev Thaws and waits at will: what a withdrawal pays has thawed since the last thaw was set,
    /// and that was a whole period ago.
    function testFuzz_NoOutrunning_MoneyThawsUnbrokenForTheWholePeriod(
        uint64[5] memory amounts,
        uint32[5] memory waits
    ) public {
        uint256 set;
        uint256 time = vm.getBlockTimestamp();
        uint64 balance = DEPOSITED;
        for (uint256 i; i < 5; ++i) {
            amounts[i] = uint64(bound(amounts[i], 0, balance));
            thaw(key, amounts[i]);
            set = time;
            // Around the end of the period as often as anywhere else.
            time += waits[i] % 2 == 0
                ? THAW_PERIOD - 1 + (waits[i] >> 1) % 3
                : (waits[i] >> 1) % (2 * THAW_PERIOD);
            vm.warp(time);
            vm.prank(requestor.addr);
            if (amounts[i] == 0) {
                vm.expectRevert(IEscrow.NothingThawing.selector);
            } else if (time < set + THAW_PERIOD) {
                vm.expectRevert(
                    abi.encodeWithSelector(IEscrow.StillThawing.selector, set + THAW_PERIOD)
                );
            } else {
                balance -= amounts[i];
            }
            settlement.withdraw(key, stranger);
            assertEq(usd.balanceOf(stranger), DEPOSITED - balance); // I2
        }
    }

    /// @dev A statement that was signed before a thaw still settles until the last second.
    function testFuzz_NoOutrunning_WhatWasSignedIsPaidBeforeTheThawEnds(uint48 units, uint32 wait)
        public
    {
        units = uint48(bound(units, 1, DEPOSITED));
        Statement memory statement = statementFor(key, row(1, units));
        thaw(key, DEPOSITED);
        uint256 end = vm.getBlockTimestamp() + THAW_PERIOD;
        vm.warp(end - 1 - wait % THAW_PERIOD);
        vm.prank(requestor.addr);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.StillThawing.selector, end));
        settlement.withdraw(key, stranger);
        assertOutcome(settleOne(statement), Outcome.Settled);

        uint64 left = DEPOSITED - units;
        assertState(id, Deposit(left, left, units, 1, uint32(left == DEPOSITED ? 0 : end)));
    }
}

/// @notice {Books} with its transitions in the open.
contract OpenBooks is BooksOfStatements {
    constructor(uint256 period) Books(period) {}

    function registerToken(address token, uint256 unit) external {
        _registerToken(token, unit);
    }

    function register(uint256 count) external {
        _register(count);
    }

    function deposit(bytes32 id, address token, uint256 units) external {
        _deposit(id, token, units);
    }

    function thaw(bytes32 id, uint256 units) external {
        _thaw(id, units);
    }

    function withdraw(bytes32 id) external {
        _withdraw(id);
    }

    function settle(bytes32 id, uint256 epoch, uint256 provider, uint256 units)
        external
        returns (uint8 verdict)
    {
        uint256[] memory providers = new uint256[](1);
        uint256[] memory amounts = new uint256[](1);
        (providers[0], amounts[0]) = (provider, units);
        verdict = uint8(_verdict(id, epoch, providers, amounts));
        if (verdict == 0) _settle(id, epoch, providers, amounts);
    }

    function claim(address token, uint256 provider) external {
        _claim(token, provider);
    }

    function setEpoch(bytes32 id, uint256 epoch) external {
        epochOf[id] = epoch;
    }

    function setProviderCount(uint256 count) external {
        providerCount = count;
    }

    function setCredit(address token, uint256 provider, uint256 units) external {
        creditOf[token][provider] = units;
        credits[token] += units;
    }

    function depositOf(bytes32 id)
        external
        view
        returns (uint256, uint256, uint256, uint256, uint256)
    {
        return (balanceOf[id], thawingOf[id], spentOf[id], epochOf[id], thawEndsOf[id]);
    }

    function creditAt(address token, uint256 provider) external view returns (uint256) {
        return creditOf[token][provider];
    }

    function highest() external view returns (uint256) {
        return providerCount;
    }
}

/// @notice *Model*: at 2^k − 1, 2^k and 2^k + 1 of every width the contract does what the unpacked
/// books do, which have room for everything and say what is too much. (The *log replay* runs after
/// every call of the invariant tests.)
contract ModelTest is Base {
    uint256 private constant MARKS =
        0x8000000000000000800000000000000080000000000000008000000000000000;

    OpenBooks private books;
    DepositKey private key;
    bytes32 private id;

    function setUp() public override {
        super.setUp();
        books = new OpenBooks(THAW_PERIOD);
        books.registerToken(address(usd), 1);
        registerProviders(8);
        books.register(8);
        key = hosted(address(usd));
        id = settlement.depositId(key);
        usd.mint(requestor.addr, type(uint128).max);
        vm.prank(requestor.addr);
        usd.approve(address(settlement), type(uint256).max);
    }

    /// @dev 2^k − 1, 2^k or 2^k + 1.
    function edge(uint256 choice, uint256 width) private pure returns (uint256) {
        uint256 k = choice % (width + 1);
        return (1 << k) - 1 + (choice >> 64) % 3;
    }

    function assertSame() private view {
        (uint256 balance, uint256 thawing, uint256 spent, uint256 epoch, uint256 thawEnds) =
            books.depositOf(id);
        Deposit memory state = settlement.depositOf(id);
        assertEq(state.balance, balance, "balance");
        assertEq(state.thawing, thawing, "thawing");
        assertEq(state.spent, spent, "spent");
        assertEq(state.epoch, epoch, "epoch");
        assertEq(state.thawEnds, thawEnds, "thawEnds");
    }

    /// @dev Both do it, or both refuse. A number that does not fit the contract's type is refused by
    /// the ABI, if the contract is asked by hand.
    function both(address from, bytes memory call_, bytes memory model)
        private
        returns (bool success)
    {
        (success,) = address(books).call(model);
        vm.prank(from);
        (bool done,) = address(settlement).call(call_);
        assertEq(done, success, "the contract and its model disagree");
        assertSame();
    }

    function deposit(uint256 units) private returns (bool) {
        return both(
            requestor.addr,
            abi.encodeWithSelector(settlement.deposit.selector, key, units),
            abi.encodeCall(books.deposit, (id, address(usd), units))
        );
    }

    function settle(uint256 number, uint256 units) private returns (bool) {
        (,, uint256 spent, uint256 epoch,) = books.depositOf(id);
        bytes memory rows = abi.encodePacked(uint32(number), uint48(units));
        if (epoch == type(uint32).max) {
            // What follows it cannot be named.
            assertOutcome(settleOne(statementAt(key, 0, 0, rows)), Outcome.WrongEpoch);
            assertSame();
            return false;
        }
        Statement memory statement =
            statementAt(key, uint32(epoch + 1), uint64(spent + units), rows);
        try books.settle(id, epoch + 1, uint32(number), uint48(units)) returns (uint8 verdict) {
            assertEq(uint8(settleOne(statement)), verdict, "outcome");
            assertSame();
            assertEq(
                settlement.creditOf(address(usd), uint32(number)),
                books.creditAt(address(usd), uint32(number)),
                "credit"
            );
            return verdict == 0;
        } catch {
            // Too large a credit reverts the whole call.
            vm.expectRevert(IRewards.CreditOverflow.selector);
            this.settleExternally(statement);
            return false;
        }
    }

    function settleExternally(Statement memory statement) external {
        settlement.settle(batch(statement));
    }

    function testFuzz_Model_UnitsOfADeposit(uint256[6] memory choices) public {
        for (uint256 i; i < 6; ++i) {
            uint256 units = edge(choices[i], 65);
            if (choices[i] >> 255 == 0) {
                deposit(units);
            } else {
                settle(1 + choices[i] % 8, units & (2 ** 48 - 1));
            }
        }
    }

    function testFuzz_Model_UnitsOfAThaw(uint256[6] memory choices) public {
        deposit(edge(choices[0], 64) & type(uint64).max);
        for (uint256 i = 1; i < 6; ++i) {
            uint256 units = edge(choices[i], 65);
            both(
                requestor.addr,
                abi.encodeWithSelector(settlement.thaw.selector, key, units),
                abi.encodeCall(books.thaw, (id, units))
            );
            vm.warp(vm.getBlockTimestamp() + (choices[i] >> 128) % (2 * THAW_PERIOD));
            both(
                requestor.addr,
                abi.encodeCall(settlement.withdraw, (key, stranger)),
                abi.encodeCall(books.withdraw, (id))
            );
        }
    }

    function testFuzz_Model_UnitsOfARow(uint256 units, uint256 balance) public {
        deposit(1 + edge(balance, 63));
        settle(3, edge(units, 48) & (2 ** 48 - 1));
    }

    function test_Model_TheLargestRowOfAFullDeposit() public {
        assertTrue(deposit(type(uint64).max));
        assertTrue(settle(5, 2 ** 48 - 1));
        assertFalse(deposit(1));
        assertFalse(deposit(2 ** 48 - 1));
    }

    function testFuzz_Model_CreditsNextToEachOther(uint256[4] memory credits, uint256 choice)
        public
    {
        bytes32 slot = bytes32(creditSlot() + 1);
        uint256 word = MARKS;
        for (uint256 lane; lane < 4; ++lane) {
            uint256 units = edge(credits[lane], 63) & (2 ** 63 - 1);
            word |= units << (64 * lane);
            books.setCredit(address(usd), 4 + lane, units);
        }
        vm.store(address(settlement), slot, bytes32(word));
        deposit(type(uint64).max);
        settle(4 + choice % 4, edge(choice >> 8, 48) & (2 ** 48 - 1));
        for (uint32 lane; lane < 4; ++lane) {
            assertCredit(address(usd), 4 + lane, uint64(books.creditAt(address(usd), 4 + lane)));
        }
    }

    function test_Model_TheLargestCredit() public {
        books.setCredit(address(usd), 7, 2 ** 63 - 3);
        vm.store(
            address(settlement),
            bytes32(creditSlot() + 1),
            bytes32(MARKS | uint256(2 ** 63 - 3) << 192)
        );
        deposit(10);
        assertFalse(settle(7, 3));
        assertTrue(settle(7, 2));
        assertCredit(address(usd), 7, 2 ** 63 - 1);
        assertFalse(settle(7, 1));
        assertTrue(settle(6, 1));
        usd.mint(address(settlement), 2 ** 63);
        settlement.claim(address(usd), one(uint32(7)));
        books.claim(address(usd), 7);
        assertEq(usd.balanceOf(payoutAddress(7)), 2 ** 63 - 1);
        assertTrue(settle(7, 1));
    }

    function creditSlot() private returns (uint256) {
        vm.record();
        settlement.creditOf(address(usd), 0);
        (bytes32[] memory reads,) = vm.accesses(address(settlement));
        return uint256(reads[0]);
    }

    function testFuzz_Model_NumbersOfProviders(uint256 count, uint256 number, uint8 more) public {
        count = edge(count, 32);
        if (count > type(uint32).max) count = type(uint32).max;
        number = edge(number, 32) & type(uint32).max;
        setCount(count);
        deposit(100);
        settle(number, 1);
        address[] memory list = new address[](more % 3);
        for (uint256 i; i < list.length; ++i) {
            list[i] = stranger;
        }
        both(
            stranger,
            abi.encodeCall(settlement.register, (list)),
            abi.encodeCall(books.register, (list.length))
        );
        assertEq(settlement.providerCount(), books.highest());
    }

    function test_Model_TheLastNumber() public {
        setCount(type(uint32).max - 1);
        assertEq(settlement.register(one(stranger)), type(uint32).max);
        books.register(1);
        deposit(100);
        assertTrue(settle(type(uint32).max, 100));
        vm.expectRevert(IRewards.TooManyProviders.selector);
        settlement.register(one(stranger));
        settlement.claim(address(usd), one(type(uint32).max));
        assertEq(usd.balanceOf(stranger), 100);
    }

    function setCount(uint256 count) private {
        vm.record();
        settlement.providerCount();
        (bytes32[] memory reads,) = vm.accesses(address(settlement));
        uint256 word = uint256(vm.load(address(settlement), reads[0]));
        word = (word & ~uint256(type(uint32).max)) | count;
        vm.store(address(settlement), reads[0], bytes32(word));
        books.setProviderCount(count);
        assertEq(settlement.providerCount(), count);
    }

    function testFuzz_Model_EpochsOfADeposit(uint256 epoch) public {
        deposit(100);
        setEpoch(edge(epoch, 32) & type(uint32).max);
        settle(1, 10);
        settle(1, 10);
    }

    function test_Model_TheLastEpoch() public {
        deposit(100);
        setEpoch(type(uint32).max - 1);
        assertTrue(settle(1, 10));
        // No statement can name the one after it; the deposit can still be withdrawn.
        assertOutcome(settleOne(statementAt(key, 0, 20, row(1, 10))), Outcome.WrongEpoch);
        assertOutcome(
            settleOne(statementAt(key, type(uint32).max, 20, row(1, 10))), Outcome.WrongEpoch
        );
        thaw(key, 90);
        skip(THAW_PERIOD);
        vm.prank(requestor.addr);
        settlement.withdraw(key, stranger);
        assertEq(usd.balanceOf(stranger), 90); // I10
    }

    function setEpoch(uint256 epoch) private {
        vm.record();
        settlement.depositOf(id);
        (bytes32[] memory reads,) = vm.accesses(address(settlement));
        // `epoch` follows three fields of 64 bits.
        uint256 word = uint256(vm.load(address(settlement), reads[0]));
        word = (word & ~(uint256(type(uint32).max) << 192)) | epoch << 192;
        vm.store(address(settlement), reads[0], bytes32(word));
        books.setEpoch(id, epoch);
        assertSame();
    }

    function testFuzz_Model_EndsOfAThaw(uint256 time, uint256 wait) public {
        deposit(100);
        time = 1 + edge(time, 33);
        // As close to the end of the clock as to its powers of two.
        if (time & 1 == 0 && time > THAW_PERIOD) time -= THAW_PERIOD;
        vm.warp(time);
        both(
            requestor.addr,
            abi.encodeCall(settlement.thaw, (key, 60)),
            abi.encodeCall(books.thaw, (id, 60))
        );
        vm.warp(time + THAW_PERIOD - 1 + wait % 3);
        both(
            requestor.addr,
            abi.encodeCall(settlement.withdraw, (key, stranger)),
            abi.encodeCall(books.withdraw, (id))
        );
    }

    function test_Model_UnitsOfAllDecimals() public {
        for (uint256 decimals; decimals < 256; ++decimals) {
            TestToken token = new TestToken("", "", uint8(decimals));
            (bool success,) =
                address(settlement).call(abi.encodeCall(settlement.registerToken, (address(token))));
            assertEq(success, decimals <= 24);
            if (!success) continue;
            uint256 unit = decimals <= 6 ? 1 : 10 ** (decimals - 6);
            assertEq(settlement.unitOf(address(token)), unit);

            // The largest deposit of each.
            DepositKey memory largest = hosted(address(token));
            fund(largest, type(uint64).max);
            assertEq(token.balanceOf(address(settlement)), uint256(type(uint64).max) * unit); // I1
            pay(largest, row(1, type(uint48).max));
            settlement.claim(address(token), one(uint32(1)));
            assertEq(token.balanceOf(provider.addr), uint256(type(uint48).max) * unit); // I5
        }
    }
}

/// @notice *Digest*: every bit of every field counts, and so do chain, contract and deposit.
contract DigestTest is Base {
    mapping(bytes32 digest => bool) private met;
    uint256 private bits;

    function setUp() public override {
        super.setUp();
        registerProviders(3);
    }

    function meet(Statement memory statement, uint64 spent) private {
        bytes32 digest = digestOf(statement, spent);
        assertFalse(met[digest], "two statements with one digest");
        met[digest] = true;
        ++bits;
    }

    function flip(address account, uint256 bit) private pure returns (address) {
        return address(uint160(account) ^ uint160(1 << bit));
    }

    /// @dev I9: meets the digest of every neighbour of the statement, and settles none.
    function meetNeighbours(Statement memory statement, uint64 spent) private {
        uint256 i;
        bytes32 journalBefore = vm.load(address(settlement), 0);
        bytes32 idBefore = settlement.depositId(statement.key);
        Deposit memory state = settlement.depositOf(idBefore);
        meet(statement, spent);
        for (i = 0; i < 160; ++i) {
            statement.key.requestor = flip(statement.key.requestor, i);
            refuse(statement, spent);
            statement.key.requestor = flip(statement.key.requestor, i);
            statement.key.signer = flip(statement.key.signer, i);
            refuse(statement, spent);
            statement.key.signer = flip(statement.key.signer, i);
            statement.key.cosigner = flip(statement.key.cosigner, i);
            refuse(statement, spent);
            statement.key.cosigner = flip(statement.key.cosigner, i);
            statement.key.token = flip(statement.key.token, i);
            refuse(statement, spent);
            statement.key.token = flip(statement.key.token, i);
        }
        for (i = 0; i < 256; ++i) {
            statement.key.salt ^= bytes32(1 << i);
            refuse(statement, spent);
            statement.key.salt ^= bytes32(1 << i);
            statement.manifest ^= bytes32(1 << i);
            refuse(statement, spent);
            statement.manifest ^= bytes32(1 << i);
        }
        for (i = 0; i < 32; ++i) {
            statement.epoch ^= uint32(1 << i);
            refuse(statement, spent);
            statement.epoch ^= uint32(1 << i);
        }
        for (i = 0; i < 64; ++i) {
            meet(statement, spent ^ uint64(1 << i));
        }
        for (i = 0; i < statement.rows.length * 8; ++i) {
            statement.rows[i / 8] ^= bytes1(uint8(1 << (i % 8)));
            refuse(statement, spent);
            statement.rows[i / 8] ^= bytes1(uint8(1 << (i % 8)));
        }
        assertState(idBefore, state); // I9
        assertNotEq(vm.load(address(settlement), 0), journalBefore);
    }

    function refuse(Statement memory statement, uint64 spent) private {
        meet(statement, spent);
        assertNotEq(uint8(settleOne(statement)), uint8(Outcome.Settled)); // I9
    }

    function test_Digest_EveryBitOfEveryFieldCounts() public {
        DepositKey memory key = bound(address(usd));
        fund(key, DEPOSITED);
        pay(key, row(1, 5));
        bytes memory rows = bytes.concat(row(1, 0x5555), row(3, 0xaaaa));
        Statement memory statement = statementFor(key, rows);
        uint64 spent = 5 + sum(rows);
        meetNeighbours(statement, spent);
        assertEq(bits, 1 + 4 * 160 + 2 * 256 + 32 + 64 + 160);
        assertOutcome(settleOne(statement), Outcome.Settled);
    }

    /// @dev Of signature bytes a change is refused or has the identical effect.
    function test_Digest_EveryBitOfTheSignaturesCounts() public {
        DepositKey memory key = bound(address(usd));
        fund(key, DEPOSITED);
        Statement memory statement = statementFor(key, row(1, 5));
        for (uint256 i; i < 65 * 8; ++i) {
            bytes1 mask = bytes1(uint8(1 << (i % 8)));
            statement.signature[i / 8] ^= mask;
            assertOutcome(settleOne(statement), Outcome.BadSignature); // I9
            statement.signature[i / 8] ^= mask;
            statement.cosignature[i / 8] ^= mask;
            assertOutcome(settleOne(statement), Outcome.BadCosignature); // I9
            statement.cosignature[i / 8] ^= mask;
        }
        assertOutcome(settleOne(statement), Outcome.Settled);
    }

    function testFuzz_Digest_IsThatOfTheSpecification(
        DepositKey memory key,
        uint32 epoch,
        uint64 spent,
        bytes32 manifest,
        bytes memory rows
    ) public view {
        bytes32 keyHash = keccak256(
            abi.encode(
                keccak256(
                    "DepositKey(address requestor,address signer,address cosigner,address token,bytes32 salt)"
                ),
                key.requestor,
                key.signer,
                key.cosigner,
                key.token,
                key.salt
            )
        );
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256(
                    "Statement(DepositKey key,uint32 epoch,uint64 spent,bytes32 manifest,bytes rows)DepositKey(address requestor,address signer,address cosigner,address token,bytes32 salt)"
                ),
                keyHash,
                epoch,
                spent,
                manifest,
                keccak256(rows)
            )
        );
        assertEq(settlement.depositId(key), keyHash);
        assertEq(
            settlement.statementDigest(key, epoch, spent, manifest, rows), typedDigest(structHash)
        );
    }

    function testFuzz_Digest_SwappedSignaturesAreNone(uint48 units) public {
        units = uint48(bound(units, 1, DEPOSITED));
        DepositKey memory key = bound(address(usd));
        fund(key, DEPOSITED);
        Statement memory statement = statementFor(key, row(1, units));
        (statement.signature, statement.cosignature) = (statement.cosignature, statement.signature);
        assertOutcome(settleOne(statement), Outcome.BadSignature); // I7
    }

    function testFuzz_Digest_IsOfOneChainContractAndDeposit(uint64 chainId, uint48 units) public {
        units = uint48(bound(units, 1, DEPOSITED));
        DepositKey memory key = bound(address(usd));
        fund(key, DEPOSITED);
        DepositKey memory other = bound(address(usd));
        other.salt = bytes32(uint256(1));
        fund(other, DEPOSITED);
        Statement memory statement = statementFor(key, row(1, units));

        statement.key = other;
        assertOutcome(settleOne(statement), Outcome.BadSignature); // I7
        statement.key = key;

        uint256 chain = block.chainid;
        chainId = uint64(bound(chainId, 1, type(uint64).max));
        if (chainId == chain) ++chainId;
        vm.chainId(chainId);
        assertOutcome(settleOne(statement), Outcome.BadSignature); // I7
        vm.chainId(chain);

        Settlement first = settlement;
        settlement = deploySettlement(THAW_PERIOD);
        settlement.registerToken(address(usd));
        registerProviders(3);
        fund(key, DEPOSITED);
        assertOutcome(settleOne(statement), Outcome.BadSignature); // I7
        settlement = first;
        assertOutcome(settleOne(statement), Outcome.Settled);
    }
}

/// @notice *Hostile matrix and last man out*: all bad tokens, all bad signers, and gas from too little
/// to all that a transaction may have. Never is an authorisation spent and nobody credited; at the
/// end everybody exits and the books are zero.
contract HostileMatrixTest is Base {
    uint256 private constant MOST_GAS = 16_777_216;
    uint48 private constant UNITS = 1000;
    bytes32 private constant YES = bytes32(IERC1271.isValidSignature.selector);

    struct Signer {
        address account;
        bool willing;
    }

    Signer[] private signers;
    address[] private tokens;
    BlocklistToken private blocklist;
    ReentrantToken private reentrant;
    address private elsewhere = makeAddr("elsewhere");

    function setUp() public override {
        super.setUp();
        registerProviders(4);
        blocklist = new BlocklistToken();
        reentrant = new ReentrantToken();
        tokens = [
            address(usd),
            address(glm),
            address(new SilentToken()),
            address(blocklist),
            address(new FalseToken()),
            address(reentrant)
        ];
        for (uint256 i = 2; i < tokens.length; ++i) {
            settlement.registerToken(tokens[i]);
        }
        address owner = attester.addr;
        signers.push(Signer(owner, true));
        signers.push(Signer(address(new OwnedWallet(owner)), true));
        signers.push(Signer(address(new DemandingWallet(owner, 248_000)), true));
        signers.push(Signer(address(new SlowWallet(owner, 240_000)), true));
        signers.push(Signer(address(new VerboseWallet(YES)), true));
        signers.push(Signer(address(new ScriptedWallet(abi.encode(YES), false)), true));
        signers.push(Signer(address(new ScriptedWallet(abi.encode(YES), true)), false));
        signers.push(Signer(address(new ScriptedWallet("", false)), false));
        signers.push(Signer(address(new VerboseWallet(0)), false));
        signers.push(Signer(address(new SlowWallet(owner, type(uint256).max)), false));
        signers.push(Signer(address(new CountingWallet()), false));
        signers.push(Signer(stranger, false));
    }

    /// @dev The next amount of gas of a sweep: finer where calls start to succeed.
    function more(uint256 gas) private pure returns (uint256) {
        return gas < 600_000 ? gas + 17_000 : gas * 5 / 4;
    }

    /// @dev Settles with every amount of gas, each time from the start.
    function sweepSettle(Statement memory statement, bool willing) private returns (bool ever) {
        bytes memory call_ = abi.encodeCall(settlement.settle, (batch(statement)));
        bytes32 id = settlement.depositId(statement.key);
        for (uint256 gas = 22_000; gas <= MOST_GAS; gas = more(gas)) {
            uint256 start = vm.snapshotState();
            (bool success, bytes memory answer) = address(settlement).call{gas: gas}(call_);
            uint64 credit = settlement.creditOf(statement.key.token, 2);
            Deposit memory state = settlement.depositOf(id);
            if (success) {
                Outcome outcome = abi.decode(answer, (Outcome[]))[0];
                // I6: a skip is never the submitter's doing.
                assertOutcome(outcome, willing ? Outcome.Settled : Outcome.BadSignature);
                ever = true;
            }
            // I4: the authorisation is spent if and only if the provider is credited.
            bool settled = success && willing;
            assertEq(state.epoch, settled ? 1 : 0, "epoch");
            assertEq(state.spent, settled ? UNITS : 0, "spent");
            assertEq(state.balance, settled ? 0 : UNITS, "balance");
            assertEq(credit, settled ? UNITS : 0, "credit");
            vm.revertToState(start);
        }
    }

    /// @dev Claims with every amount of gas: the credit leaves with the money, or stays.
    function sweepClaim(address token, bool pays) private {
        bytes memory call_ = abi.encodeCall(settlement.claim, (token, one(uint32(2))));
        uint64 credit = settlement.creditOf(token, 2);
        uint256 unit = settlement.unitOf(token);
        bool ever;
        for (uint256 gas = 22_000; gas <= MOST_GAS; gas = more(gas)) {
            uint256 start = vm.snapshotState();
            (bool success,) = address(settlement).call{gas: gas}(call_);
            uint256 received = IERC20(token).balanceOf(payoutAddress(2));
            uint64 left = settlement.creditOf(token, 2);
            assertEq(received, (credit - left) * unit, "received"); // I5
            assertTrue(left == 0 || left == credit, "part of a credit"); // I5
            if (!success) assertEq(left, credit, "credit"); // I5
            if (left == 0) ever = true;
            vm.revertToState(start);
        }
        assertEq(ever, pays);
    }

    function matrix(address token) private {
        for (uint256 i; i < signers.length; ++i) {
            DepositKey memory key =
                DepositKey(requestor.addr, signers[i].account, address(0), token, 0);
            fund(key, UNITS);
            Statement memory statement = statementFor(key, row(2, UNITS));
            uint256 start = vm.snapshotState();
            assertTrue(sweepSettle(statement, signers[i].willing), "too little gas for anything");
            vm.revertToState(start);
        }
    }

    function test_HostileMatrix_NoAuthorisationIsSpentForNothingAmongPlainTokens() public {
        matrix(address(usd));
        matrix(tokens[2]);
    }

    function test_HostileMatrix_NoAuthorisationIsSpentForNothingAmongHostileTokens() public {
        reentrant.arm(
            address(settlement), abi.encodeCall(settlement.claim, (address(reentrant), one(2)))
        );
        matrix(tokens[4]);
        matrix(tokens[5]);
    }

    function test_HostileMatrix_NoCreditIsLostToAnyAmountOfGas() public {
        for (uint256 i; i < tokens.length; ++i) {
            DepositKey memory key = hosted(tokens[i]);
            fund(key, UNITS);
            pay(key, row(2, UNITS));
            uint256 start = vm.snapshotState();
            if (tokens[i] == address(blocklist)) blocklist.setBlocked(payoutAddress(2), true);
            if (i == 4) FalseToken(tokens[i]).stop();
            if (i == 5) {
                reentrant.arm(
                    address(settlement), abi.encodeCall(settlement.claim, (tokens[i], one(2)))
                );
            }
            sweepClaim(tokens[i], tokens[i] != address(blocklist) && i != 4);
            vm.revertToState(start);
        }
    }

    function test_RevertWhen_AFeeTokenIsDeposited() public {
        FeeToken token = new FeeToken();
        settlement.registerToken(address(token));
        token.mint(requestor.addr, 1000);
        vm.startPrank(requestor.addr);
        token.approve(address(settlement), 1000);
        vm.expectRevert();
        settlement.deposit(hosted(address(token)), 1000);
        vm.stopPrank();
        assertEq(token.balanceOf(address(settlement)), 0); // I1
    }

    /// @dev Every token, every signer; then the operator, the attester and the agents are gone.
    function test_LastManOut_EverybodyExitsAndTheBooksAreZero() public {
        for (uint256 i; i < tokens.length; ++i) {
            for (uint256 j; j < signers.length; ++j) {
                DepositKey memory key =
                    DepositKey(requestor.addr, signers[j].account, address(0), tokens[i], 0);
                fund(key, 10 * UNITS);
                Outcome outcome =
                    settleOne(statementFor(key, bytes.concat(row(1, 3), row(2, UNITS), row(4, 1))));
                assertOutcome(outcome, signers[j].willing ? Outcome.Settled : Outcome.BadSignature);
            }
        }
        blocklist.setBlocked(payoutAddress(2), true);
        blocklist.setBlocked(requestor.addr, true);
        reentrant.arm(address(settlement), abi.encodeCall(settlement.register, (one(stranger))));
        for (uint256 i; i < tokens.length; ++i) {
            exit(tokens[i]);
            assertEq(IERC20(tokens[i]).balanceOf(address(settlement)), 0); // I10
        }
    }

    function exit(address token) private {
        for (uint32 number = 1; number <= 4; ++number) {
            if (settlement.creditOf(token, number) == 0) continue;
            if (token == address(blocklist) && number == 2) {
                vm.prank(payoutAddress(2));
                settlement.claimTo(2, token, elsewhere, 0, "");
            } else {
                settlement.claim(token, one(number));
            }
            assertCredit(token, number, 0); // I10
        }
        for (uint256 j; j < signers.length; ++j) {
            DepositKey memory key =
                DepositKey(requestor.addr, signers[j].account, address(0), token, 0);
            bytes32 id = settlement.depositId(key);
            thaw(key, settlement.depositOf(id).balance);
            skip(THAW_PERIOD);
            vm.prank(requestor.addr);
            settlement.withdraw(key, elsewhere);
            assertEq(settlement.depositOf(id).balance, 0); // I10
        }
    }
}
