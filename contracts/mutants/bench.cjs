// The bench on which wrong contracts are tried: compiles them from sources held in memory and runs the
// tests, which were compiled beforehand, against them. Nothing of the working tree is written
// except below contracts/cache, and the wrong source never reaches the disk where forge would see it.
// Leave the tests alone while it runs: lanes share their sources, not what was compiled of them.
// `scripts/mutate` and `scripts/zoo` stand on it.
'use strict';

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const CONTRACTS = path.join(__dirname, '..');
/// The contracts that tests deploy, and the variable by which they learn of another artifact of each.
const SETTLEMENT = {
  name: 'Settlement',
  file: 'src/Settlement.sol',
  variable: 'QUITTANCE_SETTLEMENT',
};
const HELPER = {
  name: 'DepositHelper',
  file: 'src/periphery/DepositHelper.sol',
  variable: 'QUITTANCE_HELPER',
};
const DEPLOYED = [SETTLEMENT, HELPER];
/// Longer than any run of all tests takes; a wrong contract may loop until its gas is gone.
const TIMEOUT = 180_000;
const LIBRARIES = 'src/libraries/';
const OPENZEPPELIN = '@openzeppelin/contracts/';

/// The Settlement's sources by name, found by following the imports from its file.
function readSources(root = CONTRACTS) {
  return follow(root, [SETTLEMENT.file]);
}

/// The sources of all contracts that tests deploy.
function readAllSources(root = CONTRACTS) {
  return follow(
    root,
    DEPLOYED.map(({ file }) => file),
  );
}

