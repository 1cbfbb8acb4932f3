// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Settlement} from "../../src/Settlement.sol";
import {Statement} from "../../src/interfaces/ISettlement.sol";
import {Books} from "../model/Books.sol";
import {Shadow} from "./Shadow.sol";
import {StatementHandlers} from "./StatementHandlers.sol";
import {World} from "./World.sol";

/// @title Handlers
/// @notice Everything that can be done to the contract in one world, and the exit of everybody.
contract Handlers is StatementHandlers {
    constructor(Settlement settlement_, Mood mood_)
        Books(settlement_.THAW_PERIOD())
        Shadow(settlement_)
        World(mood_)
    {}

    /// @notice The handlers, and the names that tables show.
    function handlers() external view returns (bytes4[] memory selectors, string[] memory names) {
        uint256 count = mood == Mood.Hostile ? 33 : 31;
        (selectors, names) = (new bytes4[](count), new string[](count));
        (selectors[0], names[0]) = (this.deposit.selector, "deposit");
        (selectors[1], names[1]) = (this.depositRefused.selector, "depositRefused");
        (selectors[2], names[2]) = (this.thaw.selector, "thaw");
        (selectors[3], names[3]) = (this.thawRefused.selector, "thawRefused");
        (selectors[4], names[4]) = (this.withdraw.selector, "withdraw");
        (selectors[5], names[5]) = (this.withdrawRefused.selector, "withdrawRefused");
        (selectors[6], names[6]) = (this.registerToken.selector, "registerToken");
        (selectors[7], names[7]) = (this.registerTokenRefused.selector, "registerTokenRefused");
        (selectors[8], names[8]) = (this.donate.selector, "donate");
        (selectors[9], names[9]) = (this.pass.selector, "pass");
        (selectors[10], names[10]) = (this.register.selector, "register");
        (selectors[11], names[11]) = (this.registerRefused.selector, "registerRefused");
        (selectors[12], names[12]) = (this.claim.selector, "claim");
        (selectors[13], names[13]) = (this.claimMany.selector, "claimMany");
        (selectors[14], names[14]) = (this.claimTo.selector, "claimTo");
        (selectors[15], names[15]) = (this.claimToSigned.selector, "claimToSigned");
        (selectors[16], names[16]) = (this.claimToRefused.selector, "claimToRefused");
        (selectors[17], names[17]) = (this.setPayout.selector, "setPayout");
        (selectors[18], names[18]) = (this.setPayoutSigned.selector, "setPayoutSigned");
        (selectors[19], names[19]) = (this.setPayoutRefused.selector, "setPayoutRefused");
        (selectors[20], names[20]) = (this.settle.selector, "settle");
        (selectors[21], names[21]) = (this.settleEmpty.selector, "settleEmpty");
        (selectors[22], names[22]) = (this.settleMany.selector, "settleMany");
        (selectors[23], names[23]) = (this.settleSkipped.selector, "settleSkipped");
        (selectors[24], names[24]) = (this.settleBroken.selector, "settleBroken");
        (selectors[25], names[25]) = (this.settleCandidates.selector, "settleCandidates");
        (selectors[26], names[26]) = (this.settleInAnyOrder.selector, "settleInAnyOrder");
        (selectors[27], names[27]) = (this.settleAgain.selector, "settleAgain");
        (selectors[28], names[28]) = (this.signAhead.selector, "signAhead");
        (selectors[29], names[29]) = (this.settleSignedAhead.selector, "settleSignedAhead");
        (selectors[30], names[30]) = (this.callNonsense.selector, "callNonsense");
        if (mood == Mood.Plain) return (selectors, names);
        (selectors[31], names[31]) = (this.upset.selector, "upset");
        (selectors[32], names[32]) = (this.arm.selector, "arm");
    }

    /// @dev Blocks, stops and slashes, or makes good again.
    function upset(uint256 seed) external handler(seed) {
        uint256 choice = _choose(8);
        if (choice < 4) {
            address account = _choose(3) == 0 ? requestors[_choose(3)] : payouts[_choose(PAYOUTS)];
            blocklist.setBlocked(account, choice == 0);
        } else if (choice == 4) {
            moody.stop();
        } else if (choice < 7) {
            moody.resume();
        } else if (held[address(slashing)] != 0) {
            uint256 amount = _amount(held[address(slashing)] / 8 + 1);
            slashing.slash(address(settlement), amount);
            held[address(slashing)] -= amount;
            lied[address(slashing)] = true;
        }
        _succeeded();
    }

    /// @dev Makes the reentrant token call another function during its transfers, with arguments
    /// that would do something.
    function arm(uint256 seed) external handler(seed) {
        uint256 choice = _choose(9);
        uint256 index = _choose(keys.length);
        uint32 provider = uint32(1 + _choose(providerCount));
        uint32[] memory numbers = new uint32[](1);
        numbers[0] = provider;
        address token = address(reentrant);
        bytes memory data;
        if (choice == 0) {
            data = abi.encodeCall(settlement.deposit, (keys[index], 1));
        } else if (choice == 1) {
            data = abi.encodeCall(settlement.thaw, (keys[index], 0));
        } else if (choice == 2) {
            data = abi.encodeCall(settlement.withdraw, (keys[index], token));
        } else if (choice == 3) {
            Statement[] memory statements = new Statement[](1);
            statements[0] = _next(index, true);
            data = abi.encodeCall(settlement.settle, (statements));
        } else if (choice == 4) {
            data = abi.encodeCall(settlement.registerToken, (tokens[0]));
        } else if (choice == 5) {
            data = abi.encodeCall(settlement.register, (payouts));
        } else if (choice == 6) {
            data = abi.encodeCall(settlement.claim, (token, numbers));
        } else if (choice == 7) {
            data = abi.encodeCall(settlement.claimTo, (provider, token, token, 0, ""));
        } else {
            data = abi.encodeCall(settlement.setPayout, (provider, token, 0, ""));
        }
        reentrant.arm(address(settlement), data);
        _succeeded();
    }

    /// @notice Compares all that is known with the contract, touched lately or not.
    function checkEverything() external {
        vm.warp(time);
        _before();
        uint256[] memory sums = new uint256[](tokens.length);
        for (uint256 i; i < ids.length; ++i) {
            _checkDeposit(ids[i], Cause.Other);
            for (uint256 j; j < tokens.length; ++j) {
                if (tokens[j] == keys[i].token) {
                    sums[j] += settlement.depositOf(ids[i]).balance;
                }
            }
        }
        for (uint256 i = 1; i <= providerCount; ++i) {
            _checkProvider(i);
        }
        for (uint256 i; i < tokens.length; ++i) {
            _checkToken(tokens[i], sums[i]);
        }
        _checkProviderCount();
        _same(address(settlement).balance, 0, "C22: ether");
    }

    function _checkToken(address token, uint256 sumOfBalances) private {
        uint256 sumOfCredits;
        for (uint256 i; i <= providerCount; ++i) {
            _checkCredit(token, i);
            sumOfCredits += creditOf[token][i];
        }
        _checkUnit(token);
        _checkHeld(token);
        // C2, C3, C5.
        _same(balances[token], sumOfBalances, "C2: sum of the balances");
        _same(credits[token], sumOfCredits, "C2: sum of the credits");
        _same(
            deposited[token],
            withdrawn[token] + debited[token] + sumOfBalances,
            "C3: what came in and went out"
        );
        _same(debited[token], credited[token], "I4: debited and credited");
        _same(credited[token], claimed[token] + sumOfCredits, "C5: credited and claimed");
    }

    /// @notice I10, *last man out*: everybody takes what is theirs, by the contract and their own
    /// keys only. Of the tokens that let them, nothing but donations stays.
    function everybodyLeaves() external {
        vm.warp(time);
        if (mood == Mood.Hostile) {
            moody.resume();
            // Whoever is blocked has the money sent elsewhere.
            if (lied[address(slashing)]) _makeGood();
        }
        for (uint256 i; i < tokens.length; ++i) {
            _claimAll(tokens[i]);
        }
        for (uint256 i; i < ids.length; ++i) {
            _expectThaw(i, balanceOf[ids[i]]);
        }
        _warp(time + thawPeriod);
        for (uint256 i; i < ids.length; ++i) {
            if (thawingOf[ids[i]] != 0) this.expectWithdrawal(i, strangers[1]);
        }
        this.checkEverything();
        for (uint256 i; i < tokens.length; ++i) {
            _same(balances[tokens[i]], 0, "I10: balances");
            _same(credits[tokens[i]], 0, "I10: credits");
            _same(held[tokens[i]], donated[tokens[i]], "I10: what stays");
        }
    }

    /// @dev The slashing token gives back what it took: it is the only one that can.
    function _makeGood() private {
        address token = address(slashing);
        uint256 owed = balances[token] + credits[token] + donated[token];
        slashing.mint(address(settlement), owed - held[token]);
        held[token] = owed;
        lied[token] = false;
    }

    function _claimAll(address token) private {
        for (uint256 i = 1; i <= providerCount; ++i) {
            uint256 units = creditOf[token][i];
            if (units == 0) continue;
            if (_pays(token, payoutOf[i], units)) {
                uint32[] memory numbers = new uint32[](2);
                (numbers[0], numbers[1]) = (uint32(i), uint32(i + 1));
                _expectClaims(strangers[0], token, numbers);
            } else {
                _expectClaimTo(payoutOf[i], token, i, strangers[1], 0, "");
            }
        }
    }
}
