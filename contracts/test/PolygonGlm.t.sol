// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {StdStorage, Test, stdStorage} from "forge-std/Test.sol";

import {PolygonGlm} from "./tokens/Glm.sol";

/// @notice A token that acts like GLM on Polygon accepts the meta-transactions that test/vectors and
/// bindings/metatx.rs encode, byte for byte, and grants exactly what they say.
contract PolygonGlmTest is Test {
    using stdStorage for StdStorage;

    string private json = vm.readFile("test/vectors/metatx.json");

    /// @dev The token at the vector's address and on its chain, with the owner's nonce as it was.
    function place(string memory vector) private returns (PolygonGlm token) {
        vm.chainId(vm.parseJsonUint(json, string.concat(vector, ".chainId")));
        token = PolygonGlm(vm.parseJsonAddress(json, string.concat(vector, ".token")));
        deployCodeTo("Glm.sol:PolygonGlm", address(token));
        stdstore.target(address(token)).sig("getNonce(address)").with_key(owner(vector))
            .checked_write(vm.parseJsonUint(json, string.concat(vector, ".metaNonce")));
    }

    function owner(string memory vector) private view returns (address) {
        return vm.parseJsonAddress(json, string.concat(vector, ".owner"));
    }

    function call(PolygonGlm token, string memory vector) private returns (bool success) {
        (success,) =
            address(token).call(vm.parseJsonBytes(json, string.concat(vector, ".calldata")));
    }

    function granted(PolygonGlm token, string memory vector) private view returns (uint256) {
        address spender = vm.parseJsonAddress(json, string.concat(vector, ".spender"));
        return token.allowance(owner(vector), spender);
    }

    function test_RevertWhen_ChainOrNonceOrBytesAreOthers() public {
        string memory vector = "[0]";
        PolygonGlm token = place(vector);
        bytes memory data = vm.parseJsonBytes(json, string.concat(vector, ".calldata"));
        // The amount's last byte.
        data[0xa4 + 0x20 + 0x43] ^= 0x01;
        (bool success,) = address(token).call(data);
        assertFalse(success);

        assertFalse(call(token, "[1]"), "nonce");

        vm.chainId(138);
        deployCodeTo("Glm.sol:PolygonGlm", address(token));
        assertFalse(call(token, vector), "chain");
        assertEq(granted(token, vector), 0);
    }

    function test_Approval_ByMetaTransactionGrantsTheExactAmountOnce() public {
        for (uint256 i; i < 3; ++i) {
            string memory vector = string.concat("[", vm.toString(i), "]");
            PolygonGlm token = place(vector);
            assertEq(
                token.getDomainSeperator(),
                vm.parseJsonBytes32(json, string.concat(vector, ".domain"))
            );
            assertTrue(call(token, vector));
            assertEq(
                granted(token, vector), vm.parseJsonUint(json, string.concat(vector, ".amount"))
            );
            assertFalse(call(token, vector));
        }
    }
}
