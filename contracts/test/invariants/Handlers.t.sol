// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {console} from "forge-std/console.sol";

import {Outcome} from "../../src/interfaces/ISettlement.sol";
import {Base} from "../Base.t.sol";
import {Handlers} from "./Handlers.sol";
import {World} from "./World.sol";

/// @notice An invariant that holds because nothing happens is worth nothing: the handlers do their
/// work. `-vv` prints how often.
contract HandlersTest is Base {
    uint256 private constant ROUNDS = 120;
    uint256 private constant PERCENT_AT_LEAST = 60;

    Handlers private handlers;

    function setUp() public override {
        vm.warp(1_700_000_000);
        settlement = deploySettlement(THAW_PERIOD);
    }

    function call(bytes4 selector, uint256 seed) internal {
        (bool success, bytes memory answer) =
            address(handlers).call(abi.encodeWithSelector(selector, seed));
        if (success) return;
        assembly ("memory-safe") {
            revert(add(answer, 0x20), mload(answer))
        }
    }

    /// @dev Each handler equally often, each time with other choices.
    function work(World.Mood mood) internal {
        handlers = new Handlers(settlement, mood);
        (bytes4[] memory selectors, string[] memory names) = handlers.handlers();
        uint256 seed = uint256(mood);
        for (uint256 i; i < ROUNDS * selectors.length; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            call(selectors[seed % selectors.length], seed);
        }
        for (uint256 i; i < selectors.length; ++i) {
            uint256 calls = handlers.calls(selectors[i]);
            uint256 successes = handlers.successes(selectors[i]);
            console.log(names[i], calls, successes);
            assertGt(calls, ROUNDS / 2, names[i]);
            assertGe(successes * 100, calls * PERCENT_AT_LEAST, names[i]);
        }
        for (uint8 i; i <= uint8(Outcome.BadCosignature); ++i) {
            uint256 count = handlers.outcomes(Outcome(i));
            console.log("outcome", i, count);
            assertGt(count, ROUNDS / 4, "an outcome that hardly ever comes");
        }
        handlers.checkEverything();
        handlers.everybodyLeaves(); // I10
    }

    function test_Handlers_DoTheirWorkAmongPlainTokens() public {
        work(World.Mood.Plain);
    }

    function test_Handlers_DoTheirWorkAmongHostileTokensAndWallets() public {
        work(World.Mood.Hostile);
    }
}
