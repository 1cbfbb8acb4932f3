// Keeps the zoo: every patch in contracts/zoo is a mistake that somebody could make, and names the test
// that notices it. Fails unless each applies, compiles, and fails its test, which passes without it.
//
//     zoo.cjs [NUMBER…]
//
// A patch begins with what it breaks, `F06: …`, and with `Killed-by: test/File.t.sol:test_Name`.
'use strict';

const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const { CONTRACTS, Lane, compile, prepare, readAllSources } = require('./bench.cjs');

const ZOO = path.join(CONTRACTS, 'zoo');
const NAME = 'zoo';
const LANES = 2;
const LEAST = 44;
const RUN = { failFast: false, fuzzRuns: 16 };

function readZoo(numbers) {
  return fs
    .readdirSync(ZOO)
    .filter((file) => file.endsWith('.patch'))
    .filter((file) => numbers.length === 0 || numbers.includes(String(parseInt(file, 10))))
    .sort()
    .map((file) => {
      const head = fs.readFileSync(path.join(ZOO, file), 'utf8').split('\n--- ')[0];
      const [, breaks] = head.match(/^(F\d\d): /) ?? [];
      const [, killer] = head.match(/^Killed-by: (\S+:\S+)$/m) ?? [];
      if (!breaks || !killer) throw new Error(`${file} does not begin as a patch of the zoo does`);
      return { file, breaks, killer };
    });
}

async function main() {
  const numbers = process.argv.slice(2);
  if (numbers.some((number) => !/^\d+$/.test(number))) {
    console.error('scripts/zoo [NUMBER…]');
    process.exit(2);
  }
  const bugs = readZoo(numbers);
  prepare(NAME);
  const started = Date.now();
  const results = await tryAll(bugs);

  const width = Math.max(...bugs.map(({ file }) => file.length));
  bugs.forEach((bug, i) => {
    const outcome = results[i] === 'killed' ? results[i] : results[i].toUpperCase();
    console.log(bug.file.padEnd(width), bug.breaks, outcome.padEnd(8), bug.killer);
  });
  const killed = results.filter((outcome) => outcome === 'killed').length;
  const seconds = Math.round((Date.now() - started) / 1000);
  console.log(`${killed} of ${bugs.length} killed by the test they name, ${seconds} s`);
  const whole = numbers.length > 0 || bugs.length >= LEAST;
  if (!whole) console.log(`the zoo should hold at least ${LEAST}`);
  process.exitCode = killed === bugs.length && whole ? 0 : 1;
}

/// Hands the bugs out to the lanes, one at a time.
function tryAll(bugs) {
  const results = new Array(bugs.length);
  let next = 0;
  const lane = (number) =>
    new Promise((resolve, reject) => {
      const worker = new Worker(__filename, { workerData: { number } });
      worker.on('error', reject);
      worker.on('message', ({ at, result }) => {
        if (at !== undefined) results[at] = result;
        if (next === bugs.length) return worker.terminate().then(resolve);
        worker.postMessage({ at: next, bug: bugs[next] });
        ++next;
      });
    });
  return Promise.all(Array.from({ length: LANES }, (_, number) => lane(number))).then(() => results);
}

function work() {
  const lane = new Lane(NAME, workerData.number);
  const files = readZoo([]).map(fileOf);
  const { statuses: healthy } = lane.test(compile(readAllSources()), files, RUN);
  parentPort.on('message', ({ at, bug }) => {
    parentPort.postMessage({ at, result: attempt(lane, healthy, bug) });
  });
  parentPort.postMessage({});
}

function attempt(lane, healthy, bug) {
  if (healthy?.get(bug.killer) !== 'Success') return 'test does not pass';
  const sources = patched(lane, bug.file);
  if (!sources) return 'does not apply';
  const compiled = compile(sources);
  if (compiled.error) {
    console.error(compiled.error);
    return 'does not compile';
  }
  const { statuses } = lane.test(compiled, [fileOf(bug)], RUN);
  return statuses?.get(bug.killer) === 'Failure' ? 'killed' : 'survived';
}

/// The file of the test that a bug names.
function fileOf({ killer }) {
  return killer.slice(0, killer.lastIndexOf(':'));
}

/// The sources with a patch applied to a scratch copy, if it fits exactly.
function patched(lane, file) {
  const scratch = path.join(lane.root, 'patched');
  fs.rmSync(scratch, { recursive: true, force: true });
  fs.cpSync(path.join(CONTRACTS, 'src'), path.join(scratch, 'src'), { recursive: true });
  const applied = spawnSync('git', ['apply', path.join(ZOO, file)], {
    cwd: scratch,
    // Or git would take the paths for those of the repository around the scratch copy.
    env: { ...process.env, GIT_CEILING_DIRECTORIES: lane.root },
    encoding: 'utf8',
  });
  return applied.status === 0 ? readAllSources(scratch) : undefined;
}

if (isMainThread) {
  main().catch((error) => {
    console.error(error.message);
    process.exitCode = 2;
  });
} else {
  work();
}
