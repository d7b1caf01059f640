// What servers can do to the sockets of a cluster, each operation in a form that can be compared:
//
//   run(origin, company)     does it and gives what happened, with clients by name
//   model(company, origin)   what must happen, where the protocol says it
//   asks                     answers are waited for: an emitter cannot do it
//   carriesBinary            it needs a parser for binaries
//   only                     the modes that have it: 'classic' or 'sharded'

import assert from 'node:assert/strict';
import { Client } from './client.mjs';
import { comparable, newToken, sorted } from './company.mjs';
import { until } from './until.mjs';

/** Long enough for everybody who answers; waited out only where somebody does not. */
const ACK_TIMEOUT = 1_500;
const SILENT_TIMEOUT = 800;

const SELECTIONS = {
  everybody: {},
  'one room': { rooms: ['red'] },
  'several rooms, each client once': { rooms: ['red', 'blue', 'empty'] },
  nobody: { rooms: ['empty'] },
  'all but a room': { except: ['blue'] },
  'one room without another': { rooms: ['red'], except: ['blue'] },
};

/** The handshake of a socket without what differs between two connections. */
function comparableHandshake(handshake) {
  const { headers, time, issued, url, query, ...rest } = handshake;
  const { t: _t, ...lasting } = query;
  return {
    ...comparable(rest),
    headers: Object.prototype.toString.call(headers),
    time: /^[A-Z][a-z]{2} [A-Z][a-z]{2} \d\d \d{4} \d\d:\d\d:\d\d GMT[+-]\d{4} \(.+\)$/.test(time),
    issued: Number.isInteger(issued) && Math.abs(Date.now() - issued) < 600_000,
    url: url.replace(/&t=[^&]*/, ''),
    query: lasting,
  };
}

