// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";
import {Vm} from "forge-std/Vm.sol";

import {Settlement} from "../src/Settlement.sol";
import {Deposit, DepositKey, IEscrow} from "../src/interfaces/IEscrow.sol";
import {IRewards} from "../src/interfaces/IRewards.sol";
import {ISettlement, Outcome, Statement} from "../src/interfaces/ISettlement.sol";
import {ITokens} from "../src/interfaces/ITokens.sol";
import {TestToken} from "./tokens/TestTokens.sol";

/// @notice Actors, tokens and a deployment, and verbs that act on them.
abstract contract Base is Test {
    uint32 internal constant THAW_PERIOD = 7 days;
    uint64 internal constant DEPOSITED = 1_000_000_000;
    bytes32 internal constant DOMAIN_TYPEHASH = keccak256(
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    );

    Settlement internal settlement;
    TestToken internal usd;
    TestToken internal glm;

    Vm.Wallet internal requestor;
    Vm.Wallet internal attester;
    Vm.Wallet internal agent;
    Vm.Wallet internal provider;
    address internal stranger = makeAddr("stranger");

    function setUp() public virtual {
        vm.warp(1_700_000_000);
        settlement = deploySettlement(THAW_PERIOD);
        usd = deployToken("Test USD", "TUSD", 6);
        glm = deployToken("Test GLM", "TGLM", 18);
        settlement.registerToken(address(usd));
        settlement.registerToken(address(glm));
        requestor = vm.createWallet("requestor");
        attester = vm.createWallet("attester");
        agent = vm.createWallet("agent");
        provider = vm.createWallet("provider");
    }

    /// @dev Deploys the bytecode that users get. Tests are compiled with other settings, so that `new` would not;
    /// coverage and mutants put theirs in its place.
    function deploySettlement(uint32 thawPeriod) internal returns (Settlement) {
        string memory artifact =
            vm.envOr("QUITTANCE_SETTLEMENT", string("out/Settlement.sol/Settlement.json"));
        return Settlement(vm.deployCode(artifact, abi.encode(thawPeriod)));
    }

    function deployToken(string memory name, string memory symbol, uint8 decimals)
        internal
        virtual
        returns (TestToken)
    {
        return new TestToken(name, symbol, decimals);
    }

    /// @dev Hosted: the attester alone signs.
    function hosted(address token) internal view returns (DepositKey memory) {
        return DepositKey(requestor.addr, attester.addr, address(0), token, 0);
    }

    /// @dev Bound: the requestor's agent and the attester sign.
    function bound(address token) internal view returns (DepositKey memory) {
        return DepositKey(requestor.addr, agent.addr, attester.addr, token, 0);
    }

    function fund(DepositKey memory key, uint64 units) internal returns (bytes32 id) {
        uint256 amount = uint256(units) * settlement.unitOf(key.token);
        TestToken(key.token).mint(requestor.addr, amount);
        vm.startPrank(requestor.addr);
        TestToken(key.token).approve(address(settlement), amount);
        settlement.deposit(key, units);
        vm.stopPrank();
        return settlement.depositId(key);
    }

    /// @dev Registers `count` payout addresses; number `n` is paid at `payoutAddress(n)`.
    function registerProviders(uint32 count) internal {
        address[] memory payouts = new address[](count);
        for (uint32 i; i < count; ++i) {
            payouts[i] = payoutAddress(i + 1);
        }
        settlement.register(payouts);
    }

    function payoutAddress(uint32 number) internal view returns (address) {
        return number == 1 ? provider.addr : address(uint160(0x10000) + number);
    }

    function row(uint32 number, uint48 units) internal pure returns (bytes memory) {
        return abi.encodePacked(number, units);
    }

    /// @dev Rows for the providers `first`, `first + step`, …, each with `units`.
    function rowsOf(uint32 first, uint32 count, uint32 step, uint48 units)
        internal
        pure
        returns (bytes memory rows)
    {
        rows = new bytes(uint256(count) * 10);
        for (uint32 i; i < count; ++i) {
            uint256 packed = (uint256(first + i * step) << 48 | units) << 176;
            assembly ("memory-safe") {
                // Writes 32 bytes to place 10; what follows is overwritten by the next row or lies
                // in the slack.
                let at := add(add(rows, 0x20), mul(i, 10))
                mstore(at, or(packed, and(mload(at), sub(shl(176, 1), 1))))
            }
        }
    }

    function sum(bytes memory rows) internal pure returns (uint64 total) {
        for (uint256 i; i < rows.length; i += 10) {
            for (uint256 j = 4; j < 10; ++j) {
                total += uint64(uint256(uint8(rows[i + j])) << (8 * (9 - j)));
            }
        }
    }

    /// @dev EIP-712 digest of a struct, computed apart from the contract.
    function typedDigest(bytes32 structHash) internal view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                DOMAIN_TYPEHASH,
                keccak256("Quittance"),
                keccak256("1"),
                block.chainid,
                address(settlement)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }

    function sign(Vm.Wallet memory wallet, bytes32 digest) internal returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(wallet, digest);
        return abi.encodePacked(r, s, v);
    }

    /// @dev The next statement of a deposit, signed by whoever its key names.
    function statementFor(DepositKey memory key, bytes memory rows)
        internal
        returns (Statement memory)
    {
        Deposit memory state = settlement.depositOf(settlement.depositId(key));
        return statementAt(key, state.epoch + 1, state.spent + sum(rows), rows);
    }

    function statementAt(DepositKey memory key, uint32 epoch, uint64 spent, bytes memory rows)
        internal
        returns (Statement memory statement)
    {
        bytes32 manifest = keccak256(abi.encode("manifest", epoch));
        bytes32 digest = settlement.statementDigest(key, epoch, spent, manifest, rows);
        bool isHosted = key.cosigner == address(0);
        statement = Statement({
            key: key,
            epoch: epoch,
            manifest: manifest,
            rows: rows,
            signature: sign(isHosted ? attester : agent, digest),
            cosignature: isHosted ? bytes("") : sign(attester, digest)
        });
    }

    /// @dev Signs the statement again, as it now is, by whoever its key names.
    function resign(Statement memory statement, uint64 spent) internal {
        bytes32 digest = digestOf(statement, spent);
        bool isHosted = statement.key.cosigner == address(0);
        statement.signature = sign(isHosted ? attester : agent, digest);
        statement.cosignature = isHosted ? bytes("") : sign(attester, digest);
    }

    function digestOf(Statement memory statement, uint64 spent) internal view returns (bytes32) {
        return settlement.statementDigest(
            statement.key, statement.epoch, spent, statement.manifest, statement.rows
        );
    }

    function settleOne(Statement memory statement) internal returns (Outcome) {
        return settlement.settle(batch(statement))[0];
    }

    function pay(DepositKey memory key, bytes memory rows) internal {
        assertOutcome(settleOne(statementFor(key, rows)), Outcome.Settled);
    }

    function thaw(DepositKey memory key, uint64 units) internal {
        vm.prank(key.requestor);
        settlement.thaw(key, units);
    }

    function assertOutcome(Outcome actual, Outcome expected) internal pure {
        assertEq(uint8(actual), uint8(expected), "outcome");
    }

    function assertState(bytes32 id, Deposit memory expected) internal view {
        Deposit memory actual = settlement.depositOf(id);
        assertEq(actual.balance, expected.balance, "balance");
        assertEq(actual.thawing, expected.thawing, "thawing");
        assertEq(actual.spent, expected.spent, "spent");
        assertEq(actual.epoch, expected.epoch, "epoch");
        assertEq(actual.thawEnds, expected.thawEnds, "thawEnds");
    }

    function assertCredit(address token, uint32 number, uint64 units) internal view {
        assertEq(settlement.creditOf(token, number), units, "credit");
    }

    function batch(Statement memory a) internal pure returns (Statement[] memory statements) {
        statements = new Statement[](1);
        statements[0] = a;
    }

    function batch(Statement memory a, Statement memory b)
        internal
        pure
        returns (Statement[] memory statements)
    {
        statements = new Statement[](2);
        (statements[0], statements[1]) = (a, b);
    }

    function batch(Statement memory a, Statement memory b, Statement memory c)
        internal
        pure
        returns (Statement[] memory statements)
    {
        statements = new Statement[](3);
        (statements[0], statements[1], statements[2]) = (a, b, c);
    }

    function one(uint32 number) internal pure returns (uint32[] memory list) {
        list = new uint32[](1);
        list[0] = number;
    }

    function one(address account) internal pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = account;
    }
}
