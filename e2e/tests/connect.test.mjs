// Connecting and disconnecting: namespaces, reasons, and what makes the official client come back.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { Emitter } from '@socket.io/redis-emitter';
import { Manager } from 'socket.io-client';
import { Client, TRANSPORTS, connectAll } from '../lib/client.mjs';
import { Node } from '../lib/node.mjs';
import { Redis } from '../lib/redis.mjs';
import { until, within } from '../lib/until.mjs';

const RECONNECTING = { reconnection: true, reconnectionDelay: 20, reconnectionDelayMax: 100 };
const QUICK_PING = { engine: { ping_interval: '300ms', ping_timeout: '400ms' } };

const servers = {};
let open = [];

function connect(server, options) {
  const client = new Client(server, options);
  open.push(client);
  return client;
}

before(async () => {
  servers.redis = await Redis.start();
  servers.node = await Node.start({ redis: servers.redis });
  servers.emitterClient = await servers.redis.client();
  servers.emitter = new Emitter(servers.emitterClient);
});

beforeEach(() => {
  open = [];
});

afterEach(async () => {
  await Promise.all(open.map((client) => client.close()));
});

after(async () => {
  await servers.emitterClient?.close();
  await servers.node?.stop();
  await servers.redis?.stop();
});

describe('namespaces', () => {
  for (const transport of Object.keys(TRANSPORTS)) {
    test(`an unknown one is refused over ${transport}`, async () => {
      const client = connect(servers.node, { transport, namespace: '/nowhere' });
      await until('a connect error', () => client.errors.length > 0);
      assert.equal(client.errors[0].message, 'Invalid namespace');
      assert.equal(client.socket.active, false, 'the client does not try again');
      assert.equal(client.connects, 0);
    });
  }

  test('those of one pattern are apart from each other', async () => {
    const blue = connect(servers.node, { namespace: '/tenant-blue' });
    const other = connect(servers.node, { namespace: '/tenant-blue' });
    const red = connect(servers.node, { namespace: '/tenant-red' });
    const no = connect(servers.node, { namespace: '/other-red' });
    await Promise.all([blue, other, red].map((client) => client.connected()));
    await until('a connect error', () => no.errors.length > 0);
    blue.emit('to-all', 'for blue');
    red.emit('to-all', 'for red');
    await until('all have theirs', () => [blue, other, red].every((c) => c.args().length > 0));
    assert.equal(await red.ask('echo', 1), 1);
    assert.deepEqual(blue.args(), [['for blue']]);
    assert.deepEqual(other.args(), [['for blue']]);
    assert.deepEqual(red.args(), [['for red']]);
  });

  test('several share one connection and fail and leave one by one', async () => {
    const manager = new Manager(servers.node.url, { transports: ['websocket'], reconnection: false });
    const main = manager.socket('/', { auth: { from: 'main' } });
    const lobby = manager.socket('/lobby');
    const tenant = manager.socket('/tenant-x');
    const nowhere = manager.socket('/nowhere');
    const sockets = [main, lobby, tenant];
    try {
      const hello = new Promise((resolve) => main.once('hello', (...args) => resolve(args)));
      const refused = new Promise((resolve) => nowhere.once('connect_error', resolve));
      await until('three are connected', () => sockets.every((socket) => socket.connected));
      assert.equal((await within('a refusal', refused)).message, 'Invalid namespace');
      assert.deepEqual(await within('a greeting', hello), [main.id, { from: 'main' }]);
      assert.equal(new Set(sockets.map(({ id }) => id)).size, 3, 'each has an id of its own');
      assert.ok(!sockets.some(({ id }) => id === manager.engine.id), 'none is the session id');

      lobby.disconnect();
      assert.equal(await within('an echo', tenant.emitWithAck('echo', 'still here')), 'still here');
      assert.equal(await within('an echo', main.emitWithAck('echo', 'me too')), 'me too');
      lobby.connect();
      await until('the lobby again', () => lobby.connected);
      assert.equal(await within('an echo', lobby.emitWithAck('echo', 'back')), 'back');
    } finally {
      [...sockets, nowhere].forEach((socket) => socket.disconnect());
    }
  });
});

describe('rules', () => {
  test('an event that no rule names is refused and harms nothing', async () => {
    const client = await connect(servers.node).connected();
    const { error } = await client.ask('no such event', 1);
    assert.equal(error.code, 'unknown_event');
    assert.equal(typeof error.message, 'string');
    client.emit('no such event without an acknowledgement');
    assert.equal(await client.ask('echo', 'alive'), 'alive');
  });

  test('nobody joins the room of another one’s id', async () => {
    const victim = await connect(servers.node).connected();
    const thief = await connect(servers.node).connected();
    const { error } = await thief.ask('join', victim.id);
    assert.equal(error.code, 'reserved_room');
    victim.emit('to-id', victim.id, 'secret');
    await victim.receives('its secret', () => victim.args().length > 0);
    victim.emit('to-all', 'end');
    await thief.receives('the end', () => thief.args().length > 0);
    assert.deepEqual(thief.args(), [['end']]);
  });

  test('connecting and disconnecting are told exactly once each', async () => {
    const witness = await connect(servers.node, { namespace: '/lobby' }).connected();
    const ids = [];
    for (const transport of Object.keys(TRANSPORTS)) {
      const guest = await connect(servers.node, { namespace: '/lobby', transport }).connected();
      ids.push([guest.id]);
      await witness.receives('came', () => witness.args('came').length === ids.length);
      await guest.close();
      await witness.receives('went', () => witness.args('went').length === ids.length);
    }
    assert.deepEqual(witness.args('came'), ids);
    assert.deepEqual(witness.args('went'), ids);
    witness.emit('to-lobby', 'nobody else');
    await witness.receives('its own message', () => witness.args().length > 0);
  });
});

