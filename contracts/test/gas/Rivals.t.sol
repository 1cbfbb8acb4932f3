// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Measure} from "./Measure.sol";
import {Channels, CumulativeClaims, TransferBatch} from "./Rivals.sol";

/// @notice What others' ways of paying cost, measured as ours is. Every account that is paid has
/// been paid before.
contract RivalsTest is Measure {
    uint96 private constant AMOUNT = 1_234_567;
    uint256 private constant DEPTH = 17;

    function account(uint256 i) private pure returns (address) {
        return address(uint160(uint256(keccak256(abi.encode("account", i)))));
    }

    function transfers(uint256 count) private {
        TransferBatch rival = TransferBatch(compiled("Rivals.sol/TransferBatch", ""));
        usd.mint(address(this), 1 << 90);
        usd.mint(address(rival), 1);
        usd.approve(address(rival), type(uint256).max);
        bytes32[] memory payments = new bytes32[](count);
        for (uint256 i; i < count; ++i) {
            payments[i] = bytes32(uint256(uint160(account(i))) << 96 | AMOUNT);
        }
        rival.pay(usd, payments);
        uint256 gas = gasOf(address(rival), abi.encodeCall(rival.pay, (usd, payments)));
        string memory name =
            string.concat("rival_transfers_of_", vm.toString(count), "_steady_per_payout");
        record(name, gas / count);
    }

    function test_Gas_TransfersInBatchesOfTen() public {
        transfers(10);
    }

    function test_Gas_TransfersInBatchesOf200() public {
        transfers(200);
    }

    /// @dev The tree has 2^17 leaves; the proof's other nodes are made up, which costs the same.
    function test_Gas_CumulativeMerkleClaim() public {
        CumulativeClaims rival = CumulativeClaims(compiled("Rivals.sol/CumulativeClaims", ""));
        usd.mint(address(rival), 1 << 90);
        uint256 gas;
        for (uint96 earned = AMOUNT; earned <= 2 * AMOUNT; earned += AMOUNT) {
            bytes32 node = keccak256(bytes.concat(keccak256(abi.encode(account(1), earned))));
            bytes32[] memory proof = new bytes32[](DEPTH);
            for (uint256 i; i < DEPTH; ++i) {
                proof[i] = keccak256(abi.encode("node", i));
                node = node < proof[i]
                    ? keccak256(bytes.concat(node, proof[i]))
                    : keccak256(bytes.concat(proof[i], node));
            }
            rival.setRoot(node);
            bytes memory call = abi.encodeCall(rival.claim, (usd, account(1), earned, proof));
            gas = gasOf(address(rival), call);
        }
        record("rival_merkle_claim_steady_per_payout", gas);
    }

    function test_Gas_ChannelClaim() public {
        Channels rival = Channels(compiled("Rivals.sol/Channels", ""));
        bytes32 id = keccak256("channel");
        usd.mint(requestor.addr, 1 << 90);
        vm.startPrank(requestor.addr);
        usd.approve(address(rival), 1 << 90);
        rival.open(id, usd, account(1), 1 << 90);
        vm.stopPrank();
        uint256 gas;
        for (uint96 earned = AMOUNT; earned <= 2 * AMOUNT; earned += AMOUNT) {
            bytes32 voucher =
                keccak256(abi.encode(block.chainid, address(rival), address(usd), id, earned));
            bytes memory signature = sign(requestor, voucher);
            bytes memory call = abi.encodeCall(rival.claim, (usd, id, earned, signature));
            gas = gasOf(address(rival), call);
        }
        record("rival_channel_claim_steady_per_payout", gas);
    }
}
