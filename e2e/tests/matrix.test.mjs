// Every emit of the Socket.IO cheat sheet, over every transport, on every kind of cluster: exactly
// the right clients receive it, exactly once.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Emitter } from '@socket.io/redis-emitter';
import { TRANSPORTS, closeAll, connectAll } from '../lib/client.mjs';
import { ALL, BLUE, Hall, NEAR, RED, allBut } from '../lib/hall.mjs';
import { Node } from '../lib/node.mjs';
import { NodeServer } from '../lib/node-server.mjs';
import { PAYLOADS, normal } from '../lib/payloads.mjs';
import { Redis } from '../lib/redis.mjs';
import { until } from '../lib/until.mjs';

const servers = {};

before(async () => {
  servers.redis = await Redis.start();
  const { redis } = servers;
  [servers.alone, servers.a, servers.b, servers.nodejs] = await Promise.all([
    Node.start({ name: 'alone' }),
    Node.start({ name: 'a', redis }),
    Node.start({ name: 'b', redis }),
    NodeServer.start({ redis }),
  ]);
  servers.emitterClient = await redis.client();
});

after(async () => {
  const { redis, emitterClient, alone, a, b, nodejs } = servers;
  await emitterClient?.close();
  await nodejs?.stop();
  await Promise.all([alone, a, b].map((node) => node?.stop()));
  await redis?.stop();
});

/** What clients do, through the rules. */
async function clientEmits(t, hall) {
  const { sender, rita, alan, ruth } = hall.clients;
  const emit = (token) => sender.emit('to-all', token);
  const value = { text: 'hello', list: [1, 2] };
  await hall.warm(emit);

  const cases = {
    'io.emit': [['to-all', value], ALL],
    'socket.emit': [['to-sender', value], ['sender']],
    'socket.broadcast.emit': [['to-others', value], allBut('sender')],
    'io.to(room)': [['to-room', 'red', value], RED],
    'io.to(room) of a room with nobody in it': [['to-room', 'empty', value], []],
    'io.to(several rooms), each client once': [
      ['to-rooms', 'red', 'blue', value],
      [...new Set([...RED, ...BLUE])],
    ],
    'io.to(id) near': [['to-id', alan.id, value], ['alan']],
    'io.to(id) far': [['to-id', ruth.id, value], ['ruth']],
    'io.to(id) of the sender': [['to-id', sender.id, value], ['sender']],
    'io.except(room)': [['except-room', 'blue', value], allBut(...BLUE)],
    'io.except(id)': [['except-room', ruth.id, value], allBut('ruth')],
  };
  for (const [name, [args, expected]] of Object.entries(cases)) {
    const act = () => sender.emit(...args);
    await t.test(name, () => hall.delivers({ act, emit, expected, args: [value] }));
  }

  await t.test('io.volatile.emit', () =>
    hall.deliversVolatile({ act: (n) => sender.emit('volatile-all', n), emit, expected: ALL }),
  );
  await t.test('leave and join again', async () => {
    const act = () => sender.emit('to-room', 'red', 'left');
    const args = ['left'];
    assert.equal(await rita.ask('leave', 'red'), 'ok');
    await hall.delivers({ act, emit, expected: ['sender', 'anna'], args });
    assert.equal(await rita.ask('join', 'red'), 'ok');
    await hall.delivers({ act, emit, expected: RED, args });
  });
  for (const [name, args] of Object.entries(PAYLOADS)) {
    await t.test(`carries ${name}`, async () => {
      const all = () => sender.emit('to-all', ...args);
      await hall.delivers({ act: all, emit, expected: ALL, args });
      if (args.length > 0) {
        const room = () => sender.emit('to-room', 'red', args[0]);
        await hall.delivers({ act: room, emit, expected: RED, args: [args[0]] });
      }
    });
    await t.test(`acknowledges ${name}`, async () => {
      const answer = new Promise((resolve) => {
        sender.emit('echo', ...args, (...back) => resolve(back));
      });
      assert.deepEqual(normal(await answer), args);
    });
  }
}