/** Descriptions of sockets by the names of the clients. */
function comparableSockets(company, sockets) {
  const entries = sockets.map(({ id, rooms, handshake, data }) => [
    company.nameOf(id),
    {
      rooms: rooms.map((room) => company.nameOf(room)).sort(),
      handshake: comparableHandshake(handshake),
      data,
    },
  ]);
  const names = entries.map(([name]) => name);
  assert.deepEqual(names, [...new Set(names)], 'each socket is described once');
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

function emitted(company, selection, message) {
  const received = [comparable(message)];
  return Object.fromEntries(company.selected(selection).map((name) => [name, received]));
}

function emits(selection, message, flags = {}) {
  return {
    run: (origin, company) => {
      const target = company.target({ ...selection, flags });
      const expected = emitted(company, selection, message);
      return company.receivedFrom(origin, () => origin.emit(target, message), expected);
    },
    model: (company) => emitted(company, selection, message),
  };
}

/** A volatile message may be dropped: it is repeated until everybody who shall has one. */
function emitsVolatile(selection) {
  return {
    run: async (origin, company) => {
      const target = company.target({ ...selection, flags: { volatile: true } });
      const got = new Set();
      await company.settled(company.selected(selection).sort(), async () => {
        const message = ['msg', 'volatile'];
        const received = await company.receivedFrom(origin, () => origin.emit(target, message));
        for (const [name, messages] of Object.entries(received)) {
          // Without order one of the round before may come in this one.
          assert.ok(messages.length === 1 || !company.isOrdered, `${name} receives it once`);
          got.add(name);
        }
        return [...got].sort();
      });
      return [...got].sort();
    },
    model: (company) => company.selected(selection).sort(),
  };
}

function asks(selection, question, { answer, silent = [], timeout = ACK_TIMEOUT }) {
  return {
    asks: true,
    run: async (origin, company) => {
      let result;
      silent.forEach((name) => (company.clients[name].isSilent = true));
      const received = await company.receivedFrom(origin, async () => {
        result = await origin.emitWithAck(company.target(selection), question, timeout);
      });
      silent.forEach((name) => (company.clients[name].isSilent = false));
      return { timedOut: result.timedOut, answers: sorted(comparable(result.answers)), received };
    },
    model: (company) => {
      const answering = company.selected(selection).filter((name) => !silent.includes(name));
      return {
        timedOut: silent.length > 0,
        answers: sorted(comparable(answering.map(answer))),
        received: emitted(company, selection, question),
      };
    },
  };
}

function fetches(selection) {
  return {
    asks: true,
    run: async (origin, company) =>
      comparableSockets(company, await origin.fetchSockets(company.target(selection))),
    check: (company, seen) =>
      assert.deepEqual(Object.keys(seen), company.selected(selection).sort()),
  };
}

/** Sockets join a room and leave it, as everybody finds them there afterwards. */
function joinsAndLeaves(selection) {
  const joined = (company) => company.selected(selection).sort();
  return {
    run: async (origin, company) => {
      const [observer] = company.servers;
      const green = company.rooms.green;
      await origin.socketsJoin(company.target(selection), [green, 'another room']);
      const afterJoin = await company.settled(joined(company), () =>
        company.membersOf(observer, 'green'),
      );
      await origin.socketsLeave(company.target({ rooms: ['green'], except: ['blue'] }), [green]);
      const stay = company.selected({ rooms: ['blue'] });
      const staying = joined(company).filter((name) => stay.includes(name));
      const afterLeave = await company.settled(staying, () => company.membersOf(observer, 'green'));
      await origin.socketsLeave(company.target(), [green, 'another room']);
      const atTheEnd = await company.settled([], () => company.membersOf(observer, 'green'));
      return { afterJoin, afterLeave, atTheEnd };
    },
    model: (company) => {
      const stay = company.selected({ rooms: ['blue'] });
      const afterLeave = joined(company).filter((name) => stay.includes(name));
      return { afterJoin: joined(company), afterLeave, atTheEnd: [] };
    },
  };
}

/** Where a client has a second namespace on the same connection, to see whether that one is lost too. */
const SIDE = '/tenant-side';

function disconnects(close) {
  const ends = { here: 'io server disconnect', side: close ? 'io server disconnect' : 'connected' };
  return {
    run: async (origin, company) => {
      const guests = {};
      for (const server of company.servers) {
        const client = new Client(server, { name: `guest of ${server.name}`, namespace: company.nsp });
        const side = client.socket.io.socket(SIDE);
        guests[server.name] = { client, side, sideEnd: 'connected' };
        side.on('disconnect', (reason) => (guests[server.name].sideEnd = reason));
      }
      const all = Object.values(guests);
      await Promise.all(all.map(({ client }) => client.connected()));
      await until('the guests are in both namespaces', () => all.every(({ side }) => side.connected));
      await company.letIn(all.map(({ client }) => client), 'green');
      const expected = Object.fromEntries(Object.keys(guests).map((name) => [name, ends]));
      await origin.disconnectSockets(company.target({ rooms: ['green'] }), close);
      const seen = await company.settled(expected, () =>
        Object.fromEntries(
          Object.entries(guests).map(([name, { client, sideEnd }]) => [
            name,
            { here: client.disconnects[0] ?? 'connected', side: sideEnd },
          ]),
        ),
      );
      company.checkConnected();
      await Promise.all(all.map(({ client, side }) => (side.disconnect(), client.close())));
      return seen;
    },
    model: (company) => Object.fromEntries(company.servers.map(({ name }) => [name, ends])),
  };
}

/** Which servers took an event of another one, and what it was when it arrived. */
function tellsServers(more) {
  return {
    run: async (origin, company) => {
      const token = newToken();
      const taken = () =>
        company.servers.flatMap(({ name, serverEvents }) =>
          serverEvents
            .filter(({ nsp, args }) => nsp === company.nsp && args[1] === token)
            .map(({ args }) => ({ name, event: comparable([args[0], ...args.slice(2)]) })),
        );
      const others = company.servers.filter((server) => server !== origin).map(({ name }) => name);
      await origin.serverSideEmit(company.target(), ['news', token, ...more]);
      await until('all other servers took it', () => taken().length >= others.length);
      // Whatever comes twice has come before this fence.
      await company.receivedFrom(origin, () => {});
      assert.deepEqual(taken().map(({ name }) => name).sort(), others.sort());
      // The same event for all.
      return sorted(new Set(taken().map(({ event }) => JSON.stringify(event))));
    },
  };
}

function asksServers(event, args, own) {
  return {
    asks: true,
    run: async (origin, company) => {
      const { timedOut, answers } = await origin.serverSideEmitWithAck(company.target(), [event, ...args]);
      // Nobody asks itself; with its own answer the result is the same for all.
      return { timedOut, answers: sorted(comparable([...answers, own(origin)])) };
    },
  };
}

/** The operations of the first place, where everything is tried. */
export const OPERATIONS = {};

for (const [what, selection] of Object.entries(SELECTIONS)) {
  OPERATIONS[`emit to ${what}`] = emits(selection, ['msg', { what, list: [1, 2] }, 3]);
  OPERATIONS[`emit with ack to ${what}`] = asks(selection, ['question', what], { answer: (name) => name });
  OPERATIONS[`fetchSockets of ${what}`] = fetches(selection);
}
Object.assign(OPERATIONS, {
  'emit uncompressed': emits({}, ['msg', 'uncompressed'], { compress: false }),
  'emit volatile to everybody': emitsVolatile({}),
  'emit volatile to a room': emitsVolatile({ rooms: ['red'] }),
  'emit with ack, one client silent': asks({ rooms: ['red'] }, ['question', 'anybody?'], {
    answer: (name) => name,
    silent: ['c1'],
    timeout: SILENT_TIMEOUT,
  }),
  'emit with ack, a client of each server silent': asks({ rooms: ['red'] }, ['question', 'anybody?'], {
    answer: (name) => name,
    silent: ['n1', 'c1', 'd1', 'o1'],
    timeout: SILENT_TIMEOUT,
  }),
  'emit with ack of binaries': {
    ...asks({}, ['binary question', Buffer.from('who?')], { answer: (name) => Buffer.from(name) }),
    carriesBinary: true,
  },
  'emit with ack, answered without an argument': asks({}, ['question without answer', 1], {
    answer: () => undefined,
  }),
  'socketsJoin and socketsLeave of everybody': joinsAndLeaves({}),
  'socketsJoin and socketsLeave of several rooms': joinsAndLeaves({ rooms: ['red', 'blue'] }),
  'socketsJoin and socketsLeave of all but a room': joinsAndLeaves({ except: ['red'] }),
  disconnectSockets: disconnects(false),
  'disconnectSockets with close': disconnects(true),
  serverSideEmit: tellsServers(['two', { three: [3] }, null]),
  'serverSideEmit of a binary': { ...tellsServers([Buffer.from([1, 2, 255])]), carriesBinary: true },
  'serverSideEmit with ack': asksServers('who', [], (origin) => origin.name),
  'serverSideEmit with ack and an argument': asksServers('echo', [{ grüße: '🎉' }], () => ({ grüße: '🎉' })),
  allRooms: {
    asks: true,
    only: 'classic',
    run: async (origin, company) => {
      const rooms = await origin.allRooms(company.target());
      assert.deepEqual(rooms.length, new Set(rooms).size, 'each room once');
      return rooms.map((room) => company.nameOf(room)).sort();
    },
    model: ({ names, rooms }) => [...names, rooms.red, rooms.blue].sort(),
  },
});

for (const name of ['n', 'c', 'd', 'o']) {
  const selection = { rooms: [`${name}3`] };
  OPERATIONS[`emit to the id of a client of ${name}`] = emits(selection, ['msg', 'for you']);
  OPERATIONS[`emit with ack to the id of a client of ${name}`] = asks(selection, ['question', 1], {
    answer: (client) => client,
  });
  OPERATIONS[`fetchSockets of the id of a client of ${name}`] = fetches(selection);
  OPERATIONS[`emit to all but the id of a client of ${name}`] = emits({ except: [`${name}3`] }, ['msg', 1]);
}

/** A broadcast to everybody and one to a room, with a certain cargo. */
export function carries(args) {
  const message = ['msg', ...args];
  const toAll = emits({}, message);
  const toRoom = emits({ rooms: ['red'] }, message);
  return {
    carriesBinary: hasBinary(args),
    run: async (origin, company) => [
      await toAll.run(origin, company),
      await toRoom.run(origin, company),
    ],
    model: (company) => [toAll.model(company), toRoom.model(company)],
  };
}

export function hasBinary(value) {
  return (
    Buffer.isBuffer(value) ||
    (value !== null && typeof value === 'object' && Object.values(value).some(hasBinary))
  );
}

/** What is tried wherever names are unusual. */
export const WITH_NAMES = [
  'emit to everybody',
  'emit to one room',
  'emit to several rooms, each client once',
  'emit to nobody',
  'emit to all but a room',
  'emit to one room without another',
  'emit with ack to one room',
  'emit with ack to all but a room',
  'fetchSockets of one room without another',
  'emit to the id of a client of c',
  'socketsJoin and socketsLeave of several rooms',
  'disconnectSockets',
  'serverSideEmit',
  'serverSideEmit with ack',
  'allRooms',
];
