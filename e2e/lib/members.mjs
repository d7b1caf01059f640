// The servers of a cluster behind one set of operations, whatever program they are: a Node.js server
// in this process, a Carillon node and a socketioxide application driven by lines of JSON, and the
// emitter, which only speaks.
//
// A `target` is what the operations select: `{ nsp, rooms, except, flags }`.

import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, join } from 'node:path';
import { createAdapter, createShardedAdapter } from '@socket.io/redis-adapter';
import { Emitter } from '@socket.io/redis-emitter';
import { createCluster } from 'redis';
import { Server } from 'socket.io';
import { clusterRules, installClusterRules } from './cluster-rules.mjs';
import { BINARY, tomlOf } from './node.mjs';
import { Child, temporaryDirectory } from './process.mjs';
import { within } from './until.mjs';

/** Cargo puts examples into a directory beside the binary. */
const EXAMPLES = join(dirname(BINARY), 'examples');
const CONSOLE = join(EXAMPLES, 'console');
const PEER = join(EXAMPLES, 'socketioxide_peer');

/** Longer than any server waits for the others. */
const OPERATION_MAX = 20_000;

/** Lifts binaries out of `value` as Socket.IO does, into `attachments`. */
function deconstruct(value, attachments) {
  if (Buffer.isBuffer(value)) {
    return { _placeholder: true, num: attachments.push(value.toString('base64')) - 1 };
  }
  if (Array.isArray(value)) {
    return value.map((inner) => deconstruct(inner, attachments));
  }
  if (value !== null && typeof value === 'object') {
    const entries = Object.entries(value);
    return Object.fromEntries(entries.map(([key, inner]) => [key, deconstruct(inner, attachments)]));
  }
  return value;
}

/** The opposite of `deconstruct`. */
function reconstruct(value, attachments = []) {
  if (Array.isArray(value)) {
    return value.map((inner) => reconstruct(inner, attachments));
  }
  if (value !== null && typeof value === 'object') {
    if (value._placeholder === true) {
      return Buffer.from(attachments[value.num], 'base64');
    }
    const entries = Object.entries(value);
    return Object.fromEntries(entries.map(([key, inner]) => [key, reconstruct(inner, attachments)]));
  }
  return value;
}

/** Two connections for one adapter, to a single Redis or to a Redis Cluster. */
async function connections(redis) {
  if (!redis.masters) {
    return [await redis.client(), await redis.client()];
  }
  const rootNodes = redis.masters.map(({ url }) => ({ url }));
  return Promise.all(
    [0, 1].map(async () => {
      const client = createCluster({ rootNodes });
      client.on('error', () => {});
      await client.connect();
      return client;
    }),
  );
}

/** All addresses of a Redis, or of a Redis Cluster. */
function urlsOf(redis) {
  return redis.masters ? redis.masters.map(({ url }) => url).join(',') : redis.url;
}

/** A Node.js server with the official adapter, in this process. */
export class NodeMember {
  static async start({ name, redis, mode, onSpecificChannel, requestsTimeout = 5_000 }) {
    const member = new NodeMember();
    member.name = name;
    member.connections = await connections(redis);
    member.http = createServer();
    const specific = onSpecificChannel ?? mode.specific ?? false;
    const adapter = mode.sharded
      ? createShardedAdapter(...member.connections, {
          channelPrefix: mode.prefix,
          subscriptionMode: mode.sharded,
        })
      : createAdapter(...member.connections, {
          key: mode.prefix,
          publishOnSpecificResponseChannel: specific,
          requestsTimeout,
          ...(mode.parser && { parser: mode.parser }),
        });
    member.io = new Server(member.http, { adapter, maxHttpBufferSize: 1e7 });
    member.serverEvents = [];
    installClusterRules(member.io, name, (nsp, args) => member.serverEvents.push({ nsp, args }));
    await new Promise((resolve) => member.http.listen(0, '127.0.0.1', resolve));
    member.url = `http://127.0.0.1:${member.http.address().port}`;
    return member;
  }

  chain({ nsp = '/', rooms = [], except = [], flags = {} }) {
    let chain = this.io.of(nsp);
    if (rooms.length > 0) {
      chain = chain.to(rooms);
    }
    if (except.length > 0) {
      chain = chain.except(except);
    }
    if (flags.volatile) {
      chain = chain.volatile;
    }
    if (flags.local) {
      chain = chain.local;
    }
    return flags.compress === undefined ? chain : chain.compress(flags.compress);
  }

  async emit(target, args) {
    this.chain(target).emit(...args);
  }