/** What `operator` (an `io` or an emitter) does. `local` is whether it has clients of its own. */
async function serverEmits(t, hall, operator, { local }) {
  const { alan, ruth } = hall.clients;
  const emit = (token) => operator.emit('msg', token);
  const value = { text: 'hello', list: [1, 2] };
  await hall.warm(emit);

  const cases = {
    'emit': [operator, ALL],
    'to(room)': [operator.to('red'), RED],
    'to(room with nobody in it)': [operator.to('empty'), []],
    'to([a, b]), each client once': [operator.to(['red', 'blue']), [...new Set([...RED, ...BLUE])]],
    'to(a).to(b), each client once': [operator.to('red').to('blue'), [...new Set([...RED, ...BLUE])]],
    'to(id) near': [operator.to(alan.id), ['alan']],
    'to(id) far': [operator.to(ruth.id), ['ruth']],
    'except(room)': [operator.except('blue'), allBut(...BLUE)],
    'except([a, b])': [operator.except(['blue', 'red']), ['alan', 'ruth']],
    'to(a).except(b)': [operator.to('red').except('blue'), ['sender']],
    'compress(false)': [operator.compress(false), ALL],
  };
  for (const [name, [chain, expected]] of Object.entries(cases)) {
    const act = () => chain.emit('msg', value);
    await t.test(name, () => hall.delivers({ act, emit, expected, args: [value] }));
  }

  await t.test('volatile', () =>
    hall.deliversVolatile({ act: (n) => operator.volatile.emit('msg', n), emit, expected: ALL }),
  );
  for (const [name, args] of Object.entries(PAYLOADS)) {
    await t.test(`carries ${name}`, async () => {
      const all = () => operator.emit('msg', ...args);
      await hall.delivers({ act: all, emit, expected: ALL, args });
      const room = () => operator.to('red').emit('msg', ...args);
      await hall.delivers({ act: room, emit, expected: RED, args });
    });
  }
  await t.test('socketsJoin and socketsLeave act before what follows them', async () => {
    // A server applies them to its own sockets only when they come back from Redis.
    const names = local ? ['rob', 'ruth'] : ['alan', 'rob', 'ruth'];
    const ids = names.map((name) => hall.clients[name].id);
    const act = async () => {
      operator.in(ids).socketsJoin('green');
      operator.to('green').emit('msg', 'joined');
    };
    await hall.delivers({ act, emit, expected: names, args: ['joined'] });
    const leave = async () => {
      operator.in(ids[0]).socketsLeave('green');
      operator.to('green').emit('msg', 'left');
    };
    await hall.delivers({ act: leave, emit, expected: names.slice(1), args: ['left'] });
    operator.in('green').socketsLeave('green');
  });
  await t.test('disconnectSockets ends exactly those it names', async () => {
    const { rob } = hall.clients;
    const { id } = rob;
    operator.in(id).disconnectSockets();
    await until('rob is disconnected', () => rob.disconnects.length === 1);
    assert.deepEqual(rob.disconnects, ['io server disconnect']);
    for (const name of allBut('rob')) {
      assert.deepEqual(hall.clients[name].disconnects, [], name);
    }
    rob.socket.connect();
    await rob.connected();
    assert.notEqual(rob.id, id);
    await rob.join('blue');
  });
}

/** What only a server with sockets of its own can say: `socket.emit`, `socket.to`, `io.local`. */
async function socketEmits(t, hall, io) {
  const emit = (token) => io.emit('msg', token);
  const socket = io.sockets.sockets.get(hall.clients.sender.id);
  const cases = {
    'socket.emit': [socket, ['sender']],
    'socket.broadcast.emit': [socket.broadcast, allBut('sender')],
    'socket.to(room)': [socket.to('red'), ['anna', 'rita']],
    'socket.except(room)': [socket.except('blue'), ['alan', 'ruth']],
    'io.local.emit': [io.local, NEAR],
  };
  for (const [name, [chain, expected]] of Object.entries(cases)) {
    const act = () => chain.emit('msg', 'value');
    await t.test(name, () => hall.delivers({ act, emit, expected, args: ['value'] }));
  }
}

