// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Signatures} from "../../src/libraries/Signatures.sol";
import {Symbolic} from "./Symbolic.sol";

contract SignaturesUnderTest {
    function isValid(address account, bytes32 digest, bytes calldata signature)
        external
        view
        returns (bool)
    {
        return Signatures.isValid(account, digest, signature);
    }
}

/// @dev An ERC-1271 account that answers `words` words, the first of them any, or fails.
contract AnyWallet {
    uint256 private immutable _length;
    bool public fails;
    bytes32 public answer;

    constructor(uint256 length) {
        _length = length;
    }

    fallback() external {
        require(!fails);
        uint256 length = _length;
        bytes32 word = answer;
        assembly ("memory-safe") {
            mstore(0, word)
            mstore(0x20, 0)
            return(0, length)
        }
    }
}

/// @title SignaturesCheck
/// @notice Which answers of ECDSA and of an ERC-1271 account count as a signature.
/// @dev Bounds: 65 bytes of signature for ECDSA, 0 to 64 and 66 to 70 bytes otherwise; accounts that
/// answer 0, 31, 32 or 64 bytes. The recovery of an address is any function.
contract SignaturesCheck is Symbolic {
    uint256 private constant HALF_ORDER =
        0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    SignaturesUnderTest internal library_;

    function setUp() public {
        library_ = new SignaturesUnderTest();
    }

    function check_AKeySignsByTheCanonicalFormOnly(address account, bytes32 r, bytes32 s, uint8 v)
        public
        view
    {
        vm.assume(account != address(library_) && account != address(this));
        bytes32 digest = keccak256("digest");
        bool valid = library_.isValid(account, digest, abi.encodePacked(r, s, v));
        if (!valid) return;
        assert(account != address(0) && ecrecover(digest, v, r, s) == account);
        assert(uint256(s) <= HALF_ORDER);
    }

    function check_AKeySignsWheneverItIsRecovered(address account, bytes32 r, bytes32 s, uint8 v)
        public
        view
    {
        vm.assume(account != address(0) && account != address(library_));
        vm.assume(account != address(this) && uint256(s) <= HALF_ORDER);
        bytes32 digest = keccak256("digest");
        vm.assume(ecrecover(digest, v, r, s) == account);
        assert(library_.isValid(account, digest, abi.encodePacked(r, s, v)));
    }

    function check_OtherLengthsSignNothing(address account) public {
        vm.assume(account != address(library_) && account != address(this));
        for (uint256 length; length <= 70; ++length) {
            if (length == 65) continue;
            bytes memory signature = svm.createBytes(length, "signature");
            assert(!library_.isValid(account, keccak256("digest"), signature));
        }
    }

    function check_AnAccountThatAnswersNothingSignsNothing() public {
        assert(!_ask(new AnyWallet(0)));
    }

    function check_AnAccountThatAnswersTooLittleSignsNothing() public {
        assert(!_ask(new AnyWallet(31)));
    }

    function check_AnAccountSignsByTheMagicWord() public {
        AnyWallet wallet = new AnyWallet(32);
        bool valid = _ask(wallet);
        bool magic = wallet.answer() == bytes32(bytes4(0x1626ba7e));
        assert(valid == (magic && !wallet.fails()));
    }

    function check_AnAccountMayAnswerMore() public {
        AnyWallet wallet = new AnyWallet(64);
        bool valid = _ask(wallet);
        bool magic = wallet.answer() == bytes32(bytes4(0x1626ba7e));
        assert(valid == (magic && !wallet.fails()));
    }

    /// @dev With a signature that no key could have made.
    function _ask(AnyWallet wallet) private returns (bool) {
        svm.enableSymbolicStorage(address(wallet));
        return library_.isValid(address(wallet), keccak256("digest"), hex"01");
    }
}
