// A Carillon node as an operator runs it: the binary, a configuration file, two listeners on free
// ports, JSON logs on stdout. With E2E_NODE=node a Node.js server with the same rules stands in for
// it, which proves that what the tests expect is what Node.js does.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Child, temporaryDirectory } from './process.mjs';
import { until } from './until.mjs';

const REPOSITORY = fileURLToPath(new URL('../../', import.meta.url));
export const BINARY = process.env.CARILLON_BIN ?? join(REPOSITORY, 'target/debug/carillon');
const RULES = fileURLToPath(new URL('../rules.toml', import.meta.url));
const STAND_IN = fileURLToPath(new URL('./stand-in.mjs', import.meta.url));

/** Whether a Node.js server stands in for the node. */
export const STANDS_IN = process.env.E2E_NODE === 'node';

/**
 * Tests that are not about draining need no pause in it. The deadline leaves room for clients that
 * went without a word: a node offers a polling session its last packet for 5 s.
 */
const SETTINGS = {
  server: { workers: 2 },
  drain: { ready_delay: '0s', spread: '0s', deadline: '20s' },
};

export function tomlOf(sections) {
  return Object.entries(sections)
    .map(([section, keys]) => {
      const lines = Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
      return `[${section}]\n${lines.join('\n')}\n`;
    })
    .join('\n');
}

function merged(sections) {
  const all = { ...SETTINGS };
  for (const [section, keys] of Object.entries(sections)) {
    all[section] = { ...all[section], ...keys };
  }
  return all;
}

export class Node {
  /**
   * Starts a node and waits until it is ready.
   *
   * `sections` are settings by section; `flags` more command line flags; `demo` runs the built-in
   * demo instead of the test's rules; `port` asks for a certain public port; `mayWarn` is a
   * pattern of the warnings that this test provokes.
   */
  static async start({ name = 'node', redis, sections = {}, demo = false, port = 0, mayWarn } = {}) {
    const node = new Node();
    Object.assign(node, { name, redis, sections: merged(sections), demo, port, mayWarn });
    node.directory = temporaryDirectory(name);
    await node.run();
    await node.ready();
    return node;
  }

  command() {
    if (STANDS_IN) {
      return { program: process.execPath, args: [STAND_IN] };
    }
    if (this.demo) {
      return { program: BINARY, args: ['--demo'] };
    }
    const config = join(this.directory, 'carillon.toml');
    writeFileSync(config, `${tomlOf(this.sections)}\n${readFileSync(RULES, 'utf8')}`);
    return { program: BINARY, args: ['--config', config] };
  }

  async run() {
    const { program, args } = this.command();
    const listen = ['--listen', `127.0.0.1:${this.port}`, '--internal-listen', '127.0.0.1:0'];
    const env = { PATH: process.env.PATH, NO_COLOR: '1' };
    if (this.redis) {
      env.CARILLON_REDIS = this.redis.url;
    }
    if (STANDS_IN) {
      env.STAND_IN_SETTINGS = JSON.stringify({ ...this.sections, demo: this.demo });
    }
    this.child = new Child(this.name, program, [...args, ...listen], { env, cwd: this.directory });
    const line = await this.child.until('its ready line', () =>
      this.logs().find(({ event }) => event === 'listening'),
    );
    this.url = `http://${line.public}`;
    this.internal = `http://${line.internal}`;
    this.port = Number(new URL(this.url).port);
  }

  /** The complete log lines written until now; each one must be a JSON object. */
  logs() {
    const lines = this.child.stdout.split('\n').slice(0, -1);
    return lines.map((line) => {
      try {
        return JSON.parse(line);
      } catch {
        throw new Error(`${this.name} wrote a line that is no JSON: ${line}`);
      }
    });
  }

  async ready() {
    await this.child.until('readiness', async () => (await this.probe('/readyz')) === 200);
  }

  /** The status of a probe on the internal listener, or 0 when nobody answers. */
  probe(path) {
    return new Promise((resolve) => {
      const get = request(`${this.internal}${path}`, { agent: false }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      get.on('error', () => resolve(0));
      get.end();
    });
  }

  /** The metrics of the node by name and labels. */
  async metrics() {
    const response = await fetch(`${this.internal}/metrics`);
    const lines = (await response.text()).split('\n').filter((line) => /^[a-z]/.test(line));
    return Object.fromEntries(
      lines.map((line) => {
        const at = line.lastIndexOf(' ');
        return [line.slice(0, at), Number(line.slice(at + 1))];
      }),
    );
  }

  signal(signal) {
    this.child.signal(signal);
  }

  /** Starts a stopped node again on the port it had. */
  async restart() {
    await this.run();
    await this.ready();
  }

  /** Ends the node at once, as a crash would. */
  async kill() {
    await this.child.stop('SIGKILL');
    this.checkLogs();
  }

  /** Interrupts the node, which leaves at once. */
  async interrupt() {
    await this.child.stop('SIGINT');
    this.checkLogs();
    assert.deepEqual(this.child.exit, { code: 130, signal: null }, this.child.describe());
  }

  /** Drains the node, unless it has ended already. */
  async stop() {
    if (this.child.exit === undefined) {
      await this.child.stop('SIGTERM', 30_000);
      this.checkDrained();
    }
  }

  /** Waits for the end of a node that a test drains itself. */
  async drained() {
    await until(`${this.name} has drained`, () => this.child.exit !== undefined, {
      deadline: 30_000,
    });
    this.checkDrained();
  }

  /** A drained node leaves with code 0 and with nothing to complain about in its logs. */
  checkDrained() {
    this.checkLogs();
    const exit = { code: 0, signal: null };
    assert.deepEqual(this.child.exit, exit, `${this.name}: ${this.child.describe()}`);
  }

  checkLogs() {
    const expected = ({ level, message = '' }) => level === 'WARN' && this.mayWarn?.test(message);
    const bad = this.logs().filter(
      (line) => ['ERROR', 'WARN'].includes(line.level) && !expected(line),
    );
    assert.deepEqual(bad, [], `${this.name} logged what this test does not expect`);
    assert.doesNotMatch(this.child.stdout + this.child.stderr, /panicked/, this.name);
    assert.equal(this.child.stderr, '', `${this.name} wrote to stderr`);
  }
}
