// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ISafe} from "@safe-global/safe-smart-account/contracts/interfaces/ISafe.sol";
import {Enum} from "@safe-global/safe-smart-account/contracts/libraries/Enum.sol";
import {Test} from "forge-std/Test.sol";
import {Vm} from "forge-std/Vm.sol";

interface ISafeProxyFactory {
    function createProxyWithNonce(address singleton, bytes memory initializer, uint256 saltNonce)
        external
        returns (address proxy);
}

/// @notice Real Safes 1.5.0 from their own build, whose compiler is older than ours, and signatures of
/// their owners.
abstract contract Safes is Test {
    string private constant BUILD =
        "node_modules/@safe-global/safe-smart-account/build/artifacts/contracts/";
    bytes32 private constant MESSAGE_TYPEHASH = keccak256("SafeMessage(bytes message)");

    address private _singleton;
    address private _handler;
    ISafeProxyFactory private _factory;
    uint256 private _salt;

    function deploySafes() internal {
        _singleton = vm.deployCode(string.concat(BUILD, "Safe.sol/Safe.json"));
        _handler = vm.deployCode(
            string.concat(
                BUILD, "handler/CompatibilityFallbackHandler.sol/CompatibilityFallbackHandler.json"
            )
        );
        _factory = ISafeProxyFactory(
            vm.deployCode(
                string.concat(BUILD, "proxies/SafeProxyFactory.sol/SafeProxyFactory.json")
            )
        );
    }

    /// @dev Owners in ascending order of their addresses, as a Safe wants their signatures.
    function createOwners(uint256 count) internal returns (Vm.Wallet[] memory owners) {
        owners = new Vm.Wallet[](count);
        for (uint256 i; i < count; ++i) {
            Vm.Wallet memory owner = vm.createWallet(string.concat("owner ", vm.toString(i)));
            uint256 place = i;
            for (; place > 0 && owners[place - 1].addr > owner.addr; --place) {
                owners[place] = owners[place - 1];
            }
            owners[place] = owner;
        }
    }

    function newSafe(Vm.Wallet[] memory owners, uint256 threshold) internal returns (ISafe) {
        address[] memory addresses = new address[](owners.length);
        for (uint256 i; i < owners.length; ++i) {
            addresses[i] = owners[i].addr;
        }
        bytes memory initializer = abi.encodeCall(
            ISafe.setup,
            (addresses, threshold, address(0), "", _handler, address(0), 0, payable(address(0)))
        );
        return ISafe(payable(_factory.createProxyWithNonce(_singleton, initializer, _salt++)));
    }

    /// @dev The first `count` owners sign `digest` as a message of the Safe.
    function signMessage(ISafe safe, Vm.Wallet[] memory owners, uint256 count, bytes32 digest)
        internal
        returns (bytes memory)
    {
        bytes32 structHash = keccak256(abi.encode(MESSAGE_TYPEHASH, keccak256(abi.encode(digest))));
        return signAll(
            owners,
            count,
            keccak256(abi.encodePacked(hex"1901", safe.domainSeparator(), structHash))
        );
    }

    /// @dev The first `count` owners sign, and anybody executes, a call by the Safe.
    function execute(
        ISafe safe,
        Vm.Wallet[] memory owners,
        uint256 count,
        address to,
        bytes memory data
    ) internal {
        _execute(safe, to, data, signAll(owners, count, _transactionHash(safe, to, data)));
    }

    /// @dev Of a plain call without value, refund or prescribed gas.
    function _transactionHash(ISafe safe, address to, bytes memory data)
        private
        view
        returns (bytes32)
    {
        uint256 nonce = safe.nonce();
        return safe.getTransactionHash(
            to, 0, data, Enum.Operation.Call, 0, 0, 0, address(0), address(0), nonce
        );
    }

    function _execute(ISafe safe, address to, bytes memory data, bytes memory signatures) private {
        address payable nobody = payable(address(0));
        safe.execTransaction(
            to, 0, data, Enum.Operation.Call, 0, 0, 0, address(0), nobody, signatures
        );
    }

    function signAll(Vm.Wallet[] memory owners, uint256 count, bytes32 digest)
        internal
        returns (bytes memory signatures)
    {
        for (uint256 i; i < count; ++i) {
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(owners[i], digest);
            signatures = abi.encodePacked(signatures, r, s, v);
        }
    }
}
