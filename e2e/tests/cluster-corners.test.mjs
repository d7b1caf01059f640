// Where implementations of the cluster protocol go wrong: how many servers are counted, who answers,
// what may be published, and names that look like something else. Node.js servers with the official
// adapter are in the same cluster all the time, and nothing may end one of them.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { encode } from 'notepack.io';
import { BlackHoleProxy } from '../lib/black-hole.mjs';
import { CrashWatch, countServers, modeOf } from '../lib/cluster.mjs';
import { Company, comparable, newToken, sorted } from '../lib/company.mjs';
import { ConsoleMember, EmitterMember, NodeMember } from '../lib/members.mjs';
import { Redis } from '../lib/redis.mjs';
import { until } from '../lib/until.mjs';
import { WireTap } from '../lib/wire-tap.mjs';

/** What a Node.js server here waits for the others: shorter than by default, so that a fault shows soon. */
const REQUESTS_TIMEOUT = 3_000;
const KINDS = { n: NodeMember, m: NodeMember, c: ConsoleMember, d: ConsoleMember, e: EmitterMember };

let redis;
let watch;

before(async () => {
  watch = new CrashWatch();
  redis = await Redis.start();
});

after(async () => {
  await redis?.stop();
  assert.deepEqual(watch.end(), [], 'what would have ended a Node.js server');
});

/**
 * Starts servers, `n` and `m` of Node.js, `c` and `d` of Carillon, `e` the emitter, each with more
 * options or none, does `act` with them and stops them. What they serve is a cluster of its own.
 */
async function withServers({ mode: name = 'classic', ...plan }, act) {
  const mode = modeOf(name);
  const servers = {};
  const tap = await WireTap.start({ redis, mode });
  try {
    for (const [name, options] of Object.entries(plan)) {
      const common = { name, redis, mode, requestsTimeout: REQUESTS_TIMEOUT };
      servers[name] = await KINDS[name].start({ ...common, ...options });
    }
    await act({ ...servers, mode, tap });
  } finally {
    await Promise.all(Object.values(servers).map((server) => server.stop()));
    await tap.stop();
  }
}

/** The same with clients on each server, who hear each of them. */
async function withCompany({ nsp = '/', rooms, ...plan }, act) {
  await withServers(plan, async (all) => {
    const servers = Object.keys(plan).filter((name) => all[name]?.url).map((name) => all[name]);
    const company = await Company.open({ servers, nsp, rooms });
    try {
      for (const server of servers) {
        await company.warm(server);
      }
      await act({ ...all, company });
      company.checkConnected();
    } finally {
      await company.close();
    }
  });
}

function counts(mode, n, nsp = '/') {
  return until(`${n} servers count`, async () => (await countServers(redis, mode, nsp)) === n);
}

function namesOf(company, server) {
  return company.names.filter((name) => name.startsWith(server.name)).sort();
}

/** The names of all sockets that `origin` finds in the cluster. */
async function found(origin, company) {
  const sockets = await origin.fetchSockets(company.target());
  return sockets.map(({ id }) => company.nameOf(id)).sort();
}

async function asked(origin, company, selection = {}, timeout = 2_000) {
  const { timedOut, answers } = await origin.emitWithAck(company.target(selection), ['question', 1], timeout);
  return { timedOut, answers: sorted(answers) };
}

async function serversAsked(origin, company, event = 'who') {
  const { timedOut, answers } = await origin.serverSideEmitWithAck(company.target(), [event]);
  return { timedOut, answers: sorted(answers) };
}

/** Everything works that needs all servers, whoever asks. */
async function checkWhole(company, ...origins) {
  const all = [...company.names].sort();
  const servers = company.servers.map(({ name }) => name);
  for (const origin of origins) {
    assert.deepEqual(await found(origin, company), all, `what ${origin.name} finds`);
    assert.deepEqual(await asked(origin, company), { timedOut: false, answers: all }, origin.name);
    const others = servers.filter((name) => name !== origin.name).sort();
    assert.deepEqual(await serversAsked(origin, company), { timedOut: false, answers: others }, origin.name);
  }
}

