// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

// What others do for each payout, reduced to the least that any implementation of the idea must
// do, so that a comparison with them flatters nobody: no owner, no fee, no event.

/// @notice Pays a list of accounts from the caller's allowance, one transfer each, as payment
/// drivers do in batches of ten.
contract TransferBatch {
    function pay(IERC20 token, bytes32[] calldata payments) external {
        uint256 total;
        for (uint256 i; i < payments.length; ++i) {
            total += uint96(uint256(payments[i]));
        }
        require(token.transferFrom(msg.sender, address(this), total));
        for (uint256 i; i < payments.length; ++i) {
            address to = address(uint160(uint256(payments[i]) >> 96));
            require(token.transfer(to, uint96(uint256(payments[i]))));
        }
    }
}

/// @notice A cumulative Merkle distributor: each account proves what it has earned in all and is
/// paid what is new.
contract CumulativeClaims {
    bytes32 public root;
    mapping(address account => uint256) public claimed;

    function setRoot(bytes32 root_) external {
        root = root_;
    }

    function claim(IERC20 token, address account, uint256 earned, bytes32[] calldata proof)
        external
    {
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(account, earned))));
        require(MerkleProof.verifyCalldata(proof, root, leaf));
        uint256 due = earned - claimed[account];
        claimed[account] = earned;
        require(token.transfer(account, due));
    }
}

/// @notice One channel for each pair of payer and receiver: the receiver cashes the payer's latest
/// voucher over a cumulative amount.
contract Channels {
    struct Channel {
        address payer;
        uint96 balance;
        address receiver;
        uint96 claimed;
    }

    mapping(bytes32 id => Channel) public channels;

    function open(bytes32 id, IERC20 token, address receiver, uint96 amount) external {
        channels[id] = Channel(msg.sender, amount, receiver, 0);
        require(token.transferFrom(msg.sender, address(this), amount));
    }

    function claim(IERC20 token, bytes32 id, uint96 earned, bytes calldata signature) external {
        Channel memory channel = channels[id];
        bytes32 voucher = keccak256(abi.encode(block.chainid, address(this), token, id, earned));
        require(ECDSA.recoverCalldata(voucher, signature) == channel.payer);
        uint96 due = earned - channel.claimed;
        require(due <= channel.balance);
        channels[id].balance = channel.balance - due;
        channels[id].claimed = earned;
        require(token.transfer(channel.receiver, due));
    }
}
