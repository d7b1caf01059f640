// Clients on every server of a cluster, in a known arrangement of rooms, and what can be observed
// about them. On each server `s`:
//
//          red    blue
//   s1      x             over WebSocket
//   s2      x      x      over polling
//   s3                    over polling with an upgrade

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { Client, closeAll } from './client.mjs';
import { normal } from './payloads.mjs';
import { until } from './until.mjs';

const TRANSPORT = { 1: 'websocket', 2: 'polling', 3: 'upgrade' };
const MEMBERS = { red: [1, 2], blue: [2], empty: [] };
/** An effect on sockets of other servers is there after so long, or it is a fault. */
const SETTLED_WITHIN = 5_000;

let tokens = 0;

export function newToken() {
  tokens += 1;
  return `token ${tokens}`;
}

/** Long binaries and texts as their digest, so that a difference can be read. */
function shortened(value) {
  const digest = (bytes) => createHash('sha256').update(bytes).digest('hex').slice(0, 12);
  if (Buffer.isBuffer(value)) {
    const text = value.length > 64 ? `${value.length} bytes ${digest(value)}` : value.toString('hex');
    return { binary: text };
  }
  if (typeof value === 'string' && value.length > 200) {
    return { text: `${value.length} characters ${digest(value)}` };
  }
  if (Array.isArray(value)) {
    return value.map(shortened);
  }
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shortened(inner)]));
  }
  return value;
}

/** A value in a form that can be compared and printed. */
export function comparable(value) {
  return shortened(normal(value));
}

