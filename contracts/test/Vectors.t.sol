// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Hashes} from "@openzeppelin/contracts/utils/cryptography/Hashes.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

import {Settlement} from "../src/Settlement.sol";
import {Base, DepositKey, IRewards, Outcome, Statement, Vm} from "./Base.t.sol";
import {RowsHarness} from "./Rows.t.sol";

/// @notice Verifies a leaf of a manifest as anybody on chain would.
contract ProofHarness {
    function verify(
        bytes32[] calldata proof,
        bytes32 root,
        bytes32 workload,
        uint32 provider,
        int128 baseUnits
    ) external pure returns (bool) {
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(workload, provider, baseUnits))));
        return MerkleProof.verifyCalldata(proof, root, leaf);
    }
}

/// @notice The golden vectors of `vectors/` hold for the contract that is deployed.
contract VectorsTest is Base {
    struct DepositVector {
        DepositKey key;
        bytes32 id;
    }

    struct WorkloadVector {
        bytes32 operatorSecret;
        string organisation;
        bytes32 organisationSecret;
        string source;
        string externalId;
        uint32 revision;
        bytes32 salt;
        bytes32 id;
    }

    struct Domain {
        uint64 chainId;
        address settlement;
        bytes32 separator;
    }

    struct StatementMessage {
        DepositKey key;
        uint32 epoch;
        uint64 spent;
        bytes32 manifest;
        bytes rows;
    }

    struct StatementVector {
        uint64 chainId;
        address settlement;
        StatementMessage message;
        bytes32 structHash;
        bytes32 digest;
    }

    struct ClaimToMessage {
        uint32 provider;
        address token;
        address to;
        uint64 nonce;
        uint64 deadline;
    }

    struct ClaimToVector {
        uint64 chainId;
        address settlement;
        ClaimToMessage message;
        bytes32 structHash;
        bytes32 digest;
    }

    struct SetPayoutMessage {
        uint32 provider;
        address payout;
        uint64 nonce;
        uint64 deadline;
    }

    struct SetPayoutVector {
        uint64 chainId;
        address settlement;
        SetPayoutMessage message;
        bytes32 structHash;
        bytes32 digest;
    }

    struct Flips {
        uint256 count;
        bytes32 hash;
    }

    struct Valid {
        string kind;
        uint256 index;
        bytes32 privateKey;
        address signer;
        bytes32 digest;
        bytes32 r;
        bytes32 s;
        uint8 v;
        bytes signature;
    }

    struct Refused {
        string kind;
        uint256 index;
        bytes32 digest;
        address signer;
        bytes signature;
        string reason;
    }

    struct Row {
        uint32 provider;
        uint64 units;
    }

    struct WellFormed {
        bytes packed;
        Row[] rows;
        uint256 total;
        uint256 last;
    }

    struct Malformed {
        bytes packed;
        string reason;
    }

    struct Leaf {
        bytes32 workload;
        uint32 provider;
        int128 amount;
        bytes32 hash;
    }

    struct ManifestRow {
        uint32 provider;
        uint64 units;
        uint64 carry;
    }

    struct Manifest {
        uint64 unit;
        Leaf[] leaves;
        bytes32[] tree;
        bytes32 root;
        bytes32[][] proofs;
        ManifestRow[] rows;
    }

    struct EventVector {
        string name;
        bytes32[] topics;
        bytes data;
        bytes32 entry;
        bytes32 journal;
    }

    string private constant KEY =
        "Key(address requestor,address signer,address cosigner,address token,bytes32 salt)";
    bytes32 private constant CLAIM_TO =
        keccak256("ClaimTo(uint32 provider,address token,address to,uint64 nonce,uint64 deadline)");
    bytes32 private constant SET_PAYOUT =
        keccak256("SetPayout(uint32 provider,address payout,uint64 nonce,uint64 deadline)");

    RowsHarness private rowsHarness = new RowsHarness();
    ProofHarness private proofHarness = new ProofHarness();
    bytes private code;

    function setUp() public override {
        super.setUp();
        code = address(settlement).code;
    }

    function file(string memory name) private view returns (string memory) {
        return vm.readFile(string.concat("vectors/", name, ".json"));
    }

    /// @dev The contract at this address of this chain.
    function placedAt(uint64 chainId, address place) private returns (Settlement) {
        if (block.chainid != chainId) vm.chainId(chainId);
        if (place.code.length == 0) vm.etch(place, code);
        return Settlement(place);
    }

    function statements() private view returns (StatementVector[] memory) {
        string memory description = string.concat(
            "V(uint64 chainId,address settlement,M message,bytes32 structHash,bytes32 digest)",
            KEY,
            "M(Key key,uint32 epoch,uint64 spent,bytes32 manifest,bytes rows)"
        );
        bytes memory data = vm.parseJsonTypeArray(file("digests"), ".Statement", description);
        return abi.decode(data, (StatementVector[]));
    }

    function claims() private view returns (ClaimToVector[] memory) {
        bytes memory data = vm.parseJsonTypeArray(
            file("digests"),
            ".ClaimTo",
            "V(uint64 chainId,address settlement,M message,bytes32 structHash,bytes32 digest)"
            "M(uint32 provider,address token,address to,uint64 nonce,uint64 deadline)"
        );
        return abi.decode(data, (ClaimToVector[]));
    }

    function payouts() private view returns (SetPayoutVector[] memory) {
        bytes memory data = vm.parseJsonTypeArray(
            file("digests"),
            ".SetPayout",
            "V(uint64 chainId,address settlement,M message,bytes32 structHash,bytes32 digest)"
            "M(uint32 provider,address payout,uint64 nonce,uint64 deadline)"
        );
        return abi.decode(data, (SetPayoutVector[]));
    }

    function flips(string memory kind) private view returns (Flips memory) {
        bytes memory data = vm.parseJsonType(
            file("digests"), string.concat(".flips.", kind), "F(uint256 count,bytes32 hash)"
        );
        return abi.decode(data, (Flips));
    }

    function manifests() private view returns (Manifest[] memory) {
        bytes memory data = vm.parseJsonTypeArray(
            file("manifests"),
            ".manifests",
            "M(uint64 unit,L[] leaves,bytes32[] tree,bytes32 root,bytes32[][] proofs,R[] rows)"
            "L(bytes32 workload,uint32 provider,int128 amount,bytes32 hash)"
            "R(uint32 provider,uint64 units,uint64 carry)"
        );
        return abi.decode(data, (Manifest[]));
    }

    function separator(uint64 chainId, address place) private pure returns (bytes32) {
        return keccak256(
            abi.encode(DOMAIN_TYPEHASH, keccak256("Quittance"), keccak256("1"), chainId, place)
        );
    }

    function digestAt(uint64 chainId, address place, bytes32 structHash)
        private
        pure
        returns (bytes32)
    {
        return keccak256(abi.encodePacked(hex"1901", separator(chainId, place), structHash));
    }

    function hashOf(ClaimToMessage memory message) private pure returns (bytes32) {
        return keccak256(abi.encode(CLAIM_TO, message));
    }

    function hashOf(SetPayoutMessage memory message) private pure returns (bytes32) {
        return keccak256(abi.encode(SET_PAYOUT, message));
    }

    function digestOf(uint64 chainId, address place, StatementMessage memory message)
        private
        returns (bytes32)
    {
        return placedAt(chainId, place)
            .statementDigest(
                message.key, message.epoch, message.spent, message.manifest, message.rows
            );
    }

    function test_DepositIds() public view {
        bytes memory data = vm.parseJsonTypeArray(
            file("ids"), ".deposits", string.concat("V(Key key,bytes32 id)", KEY)
        );
        DepositVector[] memory vectors = abi.decode(data, (DepositVector[]));
        assertEq(vectors.length, 4);
        for (uint256 i; i < vectors.length; ++i) {
            assertEq(settlement.depositId(vectors[i].key), vectors[i].id);
        }
    }

    function test_WorkloadIds() public view {
        bytes memory data = vm.parseJsonTypeArray(
            file("ids"),
            ".workloads",
            "V(bytes32 operatorSecret,string organisation,bytes32 organisationSecret,string source,"
            "string externalId,uint32 revision,bytes32 salt,bytes32 id)"
        );
        WorkloadVector[] memory vectors = abi.decode(data, (WorkloadVector[]));
        assertEq(vectors.length, 8);
        for (uint256 i; i < vectors.length; ++i) {
            WorkloadVector memory vector = vectors[i];
            bytes32 secret = keccak256(abi.encodePacked(vector.operatorSecret, vector.organisation));
            assertEq(secret, vector.organisationSecret);
            bytes memory name = abi.encodePacked(
                vector.source, uint8(0), vector.externalId, uint8(0), vector.revision
            );
            assertEq(keccak256(abi.encodePacked(secret, name)), vector.salt);
            assertEq(keccak256(abi.encodePacked(vector.salt, name)), vector.id);
        }
    }

    function test_Domains() public {
        bytes memory data = vm.parseJsonTypeArray(
            file("digests"), ".domains", "D(uint64 chainId,address settlement,bytes32 separator)"
        );
        Domain[] memory domains = abi.decode(data, (Domain[]));
        assertEq(domains.length, 5);
        for (uint256 i; i < domains.length; ++i) {
            Settlement placed = placedAt(domains[i].chainId, domains[i].settlement);
            (
                bytes1 fields,
                string memory name,
                string memory version,
                uint256 chainId,
                address place,
                bytes32 salt,
                uint256[] memory extensions
            ) = placed.eip712Domain();
            assertEq(fields, hex"0f");
            assertEq(name, "Quittance");
            assertEq(version, "1");
            assertEq(salt, 0);
            assertEq(extensions.length, 0);
            assertEq(separator(uint64(chainId), place), domains[i].separator);
        }
    }

    function test_Digests_OfStatementsByTheContract() public {
        StatementVector[] memory vectors = statements();
        assertEq(vectors.length, 10);
        for (uint256 i; i < vectors.length; ++i) {
            StatementVector memory vector = vectors[i];
            bytes32 digest = digestOf(vector.chainId, vector.settlement, vector.message);
            assertEq(digest, vector.digest);
            assertEq(digestAt(vector.chainId, vector.settlement, vector.structHash), digest);
        }
    }

    function test_Digests_OfClaimToAndSetPayout() public view {
        ClaimToVector[] memory claimed = claims();
        assertEq(claimed.length, 7);
        for (uint256 i; i < claimed.length; ++i) {
            assertEq(hashOf(claimed[i].message), claimed[i].structHash);
            assertEq(
                digestAt(claimed[i].chainId, claimed[i].settlement, claimed[i].structHash),
                claimed[i].digest
            );
        }
        SetPayoutVector[] memory set = payouts();
        assertEq(set.length, 7);
        for (uint256 i; i < set.length; ++i) {
            assertEq(hashOf(set[i].message), set[i].structHash);
            assertEq(digestAt(set[i].chainId, set[i].settlement, set[i].structHash), set[i].digest);
        }
    }

    /// @dev Flips each bit of each field in turn, the most significant first, and compares the hash
    /// over all digests. That no two of them are equal follows from it: the generator insists on it.
    function assertFlips(
        string memory kind,
        bytes32 digest,
        bytes[] memory fields,
        function(bytes[] memory) returns (bytes32) digestOfFields
    ) private {
        Flips memory expected = flips(kind);
        assertEq(digestOfFields(fields), digest);
        bytes32[] memory digests = new bytes32[](expected.count);
        uint256 count;
        for (uint256 field; field < fields.length; ++field) {
            for (uint256 bit; bit < fields[field].length * 8; ++bit) {
                bytes1 mask = bytes1(uint8(0x80 >> (bit % 8)));
                fields[field][bit / 8] ^= mask;
                digests[count] = digestOfFields(fields);
                assertNotEq(digests[count], digest, "a flipped bit changes nothing"); // I9
                fields[field][bit / 8] ^= mask;
                ++count;
            }
        }
        assertEq(count, expected.count);
        assertEq(keccak256(abi.encodePacked(digests)), expected.hash);
    }

    function statementOfFields(bytes[] memory f) private returns (bytes32) {
        DepositKey memory key = DepositKey(
            address(bytes20(f[0])),
            address(bytes20(f[1])),
            address(bytes20(f[2])),
            address(bytes20(f[3])),
            bytes32(f[4])
        );
        StatementMessage memory message =
            StatementMessage(key, uint32(bytes4(f[5])), uint64(bytes8(f[6])), bytes32(f[7]), f[8]);
        return digestOf(uint64(bytes8(f[9])), address(bytes20(f[10])), message);
    }

    function claimToOfFields(bytes[] memory f) private pure returns (bytes32) {
        ClaimToMessage memory message = ClaimToMessage(
            uint32(bytes4(f[0])),
            address(bytes20(f[1])),
            address(bytes20(f[2])),
            uint64(bytes8(f[3])),
            uint64(bytes8(f[4]))
        );
        return digestAt(uint64(bytes8(f[5])), address(bytes20(f[6])), hashOf(message));
    }

    function setPayoutOfFields(bytes[] memory f) private pure returns (bytes32) {
        SetPayoutMessage memory message = SetPayoutMessage(
            uint32(bytes4(f[0])), address(bytes20(f[1])), uint64(bytes8(f[2])), uint64(bytes8(f[3]))
        );
        return digestAt(uint64(bytes8(f[4])), address(bytes20(f[5])), hashOf(message));
    }

    function test_Digests_ChangeWithEveryBitOfAStatement() public {
        StatementVector memory vector = statements()[0];
        StatementMessage memory message = vector.message;
        bytes[] memory f = new bytes[](11);
        f[0] = abi.encodePacked(message.key.requestor);
        f[1] = abi.encodePacked(message.key.signer);
        f[2] = abi.encodePacked(message.key.cosigner);
        f[3] = abi.encodePacked(message.key.token);
        f[4] = abi.encodePacked(message.key.salt);
        f[5] = abi.encodePacked(message.epoch);
        f[6] = abi.encodePacked(message.spent);
        f[7] = abi.encodePacked(message.manifest);
        f[8] = message.rows;
        f[9] = abi.encodePacked(vector.chainId);
        f[10] = abi.encodePacked(vector.settlement);
        assertEq(message.rows.length, 30);
        assertFlips("Statement", vector.digest, f, statementOfFields); // I7
    }

    function test_Digests_ChangeWithEveryBitOfAClaimTo() public {
        ClaimToVector memory vector = claims()[0];
        bytes[] memory f = new bytes[](7);
        f[0] = abi.encodePacked(vector.message.provider);
        f[1] = abi.encodePacked(vector.message.token);
        f[2] = abi.encodePacked(vector.message.to);
        f[3] = abi.encodePacked(vector.message.nonce);
        f[4] = abi.encodePacked(vector.message.deadline);
        f[5] = abi.encodePacked(vector.chainId);
        f[6] = abi.encodePacked(vector.settlement);
        assertFlips("ClaimTo", vector.digest, f, claimToOfFields); // I7
    }

    function test_Digests_ChangeWithEveryBitOfASetPayout() public {
        SetPayoutVector memory vector = payouts()[0];
        bytes[] memory f = new bytes[](6);
        f[0] = abi.encodePacked(vector.message.provider);
        f[1] = abi.encodePacked(vector.message.payout);
        f[2] = abi.encodePacked(vector.message.nonce);
        f[3] = abi.encodePacked(vector.message.deadline);
        f[4] = abi.encodePacked(vector.chainId);
        f[5] = abi.encodePacked(vector.settlement);
        assertFlips("SetPayout", vector.digest, f, setPayoutOfFields); // I7
    }

    function settleSigned(StatementVector memory vector, bytes memory signature)
        private
        returns (Outcome)
    {
        StatementMessage memory message = vector.message;
        Statement memory statement =
            Statement(message.key, message.epoch, message.manifest, message.rows, signature, "");
        return placedAt(vector.chainId, vector.settlement).settle(batch(statement))[0];
    }

    function test_Signatures_Refused() public {
        bytes memory data = vm.parseJsonTypeArray(
            file("signatures"),
            ".refused",
            "R(string type,uint256 index,bytes32 digest,address signer,bytes signature,string reason)"
        );
        Refused[] memory refused = abi.decode(data, (Refused[]));
        assertEq(refused.length, 39);
        StatementVector[] memory vectors = statements();
        for (uint256 i; i < refused.length; ++i) {
            StatementVector memory vector = vectors[refused[i].index];
            assertEq(vector.digest, refused[i].digest);
            assertEq(vector.message.key.signer, refused[i].signer);
            (address recovered,,) = ECDSA.tryRecover(vector.digest, refused[i].signature);
            assertNotEq(recovered, refused[i].signer, refused[i].reason);
            assertOutcome(settleSigned(vector, refused[i].signature), Outcome.BadSignature);
        }
    }

    function validSignatures() private view returns (Valid[] memory) {
        bytes memory data = vm.parseJsonTypeArray(
            file("signatures"),
            ".valid",
            "S(string type,uint256 index,bytes32 privateKey,address signer,bytes32 digest,bytes32 r,"
            "bytes32 s,uint8 v,bytes signature)"
        );
        return abi.decode(data, (Valid[]));
    }

    function test_Signatures_Valid() public {
        Valid[] memory valid = validSignatures();
        assertEq(valid.length, 5);
        StatementVector[] memory vectors = statements();
        for (uint256 i; i < valid.length; ++i) {
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(uint256(valid[i].privateKey), valid[i].digest);
            assertEq(abi.encode(valid[i].r, valid[i].s, valid[i].v), abi.encode(r, s, v));
            assertEq(abi.encodePacked(r, s, v), valid[i].signature);
            assertEq(vm.addr(uint256(valid[i].privateKey)), valid[i].signer);
            assertEq(ECDSA.recover(valid[i].digest, valid[i].signature), valid[i].signer);
            if (i < 3) {
                StatementVector memory vector = vectors[valid[i].index];
                assertEq(vector.digest, valid[i].digest);
                assertOutcome(settleSigned(vector, valid[i].signature), Outcome.Settled);
            }
        }
    }

    /// @dev A contract with one provider, who signs, and a token, all where the vectors have them.
    function withProvider(uint64 chainId, address place, address token, address signer)
        private
        returns (Settlement placed)
    {
        placed = placedAt(chainId, place);
        vm.etch(token, address(glm).code);
        placed.registerToken(token);
        placed.register(one(signer));
    }

    /// @dev Whether the contract takes the signature for the provider's: it then finds no credit.
    function isAuthorized(Settlement placed, bytes memory data) private returns (bool) {
        (bool success, bytes memory answer) = address(placed).call(data);
        assertFalse(success);
        return bytes4(answer) == IRewards.NothingToClaim.selector;
    }

    function test_Signatures_OfAClaimTo() public {
        Valid memory valid = validSignatures()[3];
        ClaimToVector memory vector = claims()[valid.index];
        assertEq(vector.digest, valid.digest);
        ClaimToMessage memory m = vector.message;
        Settlement placed = withProvider(vector.chainId, vector.settlement, m.token, valid.signer);
        bytes memory data = abi.encodeCall(
            placed.claimTo, (m.provider, m.token, m.to, m.deadline, valid.signature)
        );
        assertTrue(isAuthorized(placed, data));
        // Selector and four words hold what was signed; each bit of them counts. I7
        for (uint256 bit = 32; bit < 32 + 4 * 256; ++bit) {
            bytes1 mask = bytes1(uint8(0x80 >> (bit % 8)));
            data[bit / 8] ^= mask;
            assertFalse(isAuthorized(placed, data));
            data[bit / 8] ^= mask;
        }
        vm.chainId(vector.chainId + 1);
        assertFalse(isAuthorized(placed, data));
    }

    function test_Signatures_OfASetPayout() public {
        Valid memory valid = validSignatures()[4];
        SetPayoutVector memory vector = payouts()[valid.index];
        assertEq(vector.digest, valid.digest);
        SetPayoutMessage memory m = vector.message;
        Settlement placed =
            withProvider(vector.chainId, vector.settlement, address(0x70ce), valid.signer);
        bytes memory data =
            abi.encodeCall(placed.setPayout, (m.provider, m.payout, m.deadline, valid.signature));
        for (uint256 bit = 32; bit < 32 + 3 * 256; ++bit) {
            bytes1 mask = bytes1(uint8(0x80 >> (bit % 8)));
            data[bit / 8] ^= mask;
            (bool done,) = address(placed).call(data);
            assertFalse(done); // I7
            data[bit / 8] ^= mask;
        }
        (bool success,) = address(placed).call(data);
        assertTrue(success);
        (address payout, uint64 claimNonce) = placed.payoutOf(m.provider);
        assertEq(payout, m.payout);
        assertEq(claimNonce, m.nonce + 1);
    }

    function test_Rows_Malformed() public view {
        bytes memory data =
            vm.parseJsonTypeArray(file("rows"), ".malformed", "M(bytes packed,string reason)");
        Malformed[] memory malformed = abi.decode(data, (Malformed[]));
        assertEq(malformed.length, 47);
        for (uint256 i; i < malformed.length; ++i) {
            (bool wellFormed,,) = rowsHarness.check(malformed[i].packed);
            assertFalse(wellFormed, malformed[i].reason);
        }
    }

    function test_Rows_WellFormed() public view {
        bytes memory data = vm.parseJsonTypeArray(
            file("rows"),
            ".wellFormed",
            "W(bytes packed,R[] rows,uint256 total,uint256 last)R(uint32 provider,uint64 units)"
        );
        WellFormed[] memory vectors = abi.decode(data, (WellFormed[]));
        assertEq(vectors.length, 8);
        for (uint256 i; i < vectors.length; ++i) {
            bytes memory packed;
            for (uint256 j; j < vectors[i].rows.length; ++j) {
                Row memory entry = vectors[i].rows[j];
                packed = bytes.concat(packed, row(entry.provider, uint48(entry.units)));
            }
            assertEq(packed, vectors[i].packed);
            (bool wellFormed, uint256 total, uint256 last) = rowsHarness.check(packed);
            assertTrue(wellFormed);
            assertEq(total, vectors[i].total);
            assertEq(last, vectors[i].last);
        }
    }

    function test_Manifests_TreesAndProofs() public view {
        Manifest[] memory vectors = manifests();
        assertEq(vectors.length, 9);
        for (uint256 i; i < vectors.length; ++i) {
            Manifest memory m = vectors[i];
            uint256 count = m.leaves.length;
            assertEq(m.proofs.length, count);
            assertEq(m.tree.length, count == 0 ? 0 : 2 * count - 1);
            assertEq(m.root, count == 0 ? bytes32(0) : m.tree[0]);
            for (uint256 j; j + 1 < count; ++j) {
                bytes32 pair = Hashes.commutativeKeccak256(m.tree[2 * j + 1], m.tree[2 * j + 2]);
                assertEq(m.tree[j], pair);
                assertGt(uint256(m.tree[count - 1 + j]), uint256(m.tree[count + j]), "sorted");
            }
            for (uint256 j; j < count; ++j) {
                Leaf memory leaf = m.leaves[j];
                assertEq(
                    leaf.hash,
                    keccak256(
                        bytes.concat(
                            keccak256(abi.encode(leaf.workload, leaf.provider, leaf.amount))
                        )
                    )
                );
                assertTrue(proves(m, j, leaf.amount));
                assertFalse(proves(m, j, leaf.amount ^ 1));
            }
        }
    }

    function proves(Manifest memory m, uint256 j, int128 amount) private view returns (bool) {
        Leaf memory leaf = m.leaves[j];
        return proofHarness.verify(m.proofs[j], m.root, leaf.workload, leaf.provider, amount);
    }

    function test_Manifests_RowsAreWholeUnitsOfTheLeaves() public view {
        Manifest[] memory vectors = manifests();
        for (uint256 i; i < vectors.length; ++i) {
            Manifest memory m = vectors[i];
            uint256 place;
            for (uint256 j; j < m.rows.length; ++j) {
                int256 sum_;
                while (place < m.leaves.length && m.leaves[place].provider == m.rows[j].provider) {
                    sum_ += m.leaves[place++].amount;
                }
                uint256 owed = sum_ > 0 ? uint256(sum_) : 0;
                assertEq(owed / m.unit, m.rows[j].units);
                assertEq(owed % m.unit, m.rows[j].carry);
            }
            assertEq(place, m.leaves.length);
        }
    }

    /// @dev Makes the contract emit one event of each kind, the very ones of the vectors.
    function emitAll(Settlement placed, address token, address account) private {
        settlement = placed;
        vm.etch(token, address(glm).code);
        placed.registerToken(token);
        address[] memory accounts = new address[](2);
        (accounts[0], accounts[1]) = (account, address(uint160(account) + 1));
        placed.register(accounts);

        attester = vm.createWallet(type(uint256).max / 255);
        DepositKey memory key = DepositKey(
            0x4e00000000000000000000000000000000000001, attester.addr, address(0), token, 0
        );
        requestor.addr = key.requestor;
        fund(key, 1000);
        thaw(key, 400);

        bytes memory rows = bytes.concat(row(1, 250), row(2, 100));
        bytes32 manifest = bytes32(type(uint256).max / 255 * 0xab);
        Statement memory statement = Statement(key, 1, manifest, rows, "", "");
        resign(statement, 350);
        assertOutcome(settleOne(statement), Outcome.Settled);
        assertOutcome(settleOne(Statement(key, 3, manifest, "", "", "")), Outcome.WrongEpoch);

        placed.claim(token, one(uint32(1)));
        vm.mockCallRevert(token, abi.encodePacked(IERC20.transfer.selector), "");
        placed.claim(token, one(uint32(2)));
        vm.clearMockedCalls();
        vm.prank(accounts[1]);
        placed.setPayout(2, address(uint160(account) + 2), 0, "");
        skip(THAW_PERIOD);
        vm.prank(key.requestor);
        placed.withdraw(key, address(uint160(account) + 2));
    }

    function test_Journal_OfTheContractsOwnEvents() public {
        string memory json = file("journal");
        bytes memory data = vm.parseJsonTypeArray(
            json,
            ".events",
            "E(string name,bytes32[] topics,bytes data,bytes32 entry,bytes32 journal)"
        );
        EventVector[] memory events = abi.decode(data, (EventVector[]));
        assertEq(events.length, 11);
        Settlement placed = placedAt(1, vm.parseJsonAddress(json, ".settlement"));
        vm.recordLogs();
        emitAll(
            placed,
            vm.parseJsonAddress(json, ".events[0].args.token"),
            vm.parseJsonAddress(json, ".events[1].args.payout")
        );
        Vm.Log[] memory logs = vm.getRecordedLogs();
        bytes32 word;
        uint256 count;
        for (uint256 i; i < logs.length; ++i) {
            if (logs[i].emitter != address(placed)) continue;
            EventVector memory vector = events[count];
            assertEq(abi.encode(logs[i].topics), abi.encode(vector.topics), vector.name);
            assertEq(logs[i].data, vector.data, vector.name);
            assertEq(keccak256(abi.encodePacked(vector.topics, vector.data)), vector.entry);
            bytes24 hash = bytes24(keccak256(abi.encodePacked(word, vector.entry)));
            word = bytes32(abi.encodePacked(hash, uint64(++count)));
            assertEq(word, vector.journal);
        }
        assertEq(count, events.length);
        assertEq(vm.load(address(placed), 0), word); // I11
    }
}
