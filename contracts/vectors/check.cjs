// Checks the golden vectors with viem: ids, digests, flipped bits, signatures, rows, manifests and the journal. Shares no
// code with the generator. `node contracts/vectors/check.cjs` prints one line per file and exits with 1 at a mismatch.
'use strict';

const assert = require('node:assert/strict');
const path = require('node:path');
const {
  concat,
  encodeAbiParameters,
  encodeEventTopics,
  encodePacked,
  hashDomain,
  hashStruct,
  hashTypedData,
  hexToBytes,
  bytesToHex,
  keccak256,
  numberToHex,
  parseAbi,
  parseAbiParameters,
  recoverAddress,
  stringToHex,
  toHex,
} = require('viem');

const read = (name) => require(path.join(__dirname, `${name}.json`));

const DOMAIN = [
  { name: 'name', type: 'string' },
  { name: 'version', type: 'string' },
  { name: 'chainId', type: 'uint256' },
  { name: 'verifyingContract', type: 'address' },
];
const TYPES = {
  DepositKey: [
    { name: 'requestor', type: 'address' },
    { name: 'signer', type: 'address' },
    { name: 'cosigner', type: 'address' },
    { name: 'token', type: 'address' },
    { name: 'salt', type: 'bytes32' },
  ],
  Statement: [
    { name: 'key', type: 'DepositKey' },
    { name: 'epoch', type: 'uint32' },
    { name: 'spent', type: 'uint64' },
    { name: 'manifest', type: 'bytes32' },
    { name: 'rows', type: 'bytes' },
  ],
  ClaimTo: [
    { name: 'provider', type: 'uint32' },
    { name: 'token', type: 'address' },
    { name: 'to', type: 'address' },
    { name: 'nonce', type: 'uint64' },
    { name: 'deadline', type: 'uint64' },
  ],
  SetPayout: [
    { name: 'provider', type: 'uint32' },
    { name: 'payout', type: 'address' },
    { name: 'nonce', type: 'uint64' },
    { name: 'deadline', type: 'uint64' },
  ],
};
const MESSAGES = ['Statement', 'ClaimTo', 'SetPayout'];
const EVENTS = parseAbi([
  'struct DepositKey { address requestor; address signer; address cosigner; address token; bytes32 salt; }',
  'event TokenRegistered(address indexed token, uint8 decimals, uint64 unit)',
  'event Deposited(bytes32 indexed id, DepositKey key, address from, uint64 units)',
  'event Thawed(bytes32 indexed id, uint64 units, uint32 ends)',
  'event Withdrawn(bytes32 indexed id, address to, uint64 units)',
  'event Registered(uint32 indexed provider, address payout)',
  'event Claimed(uint32 indexed provider, address token, address to, uint64 units, uint64 claimNonce)',
  'event ClaimFailed(uint32 indexed provider, address token, uint64 units)',
  'event PayoutSet(uint32 indexed provider, address payout, uint64 claimNonce)',
  'event Settled(bytes32 indexed id, uint32 epoch, uint64 spent, bytes32 manifest, bytes rows)',
  'event Skipped(bytes32 indexed id, bytes32 digest, uint8 reason)',
]);

const domainOf = ({ chainId, settlement }) => ({
  name: 'Quittance',
  version: '1',
  chainId: BigInt(chainId),
  verifyingContract: settlement,
});

const digestOf = (primaryType, place, message) =>
  hashTypedData({ domain: domainOf(place), types: TYPES, primaryType, message });

// Large numbers are strings in JSON; viem wants them as BigInt. Types of the message say which they are.
const typed = (primaryType, message) =>
  Object.fromEntries(
    TYPES[primaryType].map(({ name, type }) => {
      const value = message[name];
      if (TYPES[type]) return [name, typed(type, value)];
      return [name, type === 'uint64' ? BigInt(value) : value];
    }),
  );

function ids() {
  const { deposits, workloads } = read('ids');
  for (const { key, id } of deposits) {
    assert.equal(hashStruct({ data: key, types: TYPES, primaryType: 'DepositKey' }), id);
  }
  for (const w of workloads) {
    const secret = keccak256(concat([w.operatorSecret, stringToHex(w.organisation)]));
    assert.equal(secret, w.organisationSecret);
    const revision = numberToHex(w.revision, { size: 4 });
    const name = concat([stringToHex(w.source), '0x00', stringToHex(w.externalId), '0x00', revision]);
    const salt = keccak256(concat([secret, name]));
    assert.equal(salt, w.salt);
    assert.equal(keccak256(concat([salt, name])), w.id);
  }
  return `${deposits.length} deposits, ${workloads.length} workloads`;
}