describe('disconnecting', () => {
  for (const transport of Object.keys(TRANSPORTS)) {
    test(`by the client over ${transport}`, async () => {
      const client = await connect(servers.node, { transport }).connected();
      client.socket.disconnect();
      await until('the reason', () => client.disconnects.length > 0);
      assert.deepEqual(client.disconnects, ['io client disconnect']);
    });

    for (const close of [false, true]) {
      test(`by disconnectSockets(${close}) over ${transport}: it stays away`, async () => {
        const options = { transport, ...RECONNECTING };
        const gone = await connect(servers.node, options).connected();
        const other = await connect(servers.node, options).connected();
        servers.emitter.in(gone.id).disconnectSockets(close);
        await until('the reason', () => gone.disconnects.length > 0);
        assert.deepEqual(gone.disconnects, ['io server disconnect']);
        assert.equal(gone.socket.active, false, 'the client does not come back by itself');
        assert.equal(await other.ask('echo', 'untouched'), 'untouched');
        assert.equal(gone.connects, 1);
      });
    }

    test(`by a crash of the node over ${transport}: it comes back`, async () => {
      const node = await Node.start({ name: 'crashing' });
      try {
        const client = await connect(node, { transport, ...RECONNECTING }).connected();
        const { id } = client;
        await node.kill();
        await until('the reason', () => client.disconnects.length > 0);
        const reasons = transport === 'polling' ? ['transport error'] : ['transport close'];
        assert.deepEqual(client.disconnects, reasons);
        assert.equal(client.socket.active, true);
        await node.restart();
        await client.connected();
        assert.notEqual(client.id, id);
        assert.equal(await client.ask('echo', 'back'), 'back');
      } finally {
        await node.stop();
      }
    });

    test(`by a drain of the node over ${transport}: it comes back`, async () => {
      const node = await Node.start({ name: 'draining' });
      try {
        const client = await connect(node, { transport, ...RECONNECTING }).connected();
        await node.stop();
        await until('the reason', () => client.disconnects.length > 0);
        assert.equal(client.socket.active, true);
        await node.restart();
        await client.connected();
        // A client that is back before the listener is closed is served and sent away once more.
        assert.deepEqual([...new Set(client.disconnects)], ['transport close']);
        assert.equal(await client.ask('echo', 'back'), 'back');
      } finally {
        await node.stop();
      }
    });

    test(`by silence of the node over ${transport}: it comes back`, async () => {
      const node = await Node.start({ name: 'silent', sections: QUICK_PING });
      try {
        const client = await connect(node, { transport, ...RECONNECTING }).connected();
        node.signal('SIGSTOP');
        await until('the reason', () => client.disconnects.length > 0);
        assert.equal(client.disconnects[0], 'ping timeout');
        node.signal('SIGCONT');
        await client.connected();
        assert.equal(await client.ask('echo', 'back'), 'back');
      } finally {
        node.signal('SIGCONT');
        await node.stop();
      }
    });
  }

  test('pings keep a quiet connection for many intervals', async () => {
    const node = await Node.start({ name: 'pinging', sections: QUICK_PING });
    try {
      const clients = await connectAll(
        Object.fromEntries(
          Object.keys(TRANSPORTS).map((transport) => [transport, { server: node, transport }]),
        ),
      );
      open.push(...Object.values(clients));
      const pings = new Map();
      for (const client of Object.values(clients)) {
        pings.set(client, 0);
        client.socket.io.on('ping', () => pings.set(client, pings.get(client) + 1));
      }
      await until('six pings each', () => [...pings.values()].every((count) => count >= 6));
      for (const client of Object.values(clients)) {
        assert.deepEqual(client.disconnects, [], client.name);
      }
    } finally {
      await node.stop();
    }
  });

  test('a client that answers no ping is closed, and its room is told', async () => {
    const node = await Node.start({ name: 'strict', sections: QUICK_PING });
    try {
      const witness = await connect(node, { namespace: '/lobby' }).connected();
      const mute = await connect(node, { namespace: '/lobby', ...RECONNECTING }).connected();
      const { id } = mute;
      // A client that is stopped dead answers nothing; the engine's answer to a ping is its only writer.
      mute.engine.transport.send = () => {};
      await witness.receives('the departure', () => witness.args('went').length > 0);
      assert.deepEqual(witness.args('went')[0], [id]);
      await until('the reason', () => mute.disconnects.length > 0);
      assert.deepEqual(mute.disconnects, ['transport close']);
      await mute.connected();
    } finally {
      await node.stop();
    }
  });
});
