#!/usr/bin/env node
// Runs the symbolic checks of test/halmos on the contract's bytecode and prints what came of each. `check.js fast` takes
// the contracts whose names do not end in Deep, `check.js deep` those that do, `check.js bugs` seeds bugs in a scratch copy
// and insists that named checks fail there. HALMOS names the prover, FORGE the directory of forge.
//
// A check counts as proved only if every path was followed to its end: a bound on loops that was met, a query that timed
// out, or a check that is missing from the answer is a failure.
'use strict';

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const contracts = path.join(__dirname, '..');
const CHECKS = 'test/halmos';

// Bounds, the same for every check; docs/proofs.md says what they mean for each. A list in calldata that the prover makes
// up has no or one element; with two, one check of any function's call takes longer than all others together.
const BOUNDS = [
  '--loop', '80', '--default-array-lengths', '0,1', '--default-bytes-lengths', '0,65',
  // Halmos gives a branch one millisecond, and takes both sides if that is not enough. On a busy machine it then follows
  // paths that cannot be, and has refuted a check (I7_SetPayoutSetsAndRaisesTheNonce) that more time proves.
  '--solver-timeout-branching', '500ms',
  '--solver-timeout-assertion', process.env.HALMOS_TIMEOUT ?? '300s',
];

// File, edit, and the check that must fail. All are seeded at once: they touch different functions.
const BUGS = [
  ['src/Escrow.sol', /\n.*StillThawing\(state\.thawEnds\)\);/, '', 'EscrowCheck', 'check_I2_WithdrawTakesWhatHasThawed'],
  ['src/Escrow.sol', /(function thaw\([^)]*\) external) nonReentrant/, '$1', 'GuardCheck', 'check_NothingReentersDeposit'],
  ['src/Escrow.sol', /require\(msg\.sender == key\.requestor, NotRequestor\(msg\.sender, key\.requestor\)\);\n(.*id = depositId)/, '$1',
    'EscrowCheck', 'check_OnlyTheRequestorThaws'],
  ['src/Rewards.sol', /claimNonce: \+\+claimNonce/, 'claimNonce: claimNonce', 'RewardsCheck',
    'check_I7_SetPayoutSetsAndRaisesTheNonce'],
  ['src/Rewards.sol', /block\.timestamp <= deadline/, 'deadline <= block.timestamp', 'RewardsCheck',
    'check_I6_ClaimToNeedsThePayoutAddress'],
  ['src/Rewards.sol', /(Lanes\.store\(base, provider, word)\);/, '$1 + 1);', 'RewardsCheck', 'check_I5_ClaimPaysAllOrLeavesAll'],
  ['src/Settlement.sol', /cosigner == address\(0\)/, 'cosigner != address(this)', 'SettlementCheck',
    'check_I2_ASettledStatementHasEverySignature'],
  ['src/Settlement.sol', /epoch != _epoch\(state\) \+ 1/, 'epoch <= _epoch(state)',
    'SettlementCheck', 'check_AWrongEpochNeverSettles'],
  ['src/libraries/Lanes.sol', /~\(LANE_MASK << /, '~(MARKS | LANE_MASK << ', 'LanesCheck', 'check_ClearTouchesNothingElse'],
  ['src/libraries/Rows.sol', /if \(length % SIZE != 0\) return \(false, 0, 0\);/, '', 'RowsCheck', 'check_OtherLengthsAreMalformed'],
];

function declared(root) {
  const checks = new Map();
  for (const file of fs.readdirSync(path.join(root, CHECKS)).filter((name) => name.endsWith('.halmos.sol'))) {
    let contract;
    for (const line of fs.readFileSync(path.join(root, CHECKS, file), 'utf8').split('\n')) {
      contract = /^contract (\w+)/.exec(line)?.[1] ?? contract;
      const check = /^    function (check_\w+)/.exec(line)?.[1];
      if (check) checks.set(check, contract);
    }
  }
  return checks;
}

