// Six clients in a known arrangement of rooms, and the question of every delivery test: who
// received what, and who did not.
//
//            near the origin            far from it
//   red      sender, anna               rita
//   blue             anna               rita, rob
//   none             alan               ruth

import assert from 'node:assert/strict';
import { closeAll, connectAll } from './client.mjs';
import { normal } from './payloads.mjs';
import { until } from './until.mjs';

export const RED = ['sender', 'anna', 'rita'];
export const BLUE = ['anna', 'rita', 'rob'];
export const NEAR = ['sender', 'anna', 'alan'];
export const FAR = ['rita', 'rob', 'ruth'];
export const ALL = [...NEAR, ...FAR];

export function allBut(...names) {
  return ALL.filter((name) => !names.includes(name));
}

let fences = 0;

export class Hall {
  /** Connects the six: `near` and `far` are the servers, which may be the same one. */
  static async open({ near, far, transport }) {
    const hall = new Hall();
    const plan = {};
    for (const name of NEAR) {
      plan[name] = { server: near, transport, auth: { name } };
    }
    for (const name of FAR) {
      plan[name] = { server: far, transport, auth: { name } };
    }
    hall.clients = await connectAll(plan);
    for (const name of ALL) {
      const client = hall.clients[name];
      await client.receives('its greeting', () => client.args('hello').length > 0);
      assert.deepEqual(client.args('hello'), [[client.id, { name }]]);
    }
    const join = (room) => (name) => hall.clients[name].join(room);
    await Promise.all([...RED.map(join('red')), ...BLUE.map(join('blue'))]);
    return hall;
  }

  /**
   * Waits until what `emit` sends to everyone arrives everywhere: a server of the cluster may still
   * be subscribing when it takes its first client.
   */
  async warm(emit) {
    const here = (token) => ALL.every((name) => this.got(name, token));
    await until('the cluster delivers', async () => {
      const token = this.token();
      emit(token);
      return until('a first message', () => here(token), { deadline: 250 }).catch(() => false);
    });
  }

  token() {
    fences += 1;
    return `fence ${fences}`;
  }

  got(name, token) {
    return this.clients[name].args().some(([first]) => first === token);
  }

  /** Everything each client received before a message that `emit` sends to everyone behind it. */
  async collect(emit) {
    const token = this.token();
    emit(token);
    const received = {};
    for (const name of ALL) {
      await this.clients[name].receives(token, () => this.got(name, token));
      const messages = this.clients[name].args();
      received[name] = messages.slice(0, messages.findIndex(([first]) => first === token));
    }
    return received;
  }

  forget() {
    Object.values(this.clients).forEach((client) => client.forget());
  }

  /**
   * Does `act` and demands that `expected` received `args`, each exactly once, and nobody else
   * anything. `emit` is a way to send to everyone from the same origin: what it sends comes last, so
   * its arrival proves that nothing else is under way.
   */
  async delivers({ act, emit, expected, args }) {
    this.forget();
    await act();
    const received = await this.collect(emit);
    for (const name of ALL) {
      const wanted = expected.includes(name) ? [args] : [];
      const seen = normal(received[name]);
      assert.deepEqual(seen, wanted, `what ${name} received`);
      assert.equal(JSON.stringify(seen), JSON.stringify(wanted), `the key order at ${name}`);
    }
  }

  /**
   * The same for volatile messages, any of which may be dropped: `act(n)` is repeated until all of
   * `expected` have one, and nobody may have one twice.
   */
  async deliversVolatile({ act, emit, expected }) {
    this.forget();
    let sent = 0;
    await until('every receiver has a volatile message', async () => {
      sent += 1;
      await act(sent);
      const all = () => expected.every((name) => this.clients[name].args().length > 0);
      return until('one of them', all, { deadline: 100 }).catch(() => false);
    });
    const received = await this.collect(emit);
    for (const name of ALL) {
      const numbers = received[name].map(([number]) => number);
      const wanted = expected.includes(name) ? [...new Set(numbers)].sort((a, b) => a - b) : [];
      assert.deepEqual(numbers, wanted, `what ${name} received`);
    }
  }

  async close() {
    await closeAll(this.clients);
  }
}
