// One cluster with every kind of server in it, and the modes in which there are clusters.

import { EventEmitter } from 'node:events';
import { ConsoleMember, EmitterMember, NodeMember, OxideMember } from './members.mjs';
import { STANDS_IN } from './node.mjs';
import { until } from './until.mjs';

/** Node's parser made of JSON, as the adapter's documentation shows it: binaries do not survive it. */
const JSON_PARSER = { encode: JSON.stringify, decode: (bytes) => JSON.parse(bytes) };

/**
 * By name: what a Node.js server (`sharded`, `specific`, `parser`) and a Carillon node (`carillon`, its
 * section `[cluster]`) are told, so that they are of one mode.
 */
export const MODES = {
  classic: { carillon: { adapter: 'redis' } },
  'classic with answers on the channel of who asks': {
    specific: true,
    carillon: { adapter: 'redis', specific_response_channel: true },
  },
  'classic with a JSON parser': {
    parser: JSON_PARSER,
    carillon: { adapter: 'redis', parser: 'json' },
  },
  'classic with subscriptions by interest': {
    carillon: { adapter: 'redis', subscribe: 'interest' },
  },
  'sharded static': {
    sharded: 'static',
    carillon: { adapter: 'redis-sharded', sharded_mode: 'static' },
  },
  'sharded dynamic': {
    sharded: 'dynamic',
    carillon: { adapter: 'redis-sharded', sharded_mode: 'dynamic' },
  },
  'sharded dynamic-private': {
    sharded: 'dynamic-private',
    carillon: { adapter: 'redis-sharded', sharded_mode: 'dynamic-private' },
  },
};

/** What ends a Node.js server that does not expect it; the servers of these tests are in this process. */
const CRASHES = ['uncaughtException', 'unhandledRejection'];

/** Counts what would have ended a Node.js server. */
export class CrashWatch {
  constructor() {
    this.crashes = [];
    this.listeners = CRASHES.map((event) => {
      const listener = (error) => this.crashes.push(`${event}: ${error?.stack ?? error}`);
      process.on(event, listener);
      return [event, listener];
    });
  }

  end() {
    this.listeners.forEach(([event, listener]) => process.off(event, listener));
    return this.crashes;
  }
}

let prefixes = 0;

/** A mode with a prefix of its own, so that clusters can share one Redis. */
export function modeOf(name) {
  prefixes += 1;
  return { name, ...MODES[name], prefix: `cluster-${prefixes}` };
}

/** The channel on which servers are counted. */
export function countedChannel(mode, nsp) {
  return mode.sharded ? `${mode.prefix}#${nsp}#` : `${mode.prefix}-request#${nsp}#`;
}

/** How many servers Redis counts in a namespace. */
export function countServers(redis, mode, nsp) {
  return redis.count(mode.sharded ? 'SHARDNUMSUB' : 'NUMSUB', countedChannel(mode, nsp));
}

export class Cluster {
  /**
   * Starts a Node.js server `n`, a socketioxide application `o`, two Carillon nodes `c` and `d`, and an
   * emitter `e` where there is one for the mode.
   */
  static async start({ redis, mode: name }) {
    // A connection of Node's Redis client has more listeners than Node believes reasonable.
    EventEmitter.defaultMaxListeners = 100;
    const cluster = new Cluster();
    const mode = modeOf(name);
    const kinds = STANDS_IN
      ? { n: NodeMember, c: NodeMember, d: NodeMember, o: NodeMember }
      : { n: NodeMember, c: ConsoleMember, d: ConsoleMember, o: OxideMember };
    Object.assign(cluster, { redis, mode });
    cluster.servers = [];
    try {
      for (const [name, Kind] of Object.entries(kinds)) {
        cluster[name] = await Kind.start({ name, redis, mode });
        cluster.servers.push(cluster[name]);
      }
      if (!mode.sharded) {
        cluster.e = await EmitterMember.start({ name: 'e', redis, mode });
      }
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  /** Waits until every server counts in a namespace. */
  async complete(nsp) {
    const n = this.servers.length;
    let count;
    await until(
      `${n} servers count in ${nsp}`,
      async () => {
        count = await countServers(this.redis, this.mode, nsp);
        return count === n;
      },
      { detail: () => `there are ${count}` },
    );
  }

  async stop() {
    await this.e?.stop();
    await Promise.all(this.servers.map((server) => server.stop()));
  }
}
