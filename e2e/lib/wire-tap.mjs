// Somebody else on the same Redis: sees what the servers of a classic cluster publish, and publishes
// what no server would. It subscribes by pattern, so that no server counts it.

import { decode } from 'notepack.io';
import { until } from './until.mjs';

function decoded(payload) {
  try {
    return payload[0] === 0x7b ? JSON.parse(payload) : decode(payload);
  } catch {
    return undefined;
  }
}

export class WireTap {
  static async start({ redis, mode }) {
    const tap = new WireTap();
    tap.mode = mode;
    tap.messages = [];
    tap.listeners = new Set();
    [tap.publisher, tap.subscriber] = [await redis.client(), await redis.client()];
    const take = (payload, channel) => {
      const message = { channel: channel.toString(), payload, value: decoded(payload) };
      tap.messages.push(message);
      tap.listeners.forEach((listener) => listener(message));
    };
    await tap.subscriber.pSubscribe(`${mode.prefix}*`, take, true);
    return tap;
  }

  requestChannel(nsp = '/') {
    return `${this.mode.prefix}-request#${nsp}#`;
  }

  responseChannel(nsp = '/') {
    return `${this.mode.prefix}-response#${nsp}#`;
  }

  /** Publishes bytes, a text, or a value as JSON. */
  async publish(channel, message) {
    const isPayload = typeof message === 'string' || Buffer.isBuffer(message);
    await this.publisher.publish(channel, isPayload ? message : JSON.stringify(message));
  }

  /** Calls `listener` for each message from now on; returns how to end that. */
  on(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** What was published on channels that begin like this, decoded. */
  values(channel) {
    return this.messages.filter((message) => message.channel.startsWith(channel)).map(({ value }) => value);
  }

  /** Asks all servers as an adapter of another age would, and waits for `n` answers. */
  async ask(request, n, nsp = '/') {
    const answers = () =>
      this.values(`${this.mode.prefix}-response#`).filter(
        (value) => value?.requestId === request.requestId,
      );
    await this.publish(this.requestChannel(nsp), request);
    await until(`${n} answers to ${JSON.stringify(request)}`, () => answers().length >= n);
    return answers();
  }

  async stop() {
    await Promise.all([this.publisher.close(), this.subscriber.close()]);
  }
}
