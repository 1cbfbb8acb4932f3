// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base, ITokens} from "./Base.t.sol";
import {ShiftingToken} from "./tokens/HostileTokens.sol";
import {NoToken} from "./tokens/TestTokens.sol";

/// @notice `registerToken` fixes a token's unit for ever, and refuses what cannot have one.
contract RegisterTokenTest is Base {
    function test_RevertWhen_TokenIsRegistered() public {
        vm.expectRevert(
            abi.encodeWithSelector(ITokens.TokenAlreadyRegistered.selector, address(usd))
        );
        settlement.registerToken(address(usd));
    }

    function test_RevertWhen_AddressHasNoCode() public {
        vm.expectRevert(abi.encodeWithSelector(ITokens.NotAToken.selector, stranger));
        settlement.registerToken(stranger);
    }

    function test_RevertWhen_DecimalsAreNotAnswered() public {
        vm.expectRevert(abi.encodeWithSelector(ITokens.NotAToken.selector, address(settlement)));
        settlement.registerToken(address(settlement));
    }

    function test_RevertWhen_DecimalsDoNotFitAByte() public {
        address token = address(new ShiftingToken(256));
        vm.expectRevert(abi.encodeWithSelector(ITokens.NotAToken.selector, token));
        settlement.registerToken(token);
    }

    function testFuzz_RevertWhen_DecimalsExceed24(uint8 decimals) public {
        decimals = uint8(_bound(decimals, 25, 255));
        address token = address(new NoToken(decimals));
        vm.expectRevert(abi.encodeWithSelector(ITokens.TooManyDecimals.selector, token, decimals));
        settlement.registerToken(token);
    }

    function test_RegisterToken_TakesUpTo24Decimals() public {
        address token = address(new NoToken(24));
        settlement.registerToken(token);
        assertEq(settlement.unitOf(token), 1e18);
        token = address(new NoToken(25));
        vm.expectRevert(abi.encodeWithSelector(ITokens.TooManyDecimals.selector, token, 25));
        settlement.registerToken(token);
    }

    function test_RegisterToken_MakesAUnitOfWhatExceedsSixDecimals() public {
        for (uint8 decimals; decimals <= 7; ++decimals) {
            address token = address(new NoToken(decimals));
            settlement.registerToken(token);
            assertEq(settlement.unitOf(token), decimals == 7 ? 10 : 1);
        }
    }

    function testFuzz_RegisterToken_FixesTheUnit(uint8 decimals) public {
        decimals = uint8(_bound(decimals, 0, 24));
        uint64 unit = 1;
        for (uint256 i = 6; i < decimals; ++i) {
            unit *= 10;
        }
        address token = address(new NoToken(decimals));

        vm.expectEmit(address(settlement));
        emit ITokens.TokenRegistered(token, decimals, unit);
        vm.prank(stranger);
        settlement.registerToken(token);

        assertEq(settlement.unitOf(token), unit);
    }

    function test_RegisterToken_KeepsTheUnitWhenDecimalsChange() public {
        ShiftingToken token = new ShiftingToken(18);
        settlement.registerToken(address(token));
        token.shift(6);

        assertEq(settlement.unitOf(address(token)), 1e12);
        vm.expectRevert(
            abi.encodeWithSelector(ITokens.TokenAlreadyRegistered.selector, address(token))
        );
        settlement.registerToken(address(token));
    }

    function test_UnitOf_IsZeroForUnknownTokens() public view {
        assertEq(settlement.unitOf(stranger), 0);
    }

    function test_UnitOf_UsdIsOneAndGlmIsATrillion() public view {
        assertEq(settlement.unitOf(address(usd)), 1);
        assertEq(settlement.unitOf(address(glm)), 1e12);
    }
}
