// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Rewards
/// @notice Numbers providers, keeps their credits, and pays them out.
///
/// Providers are numbered from 1 in the order of registration. A number's payout address owns its
/// credits: it alone can send them elsewhere or hand the number over, by calling or by an EIP-712
/// signature (ECDSA, or ERC-1271 if it is a contract). Anyone may trigger a payout to it.
interface IRewards {
    /// @notice `provider` was registered with `payout` as its payout address.
    event Registered(uint32 indexed provider, address payout);
    /// @notice `units` of the provider's credit in `token` left to `to`.
    /// @param claimNonce The number's claim nonce after this call.
    event Claimed(
        uint32 indexed provider, address token, address to, uint64 units, uint64 claimNonce
    );
    /// @notice The token refused to pay the provider's credit, which therefore stays in place.
    /// @dev A hint: the caller's gas or the token's mood at that moment can cause it.
    event ClaimFailed(uint32 indexed provider, address token, uint64 units);
    /// @notice The payout address of `provider` is now `payout`.
    /// @param claimNonce The number's claim nonce after this call.
    event PayoutSet(uint32 indexed provider, address payout, uint64 claimNonce);

    /// @notice No provider has this number.
    error UnknownProvider(uint32 provider);
    /// @notice All 2^32 − 1 numbers are taken.
    error TooManyProviders();
    /// @notice The provider has no credit in this token.
    error NothingToClaim(uint32 provider, address token);
    /// @notice The signature's deadline has passed.
    error SignatureExpired(uint64 deadline);
    /// @notice The caller is not the payout address, and the signature is not by it.
    error NotPayout(uint32 provider, address payout);
    /// @notice A credit would reach 2^63 units.
    error CreditOverflow();

    /// @notice Registers payout addresses under the next free numbers. Anyone may call it.
    /// @dev Emits {Registered} for each. The same address may hold several numbers. Reverts if an
    /// address is zero or this contract.
    /// @return first Number of the first address; the others follow in order.
    function register(address[] calldata payouts) external returns (uint32 first);

    /// @notice Pays each provider's full credit in `token` to its payout address. Anyone may call
    /// it.
    /// @dev Emits {Claimed}, or {ClaimFailed} for a transfer that fails, which leaves that credit
    /// in place. Unknown numbers and empty credits are passed over. Reverts if the token is not
    /// registered.
    /// @return paid Units paid to each provider, in the order given.
    function claim(address token, uint32[] calldata providers)
        external
        returns (uint64[] memory paid);

    /// @notice Pays a provider's full credit in `token` to `to` instead of its payout address.
    /// @dev Emits {Claimed} and raises the claim nonce. The payout address calls, or signs
    /// `ClaimTo(uint32 provider,address token,address to,uint64 nonce,uint64 deadline)`. Reverts if
    /// it did neither, if the signature is past its deadline, if there is no credit, if `to` is
    /// zero or this contract, or if the transfer fails.
    /// @param deadline Last second, since 1970, at which the signature counts; ignored when the
    /// payout address calls.
    /// @param signature Ignored when the payout address calls.
    /// @return units Units paid.
    function claimTo(
        uint32 provider,
        address token,
        address to,
        uint64 deadline,
        bytes calldata signature
    ) external returns (uint64 units);

    /// @notice Hands the number, with its credits, to another payout address.
    /// @dev Emits {PayoutSet} and raises the claim nonce. The current payout address calls, or
    /// signs `SetPayout(uint32 provider,address payout,uint64 nonce,uint64 deadline)`. Reverts if
    /// it did neither, if the signature is past its deadline, or if `payout` is zero or this
    /// contract.
    function setPayout(uint32 provider, address payout, uint64 deadline, bytes calldata signature)
        external;

    /// @notice Number of providers, which is also the highest number.
    function providerCount() external view returns (uint32);

    /// @notice Payout address and claim nonce of a provider, both zero if the number is unknown.
    function payoutOf(uint32 provider) external view returns (address payout, uint64 claimNonce);

    /// @notice Units that a provider can claim in `token`.
    function creditOf(address token, uint32 provider) external view returns (uint64 units);
}
