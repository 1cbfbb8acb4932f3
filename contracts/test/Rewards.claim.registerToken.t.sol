// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Base, DepositKey, Vm} from "./Base.t.sol";
import {ReentrantToken, TestToken} from "./tokens/TestTokens.sol";

/// @notice A token that registers another during its own transfer leaves the journal equal to the
/// fold over the logs.
contract ClaimRegisterTokenTest is Base {
    function test_Journal_CountsATokenRegisteredDuringAClaim() public {
        ReentrantToken token = new ReentrantToken();
        TestToken other = new TestToken("Other", "OTH", 6);
        settlement.registerToken(address(token));
        registerProviders(1);
        DepositKey memory key = hosted(address(token));
        fund(key, 100);
        pay(key, row(1, 100));
        (uint64 before,) = settlement.journal();

        token.arm(address(settlement), abi.encodeCall(settlement.registerToken, (address(other))));
        vm.recordLogs();
        settlement.claim(address(token), one(uint32(1)));

        Vm.Log[] memory logs = vm.getRecordedLogs();
        uint64 emitted;
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].emitter == address(settlement)) ++emitted;
        }
        (uint64 count,) = settlement.journal();
        assertEq(count, before + emitted); // I11
    }
}
