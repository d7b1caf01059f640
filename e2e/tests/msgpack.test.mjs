// Clients that use socket.io-msgpack-parser, alone and in a cluster with clients that use JSON: the
// parser is a matter between a client and its node.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import parser from 'socket.io-msgpack-parser';
import { Client, TRANSPORTS, closeAll, connectAll } from '../lib/client.mjs';
import { Node } from '../lib/node.mjs';
import { PAYLOADS, normal } from '../lib/payloads.mjs';
import { Redis } from '../lib/redis.mjs';
import { until } from '../lib/until.mjs';

const servers = {};

before(async () => {
  servers.redis = await Redis.start();
  const { redis } = servers;
  [servers.packed, servers.text] = await Promise.all([
    Node.start({ name: 'packed', redis, sections: { socket: { parser: 'msgpack' } } }),
    Node.start({ name: 'text', redis }),
  ]);
});

after(async () => {
  await Promise.all([servers.packed, servers.text].map((node) => node?.stop()));
  await servers.redis?.stop();
});

async function checkPayloads(t, { from, clients }) {
  for (const [name, args] of Object.entries(PAYLOADS)) {
    await t.test(`${name} from ${from.name}`, async () => {
      const all = Object.values(clients);
      all.forEach((client) => client.forget());
      from.emit('to-all', ...args);
      for (const client of all) {
        await client.receives(name, () => client.args().length > 0);
        const [message] = normal(client.args());
        assert.deepEqual(message, args, client.name);
        assert.equal(JSON.stringify(message), JSON.stringify(args), client.name);
      }
      const answer = await new Promise((resolve) => {
        from.emit('echo', ...args, (...back) => resolve(back));
      });
      assert.deepEqual(normal(answer), args);
    });
  }
}

describe('a node with the msgpack parser', () => {
  for (const transport of Object.keys(TRANSPORTS)) {
    test(`speaks it over ${transport}, and its cluster does not notice`, async (t) => {
      const packed = { server: servers.packed, transport, parser };
      const clients = await connectAll({
        one: packed,
        two: packed,
        far: { server: servers.text, transport },
      });
      try {
        const { one, two, far } = clients;
        await Promise.all([one.join('red'), far.join('red')]);
        await until('the cluster delivers', async () => {
          one.emit('to-all', 'warm');
          const arrived = () => far.args().length > 0;
          return until('a first message', arrived, { deadline: 250 }).catch(() => false);
        });
        await checkPayloads(t, { from: one, clients });
        await checkPayloads(t, { from: far, clients });
        await t.test('rooms and ids', async () => {
          Object.values(clients).forEach((client) => client.forget());
          far.emit('to-room', 'red', 'room');
          far.emit('to-id', two.id, Buffer.from('id'));
          far.emit('to-all', 'end');
          for (const client of [one, two, far]) {
            await client.receives('end', () => client.args().at(-1)?.[0] === 'end');
          }
          assert.deepEqual(normal(one.args()), [['room'], ['end']]);
          assert.deepEqual(normal(two.args()), [[Buffer.from('id')], ['end']]);
          assert.deepEqual(normal(far.args()), [['room'], ['end']]);
        });
      } finally {
        await closeAll(clients);
      }
    });
  }

  test('knows numbers and dates that JSON does not', async () => {
    const { one } = await connectAll({ one: { server: servers.packed, parser } });
    try {
      const day = new Date('2023-11-14T22:13:20.123Z');
      assert.deepEqual(await one.ask('echo', 1.5), 1.5);
      const echoed = await one.ask('echo', day);
      assert.equal(new Date(echoed).getTime(), day.getTime());
    } finally {
      await one.close();
    }
  });

  test('refuses an unknown namespace as every node does', async () => {
    const client = new Client(servers.packed, { parser, namespace: '/nowhere' });
    await until('a connect error', () => client.errors.length > 0);
    assert.equal(client.errors[0].message, 'Invalid namespace');
    await client.close();
  });
});
