// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Settlement} from "../../src/Settlement.sol";
import {Deposit, DepositKey} from "../../src/interfaces/IEscrow.sol";
import {Symbolic} from "./Symbolic.sol";

/// @dev A token whose transfers succeed or fail as the prover likes, and that delivers what it is
/// asked to. It does not call back; see {GuardCheck} for tokens that do.
contract AnyToken is Symbolic {
    mapping(address account => uint256) public balanceOf;

    function decimals() external returns (uint8) {
        return uint8(svm.createUint(8, "decimals"));
    }

    function transfer(address to, uint256 amount) external returns (bool) {
        return _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external returns (bool) {
        return _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) private returns (bool) {
        if (!svm.createBool("succeeds")) return false;
        require(balanceOf[from] >= amount && from != to);
        unchecked {
            balanceOf[from] -= amount;
            balanceOf[to] += amount;
        }
        return true;
    }
}

/// @title AnyState
/// @notice The contract in any state whatever, reachable or not: every storage slot is symbolic,
/// and so are the caller, the clock and every argument.
abstract contract AnyState is Symbolic {
    Settlement internal settlement;
    AnyToken internal token;

    function setUp() public virtual {
        settlement = new Settlement(7 days);
        token = new AnyToken();
        svm.enableSymbolicStorage(address(settlement));
        svm.enableSymbolicStorage(address(token));
    }

    /// @dev Any key whose token is the one that the prover has code for.
    function _key(string memory name) internal returns (DepositKey memory key) {
        key.requestor = svm.createAddress(name);
        key.signer = svm.createAddress(name);
        key.cosigner = svm.createAddress(name);
        key.token = address(token);
        key.salt = svm.createBytes32(name);
    }

    function _now() internal {
        vm.warp(svm.createUint(40, "now"));
    }

    /// @dev Any caller but the contract itself, which calls nothing of its own.
    function _caller() internal returns (address caller) {
        caller = svm.createAddress("caller");
        vm.assume(caller != address(settlement));
    }

    /// @dev The five fields keep what {Theorems.sol} proves of the model in every reachable state.
    function _assumeSound(Deposit memory state) internal pure {
        vm.assume(state.thawing <= state.balance);
        vm.assume(uint256(state.balance) + state.spent <= type(uint64).max);
    }

    function _same(Deposit memory a, Deposit memory b) internal pure returns (bool) {
        return a.balance == b.balance && a.thawing == b.thawing && a.spent == b.spent
            && a.epoch == b.epoch && a.thawEnds == b.thawEnds;
    }

    function _signature() internal returns (bytes memory) {
        return svm.createBytes(65, "signature");
    }

    /// @dev Accounts that the prover knows have code: these contracts.
    function _assumeNoCode(address account) internal view {
        vm.assume(
            account != address(settlement) && account != address(token) && account != address(this)
        );
    }

    /// @dev EIP-712 digest of a struct, computed apart from the contract.
    function _digest(bytes memory encoded) internal view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256("Quittance"),
                keccak256("1"),
                block.chainid,
                address(settlement)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, keccak256(encoded)));
    }

    /// @dev Whom a signature `r ‖ s ‖ v` names.
    function _recover(bytes32 digest, bytes memory signature) internal pure returns (address) {
        bytes32 r;
        bytes32 s;
        uint8 v;
        assembly ("memory-safe") {
            r := mload(add(signature, 0x20))
            s := mload(add(signature, 0x40))
            v := byte(0, mload(add(signature, 0x60)))
        }
        return ecrecover(digest, v, r, s);
    }
}
