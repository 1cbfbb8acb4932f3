// Puts small mistakes into the contract, one at a time, and counts those that the tests notice.
//
//     mutate.cjs [--file NAME] [--sample N] [--again] [--list]
//
// --again tries only what the last run, which may have been cut short, did not settle: for use after
// tests were added, not after the contract was changed.
//
// A mutant that no test notices must be argued, one by one, in argued.json: why it behaves as the
// original does, or why no test of behaviour can tell. Fails below 95 % killed, for a survivor without
// an argument, and for an argument without its survivor.
'use strict';

const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const fs = require('node:fs');
const path = require('node:path');

const {
  CONTRACTS,
  Lane,
  codeFiles,
  compile,
  compileThoroughly,
  parse,
  prepare,
  readSources,
  unitTests,
} = require('./bench.cjs');
const { applied, mutantsOf } = require('./operators.cjs');

const NAME = 'mutants';
const LANES = 2;
const LEAST_KILLED = 0.95;
const RUN = { failFast: true, fuzzRuns: 16 };
const RESULTS = path.join(CONTRACTS, 'cache', 'mutants.json');
const ARGUED = path.join(__dirname, 'argued.json');

/// What can become of a mutant. `same`: the compiler made the same bytecode of it.
const OUTCOMES = ['killed', 'survived', 'same', 'not compiling'];

function options(args) {
  const chosen = { file: undefined, sample: undefined, again: false, list: false };
  while (args.length > 0) {
    const option = args.shift();
    if (option === '--file' && args.length > 0) chosen.file = args.shift();
    else if (option === '--sample' && Number(args[0]) > 0) chosen.sample = Number(args.shift());
    else if (option === '--again') chosen.again = true;
    else if (option === '--list') chosen.list = true;
    else {
      console.error('scripts/mutate [--file NAME] [--sample N] [--again] [--list]');
      process.exit(2);
    }
  }
  return chosen;
}

async function main() {
  const chosen = options(process.argv.slice(2));
  const sources = readSources();
  const trees = parse(sources);
  const files = codeFiles(sources).filter((file) => !chosen.file || file.includes(chosen.file));
  let mutants = files.flatMap((file) => mutantsOf(file, sources, trees));
  if (chosen.sample) mutants = evenly(mutants, chosen.sample);
  if (chosen.list) return mutants.forEach(({ line, id }) => console.log(`${line}\t${id}`));

  prepare(NAME);
  const started = Date.now();
  const known = chosen.again ? remembered() : new Map();
  await tryAll(
    mutants.filter(({ id }) => !known.has(id)),
    sources,
    (mutant, result) => {
      known.set(mutant.id, result);
      if (known.size % 20 === 0) remember(known);
    },
  );
  remember(known);
  const results = mutants.map((mutant) => ({ ...mutant, ...known.get(mutant.id) }));
  const partial = chosen.file !== undefined || chosen.sample !== undefined;
  process.exitCode = report(results, Math.round((Date.now() - started) / 1000), partial) ? 0 : 1;
}

/// `count` mutants, spread evenly over the files and always the same.
function evenly(mutants, count) {
  if (count >= mutants.length) return mutants;
  return Array.from({ length: count }, (_, i) => mutants[Math.floor((i * mutants.length) / count)]);
}

/// What the last run found, survivors excepted.
function remembered() {
  if (!fs.existsSync(RESULTS)) return new Map();
  const settled = JSON.parse(fs.readFileSync(RESULTS, 'utf8')).filter(
    ([, { outcome }]) => outcome !== 'survived',
  );
  return new Map(settled);
}

function remember(known) {
  fs.writeFileSync(RESULTS, `${JSON.stringify([...known], null, 1)}\n`);
}

/// Hands the mutants out to the lanes, one at a time.
function tryAll(mutants, sources, tell) {
  let next = 0;
  let done = 0;
  const lane = (number) =>
    new Promise((resolve, reject) => {
      const worker = new Worker(__filename, { workerData: { number, sources } });
      const hand = () => {
        if (next === mutants.length) return worker.terminate().then(resolve);
        worker.postMessage({ at: next, mutant: mutants[next] });
        ++next;
      };
      worker.on('error', reject);
      worker.on('message', (message) => {
        if (message.at !== undefined) {
          tell(mutants[message.at], message.result);
          ++done;
          if (process.stderr.isTTY || done % 50 === 0) {
            process.stderr.write(`${done} of ${mutants.length}${process.stderr.isTTY ? '\r' : '\n'}`);
          }
        }
        hand();
      });
    });
  return Promise.all(Array.from({ length: LANES }, (_, number) => lane(number)));
}

