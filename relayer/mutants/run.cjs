// Makes every small mistake in the ledger's rules and the sender's plan with cargo-mutants, and judges what survived.
//
//     run.cjs [FILE…]
//
// Fails if fewer than nine of ten mistakes are noticed, if one that survives is not argued in argued.txt, or if argued.txt
// argues one that does not survive any more. A line of argued.txt is `FILE: MISTAKE # why no test can tell`.
'use strict';

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const ROOT = path.join(__dirname, '..', '..');
const ARGUED = path.join(__dirname, 'argued.txt');
const LEAST = 0.9;

const UNIT = { targets: ['--lib'], tests: [] };
const VECTORS = { targets: ['--test=vectors'], tests: [] };
const SLOW = ['power::', 'disk::', 'model::', 'invariants::'];
const DATABASE = { targets: ['--test=it'], tests: SLOW.flatMap((name) => ['--skip', name]) };
const DATABASE_SLOW = { targets: ['--test=it'], tests: SLOW };
// The simulation ends at the first seed that fails, and exists only with the feature; the other shares its build.
const SIMULATION = { targets: ['--features=crash-points', '--test=sim'], tests: ['no_fault'] };
const SENDER = { targets: ['--features=crash-points', '--test=it'], tests: ['sender::', 'outcome::'] };

// What is mutated, and the tests that have to notice: first those that take seconds; those of a later stage for what
// survived. Few unit tests reach what only writes to the database.
const SUBJECTS = [
  {
    files: ['ledger/src/rules.rs', 'ledger/src/amount.rs', 'ledger/src/manifest.rs', 'ledger/src/statement.rs'],
    package: 'quittance-ledger',
    stages: [UNIT, VECTORS, DATABASE, DATABASE_SLOW],
  },
  {
    files: ['ledger/src/book/*.rs'],
    package: 'quittance-ledger',
    stages: [DATABASE, UNIT, DATABASE_SLOW],
  },
  {
    files: ['relayer/src/sender/plan.rs', 'relayer/src/sender/fees.rs'],
    package: 'quittance-relayer',
    stages: [UNIT, SIMULATION, SENDER],
  },
  {
    files: ['relayer/src/sender/outcome.rs'],
    package: 'quittance-relayer',
    stages: [SENDER, UNIT, SIMULATION],
  },
];

function run({ package: name, stages }, files, output) {
  const args = ['mutants', '--in-place', '--package', name, '--test-package', name, '--no-shuffle', '--colors=never',
    '--output', output, ...files.flatMap((file) => ['--file', file])];
  const outcomes = new Map();
  for (const [index, { targets, tests }] of stages.entries()) {
    const cargo = ['--locked', ...targets].map((arg) => `--cargo-arg=${arg}`);
    const stage = [...args, ...(index > 0 ? ['--iterate'] : []), ...cargo, '--', '--', ...tests];
    for (const outcome of mutate(stage, output)) {
      const { name: mistake } = outcome.scenario.Mutant;
      // A stage repeats what did not come to an end in the one before; it was noticed all the same.
      if (outcomes.get(mistake)?.summary !== 'Timeout') outcomes.set(mistake, outcome);
    }
    if (![...outcomes.values()].some(({ summary }) => summary === 'MissedMutant')) break;
  }
  return [...outcomes.values()];
}

/** Outcomes of the mistakes that this run made. */
function mutate(args, output) {
  const done = spawnSync('cargo', args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
  const report = path.join(output, 'mutants.out', 'outcomes.json');
  if (!fs.existsSync(report)) throw new Error(`cargo mutants ended with ${done.status} and left no report`);
  const { outcomes } = JSON.parse(fs.readFileSync(report, 'utf8'));
  const baseline = outcomes.find(({ scenario }) => scenario === 'Baseline');
  if (baseline && baseline.summary !== 'Success') throw new Error('the tests fail before any mistake is made; what they said stands above');
  return outcomes.filter((outcome) => outcome !== baseline);
}

/** A mistake by file and by what it does: line numbers move. */
function nameOf({ scenario: { Mutant } }) {
  return `${Mutant.file}: ${Mutant.name.replace(/^[^ ]*:\d+:\d+: /, '')}`;
}

function readArgued() {
  if (!fs.existsSync(ARGUED)) return new Map();
  const lines = fs.readFileSync(ARGUED, 'utf8').split('\n').filter((line) => line && !line.startsWith('#'));
  return new Map(lines.map((line) => {
    const [mistake, why] = line.split(' # ');
    if (!why) throw new Error(`${ARGUED}: no reason in ${line}`);
    return [mistake, why];
  }));
}

function main() {
  const wanted = process.argv.slice(2);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'quittance-mutants-'));
  const outcomes = SUBJECTS.flatMap((subject, index) => {
    const files = wanted.length > 0 ? wanted.filter((file) => subject.files.some((all) => file.startsWith(all.replace('*.rs', '')))) : subject.files;
    return files.length > 0 ? run(subject, files, path.join(folder, String(index))) : [];
  });
  const built = outcomes.filter(({ summary }) => summary !== 'Unviable');
  const survivors = built.filter(({ summary }) => summary === 'MissedMutant').map(nameOf);
  const argued = readArgued();
  const silent = survivors.filter((name) => !argued.has(name));
  const stale = wanted.length > 0 ? [] : [...argued.keys()].filter((name) => !survivors.includes(name));
  for (const name of silent) console.log(`SURVIVED  ${name}`);
  for (const name of stale) console.log(`ARGUED IN VAIN  ${name}`);
  const killed = built.length - survivors.length;
  console.log(JSON.stringify({ mutants: outcomes.length, built: built.length, killed, survivors: survivors.length, argued: survivors.length - silent.length }));
  process.exitCode = killed >= LEAST * built.length && silent.length === 0 && stale.length === 0 ? 0 : 1;
}

main();
