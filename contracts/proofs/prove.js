#!/usr/bin/env node
// Proves every theorem of Theorems.sol about test/model/Books.sol with solc's model checker and z3, then refutes a set of
// seeded bugs, so that a prover that says yes to everything fails. Usage: prove.js [THEOREM…]; Z3 names the z3 binary.
//
// solc turns each theorem into one query per induction step and hands it to the callback here, which pipes it to z3.
'use strict';

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const contracts = path.join(__dirname, '..');
const solc = require(path.join(contracts, 'node_modules', 'solc'));
const z3 = process.env.Z3 ?? 'z3';
const TIMEOUT_MS = Number(process.env.Z3_TIMEOUT_MS ?? 60_000);

const MODEL = 'test/model/Books.sol';
const THEOREMS = 'proofs/Theorems.sol';
const SELF_CHECK = 'proofs/SelfCheck.sol';
// Nine calls; the base adds one.
const STEPS = 9;

// Each bug is one edit of the model, and the theorem that must fail.
const BUGS = [
  ['a withdrawal takes all', '        balanceOf[id] -= units;\n', '        balanceOf[id] = 0;\n', 'I2_ABalanceFallsOnlyByWithdrawalOrStatement'],
  ['a withdrawal is not counted', '        withdrawn[tokenOf[id]] += units;\n', '', 'I1_HoldingsAreWhatIsOwed'],
  ['a withdrawal does not wait', '        require(block.timestamp >= thawEndsOf[id], StillThawing());\n', '',
    'I2_NothingLeavesBeforeThePeriodIsOver'],
  ['a thaw keeps its old clock', 'thawEndsOf[id] = units == 0 ? 0 : ', 'thawEndsOf[id] = thawEndsOf[id] != 0 ? thawEndsOf[id] : ',
    'I2_NothingLeavesBeforeThePeriodIsOver'],
  ['a statement forgets what it spent', '        spentOf[id] += total;\n', '', 'I3_SpentRisesByStatementsOnly'],
  ['any later epoch settles', 'epoch == epochOf[id] + 1', 'epoch > epochOf[id]', 'I3_EpochCountsStatements'],
  ['a statement spends one unit more than it debits', '        due = total;', '        due = total + 1;', 'I4_RowsAreSpentAreCredits'],
  ['a statement ends early', '        require(due == 0, MalformedRows());\n', '', 'I4_DebitsAreCredits'],
  ['a row credits twice', '        creditOf[openToken][provider] += units;\n', '        creditOf[openToken][provider] += 2 * units;\n',
    'ARowCreditsItsUnits'],
  ['a row credits the neighbour', '        creditOf[openToken][provider] += units;\n',
    '        creditOf[openToken][provider + 1] += units;\n', 'ProvidersAreIsolated'],
  ['a claim empties the neighbour', '        creditOf[token][provider] = 0;', '        creditOf[token][provider + 1] = 0;',
    'I5_ACreditFallsOnlyByItsClaim'],
  ['a claim counts in the open token', '        claimed[token] += units;', '        claimed[openToken] += units;', 'C12_TokensAreIsolated'],
  ['what thaws is spent last', '        thawingOf[id] = thawingOf[id] < balanceOf[id] ? thawingOf[id] : balanceOf[id];\n', '',
    'ThawingIsWithinTheBalance'],
  ['a deposit has no limit', '        require(units + balanceOf[id] + spentOf[id] <= MAX_UNITS, DepositTooLarge());\n', '',
    'ADepositFitsItsSlot'],
  ['a credit has no limit', '        require(creditOf[openToken][provider] + units <= MAX_CREDIT, CreditOverflow());\n', '',
    'ACreditFitsItsLane'],
  ['anything goes while a statement is open', '        require(!open, StatementOpen());\n', '', 'AStatementIsAtomic'],
];

function read(name) {
  return fs.readFileSync(path.join(contracts, name), 'utf8');
}

/** The file with one of its contracts left: solc encodes whatever it is given, and would take a minute for all. */
function only(file, contract) {
  const source = read(file);
  const found = source.match(new RegExp(`^contract ${contract} is [^]*?^}$`, 'm'));
  if (!found) throw new Error(`${file} has no contract ${contract}`);
  return source.match(/^[^]*?^import [^;]*;$/m)[0] + '\n' + found[0] + '\n';
}

