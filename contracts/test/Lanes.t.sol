// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Test} from "forge-std/Test.sol";

import {Lanes} from "../src/libraries/Lanes.sol";

/// @notice Gives {Lanes} calldata and storage.
contract LanesHarness {
    uint256[1 << 30] internal words;

    function credit(bytes calldata rows) external returns (bool fits) {
        uint256 base;
        assembly ("memory-safe") {
            base := words.slot
        }
        return Lanes.credit(base, rows);
    }

    function clear(uint256 provider) external {
        words[provider >> 2] = Lanes.clear(words[provider >> 2], provider);
    }

    function set(uint256 i, uint256 word) external {
        words[i] = word;
    }

    function wordAt(uint256 i) external view returns (uint256) {
        return words[i];
    }

    function get(uint256 provider) external view returns (uint256) {
        return Lanes.get(words[provider >> 2], provider);
    }
}

/// @notice Packed credits equal a plain mapping, overflow is told, and a word once used never
/// returns to zero.
contract LanesTest is Test {
    uint256 private constant MAX_CREDIT = (1 << 63) - 1;
    uint256 private constant MARKS =
        0x8000000000000000800000000000000080000000000000008000000000000000;
    uint256 private constant PROVIDERS = 24;

    LanesHarness internal harness = new LanesHarness();
    mapping(uint256 provider => uint256) internal model;

    function draw(uint256 seed, string memory what, uint256 i) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, what, i)));
    }

    /// @dev Rows for a random half of the providers, added to the model as well.
    function creditRandomRows(uint256 seed) internal {
        bytes memory rows;
        for (uint32 p = 1; p < PROVIDERS; ++p) {
            if (draw(seed, "named", p) % 2 == 0) continue;
            uint48 units = uint48(draw(seed, "units", p));
            if (draw(seed, "most", p) % 4 == 0) units = type(uint48).max;
            rows = bytes.concat(rows, abi.encodePacked(p, units));
            model[p] += units;
        }
        assertTrue(harness.credit(rows));
    }

    function assertEqualsModel() internal view {
        for (uint256 p; p < PROVIDERS; ++p) {
            assertEq(harness.get(p), model[p]);
        }
    }

    function testFuzz_Credit_EqualsAMapping(uint256 seed) public {
        for (uint256 round; round < 5; ++round) {
            creditRandomRows(draw(seed, "round", round));
            assertEqualsModel();
            uint256 claimed = draw(seed, "claimed", round) % PROVIDERS;
            harness.clear(claimed);
            model[claimed] = 0;
            assertEqualsModel();
        }
    }

    function testFuzz_Clear_NeverReturnsAUsedWordToZero(uint256 seed) public {
        creditRandomRows(seed);
        for (uint256 i; i < PROVIDERS / 4; ++i) {
            bool used = harness.wordAt(i) != 0;
            for (uint256 p = i * 4; p < i * 4 + 4; ++p) {
                harness.clear(p);
            }
            assertEq(harness.wordAt(i), used ? MARKS : 0);
        }
    }

    function testFuzz_Credit_TellsWhetherEveryLaneFits(
        uint256 seed,
        uint48[8] memory units,
        uint256 full
    ) public {
        full = full % 8;
        bool fits = true;
        bytes memory rows;
        for (uint256 i; i < 2; ++i) {
            uint256 word = MARKS;
            for (uint256 lane; lane < 4; ++lane) {
                uint256 p = i * 4 + lane;
                uint256 held = draw(seed, "held", p) % (MAX_CREDIT >> 1);
                if (p == full) held = MAX_CREDIT - draw(seed, "room", 0) % (1 << 48);
                word |= held << (64 * lane);
                rows = bytes.concat(rows, abi.encodePacked(uint32(p), units[p]));
                fits = fits && held + units[p] <= MAX_CREDIT;
                model[p] = held + units[p];
            }
            harness.set(i, word);
        }
        assertEq(harness.credit(rows), fits);
        if (!fits) return;
        for (uint256 p; p < 8; ++p) {
            assertEq(harness.get(p), model[p]);
        }
    }

    function test_Credit_TellsOverflowAtItsEdgeInEveryLane() public {
        for (uint32 p; p < 8; ++p) {
            uint256 word = MARKS | (MAX_CREDIT - 1) << (64 * (p % 4));
            harness.set(p / 4, word);
            bytes memory others = abi.encodePacked(uint32(11), uint48(1));
            assertTrue(harness.credit(bytes.concat(abi.encodePacked(p, uint48(1)), others)));
            assertEq(harness.get(p), MAX_CREDIT);
            assertFalse(harness.credit(bytes.concat(abi.encodePacked(p, uint48(1)), others)));
            harness.set(p / 4, 0);
        }
    }

    function test_Credit_OfNoRowsTouchesNothing() public {
        assertTrue(harness.credit(""));
        assertEq(harness.wordAt(0), 0);
    }

    function test_Credit_ReachesTheHighestProvider() public {
        assertTrue(harness.credit(abi.encodePacked(type(uint32).max, uint48(5))));
        assertEq(harness.get(type(uint32).max), 5);
        assertEq(harness.get(type(uint32).max - 1), 0);
    }
}