describe('no Node.js server waits for a Carillon node that does not answer', () => {
  for (const participation of ['broadcasts', 'commands', 'full']) {
    test(`participation ${participation}`, async () => {
      await withCompany({ n: {}, c: { cluster: { participation } } }, async ({ n, c, mode, company }) => {
        const isFull = participation === 'full';
        const obeys = participation !== 'broadcasts';
        const all = [...company.names].sort();
        const own = namesOf(company, n);
        await counts(mode, isFull ? 2 : 1);

        assert.deepEqual(await found(n, company), isFull ? all : own);
        assert.deepEqual(await asked(n, company), { timedOut: false, answers: isFull ? all : own });
        assert.deepEqual(await serversAsked(n, company), { timedOut: false, answers: isFull ? ['c'] : [] });
        assert.equal((await n.allRooms(company.target())).length, (isFull ? all : own).length + 2);

        const token = newToken();
        await n.serverSideEmit(company.target(), ['news', token]);
        await n.socketsJoin(company.target(), ['green']);
        const joined = obeys ? all : own;
        assert.deepEqual(await company.settled(joined, () => company.membersOf(n, 'green')), joined);
        // The answer to this comes behind whatever the event before it did.
        await company.receivedFrom(n, () => {});
        const took = c.serverEvents.some(({ args }) => args[1] === token);
        assert.equal(took, obeys, 'whether it takes server-side events');
        await n.socketsLeave(company.target(), ['green']);
        assert.deepEqual(await company.settled([], () => company.membersOf(n, 'green')), []);

        // It may ask itself, whatever it answers.
        assert.deepEqual(await found(c, company), all);
        assert.deepEqual(await asked(c, company), { timedOut: false, answers: all });
        assert.deepEqual(await serversAsked(c, company), { timedOut: false, answers: ['n'] });
      });
    });
  }

  for (const mode of ['classic', 'sharded dynamic']) {
    test(`while it starts, ${mode}`, async () => {
      await withCompany({ mode, n: {}, m: {} }, async ({ n, mode, company }) => {
        let isOver = false;
        let asks = 0;
        const questions = (async () => {
          while (!isOver) {
            // Rejected if it waits in vain.
            await n.fetchSockets(company.target());
            const { timedOut } = await n.serverSideEmitWithAck(company.target(), ['who']);
            assert.equal(timedOut, false);
            asks += 1;
          }
        })();
        questions.catch(() => {});
        const started = [];
        for (const name of ['c', 'd']) {
          started.push(await ConsoleMember.start({ name, redis, mode }));
          await counts(mode, 2 + started.length);
          const before = asks;
          await Promise.race([until('it is asked some more', () => asks > before + 20), questions]);
        }
        isOver = true;
        await questions;
        await Promise.all(started.map((member) => member.stop()));
        await counts(mode, 2);
      });
    });

    test(`after it was killed, and started again, ${mode}`, async () => {
      await withServers({ mode, n: {}, c: {} }, async ({ n, c, mode }) => {
        await counts(mode, 2);
        await c.kill();
        await counts(mode, 1);
        assert.deepEqual(await n.serverSideEmitWithAck({}, ['who']), { timedOut: false, answers: [] });
        const again = await ConsoleMember.start({ name: 'again', redis, mode });
        await counts(mode, 2);
        assert.deepEqual(await n.serverSideEmitWithAck({}, ['who']), { timedOut: false, answers: ['again'] });
        await again.stop();
        await counts(mode, 1);
      });
    });

    test(`after its link was half-open, ${mode}`, async () => {
      const proxy = await BlackHoleProxy.start(redis);
      await withCompany({ mode, n: {}, c: { redis: proxy } }, async ({ n, c, mode, company }) => {
        await counts(mode, 2);
        proxy.swallow();
        await company.warm(n);
        await counts(mode, 2);
        await checkWhole(company, n, c);
      });
      await proxy.stop();
    });
  }

  test('after Redis was away', async () => {
    const own = await Redis.start();
    await withCompany({ n: { redis: own }, c: { redis: own } }, async ({ n, c, mode, company }) => {
      await own.stop();
      await own.restart();
      await company.warm(n);
      await company.warm(c);
      const isCounted = async () => (await countServers(own, mode, '/')) === 2;
      await until('both count again', isCounted);
      await checkWhole(company, n, c);
    });
    await own.stop();
  });

  test('when no rule names the event', async () => {
    await withServers({ n: {}, c: {} }, async ({ n, mode }) => {
      await counts(mode, 2);
      const answer = await n.serverSideEmitWithAck({}, ['nobody knows this', 1]);
      assert.deepEqual(answer, { timedOut: false, answers: [null] });
    });
  });

  test('in a namespace that only the Node.js server has', async () => {
    await withServers({ n: {}, c: {} }, async ({ n, mode }) => {
      n.io.of('/elsewhere');
      await counts(mode, 1, '/elsewhere');
      const answer = await n.serverSideEmitWithAck({ nsp: '/elsewhere' }, ['who']);
      assert.deepEqual(answer, { timedOut: false, answers: [] });
    });
  });
});

