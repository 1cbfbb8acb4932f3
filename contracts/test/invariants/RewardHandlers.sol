// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IRewards} from "../../src/interfaces/IRewards.sol";
import {ITokens} from "../../src/interfaces/ITokens.sol";
import {EscrowHandlers} from "./EscrowHandlers.sol";

/// @title RewardHandlers
/// @notice Registers providers, pays out credits and hands numbers over, by those who may and those
/// who may not.
abstract contract RewardHandlers is EscrowHandlers {
    bytes32 private constant CLAIM_TO_TYPEHASH =
        keccak256("ClaimTo(uint32 provider,address token,address to,uint64 nonce,uint64 deadline)");
    bytes32 private constant SET_PAYOUT_TYPEHASH =
        keccak256("SetPayout(uint32 provider,address payout,uint64 nonce,uint64 deadline)");
    uint256 private constant MOST_PROVIDERS = 90;

    function register(uint256 seed) external handler(seed) {
        uint256 count = providerCount < MOST_PROVIDERS ? _choose(4) : 0;
        address[] memory list = new address[](count);
        for (uint256 i; i < count; ++i) {
            list[i] = payouts[_choose(PAYOUTS)];
        }
        _expectProviders(_anybody(), list);
        _succeeded();
    }

    function registerRefused(uint256 seed) external handler(seed) {
        address[] memory list = new address[](1 + _choose(3));
        for (uint256 i; i < list.length; ++i) {
            list[i] = payouts[_choose(PAYOUTS)];
        }
        address bad = _choose(2) == 0 ? address(0) : address(settlement);
        list[_choose(list.length)] = bad;
        _refused(
            _anybody(),
            abi.encodeCall(settlement.register, (list)),
            abi.encodeWithSelector(ITokens.BadDestination.selector, bad)
        );
        _succeeded();
    }

    /// @dev One provider's credit, by anybody.
    function claim(uint256 seed) external handler(seed) {
        (address token, uint256 provider) = _credited(false);
        uint32[] memory numbers = new uint32[](1);
        numbers[0] = uint32(provider);
        if (_expectClaims(_anybody(), token, numbers) != 0) _succeeded();
    }

    /// @dev Many numbers: with credit and without, unknown, named twice, and some that the token
    /// refuses to pay.
    function claimMany(uint256 seed) external handler(seed) {
        (address token, uint256 provider) = _credited(false);
        uint32[] memory numbers = new uint32[](1 + _choose(7));
        for (uint256 i; i < numbers.length; ++i) {
            uint256 choice = _choose(8);
            if (choice == 0) numbers[i] = uint32(providerCount + _choose(5));
            else if (choice == 1) numbers[i] = uint32(_choose(1 << 32));
            else if (choice == 2) numbers[i] = uint32(_choose(2));
            else numbers[i] = uint32(1 + (provider + i * (1 + choice % 3)) % providerCount);
        }
        numbers[_choose(numbers.length)] = uint32(provider);
        if (_expectClaims(_anybody(), token, numbers) != 0) _succeeded();
    }

    /// @dev What claiming these ought to do. Returns the units paid.
    function _expectClaims(address from, address token, uint32[] memory numbers)
        internal
        returns (uint256 total)
    {
        uint256[] memory before = new uint256[](numbers.length);
        for (uint256 i; i < numbers.length; ++i) {
            before[i] = creditOf[token][numbers[i]];
        }
        _beforeCallBy(from);
        uint64[] memory paid = settlement.claim(token, numbers);
        _same(paid.length, numbers.length, "amounts paid");
        for (uint256 i; i < numbers.length; ++i) {
            uint256 units = _expectClaim(token, numbers[i]);
            // C21: what the view told is what moved, once.
            _same(paid[i], units, "I5: units paid");
            _hold(units == 0 || units == before[i], "I5: part of a credit was paid");
            total += units;
        }
        bytes32[] memory writes = _after();
        for (uint256 i; i < numbers.length; ++i) {
            _checkCredit(token, numbers[i]);
        }
        _checkHeld(token);
        _finish(writes);
    }

    function _expectClaim(address token, uint256 provider) private returns (uint256 units) {
        address payout = payoutOf[provider];
        units = creditOf[token][provider];
        if (payout == address(0) || units == 0) return 0;
        if (!_pays(token, payout, units)) {
            _announce(IRewards.ClaimFailed.selector, bytes32(provider), abi.encode(token, units));
            return 0;
        }
        _I5_creditFallsByWhatLeaves(token, provider, payout);
    }

    /// @dev I5: the whole credit leaves to the payout address or to where it wished.
    function _I5_creditFallsByWhatLeaves(address token, uint256 provider, address to) private {
        uint256 units = _claim(token, provider);
        _announce(
            IRewards.Claimed.selector,
            bytes32(provider),
            abi.encode(token, to, units, claimNonceOf[provider])
        );
        _announceTransfer(token, address(settlement), to, units * unitOf[token]);
    }

    function claimTo(uint256 seed) external handler(seed) {
        (address token, uint256 provider) = _credited(false);
        uint256 units = creditOf[token][provider];
        address to = _anybody();
        if (units == 0) return;
        if (!_pays(token, to, units)) {
            // Unlike `claim`, it reverts, and takes nothing.
            _refused(
                payoutOf[provider],
                abi.encodeCall(settlement.claimTo, (uint32(provider), token, to, 0, "")),
                _refusal(token, to, units)
            );
            to = strangers[1];
            if (!_pays(token, to, units)) return;
        }
        _expectClaimTo(payoutOf[provider], token, provider, to, 0, "");
        _succeeded();
    }

    function claimToSigned(uint256 seed) external handler(seed) {
        (address token, uint256 provider) = _credited(true);
        uint256 units = creditOf[token][provider];
        address to = _anybody();
        if (!_pays(token, to, units)) to = strangers[1];
        if (units == 0 || !_pays(token, to, units)) return;
        address payout = payoutOf[provider];
        if (!_hasSecret(payout)) return;
        // Its last second included.
        uint64 deadline = uint64(time + (_choose(4) == 0 ? 0 : _choose(1 << 40)));
        bytes32 digest = _claimToDigest(token, provider, to, deadline);
        bytes memory signature = _sign(payout, digest);
        _expectClaimTo(_stranger(), token, provider, to, deadline, signature);

        // C7: used once, it is worth nothing, whether there is credit or not.
        _refused(
            strangers[0] == payoutOf[provider] ? strangers[1] : strangers[0],
            abi.encodeCall(settlement.claimTo, (uint32(provider), token, to, deadline, signature)),
            abi.encodeWithSelector(
                IRewards.NotPayout.selector, uint32(provider), payoutOf[provider]
            )
        );
        _succeeded();
    }

    function _expectClaimTo(
        address from,
        address token,
        uint256 provider,
        address to,
        uint64 deadline,
        bytes memory signature
    ) internal {
        uint256 expected = creditOf[token][provider];
        _beforeCallBy(from);
        uint64 units = settlement.claimTo(uint32(provider), token, to, deadline, signature);
        _same(units, expected, "I5: units paid");
        ++claimNonceOf[provider];
        _I5_creditFallsByWhatLeaves(token, provider, to);
        bytes32[] memory writes = _after();
        _checkCredit(token, provider);
        _checkProvider(provider);
        _checkHeld(token);
        _finish(writes);
    }

    function claimToRefused(uint256 seed) external handler(seed) {
        (address token, uint256 provider) = _credited(true);
        address payout = payoutOf[provider];
        address from = payout == strangers[0] ? strangers[1] : strangers[0];
        address to = from;
        uint64 deadline = type(uint64).max;
        bytes memory signature;
        bytes memory expected =
            abi.encodeWithSelector(IRewards.NotPayout.selector, uint32(provider), payout);
        uint256 fault = _choose(9);
        if (fault == 0) {
            to = _choose(2) == 0 ? address(0) : address(settlement);
            expected = abi.encodeWithSelector(ITokens.BadDestination.selector, to);
        } else if (fault == 1) {
            token = address(this);
            expected = abi.encodeWithSelector(ITokens.TokenNotRegistered.selector, token);
        } else if (fault == 2) {
            provider = _choose(2) == 0 ? 0 : providerCount + 1;
            expected = abi.encodeWithSelector(IRewards.UnknownProvider.selector, uint32(provider));
        } else if (fault == 3) {
            deadline = uint64(time - 1);
            signature = _sign(payout, _claimToDigest(token, provider, to, deadline));
            expected = abi.encodeWithSelector(IRewards.SignatureExpired.selector, deadline);
        } else if (fault == 4) {
            // I7: signed for the other function.
            signature = _sign(payout, _setPayoutDigest(provider, to, deadline));
        } else if (fault == 5) {
            // I5: signed for another destination.
            signature = _sign(payout, _claimToDigest(token, provider, payout, deadline));
        } else if (fault == 6) {
            // I6: signed by a stranger, or by whoever signs statements.
            address signer = _choose(2) == 0 ? from : keys[_choose(keys.length)].signer;
            if (secretOf[signer] == secretOf[payout]) return;
            signature = _sign(signer, _claimToDigest(token, provider, to, deadline));
        } else if (fault == 7) {
            // I7: signed for another number.
            signature = _sign(payout, _claimToDigest(token, provider + 1, to, deadline));
        } else {
            if (!_hasSecret(payout) || !_emptyAnywhere(provider)) return;
            token = _emptyToken;
            signature = _sign(payout, _claimToDigest(token, provider, to, deadline));
            expected =
                abi.encodeWithSelector(IRewards.NothingToClaim.selector, uint32(provider), token);
        }
        _refused(
            from,
            abi.encodeCall(settlement.claimTo, (uint32(provider), token, to, deadline, signature)),
            expected
        );
        _succeeded();
    }

    address private _emptyToken;

    /// @dev Whether there is a token in which the provider has no credit, which it remembers.
    function _emptyAnywhere(uint256 provider) private returns (bool) {
        for (uint256 i; i < tokens.length; ++i) {
            _emptyToken = tokens[i];
            if (creditOf[_emptyToken][provider] == 0) return true;
        }
        return false;
    }

    function setPayout(uint256 seed) external handler(seed) {
        uint256 provider = 1 + _choose(providerCount);
        _expectPayout(payoutOf[provider], provider, payouts[_choose(PAYOUTS)], 0, "");
        _succeeded();
    }

    function setPayoutSigned(uint256 seed) external handler(seed) {
        uint256 provider = 1 + _choose(providerCount);
        while (!_hasSecret(payoutOf[provider])) {
            provider = 1 + provider % providerCount;
        }
        address old = payoutOf[provider];
        address payout = payouts[_choose(PAYOUTS)];
        uint64 deadline = uint64(time + (_choose(4) == 0 ? 0 : _choose(1 << 40)));
        bytes memory signature = _sign(old, _setPayoutDigest(provider, payout, deadline));
        _expectPayout(strangers[1], provider, payout, deadline, signature);
        if (payout == old) {
            // C7: used once, it is worth nothing.
            _refused(
                strangers[1],
                abi.encodeCall(
                    settlement.setPayout, (uint32(provider), payout, deadline, signature)
                ),
                abi.encodeWithSelector(IRewards.NotPayout.selector, uint32(provider), payout)
            );
        }
        _succeeded();
    }

    function _expectPayout(
        address from,
        uint256 provider,
        address payout,
        uint64 deadline,
        bytes memory signature
    ) private {
        _beforeCallBy(from);
        settlement.setPayout(uint32(provider), payout, deadline, signature);
        payoutOf[provider] = payout;
        uint256 claimNonce = ++claimNonceOf[provider];
        _announce(IRewards.PayoutSet.selector, bytes32(provider), abi.encode(payout, claimNonce));
        bytes32[] memory writes = _after();
        _checkProvider(provider);
        _finish(writes);
    }

    function setPayoutRefused(uint256 seed) external handler(seed) {
        uint256 provider = 1 + _choose(providerCount);
        address old = payoutOf[provider];
        address from = strangers[1];
        address payout = from;
        uint64 deadline = type(uint64).max;
        bytes memory signature;
        bytes memory expected =
            abi.encodeWithSelector(IRewards.NotPayout.selector, uint32(provider), old);
        uint256 fault = _choose(6);
        if (fault == 0) {
            payout = _choose(2) == 0 ? address(0) : address(settlement);
            expected = abi.encodeWithSelector(ITokens.BadDestination.selector, payout);
        } else if (fault == 1) {
            provider = _choose(2) == 0 ? 0 : providerCount + 1;
            expected = abi.encodeWithSelector(IRewards.UnknownProvider.selector, uint32(provider));
        } else if (fault == 2) {
            deadline = uint64(time - 1);
            expected = abi.encodeWithSelector(IRewards.SignatureExpired.selector, deadline);
        } else if (fault == 3) {
            // I7: signed for the other function.
            signature = _sign(old, _claimToDigest(payout, provider, payout, deadline));
        } else if (fault == 4) {
            // I6: signed by the wrong one.
            signature = _sign(from, _setPayoutDigest(provider, payout, deadline));
        }
        // Else nothing at all.
        _refused(
            from,
            abi.encodeCall(settlement.setPayout, (uint32(provider), payout, deadline, signature)),
            expected
        );
        _succeeded();
    }

    /// @dev A number with credit, paid at an address that can sign if it `mustSign`, if there is one.
    function _credited(bool mustSign) internal returns (address token, uint256 provider) {
        uint256 first = _choose(tokens.length);
        uint256 number = _choose(providerCount);
        for (uint256 i; i < tokens.length; ++i) {
            token = tokens[(first + i) % tokens.length];
            if (credits[token] == 0) continue;
            for (uint256 j; j < providerCount; ++j) {
                provider = 1 + (number + j) % providerCount;
                if (creditOf[token][provider] == 0) continue;
                if (!mustSign || _hasSecret(payoutOf[provider])) return (token, provider);
            }
        }
        return (token, 1 + number);
    }

    function _claimToDigest(address token, uint256 provider, address to, uint64 deadline)
        internal
        view
        returns (bytes32)
    {
        return _digest(
            keccak256(
                abi.encode(CLAIM_TO_TYPEHASH, provider, token, to, claimNonceOf[provider], deadline)
            )
        );
    }

    function _setPayoutDigest(uint256 provider, address payout, uint64 deadline)
        internal
        view
        returns (bytes32)
    {
        return _digest(
            keccak256(
                abi.encode(SET_PAYOUT_TYPEHASH, provider, payout, claimNonceOf[provider], deadline)
            )
        );
    }
}
