// The official client with a memory: what it received, how often it connected, why it ended.

import { Manager } from 'socket.io-client';
import { until, within } from './until.mjs';

/** The three ways in which a client reaches a node. */
export const TRANSPORTS = {
  polling: ['polling'],
  websocket: ['websocket'],
  upgrade: ['polling', 'websocket'],
};

export class Client {
  /**
   * Makes a client and starts to connect it. `transport` is a key of TRANSPORTS, `namespace` a
   * name like `/chat`; everything else goes to `socket.io-client`.
   */
  constructor(server, { transport = 'websocket', namespace = '/', name = 'client', ...more } = {}) {
    this.name = `${name} (${transport} on ${server.name})`;
    this.transport = transport;
    this.received = [];
    this.connects = 0;
    this.disconnects = [];
    this.errors = [];
    const options = { reconnection: false, transports: TRANSPORTS[transport], ...more };
    // Not `io(url)`, which reads a `?` or `#` in the namespace as parts of a URL.
    this.socket = new Manager(server.url, options).socket(namespace, options);
    this.socket.onAny((event, ...args) => this.received.push({ event, args }));
    this.socket.on('connect', () => (this.connects += 1));
    this.socket.on('connect_error', (error) => this.errors.push(error));
    this.socket.on('disconnect', (reason) => this.disconnects.push(reason));
  }

  get id() {
    return this.socket.id;
  }

  get engine() {
    return this.socket.io.engine;
  }

  /** Connected, and on the transport it shall end on. */
  async connected() {
    const final = TRANSPORTS[this.transport].at(-1);
    await until(
      `${this.name} is connected over ${final}`,
      () => this.socket.connected && this.engine.transport.name === final,
      { detail: () => `connected ${this.socket.connected}, errors ${this.errors.map(String)}` },
    );
    return this;
  }

  emit(event, ...args) {
    this.socket.emit(event, ...args);
  }

  ask(event, ...args) {
    return within(
      `${this.name} gets the acknowledgement of ${event}`,
      this.socket.emitWithAck(event, ...args),
    );
  }

  join(...rooms) {
    return Promise.all(rooms.map((room) => this.ask('join', room)));
  }

  /** The arguments of everything received under one event name. */
  args(event = 'msg') {
    return this.received.filter((entry) => entry.event === event).map(({ args }) => args);
  }

  receives(what, condition, options) {
    const detail = () => `it has ${JSON.stringify(this.received.slice(-3)).slice(0, 300)}`;
    return until(`${this.name} receives ${what}`, condition, { detail, ...options });
  }

  forget() {
    this.received.length = 0;
  }

  async close() {
    this.socket.disconnect();
    await until(`${this.name} is closed`, () => !this.engine || this.engine.readyState === 'closed');
  }
}

/** Makes several clients at once; `plan` maps names to options with a `server`. */
export async function connectAll(plan) {
  const clients = Object.fromEntries(
    Object.entries(plan).map(([name, { server, ...options }]) => [
      name,
      new Client(server, { name, ...options }),
    ]),
  );
  await Promise.all(Object.values(clients).map((client) => client.connected()));
  return clients;
}

export async function closeAll(clients) {
  await Promise.all(Object.values(clients).map((client) => client.close()));
}
