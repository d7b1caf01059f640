// Child processes that never outlive the test: each one is ended by its own process id, also when
// the test fails or is interrupted.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from './until.mjs';

const children = new Set();
const directories = new Set();

process.on('exit', () => {
  for (const child of children) {
    child.signal('SIGKILL');
  }
  for (const directory of directories) {
    rmSync(directory, { recursive: true, force: true });
  }
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.once(signal, () => process.exit(1));
}

/** A temporary directory that goes away with this process. */
export function temporaryDirectory(name) {
  const directory = mkdtempSync(join(tmpdir(), `carillon-e2e-${name}-`));
  directories.add(directory);
  return directory;
}

/** A port that was free a moment ago, for programs that cannot report the port they took. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** One child process with its output kept. */
export class Child {
  constructor(name, command, args, options = {}) {
    this.name = name;
    this.stdout = '';
    this.stderr = '';
    this.exit = undefined;
    this.process = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
    children.add(this);
    this.process.stdout?.setEncoding('utf8').on('data', (text) => (this.stdout += text));
    this.process.stderr?.setEncoding('utf8').on('data', (text) => (this.stderr += text));
    this.ended = new Promise((resolve) => {
      this.process.once('error', (error) => resolve({ error }));
      this.process.once('close', (code, signal) => resolve({ code, signal }));
    }).then((exit) => {
      children.delete(this);
      this.exit = exit;
      return exit;
    });
  }

  signal(signal) {
    if (this.exit === undefined && this.process.pid !== undefined) {
      this.process.kill(signal);
    }
  }

  /** Waits for a condition over this child, and fails at once when the child ends before it holds. */
  async until(what, condition, options) {
    return until(
      `${this.name}: ${what}`,
      async () => {
        const value = await condition();
        if (!value && this.exit !== undefined) {
          throw new Error(`${this.name} ended before ${what}: ${this.describe()}`);
        }
        return value;
      },
      options,
    );
  }

  describe() {
    const { error, code, signal } = this.exit ?? {};
    const end = error ?? `code ${code} signal ${signal}`;
    return `${end}\nstdout: ${this.stdout.slice(-2000)}\nstderr: ${this.stderr.slice(-2000)}`;
  }

  /** Ends the child and returns how it ended; a child that ignores the signal is killed. */
  async stop(signal = 'SIGTERM', deadline = 10_000) {
    this.signal('SIGCONT');
    this.signal(signal);
    try {
      await until(`${this.name} ends on ${signal}`, () => this.exit !== undefined, { deadline });
    } catch (error) {
      this.signal('SIGKILL');
      await this.ended;
      throw error;
    }
    return this.exit;
  }
}
