// Prints the vectors of GLM's meta-transaction approval on Polygon, as viem makes them, for the tests in Rust and
// Solidity that read metatx.json: `node test/vectors/metatx.js > test/vectors/metatx.json` in contracts/.
'use strict';

const { encodeFunctionData, hashDomain, hashTypedData, keccak256, maxUint256, pad, parseAbi, parseSignature, toHex } =
  require('viem');
const { privateKeyToAccount } = require('viem/accounts');

const abi = parseAbi([
  'function approve(address spender, uint256 amount) returns (bool)',
  'function executeMetaTransaction(address user, bytes functionSignature, bytes32 r, bytes32 s, uint8 v) payable',
]);
const types = {
  EIP712Domain: [
    { name: 'name', type: 'string' },
    { name: 'version', type: 'string' },
    { name: 'verifyingContract', type: 'address' },
    { name: 'salt', type: 'bytes32' },
  ],
  MetaTransaction: [
    { name: 'nonce', type: 'uint256' },
    { name: 'from', type: 'address' },
    { name: 'functionSignature', type: 'bytes' },
  ],
};
const token = '0x0B220b82F3eA3B7F6d9A1D8ab58930C064A2b5Bf';
const owner = privateKeyToAccount(keccak256(toHex('payer')));

async function vector(chainId, spender, amount, metaNonce) {
  const domain = {
    name: 'Golem Network Token (PoS)',
    version: '1',
    verifyingContract: token,
    salt: pad(toHex(chainId)),
  };
  const call = encodeFunctionData({ abi, functionName: 'approve', args: [spender, amount] });
  const typed = {
    domain,
    types,
    primaryType: 'MetaTransaction',
    message: { nonce: metaNonce, from: owner.address, functionSignature: call },
  };
  const signature = await owner.signTypedData(typed);
  const { r, s, v } = parseSignature(signature);
  return {
    chainId,
    token,
    owner: owner.address,
    spender,
    amount: amount.toString(),
    metaNonce: metaNonce.toString(),
    domain: hashDomain({ domain, types }),
    digest: hashTypedData(typed),
    signature,
    calldata: encodeFunctionData({
      abi,
      functionName: 'executeMetaTransaction',
      args: [owner.address, call, r, s, Number(v)],
    }),
  };
}

async function main() {
  const spender = '0x000000000022D473030F116dDEE9F6B43aC78BA3';
  const vectors = [
    await vector(137, spender, 1_000n * 10n ** 18n, 0n),
    await vector(137, '0x00000000000000000000000000000000000000ff', 1n, 27n),
    await vector(80002, spender, maxUint256 - 1n, maxUint256 - 1n),
  ];
  console.log(JSON.stringify(vectors, null, 2));
}

main();