// The fields whose bits are flipped, in order, as [path, bytes]; a number keeps its width.
function fieldsOf(primaryType, message) {
  return TYPES[primaryType].flatMap(({ name, type }) => {
    const value = message[name];
    if (TYPES[type]) {
      return fieldsOf(type, value).map(([at, bytes]) => [[name, ...at], bytes]);
    }
    const width = /^uint(\d+)$/.exec(type);
    const hex = width ? numberToHex(value, { size: Number(width[1]) / 8 }) : value;
    return [[[name], hexToBytes(hex)]];
  });
}

function set(message, [name, ...rest], bytes) {
  const before = message[name];
  if (rest.length) return { ...message, [name]: set(before, rest, bytes) };
  const hex = bytesToHex(bytes);
  if (typeof before === 'bigint') return { ...message, [name]: BigInt(hex) };
  return { ...message, [name]: typeof before === 'number' ? Number(hex) : hex };
}

function flips(primaryType, { chainId, settlement, message: fields, digest }) {
  const message = typed(primaryType, fields);
  const place = { chainId: BigInt(chainId), settlement };
  const all = fieldsOf(primaryType, message).map(([at, bytes]) => [['message', ...at], bytes]);
  all.push([['chainId'], hexToBytes(numberToHex(place.chainId, { size: 8 }))]);
  all.push([['settlement'], hexToBytes(settlement)]);
  const digests = [];
  for (const [at, bytes] of all) {
    for (let bit = 0; bit < bytes.length * 8; ++bit) {
      const flipped = Uint8Array.from(bytes);
      flipped[bit >> 3] ^= 0x80 >> (bit & 7);
      const altered = set({ ...place, message }, at, flipped);
      digests.push(digestOf(primaryType, altered, altered.message));
    }
  }
  assert.equal(new Set([digest, ...digests]).size, digests.length + 1, 'a flipped bit changes nothing');
  return { count: digests.length, hash: keccak256(concat(digests)) };
}

function digests() {
  const file = read('digests');
  for (const place of file.domains) {
    const domain = domainOf(place);
    assert.equal(hashDomain({ domain, types: { EIP712Domain: DOMAIN } }), place.separator);
  }
  let count = 0;
  for (const primaryType of MESSAGES) {
    for (const vector of file[primaryType]) {
      const message = typed(primaryType, vector.message);
      assert.equal(hashStruct({ data: message, types: TYPES, primaryType }), vector.structHash);
      assert.equal(digestOf(primaryType, vector, message), vector.digest);
      ++count;
    }
    assert.deepEqual(flips(primaryType, file[primaryType][0]), file.flips[primaryType]);
  }
  const bits = MESSAGES.reduce((sum, name) => sum + file.flips[name].count, 0);
  return `${file.domains.length} domains, ${count} messages, ${bits} flipped bits`;
}

// The contract's rule: 65 bytes, low s, v of 27 or 28, and then whoever ecrecover names.
async function signerOf(hash, signature) {
  const bytes = hexToBytes(signature);
  if (bytes.length !== 65 || (bytes[64] !== 27 && bytes[64] !== 28)) return null;
  const s = BigInt(bytesToHex(bytes.slice(32, 64)));
  if (s > 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n) return null;
  try {
    return (await recoverAddress({ hash, signature })).toLowerCase();
  } catch {
    return null;
  }
}

async function signatures() {
  const { valid, refused } = read('signatures');
  const messages = read('digests');
  for (const vector of [...valid, ...refused]) {
    assert.equal(vector.digest, messages[vector.type][vector.index].digest);
  }
  for (const { privateKey, digest, signer, r, s, v, signature } of valid) {
    assert.equal(concat([r, s, toHex(v)]), signature);
    assert.equal(await signerOf(digest, signature), signer.toLowerCase());
    const { privateKeyToAccount, sign } = require('viem/accounts');
    assert.equal(privateKeyToAccount(privateKey).address.toLowerCase(), signer.toLowerCase());
    assert.equal(await sign({ hash: digest, privateKey, to: 'hex' }), signature, 'RFC 6979');
  }
  for (const { type, index, digest, signer, signature, reason } of refused) {
    assert.equal(signer, messages[type][index].message.key.signer);
    assert.notEqual(await signerOf(digest, signature), signer.toLowerCase(), reason);
  }
  return `${valid.length} valid, ${refused.length} refused`;
}

