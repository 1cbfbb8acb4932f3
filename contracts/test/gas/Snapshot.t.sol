// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {DepositKey} from "../../src/interfaces/IEscrow.sol";
import {Outcome, Statement} from "../Base.t.sol";
import {TestToken} from "../tokens/TestTokens.sol";
import {Measure} from "./Measure.sol";

/// @notice What each use of the contract costs. *First* is the first use ever of the storage in
/// question, *steady* every later one.
contract SnapshotTest is Measure {
    uint64 private constant PLENTY = 1 << 62;
    uint48 private constant UNITS = 1_234_567;
    uint32 private constant PROVIDERS = 8004;

    function setUp() public override {
        super.setUp();
        for (uint32 done; done < PROVIDERS; done += 667) {
            address[] memory payouts = new address[](667);
            for (uint32 i; i < 667; ++i) {
                payouts[i] = payoutAddress(done + i + 1);
            }
            settlement.register(payouts);
        }
    }

    /// @dev The deposit number `n`, hosted, with money and a first statement behind it.
    function used(uint256 n) internal returns (DepositKey memory key) {
        key = hosted(address(usd));
        key.salt = bytes32(n);
        fund(key, PLENTY / 32);
        pay(key, "");
    }

    function usedBound(uint256 n) internal returns (DepositKey memory key) {
        key = bound(address(usd));
        key.salt = bytes32(n);
        fund(key, PLENTY / 32);
        pay(key, "");
    }

    function gasOfSettle(Statement[] memory statements) internal returns (uint256) {
        return gasOf(address(settlement), abi.encodeCall(settlement.settle, (statements)));
    }

    function gasOfSettle(DepositKey memory key, bytes memory rows) internal returns (uint256 gas) {
        Statement memory statement = statementFor(key, rows);
        gas = gasOfSettle(batch(statement));
        assertEq(settlement.depositOf(settlement.depositId(key)).epoch, statement.epoch, "settled");
    }

    /// @dev One of every `span` providers from 1 on, picked by hash.
    function scattered(uint32 count, uint32 span, uint256 seed)
        internal
        pure
        returns (bytes memory rows)
    {
        for (uint32 i; i < count; ++i) {
            uint32 pick = uint32(uint256(keccak256(abi.encode(seed, i))) % span);
            rows = bytes.concat(rows, row(1 + i * span + pick, UNITS));
        }
    }

    /// @dev About `percent` of the providers 1 to 4,000, picked by hash.
    function active(uint32 percent) internal pure returns (bytes memory rows, uint256 count) {
        rows = new bytes(40_000);
        for (uint32 number = 1; number <= 4000; ++number) {
            if (uint256(keccak256(abi.encode(percent, number))) % 100 >= percent) continue;
            bytes10 packed = bytes10(row(number, UNITS));
            for (uint256 i; i < 10; ++i) {
                rows[count * 10 + i] = packed[i];
            }
            ++count;
        }
        assembly ("memory-safe") {
            mstore(rows, mul(count, 10))
        }
    }

    function dense(uint32 count, string memory name) internal {
        DepositKey memory key = used(1);
        bytes memory rows = rowsOf(4, count, 1, UNITS);
        record(string.concat(name, "_first_per_row"), gasOfSettle(key, rows) / count);
        record(string.concat(name, "_steady_per_row"), gasOfSettle(key, rows) / count);
    }

    function test_Gas_SettleDense() public {
        dense(1000, "settle_dense_1000");
    }

    function test_Gas_SettleDense8000() public {
        dense(8000, "settle_dense_8000");
    }

    /// @dev A day's transaction: `deposits` statements, each over one of every `4000 / rows`
    /// providers.
    function day(DepositKey[] memory keys, uint32 rows, uint256 seed)
        internal
        returns (Statement[] memory statements)
    {
        statements = new Statement[](keys.length);
        for (uint256 i; i < keys.length; ++i) {
            statements[i] = statementFor(keys[i], scattered(rows, 4000 / rows, seed + i));
        }
    }

    function usedMany(uint256 count) internal returns (DepositKey[] memory keys) {
        keys = new DepositKey[](count);
        for (uint256 i; i < count; ++i) {
            keys[i] = used(i + 1);
        }
    }

    /// @dev Gives every provider from 1 to 4,000 a credit, so that what follows is steady.
    function creditAll() internal {
        pay(used(1000), rowsOf(1, 4000, 1, UNITS));
    }

    function claimAll() internal {
        uint32[] memory numbers = new uint32[](400);
        for (uint32 start = 1; start <= 4000; start += 400) {
            for (uint32 i; i < 400; ++i) {
                numbers[i] = start + i;
            }
            settlement.claim(address(usd), numbers);
        }
    }

    function test_Gas_SettleADayOf20DepositsBy250Rows() public {
        creditAll();
        DepositKey[] memory keys = usedMany(20);
        record("settle_day_20x250_of_4000_per_row", gasOfSettle(day(keys, 250, 100)) / 5000);
        claimAll();
        uint256 swept = gasOfSettle(day(keys, 250, 200));
        record("settle_day_after_full_claim_sweep_per_row", swept / 5000);
    }

    function test_Gas_SettleADayOf50DepositsBy20Rows() public {
        creditAll();
        DepositKey[] memory keys = usedMany(50);
        record("settle_day_50x20_of_4000_per_row", gasOfSettle(day(keys, 20, 300)) / 1000);
    }

    function test_Gas_SettleWhenSomeProvidersAreActive() public {
        creditAll();
        DepositKey memory key = used(1);
        uint32[5] memory shares = [uint32(90), 60, 30, 10, 5];
        for (uint256 i; i < shares.length; ++i) {
            (bytes memory rows, uint256 count) = active(shares[i]);
            string memory percent = vm.toString(shares[i]);
            record(
                string.concat("settle_", percent, "_percent_of_4000_per_row"),
                gasOfSettle(key, rows) / count
            );
        }
    }

    /// @dev The same 240 rows in one statement and in ten: what each of nine more costs. Of 24 rows, the last word
    /// of calldata and log is half padding, which is the mean.
    function extra(DepositKey[] memory keys) internal returns (uint256) {
        pay(keys[0], rowsOf(4, 240, 1, UNITS));
        uint256 alone = gasOfSettle(keys[0], rowsOf(4, 240, 1, UNITS));
        Statement[] memory split = new Statement[](10);
        for (uint32 i; i < 10; ++i) {
            split[i] = statementFor(keys[i], rowsOf(4 + 24 * i, 24, 1, UNITS));
        }
        return (gasOfSettle(split) - alone) / 9;
    }

    function test_Gas_SettleAnExtraStatement() public {
        record("settle_extra_statement_one_key", extra(usedMany(10)));
        DepositKey[] memory keys = new DepositKey[](10);
        for (uint256 i; i < 10; ++i) {
            keys[i] = usedBound(i + 1);
        }
        record("settle_extra_statement_two_keys", extra(keys));
    }

    function gasOfClaim(uint32[] memory numbers) internal returns (uint256) {
        return gasOf(address(settlement), abi.encodeCall(settlement.claim, (address(usd), numbers)));
    }

    function test_Gas_Claim() public {
        DepositKey memory key = used(1);
        pay(key, rowsOf(4, 200, 1, UNITS));
        record("claim_single_first", gasOfClaim(one(uint32(4))));
        pay(key, rowsOf(4, 200, 1, UNITS));
        record("claim_single_steady", gasOfClaim(one(uint32(4))));

        uint32[] memory numbers = new uint32[](200);
        for (uint32 i; i < 200; ++i) {
            numbers[i] = 4 + i;
        }
        pay(key, rowsOf(4, 200, 1, UNITS));
        settlement.claim(address(usd), numbers);
        pay(key, rowsOf(4, 200, 1, UNITS));
        record("claim_200_steady_per_claim", gasOfClaim(numbers) / 200);
    }

    function test_Gas_Deposit() public {
        used(1); // The contract holds the token already.
        DepositKey memory key = hosted(address(usd));
        usd.mint(requestor.addr, PLENTY);
        vm.startPrank(requestor.addr);
        usd.approve(address(settlement), type(uint256).max);
        bytes memory call = abi.encodeCall(settlement.deposit, (key, UNITS));
        record("deposit_first", gasOf(address(settlement), call));
        record("deposit_steady", gasOf(address(settlement), call));
    }

    function test_Gas_ThawAndWithdraw() public {
        DepositKey memory key = used(1);
        vm.startPrank(requestor.addr);
        settlement.thaw(key, 1);
        record(
            "thaw_steady", gasOf(address(settlement), abi.encodeCall(settlement.thaw, (key, UNITS)))
        );
        vm.warp(block.timestamp + THAW_PERIOD);
        bytes memory call = abi.encodeCall(settlement.withdraw, (key, requestor.addr));
        usd.mint(requestor.addr, 1);
        record("withdraw", gasOf(address(settlement), call));
    }

    function test_Gas_Register() public {
        address[] memory payouts = new address[](100);
        for (uint256 i; i < 100; ++i) {
            payouts[i] = address(uint160(uint256(keccak256(abi.encode(i)))));
        }
        bytes memory call = abi.encodeCall(settlement.register, (payouts));
        record("register_100_per_provider", gasOf(address(settlement), call) / 100);
    }

    function test_Gas_BytecodeSize() public {
        record("bytecode_size", address(settlement).code.length);
        assertLt(address(settlement).code.length, 24_576); // EIP-170
    }
}
