// The change from polling to WebSocket: nothing is lost, repeated or reordered by it, and an attempt
// that fails leaves polling as it was.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { WebSocket } from 'ws';
import { Client } from '../lib/client.mjs';
import { Node } from '../lib/node.mjs';
import { until, within } from '../lib/until.mjs';

const RUNS = 40;
const AT_ONCE = 4;
/** How many messages still have to flow in each direction after the upgrade. */
const AFTERWARDS = 50;

let node;

before(async () => {
  node = await Node.start({ sections: { engine: { upgrade_timeout: '1s' } } });
});

after(async () => {
  await node?.stop();
});

/** Sends numbered events without a pause, a few for each turn of the event loop, until stopped. */
function pump(client, event) {
  let running = true;
  let sent = 0;
  const finished = (async () => {
    while (running) {
      for (let n = 0; n < 3; n += 1) {
        client.emit(event, { from: client.name, n: sent });
        sent += 1;
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  })();
  return async () => {
    running = false;
    await finished;
    return sent;
  };
}

function numbersFrom(client, from) {
  return client.args().filter(([message]) => message.from === from).map(([{ n }]) => n);
}

/** The numbers are `first`, `first + 1`, … with nothing missing, repeated or out of order. */
function assertConsecutive(numbers, first, what) {
  const expected = Array.from(numbers, (_, at) => first + at);
  assert.deepEqual(numbers, expected, what);
}

async function upgradeUnderWay(run, feeder) {
  const client = new Client(node, { name: `run ${run}`, transport: 'upgrade' });
  const first = new Promise((resolve) => {
    client.socket.once('connect', () => resolve(client.engine.transport.name));
  });
  try {
    const transport = await within('a connection', first);
    const stop = pump(client, 'to-sender');
    await client.connected();
    const own = numbersFrom(client, client.name).length;
    const fed = numbersFrom(client, feeder.name).length;
    await client.receives(
      'messages over WebSocket',
      () =>
        numbersFrom(client, client.name).length >= own + AFTERWARDS &&
        numbersFrom(client, feeder.name).length >= fed + AFTERWARDS,
    );
    const sent = await stop();
    await client.receives('all it sent', () => numbersFrom(client, client.name).length >= sent);
    const numbers = numbersFrom(client, client.name);
    assertConsecutive(numbers, 0, `run ${run}: what the client sent`);
    assert.equal(numbers.length, sent);
    const feed = numbersFrom(client, feeder.name);
    assertConsecutive(feed, feed[0], `run ${run}: what was sent to everyone`);
    assert.deepEqual(client.disconnects, []);
    return { during: own + fed, polled: transport === 'polling' };
  } finally {
    await client.close();
  }
}

describe('the upgrade', () => {
  test(`loses, repeats and reorders nothing in ${RUNS} runs with traffic both ways`, async () => {
    const feeder = await new Client(node, { name: 'feeder' }).connected();
    const stop = pump(feeder, 'to-others');
    let during = 0;
    let polled = 0;
    try {
      for (let first = 0; first < RUNS; first += AT_ONCE) {
        const runs = Array.from({ length: AT_ONCE }, (_, at) => upgradeUnderWay(first + at, feeder));
        for (const run of await Promise.all(runs)) {
          during += run.during;
          polled += run.polled ? 1 : 0;
        }
      }
      // A fast upgrade can be over before the client is told that its namespace is connected; the
      // test needs enough runs in which it is not.
      assert.ok(polled >= RUNS / 4, `only ${polled} clients used polling before the upgrade`);
      assert.ok(during >= RUNS, `only ${during} messages arrived while clients were upgrading`);
    } finally {
      await stop();
      await feeder.close();
    }
  });
});

/** A WebSocket that asks to take over the session of `client`; nothing if the node refuses it. */
async function tryProbing(client) {
  const url = `${node.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`;
  const socket = new WebSocket(`${url}&sid=${client.engine.id}`);
  const probe = { socket, messages: [], closed: false };
  socket.on('message', (data) => probe.messages.push(String(data)));
  socket.on('close', () => (probe.closed = true));
  socket.on('error', () => {});
  await until('the probe is open or refused', () => socket.readyState === WebSocket.OPEN || probe.closed);
  return probe.closed ? null : probe;
}

/** As `tryProbing`; the end of an earlier probe reaches the node in its own time. */
function probing(client) {
  return until('the node accepts a probe', () => tryProbing(client), { every: 20 });
}

async function answeredProbe(probe) {
  probe.socket.send('2probe');
  await until('the probe is answered', () => probe.messages.includes('3probe'));
}

const FAILED_PROBES = {
  'ends without a word': (probe) => probe.socket.close(),
  'is torn down': (probe) => probe.socket.terminate(),
  'starts with the wrong packet': (probe) => probe.socket.send('4hello'),
  'starts with the wrong ping': (probe) => probe.socket.send('2other'),
  'starts with rubbish': (probe) => probe.socket.send('\u0000rubbish'),
  'starts with a binary': (probe) => probe.socket.send(Buffer.from('2probe')),
  'ends after the answer': async (probe) => {
    await answeredProbe(probe);
    probe.socket.close();
  },
  'goes on with a message instead of the upgrade': async (probe) => {
    await answeredProbe(probe);
    probe.socket.send('42["to-all","smuggled"]');
  },
  'never goes on after the answer': answeredProbe,
  'never says a word': () => {},
};

describe('a polling client goes on undisturbed when a WebSocket probe', () => {
  for (const [name, fail] of Object.entries(FAILED_PROBES)) {
    test(name, async () => {
      const client = await new Client(node, { transport: 'polling' }).connected();
      try {
        const probe = await probing(client);
        await fail(probe);
        for (let n = 0; n < 5; n += 1) {
          assert.equal(await client.ask('echo', n), n);
        }
        await until('the node has closed the probe', () => probe.closed);
        for (let n = 0; n < 5; n += 1) {
          client.emit('to-sender', n);
          assert.equal(await client.ask('echo', n), n);
        }
        assert.deepEqual(client.args(), [[0], [1], [2], [3], [4]]);
        assert.deepEqual(client.disconnects, []);
        assert.ok(!probe.messages.some((text) => text.startsWith('4')), 'a message on the probe');
      } finally {
        await client.close();
      }
    });
  }

  test('fails and a second one succeeds', async () => {
    const client = await new Client(node, { transport: 'polling' }).connected();
    try {
      const failed = await probing(client);
      await answeredProbe(failed);
      failed.socket.terminate();
      const good = await probing(client);
      await answeredProbe(good);
      good.socket.send('5');
      good.socket.send('42["to-sender","over WebSocket"]');
      await until('the message over WebSocket', () =>
        good.messages.includes('42["msg","over WebSocket"]'),
      );
      good.socket.terminate();
    } finally {
      await client.close();
    }
  });
});
