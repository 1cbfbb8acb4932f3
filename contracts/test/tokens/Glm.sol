// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @notice Acts like GLM on mainnet: a plain ERC-20 of 18 decimals whose permit is DAI's, which
/// grants everything or nothing. It has no EIP-2612.
contract Glm is ERC20("Golem Network Token", "GLM") {
    bytes32 public constant PERMIT_TYPEHASH = keccak256(
        "Permit(address holder,address spender,uint256 nonce,uint256 expiry,bool allowed)"
    );

    mapping(address holder => uint256) public nonces;

    function mint(address to, uint256 value) external {
        _mint(to, value);
    }

    function permit(
        address holder,
        address spender,
        uint256 nonce,
        uint256 expiry,
        bool allowed,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        bytes32 structHash = keccak256(
            abi.encode(PERMIT_TYPEHASH, holder, spender, nonce, expiry, allowed)
        );
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", DOMAIN_SEPARATOR(), structHash));
        require(ECDSA.recover(digest, v, r, s) == holder, "Ina: invalid permit");
        require(expiry == 0 || block.timestamp <= expiry, "Ina: permit expired");
        require(nonce == nonces[holder]++, "Ina: invalid nonce");
        _approve(holder, spender, allowed ? type(uint256).max : 0);
    }

    function DOMAIN_SEPARATOR() public view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256(bytes(name())),
                keccak256("1"),
                block.chainid,
                address(this)
            )
        );
    }
}

/// @notice Acts like GLM on Polygon, a token of the PoS bridge: no permit, but anybody may relay a
/// call that its user signed. The domain has the chain id as its salt and no `chainId`.
contract PolygonGlm is ERC20("Golem Network Token (PoS)", "GLM") {
    bytes32 public constant META_TRANSACTION_TYPEHASH =
        keccak256("MetaTransaction(uint256 nonce,address from,bytes functionSignature)");

    /// @dev Fixed when the token is set up; a fork of the chain does not change it.
    bytes32 public immutable getDomainSeperator = keccak256(
        abi.encode(
            keccak256(
                "EIP712Domain(string name,string version,address verifyingContract,bytes32 salt)"
            ),
            keccak256("Golem Network Token (PoS)"),
            keccak256("1"),
            address(this),
            bytes32(block.chainid)
        )
    );

    mapping(address user => uint256) public getNonce;

    event MetaTransactionExecuted(
        address userAddress, address payable relayerAddress, bytes functionSignature
    );

    function mint(address to, uint256 value) external {
        _mint(to, value);
    }

    function executeMetaTransaction(
        address user,
        bytes calldata functionSignature,
        bytes32 r,
        bytes32 s,
        uint8 v
    ) external payable returns (bytes memory) {
        bytes32 structHash = keccak256(
            abi.encode(
                META_TRANSACTION_TYPEHASH, getNonce[user]++, user, keccak256(functionSignature)
            )
        );
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", getDomainSeperator, structHash));
        require(user != address(0), "NativeMetaTransaction: INVALID_SIGNER");
        require(ecrecover(digest, v, r, s) == user, "Signer and signature do not match");
        emit MetaTransactionExecuted(user, payable(msg.sender), functionSignature);

        (bool success, bytes memory answer) =
            address(this).call(abi.encodePacked(functionSignature, user));
        require(success, "Function call not successful");
        return answer;
    }

    /// @dev The signer, if the token calls itself for one.
    function _msgSender() internal view override returns (address) {
        if (msg.sender != address(this)) return msg.sender;
        return address(bytes20(msg.data[msg.data.length - 20:]));
    }
}
