// Everything servers can do to the sockets of a whole cluster, asked of every kind of server and in
// every mode of a cluster: the same result whoever asks. What happens when a Node.js server asks is the
// reference; where the protocol says what it must be, the reference is checked as well.
//
// The tests are generated from lists: modes (lib/cluster.mjs) x places x operations (lib/operations.mjs)
// x origins. CANNOT lists what is left out, and why.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Cluster, CrashWatch, MODES } from '../lib/cluster.mjs';
import { Company } from '../lib/company.mjs';
import { OPERATIONS, WITH_NAMES, carries } from '../lib/operations.mjs';
import { PAYLOADS } from '../lib/payloads.mjs';
import { Redis } from '../lib/redis.mjs';

const MEGABYTE = 1024 * 1024;

const CARGO = {
  ...PAYLOADS,
  'a text of over 1 MB': ['ü'.repeat(MEGABYTE)],
  'a binary of over 1 MB': [Buffer.alloc(MEGABYTE + 7, 'carillon ')],
};

const EVERYTHING = {
  ...OPERATIONS,
  ...Object.fromEntries(
    Object.entries(CARGO).map(([name, args]) => [`emit of ${name}`, carries(args)]),
  ),
};

const NAMED = Object.fromEntries(WITH_NAMES.map((name) => [name, OPERATIONS[name]]));

/** Where it happens: names that mean something to Redis, to URLs or to the protocol. */
const PLACES = {
  'plain names': { nsp: '/', operations: EVERYTHING },
  'names in Unicode': {
    nsp: '/tenant-zürich-漢字🎉',
    rooms: { red: 'röt 🔴', blue: '\u{10ffff}蓝', empty: 'leer ∅', green: 'grün "\\ \u2028' },
    operations: NAMED,
  },
  // No # in the name of the namespace: Carillon takes none in names that clients choose.
  'names with # and patterns': {
    nsp: '/tenant-a?*^',
    rooms: { red: '#', blue: 'a#*', empty: '[ab]', green: '*?\\#' },
    operations: NAMED,
  },
  // As many UTF-16 units as a socket id has, which Node takes for one.
  'rooms as long as a socket id': {
    nsp: '/tenant-long',
    rooms: {
      red: '🔴'.repeat(10),
      blue: '🔵'.repeat(10),
      empty: 'e'.repeat(20),
      green: '🟢'.repeat(10),
    },
    operations: NAMED,
  },
};

const ORIGINS = {
  n: 'a Node.js server',
  c: 'a Carillon node',
  o: 'a socketioxide application',
  e: 'the emitter',
};

/** What there cannot be. */
const CANNOT = [
  {
    why: 'nobody could answer an emitter',
    applies: ({ origin, operation }) => origin === 'e' && operation.asks,
  },
  {
    why: 'there is no emitter for the sharded protocol',
    applies: ({ origin, mode }) => origin === 'e' && MODES[mode].sharded,
  },
  {
    why: 'the sharded protocol has no request for all rooms',
    applies: ({ mode, operation }) => operation.only === 'classic' && MODES[mode].sharded,
  },
  {
    why: 'binaries do not survive a JSON parser',
    applies: ({ mode, operation }) => operation.carriesBinary && MODES[mode].parser,
  },
];

function isPossible(combination) {
  return !CANNOT.some(({ applies }) => applies(combination));
}

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

for (const mode of Object.keys(MODES)) {
  describe(mode, () => {
    let cluster;

    before(async () => {
      cluster = await Cluster.start({ redis, mode });
    });

    after(() => cluster?.stop());

    for (const [place, { operations, ...where }] of Object.entries(PLACES)) {
      test(place, async (t) => {
        const company = await Company.open({ servers: cluster.servers, ...where });
        try {
          await cluster.complete(company.nsp);
          const origins = Object.keys(ORIGINS).filter((origin) => origin !== 'e' || !cluster.mode.sharded);
          for (const origin of origins) {
            await company.warm(cluster[origin]);
          }
          for (const [name, operation] of Object.entries(operations)) {
            await everywhere(t, { mode, origins, cluster, company, name, operation });
          }
          company.checkConnected();
        } finally {
          await company.close();
        }
      });
    }
  });
}

/** The same operation of each origin: one result. */
async function everywhere(t, { mode, origins, cluster, company, name, operation }) {
  let reference;
  for (const origin of origins.filter((origin) => isPossible({ mode, origin, operation }))) {
    await t.test(`${name}, by ${ORIGINS[origin]}`, async () => {
      const seen = await operation.run(cluster[origin], company);
      if (operation.model) {
        assert.deepEqual(seen, operation.model(company));
      }
      operation.check?.(company, seen);
      reference ??= seen;
      assert.deepEqual(seen, reference, 'as when a Node.js server does it');
    });
  }
}
