// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {Tokens} from "./Tokens.sol";
import {IRewards} from "./interfaces/IRewards.sol";
import {Lanes} from "./libraries/Lanes.sol";
import {Signatures} from "./libraries/Signatures.sol";

/// @title Rewards
/// @notice See {IRewards}.
abstract contract Rewards is IRewards, Tokens, EIP712 {
    using SafeERC20 for IERC20;

    struct Provider {
        address payout;
        uint64 claimNonce;
    }

    bytes32 internal constant CLAIM_TO_TYPEHASH =
        keccak256("ClaimTo(uint32 provider,address token,address to,uint64 nonce,uint64 deadline)");
    bytes32 internal constant SET_PAYOUT_TYPEHASH =
        keccak256("SetPayout(uint32 provider,address payout,uint64 nonce,uint64 deadline)");

    /// @dev Words of four lanes that cover every `uint32` provider.
    uint256 private constant WORDS = 1 << 30;

    /// @inheritdoc IRewards
    uint32 public providerCount;

    mapping(uint256 provider => Provider) private _providers;

    /// @dev Consecutive slots per token, so that one hash serves a whole statement. See {Lanes}.
    mapping(address token => uint256[WORDS]) private _credits;

    /// @inheritdoc IRewards
    function register(address[] calldata payouts) external nonReentrant returns (uint32 first) {
        uint256 count = providerCount;
        require(payouts.length <= type(uint32).max - count, TooManyProviders());
        // Casting to uint32 is safe: the length was checked against the numbers left.
        // forge-lint: disable-next-line(unsafe-typecast)
        first = uint32(count + 1);
        bytes32 word = _journal;
        for (uint256 i; i < payouts.length; ++i) {
            _checkDestination(payouts[i]);
            _providers[++count].payout = payouts[i];
            word = _record(word, abi.encode(Registered.selector, count, payouts[i]));
        }
        // Casting to uint32 is safe for the same reason.
        // forge-lint: disable-next-line(unsafe-typecast)
        providerCount = uint32(count);
        _journal = word;
    }

    /// @inheritdoc IRewards
    function claim(address token, uint32[] calldata providers)
        external
        nonReentrant
        returns (uint64[] memory paid)
    {
        uint256 unit = _unitOf(token);
        uint256 base = _words(token);
        paid = new uint64[](providers.length);
        bytes32 word = _journal;
        for (uint256 i; i < providers.length; ++i) {
            bytes memory raw;
            (paid[i], raw) = _claim(token, unit, base, providers[i]);
            if (raw.length != 0) word = _record(word, raw);
        }
        _journal = word;
    }

    /// @inheritdoc IRewards
    function claimTo(
        uint32 provider,
        address token,
        address to,
        uint64 deadline,
        bytes calldata signature
    ) external nonReentrant returns (uint64 units) {
        _checkDestination(to);
        uint256 unit = _unitOf(token);
        uint64 claimNonce = _providers[provider].claimNonce;
        _authorize(
            provider,
            keccak256(abi.encode(CLAIM_TO_TYPEHASH, provider, token, to, claimNonce, deadline)),
            deadline,
            signature
        );
        (uint256 taken,) = Lanes.take(_words(token), provider);
        // Casting to uint64 is safe: a lane has 63 bits.
        // forge-lint: disable-next-line(unsafe-typecast)
        units = uint64(taken);
        require(units != 0, NothingToClaim(provider, token));

        _providers[provider].claimNonce = ++claimNonce;
        _emitRecorded(abi.encode(Claimed.selector, provider, token, to, units, claimNonce));
        IERC20(token).safeTransfer(to, units * unit);
    }

    /// @inheritdoc IRewards
    function setPayout(uint32 provider, address payout, uint64 deadline, bytes calldata signature)
        external
        nonReentrant
    {
        _checkDestination(payout);
        uint64 claimNonce = _providers[provider].claimNonce;
        _authorize(
            provider,
            keccak256(abi.encode(SET_PAYOUT_TYPEHASH, provider, payout, claimNonce, deadline)),
            deadline,
            signature
        );

        _providers[provider] = Provider({payout: payout, claimNonce: ++claimNonce});
        _emitRecorded(abi.encode(PayoutSet.selector, provider, payout, claimNonce));
    }

    /// @inheritdoc IRewards
    function payoutOf(uint32 provider) external view returns (address payout, uint64 claimNonce) {
        Provider memory entry = _providers[provider];
        return (entry.payout, entry.claimNonce);
    }

    /// @inheritdoc IRewards
    function creditOf(address token, uint32 provider) external view returns (uint64 units) {
        return uint64(Lanes.get(Lanes.load(_words(token), provider), provider));
    }

    /// @dev Credits well-formed rows of registered providers.
    function _credit(address token, bytes calldata rows) internal {
        require(Lanes.credit(_words(token), rows), CreditOverflow());
    }

    /// @dev Slot of the first of the token's words.
    function _words(address token) private view returns (uint256 base) {
        uint256[WORDS] storage words = _credits[token];
        assembly ("memory-safe") {
            base := words.slot
        }
    }

    /// @dev Pays one provider's credit to its payout address, or leaves everything as it was. `raw`
    /// is the event that says so, empty if there is nothing to say.
    function _claim(address token, uint256 unit, uint256 base, uint32 provider)
        private
        returns (uint64 paid, bytes memory raw)
    {
        Provider storage entry = _providers[provider];
        (address payout, uint64 claimNonce) = (entry.payout, entry.claimNonce);
        if (payout == address(0)) return (0, raw);
        (uint256 units, uint256 word) = Lanes.take(base, provider);
        if (units == 0) return (0, raw);

        // The event follows the transfer because it tells its outcome; the credit was taken before.
        if (IERC20(token).trySafeTransfer(payout, units * unit)) {
            raw = abi.encode(Claimed.selector, provider, token, payout, units, claimNonce);
            // Casting to uint64 is safe: a lane has 63 bits.
            // forge-lint: disable-next-line(unsafe-typecast)
            return (uint64(units), raw);
        }
        // Nothing can have changed the word meanwhile: the guard keeps the token out.
        Lanes.store(base, provider, word);
        return (0, abi.encode(ClaimFailed.selector, provider, token, units));
    }

    /// @dev Passes if the provider's payout address calls, or signed `structHash` with a deadline
    /// not yet over.
    function _authorize(
        uint32 provider,
        bytes32 structHash,
        uint64 deadline,
        bytes calldata signature
    ) private view {
        address payout = _providers[provider].payout;
        require(payout != address(0), UnknownProvider(provider));
        if (msg.sender == payout) return;
        require(block.timestamp <= deadline, SignatureExpired(deadline));
        require(
            Signatures.isValid(payout, _hashTypedDataV4(structHash), signature),
            NotPayout(provider, payout)
        );
    }
}