// Rows read one at a time, or the reason why they are none.
function rowsOf(packed) {
  const bytes = hexToBytes(packed);
  if (bytes.length % 10) return 'length';
  const rows = [];
  let last = 0;
  for (let at = 0; at < bytes.length; at += 10) {
    const provider = Number(BigInt(bytesToHex(bytes.slice(at, at + 4))));
    const units = BigInt(bytesToHex(bytes.slice(at + 4, at + 10)));
    if (units === 0n) return 'units';
    if (provider <= last) return 'order';
    rows.push({ provider, units: units.toString() });
    last = provider;
  }
  return rows;
}

function rows() {
  const { wellFormed, malformed } = read('rows');
  for (const { packed, rows, total, last } of wellFormed) {
    assert.deepEqual(rowsOf(packed), rows);
    const again = rows.map((row) =>
      encodePacked(['uint32', 'uint48'], [row.provider, Number(row.units)]),
    );
    assert.equal(concat(['0x', ...again]), packed);
    assert.equal(rows.reduce((sum, row) => sum + BigInt(row.units), 0n).toString(), total);
    assert.equal(rows.at(-1)?.provider ?? 0, last);
  }
  for (const { packed, reason } of malformed) assert.equal(rowsOf(packed), reason);
  return `${wellFormed.length} well formed, ${malformed.length} malformed`;
}

const hashPair = (a, b) => keccak256(a < b ? concat([a, b]) : concat([b, a]));

function treeOf(hashes) {
  const sorted = [...hashes].sort();
  const tree = new Array(Math.max(2 * sorted.length - 1, 0));
  sorted.forEach((hash, i) => (tree[tree.length - 1 - i] = hash));
  for (let i = sorted.length - 2; i >= 0; --i) tree[i] = hashPair(tree[2 * i + 1], tree[2 * i + 2]);
  return tree;
}

function manifests() {
  const leafType = parseAbiParameters('bytes32, uint32, int128');
  const { manifests } = read('manifests');
  for (const { unit, leaves, tree, root, proofs, rows } of manifests) {
    const hashes = leaves.map(({ workload, provider, amount }) =>
      keccak256(keccak256(encodeAbiParameters(leafType, [workload, provider, BigInt(amount)]))),
    );
    assert.deepEqual(hashes, leaves.map((leaf) => leaf.hash));
    assert.deepEqual(treeOf(hashes), tree);
    assert.equal(tree[0] ?? `0x${'00'.repeat(32)}`, root);
    assert.equal(proofs.length, leaves.length);
    proofs.forEach((proof, i) => assert.equal(proof.reduce(hashPair, hashes[i]), root));
    const sums = new Map();
    for (const { provider, amount } of leaves) {
      sums.set(provider, (sums.get(provider) ?? 0n) + BigInt(amount));
    }
    const expected = [...sums].map(([provider, sum]) => {
      const owed = sum > 0n ? sum : 0n;
      const [units, carry] = [owed / BigInt(unit), owed % BigInt(unit)];
      return { provider, units: units.toString(), carry: carry.toString() };
    });
    assert.deepEqual(rows.map(({ provider, units, carry }) => ({ provider, units, carry })), expected);
  }
  return `${manifests.length} manifests of ${manifests.map((m) => m.leaves.length).join(', ')} leaves`;
}

function journal() {
  const { events } = read('journal');
  let word = `0x${'00'.repeat(32)}`;
  events.forEach(({ name, args, topics, data, entry, journal }, index) => {
    const abi = EVENTS.filter((event) => event.name === name);
    assert.deepEqual(encodeEventTopics({ abi, eventName: name, args }), topics);
    const inputs = abi[0].inputs.filter((input) => !input.indexed);
    const value = ({ name, type }) => (type === 'uint64' ? BigInt(args[name]) : args[name]);
    assert.equal(encodeAbiParameters(inputs, inputs.map(value)), data);
    assert.equal(keccak256(concat([...topics, data])), entry);
    const hash = keccak256(concat([word, entry])).slice(0, 50);
    word = concat([hash, numberToHex(index + 1, { size: 8 })]);
    assert.equal(word, journal);
  });
  const kinds = new Set(events.map((event) => event.name));
  assert.equal(kinds.size, EVENTS.filter((item) => item.type === 'event').length);
  return `${events.length} events of ${kinds.size} kinds`;
}

async function main() {
  for (const check of [ids, digests, signatures, rows, manifests, journal]) {
    console.log(`${check.name}: ${await check()}`);
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
