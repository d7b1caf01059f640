// What the design promises about clients that misbehave, or that leave at the wrong moment: they are
// cleaned up, they harm nobody, and the node's own counts say so.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { WebSocket } from 'ws';
import { Client, TRANSPORTS } from '../lib/client.mjs';
import { Node, STANDS_IN } from '../lib/node.mjs';
import { until } from '../lib/until.mjs';

const KILOBYTE = 1024;
const ENGINE = { ping_interval: '2s', ping_timeout: '3s' };

let node;
let open = [];

before(async () => {
  node = await Node.start({ sections: { engine: ENGINE } });
});

afterEach(async () => {
  await Promise.all(open.map((client) => client.close()));
  open = [];
});

after(async () => {
  await node?.stop();
});

function connect(options) {
  const client = new Client(node, options);
  open.push(client);
  return client;
}

function engineUrl(query) {
  return `${node.url}/socket.io/?EIO=4&${query}`;
}

/** A WebSocket client made by hand, connected to the namespace in which departures are told. */
async function rawSocket() {
  const url = engineUrl('transport=websocket').replace('http', 'ws');
  const socket = new WebSocket(url);
  const raw = { socket, messages: [] };
  socket.on('message', (data) => raw.messages.push(String(data)));
  socket.on('error', () => {});
  await until('the handshake', () => raw.messages.some((text) => text.startsWith('0')));
  socket.send('40/lobby,');
  const prefix = '40/lobby,';
  const reply = await until('CONNECT', () => raw.messages.find((text) => text.startsWith(prefix)));
  raw.id = JSON.parse(reply.slice(prefix.length)).sid;
  return raw;
}

async function post(query, body) {
  const response = await fetch(engineUrl(query), { method: 'POST', body });
  return { status: response.status, text: await response.text() };
}

async function get(query) {
  const response = await fetch(engineUrl(query));
  return { status: response.status, text: await response.text() };
}

async function opened() {
  const { text } = await get('transport=polling');
  return JSON.parse(text.slice(1)).sid;
}

function inLobby(options) {
  return connect({ namespace: '/lobby', ...options }).connected();
}

async function departure(witness, id) {
  await witness.receives(`the departure of ${id}`, () =>
    witness.args('went').some(([gone]) => gone === id),
  );
  assert.equal(witness.args('went').filter(([gone]) => gone === id).length, 1);
}

describe('a client that does not read', () => {
  test('is closed for what it does not take, and the others miss nothing', async () => {
    const witness = await inLobby();
    const stalled = await rawSocket();
    stalled.socket.pause();
    const filler = 'x'.repeat(64 * KILOBYTE);
    let sent = 0;
    await until(
      'the stalled client is gone',
      async () => {
        witness.emit('to-lobby', sent, filler);
        sent += 1;
        await witness.receives(`message ${sent}`, () => witness.args().length === sent);
        return witness.args('went').length > 0;
      },
      { deadline: 30_000 },
    );
    await departure(witness, stalled.id);
    assert.deepEqual(witness.args().map(([n]) => n), Array.from({ length: sent }, (_, n) => n));
    if (!STANDS_IN) {
      // Node.js closes it only when a ping stays unanswered.
      const closed = 'carillon_sessions_closed_total{reason="slow_consumer"}';
      assert.equal((await node.metrics())[closed], 1);
    }
    stalled.socket.terminate();
  });

  test('is closed when it does not poll', async () => {
    const witness = await inLobby();
    const sid = await opened();
    const query = `transport=polling&sid=${sid}`;
    assert.deepEqual(await post(query, '40/lobby,'), { status: 200, text: 'ok' });
    await witness.receives('an arrival', () => witness.args('came').length > 0);
    const [[id]] = witness.args('came');
    await departure(witness, id);
    // A poll that comes too late may be told that the session is closed; then nothing is left of it.
    const answer = await get(query);
    assert.ok(answer.status === 400 || answer.text === '1', JSON.stringify(answer));
    assert.equal((await get(query)).status, 400);
  });
});

describe('the public id of a socket', () => {
  test('is no session id', async () => {
    for (const transport of Object.keys(TRANSPORTS)) {
      const victim = await connect({ transport }).connected();
      const { id } = victim;
      assert.notEqual(id, victim.engine.id);
      for (const name of ['polling', 'websocket']) {
        const stolen = `transport=${name}&sid=${id}`;
        assert.equal((await get(stolen)).status, 400);
        assert.equal((await post(stolen, '42["to-all","stolen"]')).status, 400);
      }
      const url = engineUrl(`transport=websocket&sid=${id}`).replace('http', 'ws');
      const thief = new WebSocket(url);
      const answer = await new Promise((resolve) => {
        thief.once('open', () => resolve(101));
        thief.once('error', (error) => resolve(error.message));
      });
      assert.equal(answer, 'Unexpected server response: 400');
      assert.equal(await victim.ask('echo', 'undisturbed'), 'undisturbed');
      assert.deepEqual(victim.args(), []);
    }
  });
});

describe('leaving at the wrong moment', () => {
  test('a join on the way out leaves no ghost', async () => {
    const witness = await connect().connected();
    for (let run = 0; run < 20; run += 1) {
      const guest = await connect().connected();
      guest.emit('join', 'attic');
      guest.emit('to-room', 'attic', run);
      guest.socket.disconnect();
    }
    witness.emit('to-room', 'attic', 'nobody home');
    assert.equal(await witness.ask('echo', 'alive'), 'alive');
    assert.deepEqual(witness.args(), []);
  });

  test('a session that ends before its CONNECT is answered is told to nobody', async () => {
    const witness = await inLobby();
    const guests = Array.from({ length: 20 }, () => connect({ namespace: '/lobby' }));
    for (const [at, guest] of guests.entries()) {
      guest.socket.io.once('open', () => setTimeout(() => guest.socket.disconnect(), at % 4));
    }
    await until('all are gone', () => guests.every(({ engine }) => engine.readyState === 'closed'));
    const last = await inLobby();
    const { id: lastId } = last;
    await witness.receives('the last one', () => witness.args('came').some(([id]) => id === lastId));
    await last.close();
    await departure(witness, lastId);
    // Who came, went: each exactly once.
    const came = witness.args('came').map(([id]) => id);
    await until('all departures', () => witness.args('went').length === came.length);
    assert.deepEqual(witness.args('went').map(([id]) => id).sort(), came.sort());
  });

  if (!STANDS_IN) {
    test('the counts of the node are back where they began', async () => {
      let metrics;
      const gauges = /^carillon_(connections|sessions|sockets|rooms|members|outbox|lane_queue_commands)\b/;
      const left = () => Object.entries(metrics).filter(([name, n]) => gauges.test(name) && n !== 0);
      await until(
        'all gauges are zero',
        async () => {
          metrics = await node.metrics();
          return left().length === 0;
        },
        { every: 20, detail: () => JSON.stringify(left()) },
      );
      assert.ok(Object.keys(metrics).some((name) => gauges.test(name)));
    });
  }
});
