// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {DeployPermit2} from "@uniswap/v4-periphery/lib/permit2/test/utils/DeployPermit2.sol";
import {Vm} from "forge-std/Vm.sol";

import {Authorization, IDepositHelper, Permit2Transfer} from "../src/interfaces/IDepositHelper.sol";
import {IPermit2} from "../src/interfaces/IPermit2.sol";
import {Base, DepositKey, Settlement} from "./Base.t.sol";
import {Glm, PolygonGlm} from "./tokens/Glm.sol";
import {TestToken} from "./tokens/TestTokens.sol";
import {Usdc, deployUsdc} from "./tokens/Usdc.sol";
import {Usdt} from "./tokens/Usdt.sol";

/// @notice A token of 18 decimals that knows EIP-2612 and nothing else.
contract PermitToken is ERC20("Permit", "PMT"), ERC20Permit("Permit") {
    function mint(address to, uint256 value) external {
        _mint(to, value);
    }
}

/// @notice The ways through the helper.
enum Route {
    Permit,
    Authorization,
    Permit2
}

/// @notice One deposit by one of the routes. Fields that a route does not know are ignored by it.
struct Order {
    Route route;
    IDepositHelper helper;
    DepositKey key;
    address from;
    uint256 amount;
    /// EIP-3009 salt, Permit2 nonce.
    uint256 salt;
    uint256 validAfter;
    uint256 deadline;
    bytes signature;
}

