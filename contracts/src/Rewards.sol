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
            word = _record(word, Registered.selector, bytes32(count), abi.encode(payouts[i]));
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
        paid = new uint64[](providers.length);
        bytes32 word = _journal;
        for (uint256 i; i < providers.length; ++i) {
            (paid[i], word) = _claim(token, unit, providers[i], word);
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
        units = _takeCredit(token, provider);
        require(units != 0, NothingToClaim(provider, token));

        _providers[provider].claimNonce = ++claimNonce;
        _emitRecorded(
            Claimed.selector, bytes32(uint256(provider)), abi.encode(token, to, units, claimNonce)
        );
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
        _emitRecorded(
            PayoutSet.selector, bytes32(uint256(provider)), abi.encode(payout, claimNonce)
        );
    }

    /// @inheritdoc IRewards
    function payoutOf(uint32 provider) external view returns (address payout, uint64 claimNonce) {
        Provider memory entry = _providers[provider];
        return (entry.payout, entry.claimNonce);
    }

    /// @inheritdoc IRewards
    function creditOf(address token, uint32 provider) external view returns (uint64 units) {
        return uint64(Lanes.get(_credits[token][provider >> 2], provider));
    }

    /// @dev Credits well-formed rows of registered providers.
    function _credit(address token, bytes calldata rows) internal {
        uint256[WORDS] storage words = _credits[token];
        uint256 base;
        assembly ("memory-safe") {
            base := words.slot
        }
        require(Lanes.credit(base, rows), CreditOverflow());
    }

    /// @dev Pays one provider's credit to its payout address, or leaves everything as it was.
    function _claim(address token, uint256 unit, uint32 provider, bytes32 word)
        private
        returns (uint64 paid, bytes32)
    {
        Provider memory entry = _providers[provider];
        if (entry.payout == address(0)) return (0, word);
        uint256 lanes = _credits[token][provider >> 2];
        uint64 units = _takeCredit(token, provider);
        if (units == 0) return (0, word);

        // The event follows the transfer because it tells its outcome; the credit was taken before.
        bytes32 topic = bytes32(uint256(provider));
        if (IERC20(token).trySafeTransfer(entry.payout, units * unit)) {
            bytes memory data = abi.encode(token, entry.payout, units, entry.claimNonce);
            return (units, _record(word, Claimed.selector, topic, data));
        }
        // Nothing can have changed the lanes meanwhile: the guard keeps the token out.
        _credits[token][provider >> 2] = lanes;
        return (0, _record(word, ClaimFailed.selector, topic, abi.encode(token, units)));
    }

    /// @dev Empties a provider's lane and returns what it held.
    function _takeCredit(address token, uint256 provider) private returns (uint64 units) {
        uint256 lanes = _credits[token][provider >> 2];
        units = uint64(Lanes.get(lanes, provider));
        if (units != 0) _credits[token][provider >> 2] = Lanes.clear(lanes, provider);
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