  /** `{ timedOut, answers }`: the first argument of each acknowledgement, in no order. */
  emitWithAck(target, args, timeout) {
    return new Promise((resolve) => {
      this.chain(target)
        .timeout(timeout)
        .emit(...args, (error, answers) => resolve({ timedOut: Boolean(error), answers }));
    });
  }

  async fetchSockets(target) {
    const sockets = await this.chain(target).fetchSockets();
    return sockets.map(({ id, rooms, handshake, data }) => ({ id, rooms: [...rooms], handshake, data }));
  }

  async allRooms({ nsp = '/' }) {
    return [...(await this.io.of(nsp).adapter.allRooms())];
  }

  async socketsJoin(target, rooms) {
    this.chain(target).socketsJoin(rooms);
  }

  async socketsLeave(target, rooms) {
    this.chain(target).socketsLeave(rooms);
  }

  async disconnectSockets(target, close) {
    this.chain(target).disconnectSockets(close);
  }

  async serverSideEmit({ nsp = '/' }, args) {
    this.io.of(nsp).serverSideEmit(...args);
  }

  serverSideEmitWithAck({ nsp = '/' }, args) {
    return new Promise((resolve) => {
      const done = (error, answers) => resolve({ timedOut: Boolean(error), answers });
      this.io.of(nsp).serverSideEmit(...args, done);
    });
  }

  async count({ nsp = '/' }) {
    return this.io.of(nsp).adapter.serverCount();
  }

  async stop() {
    for (const connection of this.connections.filter((one) => one.slots)) {
      // Redis' client for clusters closes the connection to a shard once for each channel that ends there,
      // and nobody handles the second error. Its subscriptions end with it.
      connection.sUnsubscribe = () => Promise.resolve();
    }
    this.io.disconnectSockets(true);
    await new Promise((resolve) => this.io.close(resolve));
    await Promise.all(
      this.connections.map((one) => (one.slots ? one.destroy() : one.close())),
    );
  }
}

/** What a member could not complete in time, with what it has until then. */
export class OperationError extends Error {
  constructor(member, answer) {
    super(`${member.name}: ${answer.error} (${answer.received} of ${answer.expected} answers)`);
    Object.assign(this, answer);
  }
}

/** A server in a process of its own, which takes operations as lines on stdin. */
export class ProcessMember {
  constructor(name) {
    this.name = name;
    this.serverEvents = [];
    this.waiting = new Map();
    this.asked = 0;
  }

  async run(program, args, options) {
    this.child = new Child(this.name, program, args, { stdio: ['pipe', 'pipe', 'pipe'], ...options });
    // Writing to a process that is gone must not end this one: the operation says so itself.
    this.child.process.stdin.on('error', () => {});
    let rest = '';
    this.child.process.stdout.on('data', (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop();
      lines.forEach((line) => this.take(line));
    });
    await this.child.until('its ready line', () => this.port !== undefined);
    this.url = `http://127.0.0.1:${this.port}`;
  }

  take(line) {
    const message = JSON.parse(line);
    if (message.id !== undefined) {
      this.waiting.get(message.id)?.(message);
      this.waiting.delete(message.id);
    } else if (message.event === 'ready') {
      this.port = message.port;
    } else if (message.event === 'serverEvent') {
      this.serverEvents.push({
        nsp: message.nsp,
        args: reconstruct(message.args, message.attachments),
      });
    }
  }

  /** Does one operation; the answer is the whole line. */
  async ask(op, { nsp = '/', rooms = [], except = [], flags = {} } = {}, more = {}) {
    this.asked += 1;
    const id = this.asked;
    const answer = new Promise((resolve) => this.waiting.set(id, resolve));
    const line = JSON.stringify({ id, op, nsp, rooms, except, flags, ...more });
    this.child.process.stdin.write(`${line}\n`);
    const ended = this.child.ended.then(() => {
      throw new Error(`${this.name} ended before it answered ${op}: ${this.child.describe()}`);
    });
    ended.catch(() => {});
    return within(`${this.name} answers ${op}`, Promise.race([answer, ended]), OPERATION_MAX);
  }

  async result(op, target, more) {
    const answer = await this.ask(op, target, more);
    if (answer.error !== undefined) {
      throw new OperationError(this, answer);
    }
    return answer.result;
  }

  arguments(args) {
    const attachments = [];
    return { args: deconstruct(args, attachments), attachments };
  }

  async emit(target, args) {
    await this.result('emit', target, this.arguments(args));
  }

  async emitWithAck(target, args, timeout) {
    const more = { ...this.arguments(args), timeout };
    const { error, arrived, result } = await this.ask('emitWithAck', target, more);
    const { answers } = error === undefined ? result : arrived;
    const first = (answer) => reconstruct(answer.args, answer.attachments)[0];
    return { timedOut: error !== undefined, answers: answers.map(first) };
  }

