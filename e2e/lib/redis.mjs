// A real redis-server per test file, on a free port and without persistence.

import { createClient } from 'redis';
import { Child, freePort, temporaryDirectory } from './process.mjs';
import { until } from './until.mjs';

export class Redis {
  static async start({ isClusterNode = false } = {}) {
    const redis = new Redis();
    redis.port = await freePort();
    // By default the port of the cluster bus is another one 10,000 higher, which need not be free.
    redis.busPort = isClusterNode ? await freePort() : undefined;
    redis.directory = temporaryDirectory('redis');
    await redis.restart();
    return redis;
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Starts the server, again on the same port when it was stopped before. */
  async restart() {
    const options = ['--save', '', '--appendonly', 'no', '--dir', this.directory, '--daemonize', 'no'];
    const listen = ['--port', String(this.port), '--bind', '127.0.0.1'];
    const cluster = this.busPort && ['--cluster-enabled', 'yes', '--cluster-port', String(this.busPort)];
    const args = [...listen, ...options, ...(cluster ?? [])];
    this.child = new Child('redis-server', 'redis-server', args);
    await this.child.until('answers PING', () => this.answers());
  }

  async answers() {
    try {
      return (await this.command('PING')) === 'PONG';
    } catch {
      return false;
    }
  }

  /** Runs one command on a connection of its own. */
  async command(...args) {
    const client = createClient({ url: this.url, socket: { reconnectStrategy: false } });
    client.on('error', () => {});
    await client.connect();
    try {
      return await client.sendCommand(args);
    } finally {
      client.destroy();
    }
  }

  /** How many connections are subscribed to a channel; `command` is NUMSUB or SHARDNUMSUB. */
  async count(command, channel) {
    const [, count] = await this.command('PUBSUB', command, channel);
    return count;
  }

  /** A connected node-redis client; the caller closes it. */
  async client() {
    const client = createClient({ url: this.url });
    client.on('error', () => {});
    await client.connect();
    return client;
  }

  pause() {
    this.child.signal('SIGSTOP');
  }

  resume() {
    this.child.signal('SIGCONT');
  }

  /** Stops the server. It has nothing to save, so it is ended the hard way, as a crash would. */
  async stop() {
    if (this.child.exit === undefined) {
      await this.child.stop('SIGKILL');
    }
    await until('the Redis port is closed', async () => !(await this.answers()));
  }
}
