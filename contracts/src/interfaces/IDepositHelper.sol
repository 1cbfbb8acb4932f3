// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {DepositKey} from "./IEscrow.sol";
import {IPermit2} from "./IPermit2.sol";
import {ISettlement} from "./ISettlement.sol";

/// @notice An EIP-3009 authorisation to pay into one deposit.
/// @param from Whose tokens are paid, and who signed.
/// @param amount Base units, as signed: a whole number of units.
/// @param validAfter Second, since 1970, after which the authorisation counts.
/// @param validBefore Second, since 1970, from which it no longer counts.
/// @param salt Tells several authorisations for the same deposit apart.
/// @param signature Over `ReceiveWithAuthorization` in the token's domain, `to` being the helper
/// and `nonce` {IDepositHelper.authorizationNonce}. 65 bytes go through the function of EIP-3009;
/// any other length goes through its `bytes` form, which USDC 2.2 has.
struct Authorization {
    address from;
    uint256 amount;
    uint256 validAfter;
    uint256 validBefore;
    bytes32 salt;
    bytes signature;
}

/// @notice A Permit2 signature to pay into one deposit.
/// @param from Whose tokens are paid, and who signed.
/// @param amount Base units, as signed: a whole number of units, all of which is paid.
/// @param permitNonce Unused number in the bitmap that Permit2 keeps for `from`.
/// @param deadline Last second, since 1970, at which the signature counts.
/// @param signature Over `PermitWitnessTransferFrom` in Permit2's domain, `spender` being the
/// helper and `witness` the `DepositKey`.
struct Permit2Transfer {
    address from;
    uint256 amount;
    uint256 permitNonce;
    uint256 deadline;
    bytes signature;
}

/// @title DepositHelper
/// @notice Pays into a deposit in one transaction, without an approval of the Settlement contract
/// before it. It keeps no state, no tokens and no allowance; nobody has to trust or to use it.
///
/// **Who is debited.** Nobody but the caller, unless a signature names both the helper and the
/// deposit. Such a signature may be relayed by anyone, since all that it can do is what its signer
/// wanted.
///
/// **What the log says.** {IEscrow.Deposited} names the helper as `from`; who paid is in the
/// token's own events.
///
/// **Amounts** are base units, as wallets show and sign them. What is not a whole number of units
/// is refused, never rounded.
///
/// **Accounts with code**, EIP-7702 delegations included: USDC and Permit2 ask such an account by
/// ERC-1271 and no longer accept its key's bare signature, so that both signed routes work exactly
/// if the account's code accepts the signature. If it does not, nothing moves, and approving the
/// Settlement contract itself, which such accounts can do in one batch with the deposit, always
/// works. For the same reason {depositWithPermit} uses EIP-2612's own form only: its caller is the
/// owner, and an owner with code has that batch.
///
/// **Tokens.** One that delivers anything but the amount asked for is refused. One that cheats in
/// other ways cheats its own holders only: the helper holds nothing between two calls.
interface IDepositHelper {
    /// @notice There is no contract at this address.
    error NotAContract(address account);
    /// @notice `amount` is not a multiple of `unit` base units.
    error NotWholeUnits(uint256 amount, uint256 unit);
    /// @notice `amount` exceeds what a deposit can count.
    error AmountTooLarge(uint256 amount, uint256 most);
    /// @notice The permit did not take effect, and what the owner allows otherwise is too little.
    error AllowanceTooLow(address token, address owner, uint256 allowance, uint256 needed);
    /// @notice After a step that should have left `expected` base units here there were `actual`:
    /// the token takes a fee, lies, or does not know the function that was called.
    error UnexpectedBalance(address token, uint256 expected, uint256 actual);

    /// @notice Pays `amount` of the caller into the deposit, by its EIP-2612 permit.
    /// @dev A permit that fails is passed over: somebody may have submitted it before, and then the
    /// allowance is there. The token does not tell for which deposit a permit was meant, hence the
    /// caller must be its owner.
    /// @param amount Base units, a whole number of units.
    /// @param deadline The permit's, in seconds since 1970.
    /// @param signature The permit, with the helper as spender of `amount`: 65 bytes, or 64 in the
    /// form of ERC-2098.
    function depositWithPermit(
        DepositKey calldata key,
        uint256 amount,
        uint256 deadline,
        bytes calldata signature
    ) external;

    /// @notice Pays into the deposit by an EIP-3009 authorisation. Anyone may call it.
    /// @dev The token lets only the helper use the authorisation, so that nobody can land the
    /// transfer without the deposit.
    function depositWithAuthorization(DepositKey calldata key, Authorization calldata authorization)
        external;

    /// @notice Pays into the deposit by a Permit2 signature. Anyone may call it.
    /// @dev The signed type is
    ///
    ///     PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,DepositKey witness)
    ///     DepositKey(address requestor,address signer,address cosigner,address token,bytes32 salt)
    ///     TokenPermissions(address token,uint256 amount)
    ///
    /// in one string. The owner must once have approved Permit2 for the token.
    function depositWithPermit2(DepositKey calldata key, Permit2Transfer calldata permit) external;

    /// @notice The EIP-3009 nonce that binds an authorisation to the deposit: keccak256(deposit id ‖
    /// salt).
    function authorizationNonce(DepositKey calldata key, bytes32 salt)
        external
        view
        returns (bytes32 nonce);

    /// @notice The contract that holds the deposits.
    function SETTLEMENT() external view returns (ISettlement);

    /// @notice The Permit2 contract; {depositWithPermit2} fails on chains that lack it.
    function PERMIT2() external view returns (IPermit2);
}
