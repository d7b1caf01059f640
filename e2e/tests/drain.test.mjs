// A node goes away under 500 official clients, as in a rolling deployment: a real HAProxy in front,
// and nobody notices more than a reconnection.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Client } from '../lib/client.mjs';
import { Fleet } from '../lib/fleet.mjs';
import { HaProxy } from '../lib/haproxy.mjs';
import { Node } from '../lib/node.mjs';
import { Redis } from '../lib/redis.mjs';
import { until } from '../lib/until.mjs';

const CLIENTS = 500;
const PROCESSES = 3;
const DRAIN = { drain: { ready_delay: '2s', spread: '5s', deadline: '15s' } };

const servers = {};
let fleet;

before(async () => {
  servers.redis = await Redis.start();
  const { redis } = servers;
  [servers.leaving, servers.staying] = await Promise.all([
    Node.start({ name: 'leaving', redis, sections: DRAIN }),
    Node.start({ name: 'staying', redis }),
  ]);
  servers.proxy = await HaProxy.start({ nodes: [servers.leaving, servers.staying] });
});

after(async () => {
  await fleet?.stop();
  await servers.proxy?.stop();
  await Promise.all([servers.leaving, servers.staying].map((node) => node?.stop()));
  await servers.redis?.stop();
});

/** Demands that HAProxy never failed to reach a node and that no node answered 5xx. */
async function assertNothingRefused() {
  for (const row of await servers.proxy.rows()) {
    const { pxname, svname, econ, hrsp_5xx: failures, wretr, wredis } = row;
    const name = `${pxname} ${svname}: ${JSON.stringify({ econ, failures, wretr, wredis })}`;
    assert.equal(Number(econ), 0, `a connection was refused at ${name}`);
    assert.equal(Number(failures), 0, `a request failed at ${name}`);
    assert.equal(Number(wretr), 0, `a request had to be tried again at ${name}`);
  }
}

/** A message to everyone, sent by a client of `node`, reaches every client of the fleet once. */
async function assertAllReceive(node, message) {
  const sender = await new Client(node, { name: 'sender' }).connected();
  sender.emit('to-others', message);
  const members = await fleet.connected(`all receive ${message}`, (member) =>
    member.messages.includes(message),
  );
  for (const member of members) {
    assert.equal(member.messages.filter((one) => one === message).length, 1);
  }
  await sender.close();
}

test(`${CLIENTS} clients move to the other node while theirs drains`, async () => {
  const { leaving, staying, proxy } = servers;
  fleet = Fleet.start({ server: proxy, size: CLIENTS, processes: PROCESSES });
  await until('all clients exist', async () => (await fleet.report()).length === CLIENTS, {
    deadline: 60_000,
    every: 50,
  });
  const arrived = await fleet.connected('all are connected');
  assert.deepEqual(arrived.filter(({ errors }) => errors.length > 0), [], 'errors on arrival');
  await assertAllReceive(leaving, 'before');

  leaving.signal('SIGTERM');
  await leaving.child.until('unreadiness', async () => (await leaving.probe('/readyz')) === 404);
  await until('HAProxy sees it', async () => (await proxy.row('leaving')).status === 'NOLB');
  await leaving.drained();

  const members = await fleet.connected('all are connected again');
  await assertAllReceive(staying, 'after');
  const moved = members.filter(({ connects }) => connects > 1);
  assert.ok(moved.length > CLIENTS / 4, `only ${moved.length} clients were on the leaving node`);
  for (const member of members) {
    const what = JSON.stringify(member);
    assert.deepEqual(member.errors, [], `a failed attempt to connect: ${what}`);
    assert.equal(member.connects, member.disconnects.length + 1, what);
    assert.ok(member.disconnects.length <= 1, `moved more than once: ${what}`);
    for (const reason of member.disconnects) {
      assert.equal(reason, 'transport close', what);
    }
  }
  await assertNothingRefused();
});
