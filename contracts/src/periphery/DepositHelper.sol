// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC3009} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {Authorization, IDepositHelper, Permit2Transfer} from "../interfaces/IDepositHelper.sol";
import {IERC7598} from "../interfaces/IERC7598.sol";
import {DepositKey} from "../interfaces/IEscrow.sol";
import {IPermit2} from "../interfaces/IPermit2.sol";
import {ISettlement} from "../interfaces/ISettlement.sol";
import {ITokens} from "../interfaces/ITokens.sol";

/// @title DepositHelper
/// @notice See {IDepositHelper}.
/// @dev Needs no reentrancy guard: there is no state to catch half-written, every call leaves the
/// balance as it found it, and a call nested in another one does so before the outer one goes on.
contract DepositHelper is IDepositHelper {
    using SafeERC20 for IERC20;

    /// @dev The signed type from its witness on, with the types that it refers to in the order of
    /// their names.
    string private constant WITNESS_TYPE = "DepositKey witness)"
        "DepositKey(address requestor,address signer,address cosigner,address token,bytes32 salt)"
        "TokenPermissions(address token,uint256 amount)";

    /// @inheritdoc IDepositHelper
    ISettlement public immutable SETTLEMENT;
    /// @inheritdoc IDepositHelper
    IPermit2 public immutable PERMIT2;

    /// @param settlement Must be deployed.
    /// @param permit2 Not checked, because some chains lack it and can use the other routes.
    constructor(ISettlement settlement, IPermit2 permit2) {
        require(address(settlement).code.length != 0, NotAContract(address(settlement)));
        SETTLEMENT = settlement;
        PERMIT2 = permit2;
    }

    /// @inheritdoc IDepositHelper
    function depositWithPermit(
        DepositKey calldata key,
        uint256 amount,
        uint256 deadline,
        bytes calldata signature
    ) external {
        uint64 units = _toUnits(key.token, amount);
        uint256 before = IERC20(key.token).balanceOf(address(this));
        (uint8 v, bytes32 r, bytes32 s) = ECDSA.parseCalldata(signature);
        // Success proves nothing either, since a token's fallback may accept any call.
        try IERC20Permit(key.token).permit(msg.sender, address(this), amount, deadline, v, r, s) {}
            catch {}
        uint256 allowance = IERC20(key.token).allowance(msg.sender, address(this));
        require(allowance >= amount, AllowanceTooLow(key.token, msg.sender, allowance, amount));
        IERC20(key.token).safeTransferFrom(msg.sender, address(this), amount);
        _deposit(key, units, amount, before);
    }

    /// @inheritdoc IDepositHelper
    function depositWithAuthorization(DepositKey calldata key, Authorization calldata authorization)
        external
    {
        uint64 units = _toUnits(key.token, authorization.amount);
        uint256 before = IERC20(key.token).balanceOf(address(this));
        _receive(key.token, authorization, authorizationNonce(key, authorization.salt));
        _deposit(key, units, authorization.amount, before);
    }

    /// @inheritdoc IDepositHelper
    function depositWithPermit2(DepositKey calldata key, Permit2Transfer calldata permit) external {
        uint64 units = _toUnits(key.token, permit.amount);
        uint256 before = IERC20(key.token).balanceOf(address(this));
        PERMIT2.permitWitnessTransferFrom(
            IPermit2.PermitTransferFrom({
                permitted: IPermit2.TokenPermissions(key.token, permit.amount),
                nonce: permit.permitNonce,
                deadline: permit.deadline
            }),
            IPermit2.SignatureTransferDetails(address(this), permit.amount),
            permit.from,
            SETTLEMENT.depositId(key),
            WITNESS_TYPE,
            permit.signature
        );
        _deposit(key, units, permit.amount, before);
    }

    /// @inheritdoc IDepositHelper
    function authorizationNonce(DepositKey calldata key, bytes32 salt)
        public
        view
        returns (bytes32 nonce)
    {
        return keccak256(abi.encode(SETTLEMENT.depositId(key), salt));
    }

    /// @dev Uses the authorisation, in the form that fits the signature's length.
    function _receive(address token, Authorization calldata authorization, bytes32 nonce) private {
        if (authorization.signature.length == 65) {
            (uint8 v, bytes32 r, bytes32 s) = ECDSA.parseCalldata(authorization.signature);
            IERC3009(token)
                .receiveWithAuthorization(
                    authorization.from,
                    address(this),
                    authorization.amount,
                    authorization.validAfter,
                    authorization.validBefore,
                    nonce,
                    v,
                    r,
                    s
                );
        } else {
            IERC7598(token)
                .receiveWithAuthorization(
                    authorization.from,
                    address(this),
                    authorization.amount,
                    authorization.validAfter,
                    authorization.validBefore,
                    nonce,
                    authorization.signature
                );
        }
    }

    /// @dev Moves the `amount` that has just arrived into the deposit. `before` is the balance
    /// without it, above zero only if somebody sent tokens here by mistake; they stay out of reach.
    function _deposit(DepositKey calldata key, uint64 units, uint256 amount, uint256 before)
        private
    {
        IERC20 token = IERC20(key.token);
        _checkBalance(token, before + amount);
        token.forceApprove(address(SETTLEMENT), amount);
        SETTLEMENT.deposit(key, units);
        _checkBalance(token, before);
        // A token may leave an allowance as it is, when it takes the amount for a boundless one.
        if (token.allowance(address(this), address(SETTLEMENT)) != 0) {
            token.forceApprove(address(SETTLEMENT), 0);
        }
    }

    function _checkBalance(IERC20 token, uint256 expected) private view {
        uint256 actual = token.balanceOf(address(this));
        require(actual == expected, UnexpectedBalance(address(token), expected, actual));
    }

    /// @dev Units of a registered token that `amount` base units come to, without a remainder.
    function _toUnits(address token, uint256 amount) private view returns (uint64 units) {
        uint256 unit = SETTLEMENT.unitOf(token);
        require(unit != 0, ITokens.TokenNotRegistered(token));
        require(amount % unit == 0, NotWholeUnits(amount, unit));
        uint256 most = type(uint64).max * unit;
        require(amount <= most, AmountTooLarge(amount, most));
        // Casting to uint64 is safe: the amount was compared.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint64(amount / unit);
    }
}