describe('answers that are late, double, foreign or broken', () => {
  const FOREIGN = ['{"requestId":"nobody"}', '{"requestId":"nobody","sockets":[]}', '{"requestId":"nobody","rooms":["a"]}',
    '{"type":6,"requestId":"nobody","data":1}', '{"type":8,"requestId":"nobody","clientCount":1}',
    encode({ type: 9, requestId: 'nobody', packet: 'x' })];
  const BROKEN = ['', '{', '[]', 'text', ' {"requestId":"x"}', '{"type":"8"}', '{"type":99,"requestId":"x"}', '{"requestId":{}}',
    Buffer.from([0x91]), Buffer.from([0xc1]), Buffer.from([0x7b]), encode([1, 2]), encode('text'), encode({ type: 9 })];
  // What Node.js servers cannot bear, only for Carillon nodes.
  const DEADLY = [Buffer.from([0xc0]), 'null', '{"type":5,"requestId":"x","uid":"x"}', '{"type":8,"requestId":null,"clientCount":-1}',
    '{"type":2}', '{"type":6}', '{"type":6,"data":[]}', '{"type":6,"data":["connection"]}', '{"type":7,"requestId":"x"}'];

  async function publishAll(tap, { requests, responses }) {
    const shared = tap.responseChannel();
    const privates = tap.messages.map(({ channel }) => channel).filter((name) => name.startsWith(shared));
    for (const message of requests) {
      await tap.publish(tap.requestChannel(), message);
    }
    for (const channel of new Set([shared, ...privates])) {
      for (const message of responses) {
        await tap.publish(channel, message);
      }
    }
  }

  test('do not disturb what is asked next', async () => {
    await withCompany({ n: {}, c: {}, d: {} }, async ({ n, c, d, mode, tap, company }) => {
      await counts(mode, 3);
      await checkWhole(company, n, c);
      await publishAll(tap, { requests: BROKEN, responses: [...FOREIGN, ...BROKEN] });
      await checkWhole(company, n, c, d);
    });
  });

  test('do not disturb Carillon nodes, even where Node.js servers would end', async () => {
    await withCompany({ c: {}, d: {} }, async ({ c, d, mode, tap, company }) => {
      await counts(mode, 2);
      await checkWhole(company, c);
      const broadcasts = [`${mode.prefix}#/#`, `${mode.prefix}#/#red#`];
      for (const message of [...FOREIGN, ...BROKEN, ...DEADLY, encode([1]), encode(['x', null, {}])]) {
        await Promise.all(broadcasts.map((channel) => tap.publish(channel, message)));
      }
      const all = [...FOREIGN, ...BROKEN, ...DEADLY];
      await publishAll(tap, { requests: all, responses: all });
      await checkWhole(company, c, d);
    });
  });

  test('are taken once by a Carillon node', async () => {
    await withCompany({ n: {}, c: {}, d: {} }, async ({ c, mode, tap, company }) => {
      await counts(mode, 3);
      // Only answers of Carillon nodes can be told apart: those of Node.js servers have no sender.
      let doubled = 0;
      const end = tap.on(({ channel, payload, value }) => {
        if (channel.startsWith(tap.responseChannel()) && value?.uid !== undefined && !value.seen) {
          const isNew = tap.messages.filter((message) => payload.equals(message.payload)).length === 1;
          if (isNew) {
            doubled += 1;
            tap.publish(channel, payload);
          }
        }
      });
      for (let round = 0; round < 5; round += 1) {
        await checkWhole(company, c);
      }
      end();
      assert.ok(doubled > 0, 'answers were doubled');
    });
  });

  test('are no answers to another question', async () => {
    await withCompany({ n: {}, c: {} }, async ({ n, c, mode, company }) => {
      await counts(mode, 2);
      for (const origin of [n, c]) {
        const late = [];
        const listeners = company.names.map((name) => {
          const listener = (ack) => late.push(() => ack(`late ${name}`));
          company.clients[name].socket.on('slow question', listener);
          return () => company.clients[name].socket.off('slow question', listener);
        });
        const { timedOut, answers } = await origin.emitWithAck(company.target(), ['slow question'], 300);
        assert.deepEqual({ timedOut, answers }, { timedOut: true, answers: [] });
        assert.equal(late.length, company.names.length);
        late.forEach((answer) => answer());
        await checkWhole(company, n, c);
        listeners.forEach((off) => off());
      }
    });
  });

  test('carry keys that Node.js servers do not know', async () => {
    await withCompany({ n: {}, c: {} }, async ({ n, mode, tap, company }) => {
      await counts(mode, 2);
      await checkWhole(company, n);
      const answers = tap.values(tap.responseChannel()).filter((value) => value?.uid !== undefined);
      const kinds = new Set(answers.map(({ type, sockets }) => (sockets ? 'sockets' : type)));
      assert.deepEqual([...kinds].sort(), [6, 8, 9, 'sockets']);
    });
  });
});

