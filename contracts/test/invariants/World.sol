// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Settlement} from "../../src/Settlement.sol";
import {DepositKey} from "../../src/interfaces/IEscrow.sol";
import {IEscrow} from "../../src/interfaces/IEscrow.sol";
import {IRewards} from "../../src/interfaces/IRewards.sol";
import {ITokens} from "../../src/interfaces/ITokens.sol";
import {SilentToken} from "../tokens/HostileTokens.sol";
import {BlocklistToken, FeeToken, TestToken} from "../tokens/TestTokens.sol";
import {
    DemandingWallet,
    OwnedWallet,
    ScriptedWallet,
    SlowWallet,
    VerboseWallet
} from "../wallets/Wallets.sol";
import {MoodyToken, ReentrantSigner, ReentrantTester, SlashingToken} from "./Hostile.sol";
import {Shadow} from "./Shadow.sol";

/// @title World
/// @notice The accounts, tokens, deposits and providers that the handlers act for, and signatures by
/// all of them.
abstract contract World is Shadow {
    /// @dev A world of well-behaved tokens and wallets, or one in which many are hostile.
    enum Mood {
        Plain,
        Hostile
    }

    uint256 internal constant PAYOUTS = 10;
    uint256 private constant FIRST_PROVIDERS = 58;
    uint256 private constant FORTUNE = 1e45;
    /// @dev x coordinate of the curve's generator.
    uint256 private constant GENERATOR_X =
        0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798;
    bytes32 private constant YES = bytes32(bytes4(0x1626ba7e));

    bytes32 private immutable domain;
    Mood internal immutable mood;

    address[] internal requestors;
    address[] internal strangers;
    /// @dev Tokens that can be deposited.
    address[] internal tokens;
    FeeToken internal feeToken;
    BlocklistToken internal blocklist;
    MoodyToken internal moody;
    ReentrantTester internal reentrant;
    SlashingToken internal slashing;

    DepositKey[] internal keys;
    bytes32[] internal ids;
    /// @dev Whether those whom the key names sign at all.
    bool[] internal willing;
    /// @dev Whether every one whom the key names looks at what it signs.
    bool[] internal strict;

    /// @dev Addresses that providers are paid at.
    address[] internal payouts;
    mapping(address account => uint256) internal secretOf;
    /// @dev Wallets that say yes to everything, or no.
    mapping(address account => bool) internal agrees;
    mapping(address account => bool) internal refuses;

    uint256 private entropy;

    constructor(Mood mood_) {
        mood = mood_;
        domain = _domainOf(block.chainid, address(settlement));
        for (uint256 i = 1; i <= 3; ++i) {
            requestors.push(_account(i));
        }
        strangers.push(_account(11));
        strangers.push(_account(12));
        _createTokens();
        _createDeposits();
        _createProviders();
        for (uint256 i; i < keys.length; ++i) {
            _fund(i, requestors[i % 3], uint64(1_000_000 + i * 77_777_777));
        }
    }

    /// @dev Whoever holds this secret.
    function _account(uint256 secret) internal returns (address account) {
        account = vm.addr(secret);
        secretOf[account] = secret;
    }

    function _createTokens() private {
        _createToken(address(new TestToken("Test USD", "TUSD", 6)));
        _createToken(address(new TestToken("Test GLM", "TGLM", 18)));
        if (mood == Mood.Plain) {
            _createToken(address(new TestToken("Zero", "ZERO", 0)));
            _createToken(address(new TestToken("Large", "LARGE", 24)));
            silent[_createToken(address(new SilentToken()))] = true;
        } else {
            blocklist = BlocklistToken(_createToken(address(new BlocklistToken())));
            moody = MoodyToken(_createToken(address(new MoodyToken())));
            reentrant = ReentrantTester(_createToken(address(new ReentrantTester())));
            slashing = SlashingToken(_createToken(address(new SlashingToken())));
        }
        feeToken = new FeeToken();
        _expectRegistration(address(feeToken), 6);
        _approve(address(feeToken));
    }

    function _createToken(address token) private returns (address) {
        tokens.push(token);
        _expectRegistration(token, TestToken(token).decimals());
        _approve(token);
        return token;
    }

    function _expectRegistration(address token, uint8 decimals) internal {
        uint64 unit = uint64(10 ** (decimals > 6 ? decimals - 6 : 0));
        _beforeCallBy(strangers[0]);
        settlement.registerToken(token);
        _registerToken(token, unit);
        _announce(
            ITokens.TokenRegistered.selector,
            bytes32(uint256(uint160(token))),
            abi.encode(decimals, unit)
        );
        bytes32[] memory writes = _after();
        _checkRegistration(token);
        _finish(writes);
    }

    /// @dev Everybody who pays in gets a fortune of the token.
    function _approve(address token) private {
        for (uint256 i; i < 5; ++i) {
            address account = i < 3 ? requestors[i] : strangers[i - 3];
            TestToken(token).mint(account, FORTUNE);
            vm.prank(account);
            TestToken(token).approve(address(settlement), type(uint256).max);
        }
    }

    function _createDeposits() private {
        (address attester, address otherAttester) = (_account(21), _account(22));
        (address agent, address otherAgent) = (_account(31), _account(32));
        address attesterWallet = _wallet(address(new OwnedWallet(attester)), 21);
        for (uint256 i; i < tokens.length; ++i) {
            address token = tokens[i];
            // Hosted, bound, own.
            _createDeposit(requestors[i % 3], attester, address(0), token);
            _createDeposit(requestors[(i + 1) % 3], agent, attester, token);
            _createDeposit(requestors[(i + 2) % 3], otherAgent, address(0), token);
            // A statement of one deposit is no statement of its neighbour.
            _createDeposit(requestors[i % 3], attester, otherAttester, token);
        }
        // The requestor's own signature counts where it is named.
        _createDeposit(requestors[0], requestors[0], attester, tokens[0]);
        _createDeposit(requestors[1], attesterWallet, address(0), tokens[0]);
        _createDeposit(requestors[2], agent, attesterWallet, tokens[1]);
        if (mood == Mood.Plain) return;

        address yes = address(new ScriptedWallet(abi.encode(YES), false));
        address verbose = address(new VerboseWallet(YES));
        address no = address(new ScriptedWallet(abi.encode(YES), true));
        address slow = address(new SlowWallet(attester, type(uint256).max));
        (agrees[yes], agrees[verbose], refuses[no], refuses[slow]) = (true, true, true, true);
        address demanding = _wallet(address(new DemandingWallet(agent, 248_000)), 31);
        address entering = _wallet(address(new ReentrantSigner(agent, settlement)), 31);
        _createDeposit(requestors[0], yes, address(0), tokens[0]);
        _createDeposit(requestors[1], verbose, attester, tokens[2]);
        _createDeposit(requestors[2], no, address(0), tokens[3]);
        _createDeposit(requestors[0], attester, no, tokens[1]);
        _createDeposit(requestors[1], slow, address(0), tokens[2]);
        _createDeposit(requestors[2], demanding, attester, tokens[3]);
        _createDeposit(requestors[0], entering, address(0), tokens[4]);
        // An account with a delegation signs with its key, whatever its code says.
        vm.etch(otherAttester, no.code);
    }

    function _wallet(address wallet, uint256 ownersSecret) private returns (address) {
        secretOf[wallet] = ownersSecret;
        return wallet;
    }

    function _createDeposit(address requestor, address signer, address cosigner, address token)
        private
    {
        keys.push(DepositKey(requestor, signer, cosigner, token, bytes32(keys.length)));
        ids.push(_idOf(keys[keys.length - 1]));
        willing.push(!refuses[signer] && !refuses[cosigner]);
        strict.push(!agrees[signer] && !agrees[cosigner]);
    }

    function _createProviders() private {
        for (uint256 i = 1; i <= 7; ++i) {
            payouts.push(_account(40 + i));
        }
        payouts.push(_wallet(address(new OwnedWallet(_account(41))), 41));
        address no = address(new ScriptedWallet("", true));
        refuses[no] = true;
        payouts.push(no);
        payouts.push(strangers[0]);
        address[] memory first = new address[](FIRST_PROVIDERS);
        for (uint256 i; i < FIRST_PROVIDERS; ++i) {
            first[i] = payouts[i % PAYOUTS];
        }
        _expectProviders(strangers[1], first);
    }

    function _expectProviders(address from, address[] memory list) internal {
        _beforeCallBy(from);
        uint256 number = settlement.register(list);
        _same(number, providerCount + 1, "number of the first provider");
        _register(list.length);
        for (uint256 i; i < list.length; ++i) {
            payoutOf[number + i] = list[i];
            _announce(IRewards.Registered.selector, bytes32(number + i), abi.encode(list[i]));
        }
        bytes32[] memory writes = _after();
        for (uint256 i; i < list.length; ++i) {
            _checkProvider(number + i);
        }
        _checkProviderCount();
        _finish(writes);
    }

    /// @dev `from` pays units into deposit `index`.
    function _fund(uint256 index, address from, uint64 units) internal {
        DepositKey memory key = keys[index];
        bytes32 id = ids[index];
        _beforeCallBy(from);
        settlement.deposit(key, units);
        _deposit(id, key.token, units);
        _announce(IEscrow.Deposited.selector, id, abi.encode(key, from, units));
        _announceTransfer(key.token, from, address(settlement), units * unitOf[key.token]);
        bytes32[] memory writes = _after();
        _checkDeposit(id, Cause.Other);
        _checkHeld(key.token);
        _finish(writes);
    }

    function _idOf(DepositKey memory key) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256(
                    "DepositKey(address requestor,address signer,address cosigner,address token,bytes32 salt)"
                ),
                key
            )
        );
    }

    /// @dev EIP-712 digest, computed apart from the contract.
    function _digest(bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }

    /// @dev The digest in the domain of another chain or contract.
    function _digestIn(uint256 chainId, address verifyingContract, bytes32 structHash)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(
            abi.encodePacked(hex"1901", _domainOf(chainId, verifyingContract), structHash)
        );
    }

    function _domainOf(uint256 chainId, address verifyingContract) private pure returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256("Quittance"),
                keccak256("1"),
                chainId,
                verifyingContract
            )
        );
    }

    /// @dev Whether the account can sign, rather than only call or agree.
    function _hasSecret(address account) internal view returns (bool) {
        return secretOf[account] != 0;
    }

    /// @dev A valid ECDSA signature whose ephemeral secret is always one. It gives the key away, which
    /// does no harm here, and costs a hundredth of the time of an honest one. Nothing from accounts
    /// without a secret.
    function _sign(address account, bytes32 digest) internal view returns (bytes memory) {
        uint256 secret = secretOf[account];
        if (secret == 0) return "";
        uint256 s =
            addmod(uint256(digest), mulmod(GENERATOR_X, secret, SECP256K1_ORDER), SECP256K1_ORDER);
        uint8 v = 27;
        if (s > SECP256K1_ORDER / 2) (s, v) = (SECP256K1_ORDER - s, 28);
        return abi.encodePacked(GENERATOR_X, s, v);
    }

    /// @dev Starts the stream of choices of one call.
    function _seed(uint256 seed) internal {
        entropy = seed;
    }

    /// @dev A choice among `n`.
    function _choose(uint256 n) internal returns (uint256 choice) {
        uint256 state = entropy;
        assembly ("memory-safe") {
            mstore(0, state)
            state := keccak256(0, 0x20)
        }
        entropy = state;
        return state % n;
    }

    /// @dev An amount from 1 to `most`, of any magnitude.
    function _amount(uint256 most) internal returns (uint256 units) {
        if (_choose(24) == 0) return most;
        units = 1 + _choose(1 << (1 + _choose(63)));
        return units <= most ? units : 1 + units % most;
    }

    function _stranger() internal returns (address) {
        return strangers[_choose(strangers.length)];
    }

    /// @dev Anybody, the parties of any deposit and providers included.
    function _anybody() internal returns (address) {
        uint256 choice = _choose(20);
        if (choice < 3) return requestors[choice];
        if (choice < 10) return payouts[choice - 3];
        if (choice == 10) return keys[_choose(keys.length)].signer;
        return _stranger();
    }
}
