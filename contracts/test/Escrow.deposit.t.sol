// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {Base, Deposit, DepositKey, IEscrow, ITokens} from "./Base.t.sol";
import {FalseToken, SilentToken} from "./tokens/HostileTokens.sol";
import {FeeToken, TestToken} from "./tokens/TestTokens.sol";

/// @notice `deposit` pulls whole units from its caller into anybody's deposit and touches nothing
/// else of it.
contract DepositTest is Base {
    /// @dev External, so that its revert can be expected.
    function deployWithThawPeriod(uint32 thawPeriod) external {
        deploySettlement(thawPeriod);
    }

    function test_RevertWhen_ThawPeriodIsZero() public {
        vm.expectRevert(IEscrow.ZeroThawPeriod.selector);
        this.deployWithThawPeriod(0);
    }

    function test_RevertWhen_RequestorIsZero() public {
        DepositKey memory key = hosted(address(usd));
        key.requestor = address(0);
        vm.expectRevert(IEscrow.IncompleteKey.selector);
        settlement.deposit(key, 1);
    }

    function test_RevertWhen_SignerIsZero() public {
        DepositKey memory key = bound(address(usd));
        key.signer = address(0);
        vm.expectRevert(IEscrow.IncompleteKey.selector);
        settlement.deposit(key, 1);
    }

    function test_RevertWhen_UnitsAreZero() public {
        vm.expectRevert(IEscrow.ZeroUnits.selector);
        settlement.deposit(hosted(address(usd)), 0);
    }

    function test_RevertWhen_TokenIsNotRegistered() public {
        vm.expectRevert(abi.encodeWithSelector(ITokens.TokenNotRegistered.selector, stranger));
        settlement.deposit(hosted(stranger), 1);
    }

    function test_RevertWhen_BalanceWouldNotFit() public {
        DepositKey memory key = hosted(address(usd));
        fund(key, type(uint64).max - 4);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.DepositTooLarge.selector, 5, 4));
        settlement.deposit(key, 5);
    }

    function test_RevertWhen_SpentCouldOutgrowItsCounter() public {
        registerProviders(1);
        DepositKey memory key = hosted(address(usd));
        fund(key, type(uint64).max);
        pay(key, row(1, 1000));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.DepositTooLarge.selector, 1, 0));
        settlement.deposit(key, 1);
    }

    function test_RevertWhen_AllowanceIsMissing() public {
        usd.mint(stranger, 100);
        vm.expectRevert(
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientAllowance.selector, settlement, 0, 100
            )
        );
        vm.prank(stranger);
        settlement.deposit(hosted(address(usd)), 100);
    }

    function test_RevertWhen_TokenTakesAFee() public {
        FeeToken token = new FeeToken();
        settlement.registerToken(address(token));
        token.mint(stranger, 1000);
        vm.startPrank(stranger);
        token.approve(address(settlement), 1000);
        vm.expectRevert(
            abi.encodeWithSelector(ITokens.TokenDeliveredLess.selector, token, 1000, 990)
        );
        settlement.deposit(hosted(address(token)), 1000);
    }

    function test_RevertWhen_AnothersMoneyWouldCoverTheFee() public {
        FeeToken token = new FeeToken();
        settlement.registerToken(address(token));
        token.mint(address(settlement), 1_000_000);
        token.mint(stranger, 1000);
        vm.startPrank(stranger);
        token.approve(address(settlement), 1000);
        vm.expectRevert(
            abi.encodeWithSelector(ITokens.TokenDeliveredLess.selector, token, 1000, 990)
        );
        settlement.deposit(hosted(address(token)), 1000); // I1
    }

    function test_RevertWhen_TokenAnswersFalse() public {
        FalseToken token = new FalseToken();
        settlement.registerToken(address(token));
        token.stop();
        vm.expectRevert(
            abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(token))
        );
        settlement.deposit(hosted(address(token)), 1000);
    }

    function test_Deposit_CreditsTheDeposit() public {
        bytes32 id = fund(hosted(address(usd)), 1000);
        assertState(id, Deposit(1000, 0, 0, 0, 0));
        assertEq(usd.balanceOf(address(settlement)), 1000); // I1
        assertEq(usd.balanceOf(requestor.addr), 0);
    }

    function test_Deposit_EmitsTheWholeKey() public {
        DepositKey memory key = bound(address(usd));
        key.salt = "second";
        bytes32 id = settlement.depositId(key);
        usd.mint(stranger, 7);
        vm.startPrank(stranger);
        usd.approve(address(settlement), 7);
        vm.expectEmit(address(settlement));
        emit IEscrow.Deposited(id, key, stranger, 7);
        settlement.deposit(key, 7);
    }

    function test_Deposit_ByAStrangerPullsFromTheCallerOnly() public {
        DepositKey memory key = hosted(address(usd));
        usd.mint(requestor.addr, 500);
        vm.prank(requestor.addr);
        usd.approve(address(settlement), 500);
        usd.mint(stranger, 500);
        vm.startPrank(stranger);
        usd.approve(address(settlement), 500);
        settlement.deposit(key, 300);

        assertEq(usd.balanceOf(requestor.addr), 500);
        assertEq(usd.balanceOf(stranger), 200);
        assertState(settlement.depositId(key), Deposit(300, 0, 0, 0, 0));
    }

    function test_Deposit_AddsToWhatIsThere() public {
        registerProviders(1);
        DepositKey memory key = hosted(address(usd));
        bytes32 id = fund(key, 1000);
        pay(key, row(1, 400));
        fund(key, 50);
        assertState(id, Deposit(650, 0, 400, 1, 0));
    }

    function test_Deposit_LeavesAThawAlone() public {
        DepositKey memory key = hosted(address(usd));
        bytes32 id = fund(key, 1000);
        thaw(key, 600);
        uint32 ends = uint32(vm.getBlockTimestamp()) + THAW_PERIOD;
        skip(1 days);
        fund(key, 500);
        assertState(id, Deposit(1500, 600, 0, 0, ends));
    }

    function test_Deposit_ConvertsUnitsToBaseUnits() public {
        bytes32 id = fund(hosted(address(glm)), 3);
        assertState(id, Deposit(3, 0, 0, 0, 0));
        assertEq(glm.balanceOf(address(settlement)), 3e12);
    }

    function test_Deposit_TakesTokensThatReturnNothing() public {
        SilentToken token = new SilentToken();
        settlement.registerToken(address(token));
        bytes32 id = fund(hosted(address(token)), 1000);
        assertState(id, Deposit(1000, 0, 0, 0, 0));
        assertEq(token.balanceOf(address(settlement)), 1000);
    }

    function test_DepositId_IsTheStructHashOfTheKey() public view {
        DepositKey memory key = bound(address(usd));
        bytes32 typeHash = keccak256(
            "DepositKey(address requestor,address signer,address cosigner,"
            "address token,bytes32 salt)"
        );
        assertEq(
            settlement.depositId(key),
            keccak256(
                abi.encode(typeHash, key.requestor, key.signer, key.cosigner, key.token, bytes32(0))
            )
        );
    }

    function testFuzz_Deposit_KeepsKeysApart(DepositKey memory a, DepositKey memory b, uint64 units)
        public
    {
        vm.assume(keccak256(abi.encode(a)) != keccak256(abi.encode(b)));
        vm.assume(a.requestor != address(0) && a.signer != address(0) && units != 0);
        a.token = address(usd);
        vm.assume(keccak256(abi.encode(a)) != keccak256(abi.encode(b)));
        bytes32 id = fund(a, units);
        assertState(id, Deposit(units, 0, 0, 0, 0));
        assertState(settlement.depositId(b), Deposit(0, 0, 0, 0, 0));
        assertEq(TestToken(a.token).balanceOf(address(settlement)), units); // I1
    }
}