describe('requests of other versions', () => {
  test('type 0 is answered by everybody, as by Node.js servers', async () => {
    await withCompany({ n: {}, m: {}, c: {}, d: {} }, async ({ c, mode, tap, company }) => {
      await counts(mode, 4);
      for (const rooms of [[], ['red'], ['blue', 'red'], ['empty']]) {
        const request = { uid: 'old', requestId: newToken(), type: 0, rooms };
        const answers = await tap.ask(request, 4);
        const names = answers.flatMap(({ sockets }) => sockets.map((id) => company.nameOf(id)));
        assert.deepEqual(names.sort(), company.selected({ rooms }).sort());
        const ids = await c.sockets(company.target({ rooms }));
        assert.deepEqual(ids.map((id) => company.nameOf(id)).sort(), company.selected({ rooms }).sort());
      }
    });
  });

  test('the old forms of join, leave and disconnect name one socket', async () => {
    await withCompany({ n: {}, c: {} }, async ({ n, mode, tap, company }) => {
      await counts(mode, 2);
      for (const name of ['n1', 'c1']) {
        const sid = company.clients[name].id;
        await tap.ask({ requestId: newToken(), type: 2, sid, room: 'green' }, 1);
        assert.deepEqual(await company.membersOf(n, 'green'), [name]);
        await tap.ask({ requestId: newToken(), type: 3, sid, room: 'green' }, 1);
        assert.deepEqual(await company.membersOf(n, 'green'), []);
      }
    });
  });
});

describe('what only JavaScript has', () => {
  const MESSAGES = {
    'a number as event': [42, 'answer'],
    'a date': ['msg', new Date(0), { at: new Date(1700000000123) }, new Date(-1)],
    'numbers JSON does not know': ['msg', NaN, Infinity, -Infinity, -0],
    undefined: ['msg', undefined, { gone: undefined, here: 1 }, [undefined]],
    'toJSON': ['msg', { toJSON: () => ({ own: 'form' }) }],
    'maps and sets': ['msg', new Map([[1, 2]]), new Set([1])],
  };

  test('arrives at clients of Carillon as at clients of Node.js', async () => {
    await withCompany({ n: {}, m: {}, c: {}, e: {} }, async ({ n, e, company }) => {
      for (const [what, message] of Object.entries(MESSAGES)) {
        for (const origin of [n, e]) {
          const received = await company.receivedFrom(origin, () => origin.emit(company.target(), message));
          const [one] = Object.values(received);
          const expected = Object.fromEntries(company.names.map((name) => [name, one]));
          assert.deepEqual(received, expected, `${what} from ${origin.name}`);
        }
      }
    });
  });

  test('numbers as rooms are their text', async () => {
    await withCompany({ n: {}, c: {}, e: {} }, async ({ n, e, company }) => {
      await company.clients.c1.join('123');
      for (const origin of [n, e]) {
        const act = () => origin.emit({ rooms: [123] }, ['msg', 'for 123']);
        assert.deepEqual(await company.receivedFrom(origin, act), { c1: [['msg', 'for 123']] });
      }
    });
  });

  test('an acknowledgement without a timeout is asked for once', async () => {
    await withCompany({ n: {}, c: {} }, async ({ n, c, company }) => {
      const received = await company.receivedFrom(n, async () => {
        // Node's adapter gives up at once, and its own clients get the event again when it comes back.
        await new Promise((resolve) => n.io.emit('question', 'no timeout', resolve));
      });
      for (const name of namesOf(company, c)) {
        assert.deepEqual(received[name], [['question', 'no timeout']], name);
      }
      await checkWhole(company, n, c);
    });
  });
});

