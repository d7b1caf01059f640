// A cluster of servers over a Redis Cluster of three masters, where channels live on different masters:
// the sharded protocol with the official Redis client for clusters.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Cluster, CrashWatch } from '../lib/cluster.mjs';
import { Company } from '../lib/company.mjs';
import { OPERATIONS } from '../lib/operations.mjs';
import { RedisCluster } from '../lib/redis-cluster.mjs';

/** Rooms whose channels belong to different masters, with a tag of Redis Cluster among them. */
const ROOMS = { red: 'red', blue: '{tagged}blue', green: 'green }{', empty: 'empty{}' };

let redis;
let watch;

before(async () => {
  watch = new CrashWatch();
  redis = await RedisCluster.start();
});

after(async () => {
  await redis?.stop();
  assert.deepEqual(watch.end(), [], 'what would have ended a Node.js server');
});

for (const mode of ['sharded static', 'sharded dynamic', 'sharded dynamic-private']) {
  describe(mode, () => {
    let cluster;

    before(async () => {
      cluster = await Cluster.start({ redis, mode });
    });

    after(() => cluster?.stop());

    test('each operation has the same result, whoever asks', async (t) => {
      const { n, c, o } = cluster;
      const company = await Company.open({
        servers: cluster.servers,
        rooms: ROOMS,
        isOrdered: false,
      });
      await cluster.complete(company.nsp);
      for (const origin of [n, c, o]) {
        await company.warm(origin);
      }
      const possible = Object.entries(OPERATIONS).filter(([, { only }]) => only !== 'classic');
      for (const [name, operation] of possible) {
        let reference;
        for (const origin of [n, c, o]) {
          await t.test(`${name}, by ${origin.name}`, async () => {
            const seen = await operation.run(origin, company);
            if (operation.model) {
              assert.deepEqual(seen, operation.model(company));
            }
            operation.check?.(company, seen);
            reference ??= seen;
            assert.deepEqual(seen, reference, 'as when a Node.js server does it');
          });
        }
      }
      company.checkConnected();
      await company.close();
    });
  });
}
