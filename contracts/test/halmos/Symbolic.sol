// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @notice What the checks use of the prover's cheat codes, and nothing else.
interface ISymbolic {
    function enableSymbolicStorage(address account) external;
    function createUint(uint256 bits, string memory name) external returns (uint256);
    function createBytes(uint256 length, string memory name) external returns (bytes memory);
    function createBytes32(string memory name) external returns (bytes32);
    function createAddress(string memory name) external returns (address);
    function createBool(string memory name) external returns (bool);
    function createCalldata(string memory contractName) external returns (bytes memory);
}

interface IVm {
    function assume(bool condition) external pure;
    function prank(address caller) external;
    function warp(uint256 timestamp) external;
    function store(address account, bytes32 slot, bytes32 value) external;
    function load(address account, bytes32 slot) external view returns (bytes32);
}

/// @title Symbolic
/// @notice Base of the symbolic checks. A `check_` function is a theorem about the contract's own
/// bytecode: its arguments, and whatever is created here, stand for every value at once.
abstract contract Symbolic {
    ISymbolic internal constant svm = ISymbolic(0xF3993A62377BCd56AE39D773740A5390411E8BC9);
    IVm internal constant vm = IVm(0x7109709ECfa91a80626fF3989D68f67F5b1DD12D);
}
