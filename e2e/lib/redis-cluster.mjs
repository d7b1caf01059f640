// A real Redis Cluster of three masters on free ports.

import { Redis } from './redis.mjs';
import { until } from './until.mjs';

const SLOTS = 16384;

export class RedisCluster {
  static async start() {
    const cluster = new RedisCluster();
    cluster.masters = [];
    for (let at = 0; at < 3; at += 1) {
      cluster.masters.push(await Redis.start({ isClusterNode: true }));
    }
    const [first, ...others] = cluster.masters;
    const share = Math.ceil(SLOTS / cluster.masters.length);
    for (const [at, master] of cluster.masters.entries()) {
      const last = Math.min((at + 1) * share, SLOTS) - 1;
      await master.command('CLUSTER', 'ADDSLOTSRANGE', String(at * share), String(last));
      await master.command('CLUSTER', 'SET-CONFIG-EPOCH', String(at + 1));
    }
    for (const { port, busPort } of others) {
      await first.command('CLUSTER', 'MEET', '127.0.0.1', String(port), String(busPort));
    }
    await until('all masters know all slots', async () => {
      const states = cluster.masters.map((master) => master.command('CLUSTER', 'INFO'));
      const isWhole = (state) =>
        /cluster_state:ok/.test(state) && /cluster_known_nodes:3/.test(state) && /cluster_size:3/.test(state);
      return (await Promise.all(states)).every(isWhole);
    });
    return cluster;
  }

  /** The sum of what all masters say. */
  async count(command, channel) {
    const answers = this.masters.map((master) => master.command('PUBSUB', command, channel));
    return (await Promise.all(answers)).reduce((sum, [, count]) => sum + count, 0);
  }

  async stop() {
    await Promise.all(this.masters.map((master) => master.stop()));
  }
}
