// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @notice Acts like USDT on mainnet: returns nothing, allowances change by way of zero only, senders
/// can be blocked, transfers paused, and a fee switched on that is at most 0.2 % and 50 tokens.
contract Usdt {
    uint256 public constant decimals = 6;
    uint256 public constant MAX_BASIS_POINTS = 20;
    uint256 public constant MAX_FEE = 50e6;

    address public immutable owner = msg.sender;
    uint256 public basisPointsRate;
    uint256 public maximumFee;
    bool public paused;

    mapping(address account => uint256) public balanceOf;
    mapping(address owner => mapping(address spender => uint256)) public allowance;
    mapping(address account => bool) public isBlackListed;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    function mint(address to, uint256 value) external {
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function setParams(uint256 rate, uint256 most) external {
        require(rate <= MAX_BASIS_POINTS && most <= MAX_FEE);
        basisPointsRate = rate;
        maximumFee = most;
    }

    function setBlackListed(address account, bool value) external {
        isBlackListed[account] = value;
    }

    function setPaused(bool value) external {
        paused = value;
    }

    function approve(address spender, uint256 value) external {
        require(value == 0 || allowance[msg.sender][spender] == 0);
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
    }

    function transfer(address to, uint256 value) external {
        require(!paused && !isBlackListed[msg.sender]);
        _transfer(msg.sender, to, value);
    }

    function transferFrom(address from, address to, uint256 value) external {
        require(!paused && !isBlackListed[from]);
        if (allowance[from][msg.sender] < type(uint256).max) {
            allowance[from][msg.sender] -= value;
        }
        _transfer(from, to, value);
    }

    function _transfer(address from, address to, uint256 value) private {
        uint256 fee = value * basisPointsRate / 10_000;
        if (fee > maximumFee) fee = maximumFee;
        balanceOf[from] -= value;
        balanceOf[to] += value - fee;
        emit Transfer(from, to, value - fee);
        if (fee != 0) {
            balanceOf[owner] += fee;
            emit Transfer(from, owner, fee);
        }
    }
}
