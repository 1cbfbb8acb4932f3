// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base, DepositKey, Outcome, Statement, TestToken} from "./Base.t.sol";
import {BlocklistToken} from "./tokens/TestTokens.sol";

/// @notice Each function changes what it is called for and leaves every other deposit, credit,
/// number and token alone.
contract IsolationTest is Base {
    uint32 private constant PROVIDERS = 9;

    BlocklistToken internal blk;
    DepositKey internal key;
    Statement internal statement;

    DepositKey[] internal keys;
    string[] internal keyNames;
    string[] internal accountNames;
    address[] internal accounts;
    address[] internal tokens;

    mapping(string name => bytes32) internal former;
    mapping(string name => bool) internal expected;

    function setUp() public override {
        super.setUp();
        blk = new BlocklistToken();
        settlement.registerToken(address(blk));
        tokens = [address(usd), address(glm), address(blk)];
        registerProviders(PROVIDERS);

        key = hosted(address(usd));
        addDeposit("deposit", key);
        DepositKey memory other = hosted(address(usd));
        other.salt = "other";
        addDeposit("deposit of another salt", other);
        other = hosted(address(usd));
        other.requestor = stranger;
        addDeposit("deposit of another requestor", other);
        addDeposit("deposit of other signers", bound(address(usd)));
        addDeposit("deposit in glm", hosted(address(glm)));
        addDeposit("deposit in blk", hosted(address(blk)));

        addAccount("contract", address(settlement));
        addAccount("requestor", requestor.addr);
        addAccount("stranger", stranger);
        for (uint32 i = 1; i <= PROVIDERS; ++i) {
            addAccount(vm.toString(i), payoutAddress(i));
        }
        statement = statementFor(key, bytes.concat(row(2, 20), row(5, 50)));
    }

    /// @dev Every deposit thaws in part and has paid each provider.
    function addDeposit(string memory name, DepositKey memory added) internal {
        fund(added, 1_000_000);
        pay(added, rowsOf(1, PROVIDERS, 1, 1000));
        thaw(added, 400_000);
        keys.push(added);
        keyNames.push(name);
    }

    function addAccount(string memory name, address account) internal {
        accounts.push(account);
        accountNames.push(name);
    }

    /// @dev Shows everything that a call could touch to `each`, by name and value.
    function everything(function(string memory, bytes32) internal each) internal {
        for (uint256 i; i < keys.length; ++i) {
            bytes32 id = settlement.depositId(keys[i]);
            each(keyNames[i], keccak256(abi.encode(settlement.depositOf(id))));
        }
        for (uint256 i; i < tokens.length; ++i) {
            string memory symbol = TestToken(tokens[i]).symbol();
            each(string.concat("unit of ", symbol), bytes32(uint256(settlement.unitOf(tokens[i]))));
            for (uint32 j = 1; j <= PROVIDERS; ++j) {
                string memory name = string.concat("credit ", vm.toString(j), " ", symbol);
                each(name, bytes32(uint256(settlement.creditOf(tokens[i], j))));
            }
            for (uint256 j; j < accounts.length; ++j) {
                string memory name = string.concat("balance ", accountNames[j], " ", symbol);
                each(name, bytes32(TestToken(tokens[i]).balanceOf(accounts[j])));
            }
        }
        for (uint32 i = 1; i <= PROVIDERS; ++i) {
            (address payout, uint64 claimNonce) = settlement.payoutOf(i);
            each(
                string.concat("number ", vm.toString(i)), keccak256(abi.encode(payout, claimNonce))
            );
        }
        each("number of providers", bytes32(uint256(settlement.providerCount())));
    }

    function remember(string memory name, bytes32 value) internal {
        former[name] = value;
    }

    function compare(string memory name, bytes32 value) internal {
        if (expected[name]) assertTrue(value != former[name], string.concat(name, " stayed"));
        else assertEq(value, former[name], name);
        expected[name] = false;
    }

    function start() internal {
        everything(remember);
    }

    /// @dev That all named things have changed since `start`, and nothing else has.
    function assertChanged(string[] memory changed) internal {
        for (uint256 i; i < changed.length; ++i) {
            expected[changed[i]] = true;
        }
        everything(compare);
        for (uint256 i; i < changed.length; ++i) {
            assertFalse(expected[changed[i]], string.concat(changed[i], " is unknown"));
        }
    }

    function list(string memory a) internal pure returns (string[] memory all) {
        all = new string[](1);
        all[0] = a;
    }

    function list(string memory a, string memory b, string memory c)
        internal
        pure
        returns (string[] memory all)
    {
        all = new string[](3);
        (all[0], all[1], all[2]) = (a, b, c);
    }

    function list(string memory a, string memory b, string memory c, string memory d)
        internal
        pure
        returns (string[] memory all)
    {
        all = new string[](4);
        (all[0], all[1], all[2], all[3]) = (a, b, c, d);
    }

    function refused(address caller, bytes memory data) internal {
        vm.prank(caller);
        (bool success,) = address(settlement).call(data);
        assertFalse(success);
    }

    function test_RevertWhen_AStrangerCallsWhatOnlyTheOwnerMay() public {
        skip(THAW_PERIOD);
        start();
        address[3] memory callers = [stranger, attester.addr, payoutAddress(2)];
        for (uint256 i; i < callers.length; ++i) {
            uint64 deadline = type(uint64).max;
            refused(callers[i], abi.encodeCall(settlement.thaw, (key, 1)));
            refused(callers[i], abi.encodeCall(settlement.thaw, (key, 0)));
            refused(callers[i], abi.encodeCall(settlement.withdraw, (key, callers[i])));
            refused(
                callers[i],
                abi.encodeCall(settlement.claimTo, (1, address(usd), callers[i], deadline, ""))
            );
            refused(callers[i], abi.encodeCall(settlement.setPayout, (1, callers[i], deadline, "")));
        }
        assertChanged(new string[](0)); // I2, I6
    }

    function test_SkippedStatements_TouchNothing() public {
        Statement memory forged = statement;
        forged.manifest = "other";
        start();
        assertOutcome(settleOne(forged), Outcome.BadSignature);
        assertChanged(new string[](0)); // I9
    }

    function test_FailedClaim_TouchesNothing() public {
        blk.setBlocked(payoutAddress(6), true);
        start();
        settlement.claim(address(blk), one(uint32(6)));
        assertChanged(new string[](0)); // I5
    }

    function test_Donation_TouchesNothingButTheBalance() public {
        start();
        usd.mint(address(settlement), 5);
        assertChanged(list("balance contract TUSD")); // I1
    }

    function test_Deposit_TouchesOneDepositOnly() public {
        usd.mint(stranger, 100);
        vm.prank(stranger);
        usd.approve(address(settlement), 100);
        start();
        vm.prank(stranger);
        settlement.deposit(key, 60);
        assertChanged(list("deposit", "balance contract TUSD", "balance stranger TUSD"));
    }

    function test_Thaw_TouchesOneDepositOnly() public {
        start();
        thaw(key, 300);
        assertChanged(list("deposit"));
    }

    function test_CancelledThaw_TouchesOneDepositOnly() public {
        start();
        thaw(key, 0);
        assertChanged(list("deposit"));
    }

    function test_Withdraw_TouchesOneDepositOnly() public {
        skip(THAW_PERIOD);
        start();
        vm.prank(requestor.addr);
        settlement.withdraw(key, stranger);
        assertChanged(list("deposit", "balance contract TUSD", "balance stranger TUSD"));
    }

    function test_Settle_TouchesOneDepositAndTheCreditsItNames() public {
        start();
        assertOutcome(settleOne(statement), Outcome.Settled);
        assertChanged(list("deposit", "credit 2 TUSD", "credit 5 TUSD"));
    }

    function test_Claim_TouchesOneCreditOnly() public {
        for (uint32 i = 1; i <= PROVIDERS; ++i) {
            string memory number = vm.toString(i);
            start();
            settlement.claim(address(usd), one(i));
            assertChanged(
                list(
                    string.concat("credit ", number, " TUSD"),
                    string.concat("balance ", number, " TUSD"),
                    "balance contract TUSD"
                )
            );
        }
    }

    function test_ClaimTo_TouchesOneCreditAndItsClaimNonce() public {
        start();
        vm.prank(payoutAddress(6));
        settlement.claimTo(6, address(glm), stranger, 0, "");
        assertChanged(
            list("credit 6 TGLM", "number 6", "balance contract TGLM", "balance stranger TGLM")
        );
    }

    function test_SetPayout_TouchesOneNumberOnly() public {
        start();
        vm.prank(payoutAddress(6));
        settlement.setPayout(6, stranger, 0, "");
        assertChanged(list("number 6"));
    }

    function test_Register_TouchesNewNumbersOnly() public {
        start();
        settlement.register(one(stranger));
        assertChanged(list("number of providers"));
    }

    function test_RegisterToken_TouchesNoOtherToken() public {
        BlocklistToken token = new BlocklistToken();
        start();
        settlement.registerToken(address(token));
        assertChanged(new string[](0));
    }
}