/// The named files and everything that they import.
function follow(root, names) {
  const sources = {};
  const add = (name) => {
    if (sources[name] !== undefined || name.startsWith('forge-std/')) return;
    const file = name.startsWith(OPENZEPPELIN)
      ? path.join(CONTRACTS, 'node_modules', name)
      : path.join(root, name);
    sources[name] = fs.readFileSync(file, 'utf8');
    for (const [, target] of sources[name].matchAll(/^\s*import\s[^'";]*["']([^"']+)["']/gm)) {
      add(target.startsWith('.') ? path.posix.join(path.posix.dirname(name), target) : target);
    }
  };
  names.forEach(add);
  return sources;
}

/// Our own files that hold code.
function codeFiles(sources) {
  return Object.keys(sources)
    .filter((name) => name.startsWith('src/') && !name.startsWith('src/interfaces/'))
    .sort();
}

/// Value of a key in foundry.toml's default profile.
function setting(key) {
  const toml = fs.readFileSync(path.join(CONTRACTS, 'foundry.toml'), 'utf8');
  const profile = toml.slice(toml.indexOf('[profile.default]')).split(/\n\[/)[0];
  const found = profile.match(new RegExp(`^${key} = "?([^"\\n]+)"?$`, 'm'));
  if (!found) throw new Error(`foundry.toml does not set ${key}`);
  return found[1];
}

/// What the optimizer does for tests of behaviour: enough for the tests that bound gas, at a third
/// of the time.
const QUICK = {
  enabled: true,
  details: {
    peephole: true,
    inliner: true,
    jumpdestRemover: true,
    orderLiterals: true,
    deduplicate: true,
    cse: false,
    constantOptimizer: false,
    yul: false,
  },
};

/// Compiles quickly. Returns the artifacts of the contracts that the sources hold, or the compiler's
/// first complaint.
function compile(sources) {
  return build(sources, QUICK);
}

/// Compiles so that code that means the same is likely to become the same.
function compileThoroughly(sources) {
  return build(sources, { enabled: true, runs: 1 });
}

function build(sources, optimizer) {
  const contracts = DEPLOYED.filter(({ file }) => sources[file] !== undefined);
  const wanted = contracts.map(({ name, file }) => [file, { [name]: ['abi', 'evm.bytecode.object'] }]);
  const output = solc(Object.fromEntries(wanted), sources, optimizer);
  const error = (output.errors ?? []).find((each) => each.severity === 'error');
  if (error) return { error: error.formattedMessage };
  const artifacts = contracts.map((contract) => {
    const { abi, evm } = output.contracts[contract.file][contract.name];
    return { ...contract, abi, code: evm.bytecode.object };
  });
  return { artifacts, code: artifacts.map(({ code }) => code).join(' ') };
}

/// Syntax trees of the files, by name.
function parse(sources) {
  const output = solc({ '*': { '': ['ast'] } }, sources, { enabled: false });
  const error = (output.errors ?? []).find((each) => each.severity === 'error');
  if (error) throw new Error(error.formattedMessage);
  return Object.fromEntries(
    Object.entries(output.sources).map(([name, source]) => [name, source.ast]),
  );
}

function solc(outputSelection, sources, optimizer) {
  const compiler = require(path.join(CONTRACTS, 'node_modules', 'solc'));
  const input = {
    language: 'Solidity',
    sources: Object.fromEntries(Object.entries(sources).map(([name, content]) => [name, { content }])),
    settings: {
      evmVersion: setting('evm_version'),
      optimizer,
      metadata: { bytecodeHash: 'none', appendCBOR: false },
      outputSelection,
    },
  };
  return JSON.parse(compiler.compile(JSON.stringify(input)));
}

/// Path of the pinned forge.
function forge() {
  const found = spawnSync(path.join(CONTRACTS, '..', 'scripts', 'tool'), ['forge'], {
    encoding: 'utf8',
  });
  if (found.status !== 0) throw new Error(found.stderr.trim());
  return found.stdout.trim();
}

/// Compiles once what lanes share: the tests, which they copy, and the contracts, of which tests deploy
/// those that nobody gives them.
function prepare(name) {
  forgeBuild(['src'], {});
  forgeBuild([], { FOUNDRY_PROFILE: 'test' });
  fs.rmSync(path.join(CONTRACTS, 'cache', name), { recursive: true, force: true });
}

function forgeBuild(paths, env) {
  const built = spawnSync(forge(), ['build', ...paths], {
    cwd: CONTRACTS,
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
  if (built.status !== 0) throw new Error(`forge does not compile:\n${built.stdout}${built.stderr}`);
}

/// The tests that deploy a Settlement and assert on single calls: files directly in test, on the
/// ground of Base, that compile no library into themselves. Others, such as long random runs and
/// snapshots of gas, have gates of their own.
function unitTests() {
  return testFiles().filter((name) => {
    const source = fs.readFileSync(path.join(CONTRACTS, name), 'utf8');
    return path.dirname(name) === 'test' && source.includes('"./Base.t.sol"') && !isHarness(source);
  });
}

function testFiles() {
  return fs
    .readdirSync(path.join(CONTRACTS, 'test'), { recursive: true })
    .filter((name) => name.endsWith('.t.sol') && !name.endsWith('Base.t.sol'))
    .map((name) => path.posix.join('test', name));
}

function isHarness(source) {
  return source.includes(`"../${LIBRARIES}`);
}

/// A place where one wrong contract at a time is tried: its own copy of the compiled tests, of
/// forge's cache, and of what forge remembers of failures.
class Lane {
  constructor(name, number) {
    this.place = path.posix.join('cache', name, `lane-${number}`);
    this.root = path.join(CONTRACTS, this.place);
    this.forge = forge();
    fs.mkdirSync(this.root, { recursive: true });
    fs.cpSync(path.join(CONTRACTS, 'out/test'), path.join(this.root, 'out'), { recursive: true });
    fs.mkdirSync(path.join(this.root, 'cache'));
    const cache = 'solidity-files-cache.json';
    const known = JSON.parse(fs.readFileSync(path.join(CONTRACTS, 'cache/test', cache), 'utf8'));
    known.paths.artifacts = `${this.place}/out`;
    known.paths.build_infos = `${this.place}/out/build-info`;
    fs.writeFileSync(path.join(this.root, 'cache', cache), JSON.stringify(known));
  }

  /// Runs the tests in these files against what was compiled. Returns each test's status by `path:test`,
  /// that of a suite whose set-up failed under the name of the set-up, or `timedOut`.
  test(compiled, files, { failFast, fuzzRuns }) {
    const variables = {};
    for (const { name, variable, abi, code } of compiled.artifacts) {
      variables[variable] = `${this.place}/${name}.json`;
      const content = { abi, bytecode: { object: `0x${code}` } };
      fs.writeFileSync(path.join(CONTRACTS, variables[variable]), JSON.stringify(content));
    }
    return this.run(CONTRACTS, failFast, {
      // Not forge's filters, with which it compiles everything again.
      FOUNDRY_SKIP: JSON.stringify(testFiles().filter((name) => !files.includes(name))),
      ...variables,
      FOUNDRY_OUT: `${this.place}/out`,
      FOUNDRY_CACHE_PATH: `${this.place}/cache`,
      FOUNDRY_FUZZ_RUNS: String(fuzzRuns),
    });
  }

  /// Runs the tests that compile a library into themselves, if the wrong file is one. They are
  /// compiled anew, in a project of their own.
  testHarnesses(file, sources, { failFast, fuzzRuns }) {
    if (!file.startsWith(LIBRARIES)) return { statuses: new Map() };
    const root = path.join(this.root, 'harnesses');
    fs.rmSync(path.join(root, 'src'), { recursive: true, force: true });
    fs.rmSync(path.join(root, 'test'), { recursive: true, force: true });
    for (const [name, content] of Object.entries({ ...harnesses(), ...sources })) {
      if (name.startsWith('@') || name.startsWith('forge-std/')) continue;
      fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
      fs.writeFileSync(path.join(root, name), content);
    }
    fs.copyFileSync(path.join(CONTRACTS, 'foundry.toml'), path.join(root, 'foundry.toml'));
    const modules = path.join(root, 'node_modules');
    if (!fs.existsSync(modules)) fs.symlinkSync(path.join(CONTRACTS, 'node_modules'), modules);
    return this.run(root, failFast, {
      FOUNDRY_SOLC: path.join(CONTRACTS, '..', 'scripts', 'solc'),
      FOUNDRY_FUZZ_RUNS: String(fuzzRuns),
    });
  }

  run(cwd, failFast, env) {
    const args = ['test', '--json', ...(failFast ? ['--fail-fast'] : [])];
    const run = spawnSync(this.forge, args, {
      cwd,
      encoding: 'utf8',
      maxBuffer: 1 << 28,
      timeout: TIMEOUT,
      killSignal: 'SIGKILL',
      env: {
        ...process.env,
        FOUNDRY_PROFILE: 'test',
        FOUNDRY_DENY: 'never',
        FOUNDRY_TEST_FAILURES_FILE: path.join(this.root, 'failures'),
        FOUNDRY_FUZZ_FAILURE_PERSIST_DIR: path.join(this.root, 'fuzz'),
        FOUNDRY_FUZZ_SEED: '0x51',
        ...env,
      },
    });
    // What a fuzz test found must not decide about the next contract.
    fs.rmSync(path.join(this.root, 'fuzz'), { recursive: true, force: true });
    if (run.error?.code === 'ETIMEDOUT') return { timedOut: true };
    return { statuses: statuses(run) };
  }
}

/// The tests that compile a library into themselves, with the sources they import.
function harnesses() {
  const tests = testFiles().filter((name) =>
    isHarness(fs.readFileSync(path.join(CONTRACTS, name), 'utf8')),
  );
  return follow(CONTRACTS, tests);
}

function statuses(run) {
  const line = run.stdout.split('\n').find((each) => each.startsWith('{'));
  if (!line) throw new Error(`forge did not run the tests:\n${run.stdout}${run.stderr}`);
  const found = new Map();
  for (const [suite, { test_results: results }] of Object.entries(JSON.parse(line))) {
    const file = suite.slice(0, suite.lastIndexOf(':'));
    for (const [test, { status }] of Object.entries(results)) {
      found.set(`${file}:${test.replace(/\(.*/, '')}`, status);
    }
  }
  return found;
}

module.exports = {
  CONTRACTS,
  Lane,
  codeFiles,
  compile,
  compileThoroughly,
  parse,
  prepare,
  readAllSources,
  readSources,
  unitTests,
};