/// @notice A helper with the real Permit2, tokens that act like those of the main networks, and verbs.
abstract contract DepositHelperBase is Base {
    bytes32 private constant PERMIT_TYPEHASH = keccak256(
        "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
    );
    bytes32 private constant RECEIVE_TYPEHASH = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    bytes32 private constant PERMISSIONS_TYPEHASH =
        keccak256("TokenPermissions(address token,uint256 amount)");
    bytes32 private constant WITNESS_TRANSFER_TYPEHASH = keccak256(
        "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,DepositKey witness)DepositKey(address requestor,address signer,address cosigner,address token,bytes32 salt)TokenPermissions(address token,uint256 amount)"
    );

    /// @dev Number of pairs of a token and a route that it knows: see {orderOf}.
    uint256 internal constant PAIRS = 8;

    /// @dev Counts up, so that no two drafts have the same.
    uint256 private _salt;

    IDepositHelper internal helper;
    IPermit2 internal permit2;
    Usdc internal usdc;
    Usdt internal usdt;
    Glm internal glmMainnet;
    PolygonGlm internal glmPolygon;
    PermitToken internal permitToken;
    /// @dev Not the requestor: anybody may pay into anybody's deposit.
    Vm.Wallet internal payer;

    function setUp() public virtual override {
        // The pinned bytecode of Permit2 remembers the domain of another address on chain 31337; on
        // every other chain it computes its own, as the one on chain does.
        vm.chainId(137);
        super.setUp();
        permit2 = IPermit2(new DeployPermit2().deployPermit2());
        helper = deployHelper(settlement);
        usdc = deployUsdc();
        usdt = new Usdt();
        glmMainnet = new Glm();
        glmPolygon = new PolygonGlm();
        permitToken = new PermitToken();
        settlement.registerToken(address(usdc));
        settlement.registerToken(address(usdt));
        settlement.registerToken(address(glmMainnet));
        settlement.registerToken(address(glmPolygon));
        settlement.registerToken(address(permitToken));
        payer = vm.createWallet("payer");
    }

    /// @dev The bytecode that users get, as {Base.deploySettlement}.
    function deployHelper(Settlement settlement_) internal returns (IDepositHelper) {
        return IDepositHelper(vm.deployCode(helperArtifact(), abi.encode(settlement_, permit2)));
    }

    function helperArtifact() internal view returns (string memory) {
        return vm.envOr("QUITTANCE_HELPER", string("out/DepositHelper.sol/DepositHelper.json"));
    }

    /// @dev One order for each token and route that fit each other, in whole units, signed, with the
    /// tokens in the payer's wallet and Permit2 approved where the route needs it.
    function orders() internal returns (Order[] memory list) {
        list = new Order[](PAIRS);
        for (uint256 i; i < PAIRS; ++i) {
            list[i] = orderOf(i);
        }
    }

    function orderOf(uint256 pair) internal returns (Order memory) {
        if (pair == 0) return signed(draft(Route.Permit, address(usdc)));
        if (pair == 1) return signed(draft(Route.Permit, address(permitToken)));
        if (pair == 2) return signed(draft(Route.Authorization, address(usdc)));
        address[5] memory tokens = [
            address(usdc),
            address(usdt),
            address(glmMainnet),
            address(glmPolygon),
            address(permitToken)
        ];
        return signed(draft(Route.Permit2, tokens[pair - 3]));
    }

    /// @dev An unsigned order over 1,000 units of the payer, who gets twice as much.
    function draft(Route route, address token) internal returns (Order memory) {
        uint256 amount = 1000 * uint256(settlement.unitOf(token));
        TestToken(token).mint(payer.addr, 2 * amount);
        if (route == Route.Permit2) {
            approve(payer.addr, token, address(permit2), type(uint256).max);
        }
        return Order({
            route: route,
            helper: helper,
            key: bound(token),
            from: payer.addr,
            amount: amount,
            salt: _salt++,
            validAfter: block.timestamp - 1,
            deadline: block.timestamp + 1 hours,
            signature: ""
        });
    }

    /// @dev Tolerates answers of any kind, and allowances that must pass through zero.
    function approve(address owner, address token, address spender, uint256 amount) internal {
        vm.startPrank(owner);
        (bool reset,) = token.call(abi.encodeCall(IERC20.approve, (spender, 0)));
        (bool success,) = token.call(abi.encodeCall(IERC20.approve, (spender, amount)));
        vm.stopPrank();
        assertTrue(reset && success, "approve");
    }

    function signed(Order memory order) internal returns (Order memory) {
        order.signature = sign(payer, digestOf(order));
        return order;
    }

    /// @dev What the payer signs, computed apart from helper, token and Permit2.
    function digestOf(Order memory order) internal view returns (bytes32) {
        if (order.route == Route.Permit2) return permit2Digest(order);
        // All the tokens with a signed route of their own tell their domain.
        bytes32 domain = PermitToken(order.key.token).DOMAIN_SEPARATOR();
        bytes32 structHash = order.route == Route.Permit
            ? keccak256(
                abi.encode(
                    PERMIT_TYPEHASH,
                    order.from,
                    order.helper,
                    order.amount,
                    PermitToken(order.key.token).nonces(order.from),
                    order.deadline
                )
            )
            : keccak256(
                abi.encode(
                    RECEIVE_TYPEHASH,
                    order.from,
                    order.helper,
                    order.amount,
                    order.validAfter,
                    order.deadline,
                    keccak256(bytes.concat(settlement.depositId(order.key), bytes32(order.salt)))
                )
            );
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }

    function permit2Digest(Order memory order) private view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,uint256 chainId,address verifyingContract)"),
                keccak256("Permit2"),
                block.chainid,
                permit2
            )
        );
        bytes32 structHash = keccak256(
            abi.encode(
                WITNESS_TRANSFER_TYPEHASH,
                keccak256(abi.encode(PERMISSIONS_TYPEHASH, order.key.token, order.amount)),
                order.helper,
                order.salt,
                order.deadline,
                settlement.depositId(order.key)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }

    function calldataOf(Order memory o) internal view returns (bytes memory) {
        if (o.route == Route.Permit) {
            return
                abi.encodeCall(helper.depositWithPermit, (o.key, o.amount, o.deadline, o.signature));
        }
        if (o.route == Route.Authorization) {
            return abi.encodeCall(
                helper.depositWithAuthorization,
                (
                    o.key,
                    Authorization(
                        o.from, o.amount, o.validAfter, o.deadline, bytes32(o.salt), o.signature
                    )
                )
            );
        }
        return abi.encodeCall(
            helper.depositWithPermit2,
            (o.key, Permit2Transfer(o.from, o.amount, o.salt, o.deadline, o.signature))
        );
    }

    function submit(address caller, Order memory order)
        internal
        returns (bool success, bytes memory answer)
    {
        bytes memory data = calldataOf(order);
        vm.prank(caller);
        // No more than a transaction can have, so that a token cannot burn what the test needs.
        return address(order.helper).call{gas: 16_777_216}(data);
    }

    /// @dev The whole amount moves from the payer to the deposit, and from nobody else.
    function assertCredited(address caller, Order memory order) internal {
        IERC20 token = IERC20(order.key.token);
        bytes32 id = settlement.depositId(order.key);
        uint64 units = settlement.depositOf(id).balance;
        uint256 paid = token.balanceOf(order.from);
        uint256 callers = token.balanceOf(caller);
        uint256 held = token.balanceOf(address(settlement));

        (bool success, bytes memory answer) = submit(caller, order);
        if (!success) emit log_named_bytes("refused with", answer);
        assertTrue(success, describe(order));

        uint256 credited = settlement.depositOf(id).balance - units;
        assertGt(credited, 0, describe(order));
        assertEq(credited * settlement.unitOf(address(token)), order.amount, "deposit");
        assertEq(paid - token.balanceOf(order.from), order.amount, "payer");
        assertEq(token.balanceOf(address(settlement)) - held, order.amount, "settlement");
        if (caller != order.from) assertEq(token.balanceOf(caller), callers, "caller");
        assertNothingLeft(order);
    }

    /// @dev Nothing moves; returns the first four bytes of the reason.
    function assertRefused(address caller, Order memory order) internal returns (bytes4) {
        IERC20 token = IERC20(order.key.token);
        bytes32 id = settlement.depositId(order.key);
        uint64 units = settlement.depositOf(id).balance;
        uint256 paid = token.balanceOf(order.from);
        uint256 callers = token.balanceOf(caller);
        uint256 held = token.balanceOf(address(settlement));

        (bool success, bytes memory answer) = submit(caller, order);
        assertFalse(success, describe(order));

        assertEq(settlement.depositOf(id).balance, units, "deposit");
        assertEq(token.balanceOf(order.from), paid, "payer");
        assertEq(token.balanceOf(caller), callers, "caller");
        assertEq(token.balanceOf(address(settlement)), held, "settlement");
        assertNothingLeft(order);
        return bytes4(answer);
    }

    function assertNothingLeft(Order memory order) internal view {
        IERC20 token = IERC20(order.key.token);
        address emptied = address(order.helper);
        assertEq(token.balanceOf(emptied), 0, "balance left behind");
        assertEq(token.allowance(emptied, address(settlement)), 0, "allowance left behind");
        assertEq(token.allowance(order.from, emptied), 0, "allowance to the helper");
    }

    function describe(Order memory order) internal view returns (string memory) {
        string memory route = order.route == Route.Permit
            ? "EIP-2612, token "
            : order.route == Route.Authorization ? "EIP-3009, token " : "Permit2, token ";
        return string.concat(route, vm.toString(order.key.token));
    }
}
