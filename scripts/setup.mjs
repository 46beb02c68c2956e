// All set-up from a fresh clone: tools, packages, build. Each step only if it is needed; what it does
// goes to stderr, so that a command's own output stays clean.
//
//   node scripts/setup.mjs
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** Command to look for -> Debian package that has it. */
const TOOLS = { 'g++': 'g++', make: 'make', python3: 'python3' };

class SetupError extends Error {}

function say(text) {
  process.stderr.write(`setup: ${text}\n`);
}

function run(command, args) {
  // Standard output belongs to whoever called: theirs goes to stderr.
  const result = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (result.status !== 0) {
    const how = result.error?.message ?? `exit status ${result.status ?? result.signal}`;
    throw new SetupError(`${command} ${args.join(' ')} failed: ${how}`);
  }
}

function onPath(command) {
  return (process.env.PATH ?? '').split(':').some((directory) => {
    try {
      accessSync(path.join(directory, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function checkPlatform() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new SetupError(
      `kvmsnap runs on linux-x64 only; this is ${process.platform}-${process.arch}`,
    );
  }
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new SetupError(`Node 20.19 or newer is needed; this is ${process.version}`);
  }
}

function installTools() {
  const missing = Object.keys(TOOLS).filter((tool) => !onPath(tool));
  if (missing.length === 0) return;
  const packages = missing.map((tool) => TOOLS[tool]);
  if (process.getuid() !== 0 || !onPath('apt-get')) {
    throw new SetupError(
      `${missing.join(', ')} missing: install them (\`sudo apt-get install ${packages.join(' ')}\` on Debian), then try again`,
    );
  }
  say(`installing ${packages.join(', ')} with apt-get`);
  run('apt-get', ['update', '-q']);
  run('apt-get', ['install', '-y', '-q', '--no-install-recommends', ...packages]);
}

function modified(file) {
  return statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

/** The latest change below `names`, of files and folders of the repository. */
function latest(...names) {
  let time = 0;
  for (const name of names) {
    const file = path.join(root, name);
    const info = statSync(file, { throwIfNoEntry: false });
    if (!info) continue;
    time = Math.max(time, info.mtimeMs);
    if (info.isDirectory()) {
      time = Math.max(time, latest(...readdirSync(file).map((child) => path.join(name, child))));
    }
  }
  return time;
}

function installPackages() {
  const installed = modified(path.join(root, 'node_modules/.package-lock.json'));
  if (installed >= modified(path.join(root, 'package-lock.json'))) return;
  say('installing npm packages (npm ci)');
  run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
}

function build() {
  const dependencies = modified(path.join(root, 'node_modules/.package-lock.json'));
  const native = latest('native', 'binding.gyp', 'scripts/build');
  const addon = path.join(root, 'build/Release/kvmsnap.node');
  if (!existsSync(addon) || modified(addon) < Math.max(native, dependencies)) {
    say('building the addon (about a minute on 2 cores)');
    run(process.execPath, ['scripts/build/native.mjs']);
  }
  run(process.execPath, ['scripts/build/guests.mjs']);
  const typescript = latest('lib', 'tsconfig.json', 'tsconfig.build.json');
  if (modified(path.join(root, 'dist/index.js')) < Math.max(typescript, dependencies)) {
    say('compiling TypeScript');
    run('npx', ['--no-install', 'tsc', '-p', 'tsconfig.build.json']);
  }
}

/** Throws with a message for people. */
export function setup() {
  checkPlatform();
  installTools();
  installPackages();
  build();
}

/** Runs `setup`; on failure says why and ends the process. */
export function setupOrExit() {
  try {
    setup();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`setup: ${error.message}\n`);
    process.exit(1);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) setupOrExit();
