// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base} from "../Base.t.sol";
import {Handlers} from "./Handlers.sol";
import {World} from "./World.sol";

/// @notice Any sequence of calls by anybody, in one world.
abstract contract Campaign is Base {
    Handlers internal handlers;

    function mood() internal pure virtual returns (World.Mood);

    function setUp() public override {
        vm.warp(1_700_000_000);
        settlement = deploySettlement(THAW_PERIOD);
        handlers = new Handlers(settlement, mood());
        (bytes4[] memory selectors,) = handlers.handlers();
        targetContract(address(handlers));
        targetSelector(FuzzSelector(address(handlers), selectors));
    }

    function afterInvariant() public {
        uint256 calls;
        uint256 successes;
        (bytes4[] memory selectors,) = handlers.handlers();
        for (uint256 i; i < selectors.length; ++i) {
            calls += handlers.calls(selectors[i]);
            successes += handlers.successes(selectors[i]);
        }
        // One run calls each handler too rarely to judge it alone; see HandlersTest.
        if (calls >= 200) assertGe(successes * 100, calls * 60, "handlers that do their work");
        handlers.everybodyLeaves(); // I10
    }

    /// @dev The handlers assert after each call what the call ought to do, and that it wrote nothing
    /// else, so that this, which looks at everything, needs to be asked only at the end of a run.
    function invariant_I1_to_I11_HoldAfterAnyCalls() public {
        handlers.checkEverything();
    }
}

contract PlainWorldInvariants is Campaign {
    function mood() internal pure override returns (World.Mood) {
        return World.Mood.Plain;
    }
}

contract HostileWorldInvariants is Campaign {
    function mood() internal pure override returns (World.Mood) {
        return World.Mood.Hostile;
    }
}