/** A list whose order means nothing. */
export function sorted(values) {
  const key = (value) => JSON.stringify(value) ?? '';
  return [...values].sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

export class Company {
  /** Connects three clients to each of `servers` and lets them join; `rooms` gives the rooms' names. */
  static async open({ servers, nsp = '/', rooms = {}, isOrdered = true }) {
    const company = new Company();
    Object.assign(company, { servers, nsp, isOrdered });
    company.rooms = { red: 'red', blue: 'blue', empty: 'empty', green: 'green', ...rooms };
    company.clients = {};
    for (const server of servers) {
      for (const [number, transport] of Object.entries(TRANSPORT)) {
        const name = `${server.name}${number}`;
        const options = { name, transport, namespace: nsp, auth: { name } };
        company.clients[name] = new Client(server, options);
      }
    }
    company.names = Object.keys(company.clients);
    const { clients, names } = company;
    await Promise.all(names.map((name) => clients[name].connected()));
    for (const [room, numbers] of Object.entries(MEMBERS)) {
      const members = names.filter((name) => numbers.includes(Number(name.at(-1))));
      await company.letIn(members.map((name) => clients[name]), room);
    }
    names.forEach((name) => company.acknowledge(name));
    return company;
  }

  /** Lets clients join a room. */
  async letIn(clients, room) {
    const name = this.rooms[room];
    if (!name.includes('#')) {
      const answers = await Promise.all(clients.map((client) => client.ask('join', name)));
      assert.ok(answers.every((answer) => answer === 'ok'), `${name}: ${JSON.stringify(answers)}`);
      return;
    }
    // Carillon lets no client choose such a name; a server may.
    const [server] = this.servers;
    const ids = clients.map(({ id }) => id);
    await until(`all who shall are in ${name}`, async () => {
      await server.socketsJoin({ nsp: this.nsp, rooms: ids }, [name]);
      const sockets = await server.fetchSockets({ nsp: this.nsp, rooms: [name] });
      return ids.every((id) => sockets.some((socket) => socket.id === id));
    });
  }

  /** The client answers questions with its name; a silent one receives them and says nothing. */
  acknowledge(name) {
    const client = this.clients[name];
    client.isSilent = false;
    const answers = {
      question: [name, 'a second argument'],
      'binary question': [Buffer.from(name)],
      'question without answer': [],
    };
    for (const [event, answer] of Object.entries(answers)) {
      client.socket.on(event, (...args) => {
        if (!client.isSilent) {
          args.at(-1)(...answer);
        }
      });
    }
  }

  /** A target of this company's namespace; rooms may be given by what they are here (`red`) or as they are. */
  target({ rooms = [], except = [], flags = {} } = {}) {
    const named = (list) => list.map((room) => this.rooms[room] ?? this.clients[room]?.id ?? room);
    return { nsp: this.nsp, rooms: named(rooms), except: named(except), flags };
  }

  /** Who is selected, as the protocol says it. */
  selected({ rooms = [], except = [] } = {}) {
    const isIn = (name) => (room) =>
      room === name || Boolean(MEMBERS[room]?.includes(Number(name.at(-1))));
    return this.names.filter(
      (name) => (rooms.length === 0 || rooms.some(isIn(name))) && !except.some(isIn(name)),
    );
  }

  nameOf(id) {
    return this.names.find((name) => this.clients[name].id === id) ?? id;
  }

  forget() {
    Object.values(this.clients).forEach((client) => client.forget());
  }

  /** Waits until what `origin` sends to everyone arrives everywhere: servers may still be subscribing. */
  async warm(origin) {
    await until(`everybody hears ${origin.name}`, async () => {
      const token = newToken();
      await origin.emit(this.target(), ['fence', token]);
      const here = () => this.names.every((name) => this.hasFence(name, token));
      return until('a first message', here, { deadline: 250 }).catch(() => false);
    });
  }

  hasFence(name, token) {
    return this.clients[name].args('fence').some(([got]) => got === token);
  }

  /**
   * What each client received from `act` until a message that `origin` sends to everyone behind it: the
   * arrival of that one proves that nothing else is under way. Clients without a message are left out.
   * Over a Redis Cluster nothing is proven, because channels overtake each other; there it waits for
   * what is `expected`.
   */
  async receivedFrom(origin, act, expected) {
    this.forget();
    await act();
    const token = newToken();
    await origin.emit(this.target(), ['fence', token]);
    for (const name of this.names) {
      const has = () => this.hasFence(name, token);
      await this.clients[name].receives(`${token} of ${origin.name}`, has);
    }
    const isEnough = this.isOrdered || expected === undefined;
    return isEnough ? this.received() : this.settled(expected, () => this.received());
  }

  received() {
    const received = {};
    for (const name of this.names) {
      const { received: all } = this.clients[name];
      const messages = all.filter(({ event }) => !['fence', 'probe'].includes(event));
      if (messages.length > 0) {
        received[name] = messages.map(({ event, args }) => {
          const values = args.filter((arg) => typeof arg !== 'function');
          return comparable([event, ...values]);
        });
      }
    }
    return received;
  }

  /** Who is in a room, as `origin` reaches them. */
  async membersOf(origin, room) {
    const token = newToken();
    const probe = () => origin.emit(this.target({ rooms: [room] }), ['probe', token]);
    await this.receivedFrom(origin, probe);
    const isThere = (name) => this.clients[name].args('probe').some(([got]) => got === token);
    return this.names.filter(isThere).sort();
  }

  /** Repeats an observation until it is `expected` or has had the time to be; gives the last one. */
  async settled(expected, observe) {
    let seen;
    const isExpected = async () => {
      seen = await observe();
      return isDeepStrictEqual(seen, expected);
    };
    await until('what is expected', isExpected, { deadline: SETTLED_WITHIN, every: 20 }).catch((error) => {
      // The caller compares and says what is different; only a failed observation is an error here.
      if (seen === undefined) {
        throw error;
      }
    });
    return seen;
  }

  /** Nobody has lost its connection. */
  checkConnected() {
    for (const name of this.names) {
      assert.deepEqual(this.clients[name].disconnects, [], `${name} stays connected`);
    }
  }

  async close() {
    await closeAll(this.clients);
  }
}