/** One run of solc's model checker over one contract: z3's answers, and what solc made of them. */
function check(file, contract, model) {
  const answers = [];
  const smtSolver = (query) => {
    const run = spawnSync(z3, ['-smt2', '-in', `-T:${Math.ceil(TIMEOUT_MS / 1000)}`], {
      input: query, encoding: 'utf8', maxBuffer: 1 << 28,
    });
    if (run.error) throw new Error(`cannot run ${z3}: ${run.error.message}`);
    answers.push(run.stdout.split('\n', 1)[0]);
    return { contents: run.stdout || 'unknown' };
  };
  const settings = {
    modelChecker: {
      engine: 'bmc', contracts: { [file]: [contract] }, targets: ['assert'], solvers: ['smtlib2'],
      showProvedSafe: true, showUnproved: true, showUnsupported: true,
    },
    outputSelection: { '*': { '*': [] } },
  };
  const input = { language: 'Solidity', sources: { [file]: { content: only(file, contract) } }, settings };
  const started = process.hrtime.bigint();
  const output = JSON.parse(solc.compile(JSON.stringify(input), {
    import: (name) => ({ contents: name === MODEL ? model : read(name) }), smtSolver,
  }));
  const seconds = Number(process.hrtime.bigint() - started) / 1e9;
  const messages = output.errors ?? [];
  const error = messages.find((message) => message.severity === 'error');
  if (error) throw new Error(error.formattedMessage);
  // Whatever the engine abstracts away could hide a bug. The type of a custom error in a `require` is the one
  // thing that it does not model and need not.
  const strange = messages.find((message) => message.errorCode !== '8364' && /does not (yet )?(implement|support)/.test(message.message));
  if (strange) throw new Error(strange.formattedMessage);
  const safe = messages.filter((message) => /check is safe/.test(message.message)).length;
  const unsafe = messages.filter((message) => /violation (happens|might happen) here/.test(message.message)).length;
  return { answers, safe, unsafe, seconds };
}

function verdict({ answers, safe, unsafe }) {
  if (answers.some((answer) => answer === 'sat')) return 'violated';
  const all = answers.length === STEPS + 1 && answers.every((answer) => answer === 'unsat');
  return all && safe === 2 && unsafe === 0 ? 'proved' : 'unknown';
}

function line(name, result, seconds) {
  console.log(`${name.padEnd(50)} ${result.padEnd(9)} ${seconds.toFixed(1).padStart(6)}`);
}

function main(wanted) {
  const model = read(MODEL);
  const names = [...read(THEOREMS).matchAll(/^contract (\w+) is/gm)].map((match) => match[1]);
  let failures = 0;
  let total = 0;
  const selected = names.filter((name) => wanted.length === 0 || wanted.includes(name));
  console.log(`${'theorem'.padEnd(50)} ${''.padEnd(9)} seconds`);
  for (const name of selected) {
    const result = check(THEOREMS, name, model);
    const word = verdict(result);
    if (word !== 'proved') failures += 1;
    total += result.seconds;
    line(name, word, result.seconds);
  }
  console.log(`${selected.length} theorems, ${selected.length - failures} proved, ${total.toFixed(0)} s\n`);
  if (wanted.length !== 0) return failures;

  const vacuous = check(SELF_CHECK, 'NothingEverCompletes', model);
  const refuted = vacuous.answers.filter((answer) => answer === 'sat').length;
  if (refuted !== STEPS) failures += 1;
  console.log(`self-check: ${refuted} of ${STEPS} steps can complete`);
  let caught = 0;
  for (const [name, from, to, theorem] of BUGS) {
    if (model.split(from).length !== 2) throw new Error(`seeded bug "${name}" does not fit ${MODEL} exactly once`);
    const word = verdict(check(THEOREMS, theorem, model.replace(from, to)));
    if (word === 'violated') caught += 1;
    console.log(`${word === 'violated' ? 'caught' : `MISSED (${word})`}: ${name}, by ${theorem}`);
  }
  console.log(`${caught} of ${BUGS.length} seeded bugs caught`);
  return failures + BUGS.length - caught;
}

process.exitCode = main(process.argv.slice(2)) === 0 ? 0 : 1;
