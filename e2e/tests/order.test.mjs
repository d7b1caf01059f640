// The events of one client arrive in the order in which it sent them, all of them, near and far.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { TRANSPORTS, closeAll, connectAll } from '../lib/client.mjs';
import { Node } from '../lib/node.mjs';
import { Redis } from '../lib/redis.mjs';
import { until } from '../lib/until.mjs';

const EVENTS = 20_000;

const servers = {};

before(async () => {
  servers.redis = await Redis.start();
  const { redis } = servers;
  [servers.a, servers.b] = await Promise.all([
    Node.start({ name: 'a', redis }),
    Node.start({ name: 'b', redis }),
  ]);
});

after(async () => {
  await Promise.all([servers.a, servers.b].map((node) => node?.stop()));
  await servers.redis?.stop();
});

/** Numbers received, and where the first of them is out of order. */
function counter(client) {
  const count = { next: 0, wrong: [] };
  client.socket.offAny();
  client.socket.on('msg', (n) => {
    if (n !== count.next) {
      count.wrong.push({ expected: count.next, got: n });
    }
    count.next += 1;
  });
  return count;
}

describe(`${EVENTS} events of one client`, () => {
  for (const transport of Object.keys(TRANSPORTS)) {
    test(`arrive in order over ${transport}`, async () => {
      const clients = await connectAll({
        sender: { server: servers.a, transport },
        near: { server: servers.a, transport },
        far: { server: servers.b, transport },
      });
      try {
        const { sender, far } = clients;
        await until('the cluster delivers', async () => {
          sender.emit('to-all', -1);
          const arrived = () => far.args().length > 0;
          return until('a first message', arrived, { deadline: 250 }).catch(() => false);
        });
        assert.equal(await sender.ask('echo', 1), 1);
        sender.emit('to-all', -2);
        for (const client of Object.values(clients)) {
          await client.receives('the last warm-up', () => client.args().at(-1)?.[0] === -2);
        }
        const counts = Object.entries(clients).map(([name, client]) => [name, counter(client)]);
        // All at once: what a polling client emits while one POST is under way goes into the next.
        for (let n = 0; n < EVENTS; n += 1) {
          sender.emit('to-all', n);
        }
        for (const [name, count] of counts) {
          await until(`${name} has them all`, () => count.next >= EVENTS, {
            deadline: 60_000,
            detail: () => `${count.next}, disconnects ${clients[name].disconnects}`,
          });
          assert.deepEqual(count, { next: EVENTS, wrong: [] }, name);
        }
        assert.equal(await sender.ask('echo', 'still here'), 'still here');
      } finally {
        await closeAll(clients);
      }
    });
  }
});