describe('what Node.js servers and their clients cannot bear is not published', () => {
  async function refused(act) {
    try {
      await act();
    } catch {
      // Whether it is refused with an error or with a result is the node's own matter.
    }
  }

  test('reserved events of servers', async () => {
    await withCompany({ n: {}, c: {} }, async ({ n, c, mode, tap, company }) => {
      await counts(mode, 2);
      const took = [];
      n.io.on('connection', (socket) => took.push(socket));
      for (const event of ['connection', 'connect', 'new_namespace']) {
        await refused(() => c.serverSideEmit(company.target(), [event]));
      }
      await company.receivedFrom(c, () => {});
      assert.deepEqual(took, []);
      const events = tap.values(tap.requestChannel()).filter((value) => value?.type === 6);
      assert.deepEqual(events, []);
    });
  });

  test('more binaries than a client takes', async () => {
    await withCompany({ n: {}, c: {} }, async ({ n, c, company }) => {
      const binaries = Array.from({ length: 11 }, (_, at) => Buffer.from([at]));
      const far = company.target({ rooms: namesOf(company, n) });
      await refused(() => c.emit(far, ['msg', ...binaries]));
      await company.receivedFrom(c, () => {});
      await company.receivedFrom(n, () => {});
      company.checkConnected();
    });
  });
});

describe('names that look like something else', () => {
  test('a namespace that is a pattern for Redis', async () => {
    // A Node.js server does not hear it at all: its own pattern does not match its own channel.
    await withServers({ n: {}, c: {}, d: {} }, async ({ n, c, d }) => {
      const within = await Company.open({ servers: [c, d], nsp: '/tenant-[ab]' });
      const beside = await Company.open({ servers: [c, d], nsp: '/tenant-a' });
      const foreign = await Company.open({ servers: [n], nsp: '/tenant-[ab]' });
      for (const origin of [n, c]) {
        await within.warm(origin);
        const message = ['msg', `from ${origin.name}`];
        beside.forget();
        const received = await within.receivedFrom(origin, () => origin.emit(within.target(), message));
        const expected = Object.fromEntries(within.names.map((name) => [name, [message]]));
        assert.deepEqual(received, expected);
        assert.deepEqual(await beside.receivedFrom(c, () => {}), {});
      }
      await Promise.all([within, beside, foreign].map((company) => company.close()));
    });
  });

  for (const mode of ['classic', 'classic with subscriptions by interest', 'sharded static']) {
    test(`a namespace of a Node.js server that begins with another one and #, ${mode}`, async () => {
      // Carillon nodes take no # in names that clients choose.
      await withServers({ mode, n: {}, m: {}, c: {}, d: {} }, async ({ n, m, c, d }) => {
        const short = await Company.open({ servers: [n, c, d], nsp: '/tenant-a', rooms: { red: 'b' } });
        const long = await Company.open({ servers: [n, m], nsp: '/tenant-a#b', rooms: { red: 'x' } });
        await short.warm(n);
        await short.warm(c);
        await long.warm(n);
        // Its channel is that of the room `b` in the other namespace.
        short.forget();
        await long.receivedFrom(n, () => n.emit(long.target(), ['msg', 'long']));
        assert.deepEqual(await short.receivedFrom(n, () => {}), {});
        for (const origin of [n, c]) {
          long.forget();
          await short.receivedFrom(origin, () => origin.emit({ nsp: '/tenant-a', rooms: ['b#x'] }, ['msg', 'short']));
          assert.deepEqual(await long.receivedFrom(n, () => {}), {}, origin.name);
        }
        await Promise.all([short.close(), long.close()]);
      });
    });
  }

  test('two clusters, one prefix of which begins with the other', async () => {
    const inner = modeOf('classic');
    const outer = { ...inner, prefix: `${inner.prefix}-request` };
    const servers = await Promise.all([
      NodeMember.start({ name: 'n', redis, mode: inner }),
      ConsoleMember.start({ name: 'c', redis, mode: inner }),
      ConsoleMember.start({ name: 'd', redis, mode: outer }),
    ]);
    const [n, c, d] = servers;
    const here = await Company.open({ servers: [n, c] });
    const there = await Company.open({ servers: [d] });
    await here.warm(n);
    await here.warm(c);
    await there.warm(d);
    await counts(inner, 2);
    await counts(outer, 1);
    await checkWhole(here, n, c);
    await checkWhole(there, d);
    there.forget();
    await here.receivedFrom(c, () => c.emit(here.target(), ['msg', 'here']));
    assert.deepEqual(await there.receivedFrom(d, () => {}), {});
    await Promise.all([here.close(), there.close()]);
    await Promise.all(servers.map((server) => server.stop()));
  });
});

