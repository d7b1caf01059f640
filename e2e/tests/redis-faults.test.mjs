// What clients see while Redis fails: nothing on their own node, and delivery between nodes is back
// soon after Redis is.
//
// E2E_QUICK=1 shortens the longest outage.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { BlackHoleProxy } from '../lib/black-hole.mjs';
import { closeAll, connectAll } from '../lib/client.mjs';
import { Node, STANDS_IN } from '../lib/node.mjs';
import { Redis } from '../lib/redis.mjs';
import { until } from '../lib/until.mjs';

const OUTAGES = [1, 5, process.env.E2E_QUICK ? 8 : 20];
/** Design, promise G5: subscribed again so soon after Redis is back. */
const BACK_WITHIN = 2_000;
/** The same promise: a half-open link is found so soon, and then there is a new one. */
const FOUND_WITHIN = 10_000;
/** What a node may say while its Redis is away. */
const MAY_WARN = /redis|link|publish|subscri|gap|probe|deliver/i;

const servers = {};
let clients;

before(async () => {
  servers.redis = await Redis.start();
  servers.proxy = await BlackHoleProxy.start(servers.redis);
  [servers.a, servers.b] = await Promise.all([
    Node.start({ name: 'a', redis: servers.redis, mayWarn: MAY_WARN }),
    Node.start({ name: 'b', redis: servers.proxy, mayWarn: MAY_WARN }),
  ]);
});

after(async () => {
  servers.redis?.resume();
  await Promise.all([servers.a, servers.b].map((node) => node?.stop()));
  await servers.proxy?.stop();
  await servers.redis?.stop();
});

/**
 * Numbered messages from one client to a room: `local` members on the same node, `remote` ones on
 * the other. Each is sent when the local ones have the one before, so that the stream stops where
 * local delivery does.
 */
class Stream {
  constructor(room, sender, local, remote) {
    Object.assign(this, { room, sender, local, remote, sent: 0, running: true });
    this.finished = this.run();
    this.finished.catch(() => {});
  }

  numbers(client) {
    return client.args().filter(([{ room }]) => room === this.room).map(([{ n }]) => n);
  }

  last(client) {
    const message = client.received.findLast(({ args: [value] }) => value?.room === this.room);
    return message?.args[0].n;
  }

  async run() {
    while (this.running) {
      const n = this.sent;
      this.sender.emit('to-room', this.room, { room: this.room, n });
      this.sent += 1;
      await until(
        `message ${n} in ${this.room} on its own node`,
        () => this.last(this.local) === n,
        { deadline: 5_000 },
      );
      await delay(5);
    }
  }

  /** Waits until the other node delivers what is sent from now on. */
  async crosses(deadline) {
    const from = this.sent;
    await until(
      `message ${from} or a later one in ${this.room} on the other node`,
      () => this.last(this.remote) >= from,
      { deadline, detail: () => `it has ${this.last(this.remote)}, sent ${this.sent}` },
    );
  }

  async stop() {
    this.running = false;
    await this.finished;
  }

  /** The own node delivered everything in order; the other one in order, nothing twice. */
  check() {
    const local = this.numbers(this.local);
    assert.deepEqual(local, Array.from({ length: this.sent }, (_, n) => n), 'local delivery');
    const remote = this.numbers(this.remote);
    const sorted = [...new Set(remote)].sort((a, b) => a - b);
    assert.deepEqual(remote, sorted, 'delivery on the other node');
  }
}

let streams;

beforeEach(async () => {
  const plan = { server: servers.a };
  const far = { server: servers.b };
  clients = await connectAll({ a1: plan, a2: plan, b1: far, b2: far });
  const { a1, a2, b1, b2 } = clients;
  await Promise.all([a2.join('from-a'), b2.join('from-a'), a2.join('from-b'), b2.join('from-b')]);
  streams = [new Stream('from-a', a1, a2, b2), new Stream('from-b', b1, b2, a2)];
  await Promise.all(streams.map((stream) => stream.crosses()));
});

afterEach(async () => {
  await Promise.allSettled(streams.map((stream) => stream.stop()));
  await closeAll(clients);
});

/** Delivery between the nodes is back, in each stream that runs, and nothing was wrong meanwhile. */
async function recovered(deadline) {
  const running = streams.filter((stream) => stream.running);
  await Promise.all(running.map((stream) => stream.crosses(deadline)));
  await Promise.all(streams.map((stream) => stream.stop()));
  streams.forEach((stream) => stream.check());
  for (const client of Object.values(clients)) {
    assert.deepEqual(client.disconnects, [], client.name);
  }
  for (const node of [servers.a, servers.b]) {
    assert.equal(await node.probe('/healthz'), 200);
    assert.equal(await node.probe('/readyz'), 200);
  }
}

/** The fault goes on for so long; what must hold meanwhile is checked by the streams. */
async function lasts(seconds) {
  const from = streams.map((stream) => stream.sent);
  await delay(seconds * 1000);
  streams.forEach((stream, at) => {
    assert.ok(stream.sent > from[at] + seconds, `local delivery went on in ${stream.room}`);
  });
}

describe('own sockets are served all the time, others again soon after', () => {
  for (const seconds of OUTAGES) {
    test(`Redis is away for ${seconds} s`, async () => {
      await servers.redis.stop();
      await lasts(seconds);
      await servers.redis.restart();
      await recovered(BACK_WITHIN);
    });
  }

  test('Redis is stopped for 3 s', async () => {
    servers.redis.pause();
    await lasts(3);
    servers.redis.resume();
    await recovered(BACK_WITHIN);
  });

  test('Redis closes all subscribers', async () => {
    await servers.redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await recovered(BACK_WITHIN);
  });

  test('Redis closes all other connections', async () => {
    await servers.redis.command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await recovered(BACK_WITHIN);
  });

  if (!STANDS_IN) {
    // Not for the stand-in: the Node.js adapter never notices these faults.
    test('the link of one node is half-open', async () => {
      servers.proxy.swallow();
      await recovered(FOUND_WITHIN + BACK_WITHIN);
    });

    test('the link of a node that only receives is half-open', async () => {
      const [, fromB] = streams;
      await fromB.stop();
      servers.proxy.swallow();
      await recovered(FOUND_WITHIN + BACK_WITHIN);
    });
  }
});
