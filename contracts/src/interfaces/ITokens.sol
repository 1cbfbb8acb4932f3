// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Token registry
/// @notice Fixes, once and for ever, how many base units of a token one unit is.
///
/// The contract counts money in *units*: 10^max(0, decimals − 6) base units of the token. One unit
/// is one base unit of USDC (6 decimals) and 1e12 base units of GLM (18 decimals). Amounts are
/// converted at the token boundary only.
interface ITokens {
    /// @notice `token` was registered.
    /// @param token The ERC-20 contract.
    /// @param decimals What its `decimals()` answered.
    /// @param unit Base units per unit.
    event TokenRegistered(address indexed token, uint8 decimals, uint64 unit);

    /// @notice `token` has been registered before; its unit never changes.
    error TokenAlreadyRegistered(address token);
    /// @notice `token` has not been registered.
    error TokenNotRegistered(address token);
    /// @notice `token` has no code or does not answer `decimals()`.
    error NotAToken(address token);
    /// @notice `decimals` exceeds 24, above which a unit would not fit its type.
    error TooManyDecimals(address token, uint8 decimals);
    /// @notice `token` delivered less than it was asked to: it takes a fee or lies.
    error TokenDeliveredLess(address token, uint256 asked, uint256 received);
    /// @notice The zero address and this contract are no destination for money.
    error BadDestination(address to);

    /// @notice Registers `token`. Anyone may call it, once per token.
    /// @dev Emits {TokenRegistered}. Reverts if the token is registered, does not answer
    /// `decimals()`, or has more than 24 decimals.
    function registerToken(address token) external;

    /// @notice Base units per unit of `token`, 0 if it is not registered.
    function unitOf(address token) external view returns (uint64 unit);
}
