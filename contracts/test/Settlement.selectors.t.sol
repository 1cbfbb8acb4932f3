// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base} from "./Base.t.sol";

/// @notice The contract answers these functions and no other: none of them is privileged.
contract SelectorsTest is Base {
    mapping(bytes4 selector => bool) internal expected;
    mapping(bytes4 selector => bool) internal found;
    uint256 internal expectedCount;

    function setUp() public override {
        super.setUp();
        expect(settlement.THAW_PERIOD.selector);
        expect(settlement.claim.selector);
        expect(settlement.claimTo.selector);
        expect(settlement.creditOf.selector);
        expect(settlement.deposit.selector);
        expect(settlement.depositId.selector);
        expect(settlement.depositOf.selector);
        expect(settlement.eip712Domain.selector);
        expect(settlement.journal.selector);
        expect(settlement.payoutOf.selector);
        expect(settlement.providerCount.selector);
        expect(settlement.register.selector);
        expect(settlement.registerToken.selector);
        expect(settlement.setPayout.selector);
        expect(settlement.settle.selector);
        expect(settlement.statementDigest.selector);
        expect(settlement.thaw.selector);
        expect(settlement.unitOf.selector);
        expect(settlement.withdraw.selector);
    }

    function expect(bytes4 selector) internal {
        expected[selector] = true;
        ++expectedCount;
    }

    /// @dev Whether the contract does anything but refuse without a word. Called with zeros, each
    /// of its functions succeeds or names an error.
    function answers(bytes4 selector, bytes memory data) internal returns (bool) {
        assembly ("memory-safe") {
            mstore(add(data, 0x20), selector)
        }
        (bool success, bytes memory answer) = address(settlement).call(data);
        return success || answer.length != 0;
    }

    function test_Selectors_AreTheseAndNoOther() public {
        // A selector is compared with a constant, so that each is four bytes somewhere in the code,
        // or three if it starts with a zero byte.
        bytes memory code = address(settlement).code;
        bytes memory data = new bytes(1024);
        uint256 foundCount;
        for (uint256 i; i + 4 <= code.length; ++i) {
            bytes4 candidate;
            assembly ("memory-safe") {
                candidate := and(mload(add(add(code, 0x20), i)), shl(224, 0xffffffff))
            }
            for (uint256 j; j < 2; ++j) {
                if (!found[candidate] && answers(candidate, data)) {
                    assertTrue(expected[candidate], "unexpected selector");
                    found[candidate] = true;
                    ++foundCount;
                }
                candidate &= 0x00ffffff;
            }
        }
        assertEq(foundCount, expectedCount); // I6
    }

    function test_RevertWhen_TheCallIsPlainOrCarriesMoney() public {
        (bool success,) = address(settlement).call("");
        assertFalse(success);
        vm.deal(address(this), 2);
        (success,) = address(settlement).call{value: 1}("");
        assertFalse(success);
        (success,) =
            address(settlement).call{value: 1}(abi.encodeCall(settlement.registerToken, stranger));
        assertFalse(success);
    }
}