function work() {
  const { number, sources } = workerData;
  const lane = new Lane(NAME, number);
  const original = compile(sources);
  original.thorough = compileThoroughly(sources).code;
  const { statuses } = lane.test(original, unitTests(), { ...RUN, failFast: false });
  const failing = [...(statuses ?? [])].filter(([, status]) => status === 'Failure');
  if (failing.length > 0) throw new Error(`tests fail without a mutant: ${failing.join(' ')}`);
  parentPort.on('message', ({ at, mutant }) => {
    parentPort.postMessage({ at, result: attempt(lane, original, sources, mutant) });
  });
  parentPort.postMessage({});
}

function attempt(lane, original, sources, mutant) {
  const mutated = { ...sources, [mutant.file]: applied(sources[mutant.file], mutant) };
  const compiled = compile(mutated);
  if (compiled.error) return { outcome: 'not compiling' };
  if (compiled.code === original.code) return { outcome: 'same' };
  const [near, far] = byDistance(mutant.file);
  const by =
    killer(lane.test(compiled, near, RUN)) ??
    killer(lane.test(compiled, far, RUN)) ??
    killer(lane.testHarnesses(mutant.file, mutated, RUN));
  if (by) return { outcome: 'killed', by };
  const same = compileThoroughly(mutated).code === original.thorough;
  return { outcome: same ? 'same' : 'survived' };
}

/// The tests that are named after the file, or after Settlement if none is, and the others.
function byDistance(file) {
  const all = unitTests();
  const named = (name) => all.filter((test) => path.basename(test).startsWith(`${name}.`));
  const own = named(path.basename(file, '.sol'));
  const near = own.length > 0 ? own : named('Settlement');
  return [near, all.filter((test) => !near.includes(test))];
}

function killer({ timedOut, statuses }) {
  if (timedOut) return 'time';
  for (const [test, status] of statuses) {
    if (status === 'Failure') return test;
  }
  return undefined;
}

/// Prints tables and everything that needs a look; tells whether the run is good.
function report(results, seconds, partial) {
  table('file', (result) => result.file, results);
  table('operator', (result) => result.operator, results);

  const argued = new Map(
    JSON.parse(fs.readFileSync(ARGUED, 'utf8')).map(({ mutant, reason }) => [mutant, reason]),
  );
  const survivors = results.filter((result) => result.outcome === 'survived');
  const open = survivors.filter((result) => !argued.get(result.id));
  const survived = new Set(survivors.map((result) => result.id));
  const unused = partial ? [] : [...argued.keys()].filter((id) => !survived.has(id));
  for (const { id, line } of open) console.log(`survived, not argued: line ${line}: ${id}`);
  for (const id of unused) console.log(`argued, but no survivor: ${id}`);

  const killed = results.filter((result) => result.outcome === 'killed').length;
  const counted = killed + open.length;
  const share = counted === 0 ? 1 : killed / counted;
  console.log(
    `${killed} of ${counted} killed (${(share * 100).toFixed(1)} %), ` +
      `${survivors.length - open.length} survivors argued, ${seconds} s`,
  );
  return share >= LEAST_KILLED && open.length === 0 && unused.length === 0;
}

function table(title, nameOf, results) {
  const names = [...new Set(results.map(nameOf))];
  const width = Math.max(...names.map((name) => name.length), title.length, 5);
  const line = (name, cells) =>
    console.log(name.padEnd(width), ...cells.map((cell) => String(cell).padStart(13)));
  const count = (chosen) => OUTCOMES.map((outcome) => chosen.filter((r) => r.outcome === outcome).length);
  line(title, OUTCOMES);
  for (const name of names) line(name, count(results.filter((result) => nameOf(result) === name)));
  line('all', count(results));
  console.log();
}

if (isMainThread) {
  main().catch((error) => {
    console.error(error.message);
    process.exitCode = 2;
  });
} else {
  work();
}