/** Runs the named checks; returns name → { word, seconds, paths }. */
function run(root, checks) {
  const names = [...checks.keys()];
  const answer = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'checks-')), 'answer.json');
  const prover = spawnSync(process.env.HALMOS ?? 'halmos', [
    '--root', root, '--forge-build-out', 'out/halmos', '--json-output', answer, '--no-status', ...BOUNDS,
    '--match-contract', `^(${[...new Set(checks.values())].join('|')})$`, '--match-test', `^(${names.join('|')})\\(`,
  ], {
    cwd: root, encoding: 'utf8', maxBuffer: 1 << 28,
    env: { ...process.env, FOUNDRY_PROFILE: 'halmos', PATH: `${process.env.FORGE}${path.delimiter}${process.env.PATH}` },
  });
  if (prover.error) throw new Error(`cannot run halmos: ${prover.error.message}`);
  if (!fs.existsSync(answer)) throw new Error(`halmos gave no answer:\n${prover.stdout}${prover.stderr}`);
  const results = new Map();
  for (const list of Object.values(JSON.parse(fs.readFileSync(answer, 'utf8')).test_results)) {
    for (const result of list) {
      const words = { 0: 'proved', 1: 'violated', 2: 'timeout' };
      let word = words[result.exitcode] ?? 'unknown';
      if (word === 'proved' && result.num_bounded_loops !== 0) word = 'bounded';
      results.set(result.name.split('(')[0], { word, seconds: result.time[0], paths: result.num_paths[0] });
    }
  }
  return { results, output: prover.stdout + prover.stderr };
}

function prove(deep) {
  const checks = new Map([...declared(contracts)].filter(([, contract]) => contract.endsWith('Deep') === deep));
  const { results, output } = run(contracts, checks);
  let proved = 0;
  let seconds = 0;
  console.log(`${'check'.padEnd(84)} ${'result'.padEnd(9)} seconds  paths`);
  for (const [name, contract] of checks) {
    const result = results.get(name) ?? { word: 'missing', seconds: 0, paths: 0 };
    if (result.word === 'proved') proved += 1;
    seconds += result.seconds;
    console.log(`${`${contract}.${name}`.padEnd(84)} ${result.word.padEnd(9)} ${result.seconds.toFixed(1).padStart(7)} ${
      String(result.paths).padStart(6)}`);
  }
  console.log(`${checks.size} checks, ${proved} proved, ${seconds.toFixed(0)} s\n`);
  if (proved !== checks.size) console.error(output);
  return checks.size - proved;
}

function seedBugs() {
  const copy = fs.mkdtempSync(path.join(os.tmpdir(), 'seeded-'));
  try {
    return runSeeded(copy);
  } finally {
    fs.rmSync(copy, { recursive: true });
  }
}

function runSeeded(copy) {
  for (const name of ['src', CHECKS, 'foundry.toml', 'package.json']) {
    fs.cpSync(path.join(contracts, name), path.join(copy, 'contracts', name), { recursive: true });
  }
  fs.cpSync(path.join(contracts, '..', 'scripts'), path.join(copy, 'scripts'), { recursive: true });
  fs.symlinkSync(path.join(contracts, 'node_modules'), path.join(copy, 'contracts', 'node_modules'));
  for (const [file, from, to] of BUGS) {
    const place = path.join(copy, 'contracts', file);
    const source = fs.readFileSync(place, 'utf8');
    if (!from.test(source)) throw new Error(`seeded bug ${from} does not fit ${file}`);
    fs.writeFileSync(place, source.replace(from, to));
  }
  const checks = new Map(BUGS.map(([, , , contract, check]) => [check, contract]));
  const { results, output } = run(path.join(copy, 'contracts'), checks);
  let caught = 0;
  for (const check of checks.keys()) {
    const word = results.get(check)?.word ?? 'missing';
    if (word === 'violated') caught += 1;
    console.log(`${word === 'violated' ? 'caught by' : `MISSED (${word}) by`} ${check}`);
  }
  console.log(`${caught} of ${BUGS.length} seeded bugs caught\n`);
  if (caught !== BUGS.length) console.error(output);
  return BUGS.length - caught;
}

const parts = { fast: () => prove(false), deep: () => prove(true), bugs: seedBugs };
const part = parts[process.argv[2]];
if (!part) {
  console.error('check.js fast|deep|bugs');
  process.exit(2);
}
process.exitCode = part() === 0 ? 0 : 1;
