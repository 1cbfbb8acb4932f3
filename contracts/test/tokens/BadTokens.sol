// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

import {TestToken} from "./TestTokens.sol";

/// @notice Keeps a share of every transfer, in ten-thousandths, which can change at any time.
contract SkimmingToken is TestToken {
    uint256 public share;

    constructor() TestToken("Skimming", "SKM", 6) {}

    function setShare(uint256 share_) external {
        share = share_;
    }

    function seize(address from, uint256 value) external {
        _burn(from, value);
    }

    function _update(address from, address to, uint256 value) internal override {
        // Rounded up, so that the smallest share is felt in the smallest transfer.
        uint256 fee = from == address(0) || to == address(0) ? 0 : (value * share + 9_999) / 10_000;
        super._update(from, to, value - fee);
        if (fee != 0) super._update(from, address(0xfee), fee);
    }
}

/// @notice Takes one base unit too little from whoever pays `target`, or gives `target` one too
/// little.
contract UnevenToken is TestToken {
    address public target;
    bool public gives;

    constructor() TestToken("Uneven", "UNV", 6) {}

    function leaveOneWithThePayer(address target_) external {
        (target, gives) = (target_, true);
    }

    function keepOne(address target_) external {
        (target, gives) = (target_, false);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (to != target) return;
        if (gives) super._update(address(0), from, 1);
        else super._update(to, address(0), 1);
    }
}

/// @notice Shrinks everybody's balance at once.
contract RebasingToken is TestToken {
    uint256 public percent = 100;

    constructor() TestToken("Rebasing", "REB", 6) {}

    function rebase(uint256 percent_) external {
        percent = percent_;
    }

    function balanceOf(address account) public view override returns (uint256) {
        return super.balanceOf(account) * percent / 100;
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value * 100 / percent);
    }
}

/// @notice Calls back before and after each transfer, as ERC-777 does for sender and recipient.
contract HookedToken is TestToken {
    address public target;
    bytes public payload;
    bool public after_;
    bytes public lastAnswer;
    bool public lastSuccess;
    bool private _busy;

    constructor() TestToken("Hooked", "HKD", 6) {}

    function armBefore(address target_, bytes calldata payload_) external {
        (target, payload, after_) = (target_, payload_, false);
    }

    function armAfter(address target_, bytes calldata payload_) external {
        (target, payload, after_) = (target_, payload_, true);
    }

    /// @dev What a hook may call to take tokens while they pass through somebody's hands.
    function seize(address from, uint256 value) external {
        _burn(from, value);
    }

    function _update(address from, address to, uint256 value) internal override {
        if (!after_) _call();
        super._update(from, to, value);
        if (after_) _call();
    }

    function _call() private {
        if (target == address(0) || _busy) return;
        _busy = true;
        (lastSuccess, lastAnswer) = target.call(payload);
        _busy = false;
    }
}

/// @notice How a {MoodyToken} answers transfers.
enum Mood {
    Honest,
    /// Answers false and moves nothing.
    AnswersFalse,
    /// Answers true and moves nothing.
    Lies,
    Reverts,
    /// Burns all the gas that it gets.
    BurnsGas,
    /// Succeeds, with a million bytes of answer.
    AnswersAtLength,
    /// Fails, with a million bytes of reason.
    RevertsAtLength,
    /// Moves the tokens and answers nothing.
    AnswersNothing,
    /// Moves the tokens and answers two.
    AnswersTwo,
    /// Moves the tokens and answers a single byte.
    AnswersBriefly
}

/// @notice Turns bad when told to, towards everybody or towards one recipient.
contract MoodyToken is TestToken {
    uint256 private constant LENGTH = 1_000_000;

    Mood public mood;
    address public towards;

    constructor() TestToken("Moody", "MDY", 6) {}

    function setMood(Mood mood_, address towards_) external {
        mood = mood_;
        towards = towards_;
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        return _isMoody(to) ? _act(msg.sender, to, value) : super.transfer(to, value);
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        if (!_isMoody(to)) return super.transferFrom(from, to, value);
        _spendAllowance(from, msg.sender, value);
        return _act(from, to, value);
    }

    function _isMoody(address to) private view returns (bool) {
        return mood != Mood.Honest && (towards == address(0) || towards == to);
    }

    function _act(address from, address to, uint256 value) private returns (bool) {
        Mood current = mood;
        if (current == Mood.AnswersFalse) return false;
        if (current == Mood.Lies) return true;
        require(current != Mood.Reverts, "not today");
        if (current == Mood.BurnsGas) {
            assembly {
                invalid()
            }
        }
        if (current == Mood.RevertsAtLength) {
            assembly {
                revert(0, LENGTH)
            }
        }
        _transfer(from, to, value);
        if (current == Mood.AnswersAtLength) {
            assembly {
                mstore(0, 1)
                return(0, LENGTH)
            }
        }
        assembly {
            switch current
            case 7 { return(0, 0) }
            case 8 {
                mstore(0, 2)
                return(0, 0x20)
            }
            default {
                mstore(0, not(0))
                return(0, 1)
            }
        }
    }
}

/// @notice Changes its decimals after it was registered, as an upgrade could.
contract RedenominatingToken is ERC20("Redenominating", "RDN") {
    uint8 private _now = 18;

    function mint(address to, uint256 value) external {
        _mint(to, value);
    }

    function redenominate(uint8 decimals_) external {
        _now = decimals_;
    }

    function decimals() public view override returns (uint8) {
        return _now;
    }
}

/// @notice Accepts every call that it does not know, as WETH's fallback accepts a permit, and never
/// lowers an allowance.
contract PhantomToken is TestToken {
    constructor() TestToken("Phantom", "PHM", 18) {}

    fallback() external {}

    function _spendAllowance(address owner, address spender, uint256 value) internal view override {
        require(allowance(owner, spender) >= value, "allowance");
    }
}