/** Questions to the whole cluster: a Node.js server must not wait for nodes that do not answer. */
async function clusterQuestions(t, hall, io) {
  const near = NEAR.map((name) => hall.clients[name]);
  await t.test('fetchSockets', async () => {
    const found = (await io.fetchSockets()).map(({ id }) => id);
    assert.deepEqual(near.filter(({ id }) => !found.includes(id)), []);
  });
  await t.test('emitWithAck', async () => {
    near.forEach(({ id, socket }) => socket.once('question', (ack) => ack(id)));
    const answers = await io.to(near.map(({ id }) => id)).timeout(3_000).emitWithAck('question');
    assert.deepEqual(answers.sort(), near.map(({ id }) => id).sort());
  });
  await t.test('serverSideEmitWithAck', async () => {
    assert.ok(Array.isArray(await io.serverSideEmitWithAck('question')));
  });
}

/** Opens a hall, runs `check` in it and closes it whatever happens. */
async function inHall(place, check) {
  const hall = await Hall.open(place);
  try {
    await check(hall);
  } finally {
    await hall.close();
  }
}

const CLUSTERS = {
  'one node': () => [servers.alone, servers.alone],
  'node to node': () => [servers.a, servers.b],
  'node to Node.js server': () => [servers.a, servers.nodejs],
  'Node.js server to node': () => [servers.nodejs, servers.b],
};

for (const transport of Object.keys(TRANSPORTS)) {
  describe(`over ${transport}`, () => {
    for (const [cluster, between] of Object.entries(CLUSTERS)) {
      test(cluster, async (t) => {
        const [near, far] = between();
        await inHall({ near, far, transport }, async (hall) => {
          await clientEmits(t, hall);
          if (near === servers.nodejs) {
            await serverEmits(t, hall, near.io, { local: true });
            await socketEmits(t, hall, near.io);
            await clusterQuestions(t, hall, near.io);
          }
        });
      });
    }
    test('emitter to nodes', async (t) => {
      const emitter = new Emitter(servers.emitterClient);
      await inHall({ near: servers.a, far: servers.b, transport }, (hall) =>
        serverEmits(t, hall, emitter, { local: false }),
      );
    });
  });
}

test('namespaces of one pattern are apart in the whole cluster', async () => {
  const { a, b, nodejs } = servers;
  const [red, blue] = ['/tenant-red', '/tenant-blue'];
  const clients = await connectAll({
    redA: { server: a, namespace: red },
    redB: { server: b, namespace: red },
    redN: { server: nodejs, namespace: red },
    blueB: { server: b, namespace: blue },
    blueN: { server: nodejs, namespace: blue },
    mainB: { server: b },
  });
  try {
    const emitter = new Emitter(servers.emitterClient);
    const senders = {
      client: (text) => clients.redA.emit('to-all', text),
      'Node.js server': (text) => nodejs.io.of(red).emit('msg', text),
      emitter: (text) => emitter.of(red).emit('msg', text),
    };
    for (const [name, send] of Object.entries(senders)) {
      const reds = ['redA', 'redB', 'redN'].map((red) => clients[red]);
      const others = ['blueB', 'blueN', 'mainB'].map((other) => clients[other]);
      const arrived = (text) => reds.every((client) => client.args().some(([got]) => got === text));
      await until(`all in red hear the ${name}`, async () => {
        Object.values(clients).forEach((client) => client.forget());
        send('warm');
        return until('a first message', () => arrived('warm'), { deadline: 250 }).catch(() => false);
      });
      reds.forEach((client) => client.forget());
      send('for red');
      await until(`red hears the ${name}`, () => arrived('for red'));
      // What comes behind it in the namespaces of the others proves that nothing is under way.
      emitter.of(blue).emit('msg', 'end');
      emitter.emit('msg', 'end');
      for (const client of others) {
        await client.receives('the end', () => client.args().length > 0);
        assert.deepEqual(client.args(), [['end']], client.name);
      }
      for (const client of reds) {
        const messages = client.args().filter(([text]) => text !== 'warm');
        assert.deepEqual(messages, [['for red']], client.name);
      }
    }
  } finally {
    await closeAll(clients);
  }
});