  fetchSockets(target) {
    return this.result('fetchSockets', target);
  }

  allRooms(target) {
    return this.result('allRooms', target);
  }

  /** The request of type 0, which Node's adapter answers but does not send any more. */
  sockets(target) {
    return this.result('sockets', target);
  }

  socketsJoin(target, rooms) {
    return this.result('join', target, { join: rooms });
  }

  socketsLeave(target, rooms) {
    return this.result('leave', target, { leave: rooms });
  }

  disconnectSockets(target, close) {
    return this.result('disconnect', target, { close });
  }

  serverSideEmit(target, args) {
    return this.result('serverSideEmit', target, this.arguments(args));
  }

  async serverSideEmitWithAck(target, args) {
    const more = this.arguments(args);
    const { error, arrived, result } = await this.ask('serverSideEmitWithAck', target, more);
    const answers = (error === undefined ? result : arrived) ?? [];
    return { timedOut: error !== undefined, answers: answers.map(([first]) => first) };
  }

  count(target) {
    return this.result('count', target);
  }

  nodes() {
    return this.result('nodes');
  }

  async kill() {
    await this.child.stop('SIGKILL');
  }

  async stop() {
    // With its standard input, what drives it has ended.
    this.child.process.stdin.end();
    await this.child.stop();
    if (/panicked/.test(this.child.stdout + this.child.stderr)) {
      throw new Error(`${this.name} panicked: ${this.child.describe()}`);
    }
  }
}

/** A Carillon node: `gateway/examples/console.rs`. */
export class ConsoleMember extends ProcessMember {
  static async start({ name, redis, mode, cluster = {}, sections = {} }) {
    const member = new ConsoleMember(name);
    const directory = temporaryDirectory(name);
    const config = join(directory, 'carillon.toml');
    const settings = {
      server: { workers: 2 },
      drain: { ready_delay: '0s', spread: '0s', deadline: '20s' },
      socket: { share_auth: true },
      ...sections,
      cluster: { ...mode.carillon, prefix: mode.prefix, ...cluster },
    };
    writeFileSync(config, `${tomlOf(settings)}\n${clusterRules(name)}`);
    const listen = ['--listen', '127.0.0.1:0', '--internal-listen', '127.0.0.1:0'];
    const env = { PATH: process.env.PATH, NO_COLOR: '1', CARILLON_REDIS: urlsOf(redis) };
    await member.run(CONSOLE, ['--config', config, ...listen], { env, cwd: directory });
    return member;
  }
}

/** A socketioxide application: `adapter/examples/socketioxide_peer.rs`. */
export class OxideMember extends ProcessMember {
  static async start({ name, redis, mode }) {
    const member = new OxideMember(name);
    const args = ['--name', name, '--redis', urlsOf(redis), '--prefix', mode.prefix];
    args.push('--adapter', mode.sharded ? 'redis-sharded' : 'redis');
    if (mode.sharded) {
      args.push('--sharded-mode', mode.sharded);
    }
    if (mode.parser) {
      args.push('--parser', 'json');
    }
    await member.run(PEER, args, { env: { PATH: process.env.PATH, NO_COLOR: '1' } });
    return member;
  }
}

/** The official emitter: it has no clients, is asked nothing and asks nothing. */
export class EmitterMember {
  static async start({ name, redis, mode }) {
    const member = new EmitterMember();
    member.name = name;
    member.connection = await redis.client();
    member.options = { key: mode.prefix, ...(mode.parser && { parser: mode.parser }) };
    return member;
  }

  chain({ nsp = '/', rooms = [], except = [], flags = {} }) {
    let chain = new Emitter(this.connection, this.options);
    chain = nsp === '/' ? chain : chain.of(nsp);
    chain = rooms.length > 0 ? chain.to(rooms) : chain;
    chain = except.length > 0 ? chain.except(except) : chain;
    chain = flags.volatile ? chain.volatile : chain;
    return flags.compress === undefined ? chain : chain.compress(flags.compress);
  }

  async emit(target, args) {
    this.chain(target).emit(...args);
  }

  async socketsJoin(target, rooms) {
    this.chain(target).socketsJoin(rooms);
  }

  async socketsLeave(target, rooms) {
    this.chain(target).socketsLeave(rooms);
  }

  async disconnectSockets(target, close) {
    this.chain(target).disconnectSockets(close);
  }

  async serverSideEmit({ nsp }, args) {
    this.chain({ nsp }).serverSideEmit(...args);
  }

  async stop() {
    await this.connection.close();
  }
}