describe('a Carillon node keeps more than the protocol asks for', () => {
  test('asking only its own clients needs no answer of others', async () => {
    await withCompany({ n: {}, c: {} }, async ({ c, mode, company }) => {
      await counts(mode, 2);
      const local = { flags: { local: true } };
      assert.deepEqual(await asked(c, company, local), { timedOut: false, answers: namesOf(company, c) });
    });
  });

  const FOLLOWING = ['classic with subscriptions by interest', 'sharded dynamic', 'sharded dynamic-private'];
  for (const mode of ['classic', 'sharded static', ...FOLLOWING]) {
    test(`who has joined receives, ${mode}`, async () => {
      await withCompany({ mode, n: {}, c: {}, d: {} }, async ({ n, c, company }) => {
        const { d1, d2 } = company.clients;
        company.forget();
        for (let round = 0; round < 30; round += 1) {
          const [joined, sent] = [`joined ${round}`, `sent ${round}`];
          // The acknowledgement of a join says that the room is heard, whoever speaks.
          await d1.join(joined);
          await n.emit(company.target({ rooms: [joined] }), ['msg', round]);
          // Another node may be told to let it join, and spoken to at once.
          await c.socketsJoin(company.target({ rooms: ['d2'] }), [sent]);
          await c.emit(company.target({ rooms: [sent] }), ['msg', round]);
        }
        const rounds = Array.from({ length: 30 }, (_, round) => [round]);
        for (const client of [d1, d2]) {
          await client.receives('the last one', () => client.args().at(-1)?.[0] === 29);
          assert.deepEqual(client.args(), rounds, client.name);
        }
      });
    });
  }

  test('nodes know each other', async () => {
    await withServers({ n: {}, c: {}, d: {} }, async ({ c, d, mode }) => {
      const listed = async (node) => (await node.nodes()).map(({ kind }) => kind);
      for (const node of [c, d]) {
        await until(`${node.name} knows both`, async () => (await listed(node)).length === 2);
        assert.deepEqual(await listed(node), ['carillon', 'carillon'], mode.name);
      }
      await d.stop();
      await until('the one that left is gone', async () => (await listed(c)).length === 1);
    });
  });

  test('servers may differ in where they want answers', async () => {
    const own = { onSpecificChannel: true };
    const specific = { cluster: { specific_response_channel: true } };
    const shared = { cluster: { specific_response_channel: false } };
    await withCompany({ n: own, m: {}, c: specific, d: shared }, async ({ n, m, c, d, mode, company }) => {
      await counts(mode, 4);
      await checkWhole(company, n, m, c, d);
    });
  });
});

describe('rules for events of other servers', () => {
  for (const mode of ['classic', 'sharded dynamic']) {
    test(`emit to the clients of the node itself, ${mode}`, async () => {
      await withCompany({ mode, n: {}, c: {}, d: {} }, async ({ n, c, d, mode, company }) => {
        await counts(mode, 3);
        const receivers = {
          n: [...namesOf(company, c), ...namesOf(company, d)],
          c: namesOf(company, d),
        };
        for (const origin of [n, c]) {
          const all = await company.receivedFrom(origin, () =>
            origin.serverSideEmit(company.target(), ['tell everyone', 'one', { two: 2 }]),
          );
          const told = [comparable(['told', 'one', { two: 2 }])];
          const expected = receivers[origin.name];
          assert.deepEqual(all, Object.fromEntries(expected.map((name) => [name, told])));
          const red = await company.receivedFrom(origin, () =>
            origin.serverSideEmit(company.target(), ['tell red', 'for red', 'not this']),
          );
          const reds = company.selected({ rooms: ['red'] }).filter((name) => expected.includes(name));
          assert.deepEqual(red, Object.fromEntries(reds.map((name) => [name, [['told', 'for red']]])));
        }
      });
    });
  }

  test('answer, also without a value', async () => {
    await withServers({ n: {}, c: {}, d: {} }, async ({ n, c, mode }) => {
      await counts(mode, 3);
      const value = { text: 'grüße', list: [1, null] };
      for (const origin of [n, c]) {
        const echoed = await origin.serverSideEmitWithAck({}, ['echo', value]);
        assert.deepEqual(echoed, { timedOut: false, answers: [value, value] });
      }
      const told = await n.serverSideEmitWithAck({}, ['tell everyone', 'something']);
      assert.deepEqual(told, { timedOut: false, answers: [null, null] });
    });
  });
});
