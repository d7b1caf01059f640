// What `fetchSockets()` costs in a cluster of three servers with many sockets, for Carillon nodes and for
// Node.js servers: the time until the whole description of all sockets is there as JSON, and by how much
// the memory of the asking and of an answering server grows meanwhile.
//
//   node fetch-numbers.mjs [sockets] [rounds]        10000 and 5 by default
//
// The clients are bare WebSockets in this process, a third of them on each server.

import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';
import { countServers, modeOf } from './lib/cluster.mjs';
import { ConsoleMember, NodeMember, ProcessMember } from './lib/members.mjs';
import { Redis } from './lib/redis.mjs';
import { until } from './lib/until.mjs';

/** How many clients connect at the same time. */
const CONNECTING_MAX = 100;

/** A Node.js server in a process of its own, driven by the lines that drive a Carillon node. */
class NodeProcessMember extends ProcessMember {
  static async start({ name, redis, mode }) {
    const member = new NodeProcessMember(name);
    const plan = JSON.stringify({ name, port: redis.port, prefix: mode.prefix });
    await member.run(process.execPath, [fileURLToPath(import.meta.url), 'serve', plan], {});
    return member;
  }
}

async function serve({ name, port, prefix }) {
  const redis = Object.assign(new Redis(), { port });
  const server = await NodeMember.start({ name, redis, mode: { prefix } });
  const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
  say({ event: 'ready', port: server.http.address().port });
  for await (const line of createInterface({ input: process.stdin })) {
    const { id } = JSON.parse(line);
    say({ id, result: await server.fetchSockets({}) });
  }
  await server.stop();
}

function connect(server) {
  return new Promise((resolve, reject) => {
    const url = `${server.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`;
    const client = new WebSocket(url, { perMessageDeflate: false });
    client.on('error', reject);
    client.on('message', (data) => {
      const text = data.toString();
      if (text.startsWith('0')) {
        client.send('40');
      } else if (text === '2') {
        client.send('3');
      } else if (text.startsWith('40')) {
        resolve(client);
      }
    });
  });
}

async function connectMany(servers, n) {
  const clients = [];
  let started = 0;
  const worker = async () => {
    while (started < n) {
      started += 1;
      clients.push(await connect(servers[started % servers.length]));
    }
  };
  await Promise.all(Array.from({ length: CONNECTING_MAX }, worker));
  return clients;
}

/** A figure of `/proc/PID/status` in MB. */
function memory(server, figure) {
  const status = readFileSync(`/proc/${server.child.process.pid}/status`, 'utf8');
  return Number(new RegExp(`${figure}:\\s+(\\d+)`).exec(status)[1]) / 1024;
}

function median(values) {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

async function measure(Member, redis, n, rounds) {
  const mode = modeOf('classic');
  const servers = [];
  for (const name of ['a', 'b', 'c']) {
    servers.push(await Member.start({ name, redis, mode }));
  }
  await until('all count', async () => (await countServers(redis, mode, '/')) === servers.length);
  const clients = await connectMany(servers, n);
  const [asking, answering] = servers;
  const before = [asking, answering].map((server) => {
    // The peak from now on, not that of the connecting.
    writeFileSync(`/proc/${server.child.process.pid}/clear_refs`, '5');
    return memory(server, 'VmRSS');
  });
  const times = [];
  for (let round = 0; round < rounds; round += 1) {
    const start = performance.now();
    const sockets = await asking.fetchSockets({});
    times.push(performance.now() - start);
    if (sockets.length !== n) {
      throw new Error(`${sockets.length} sockets instead of ${n}`);
    }
  }
  const growth = [asking, answering].map((server, at) => memory(server, 'VmHWM') - before[at]);
  clients.forEach((client) => client.terminate());
  await Promise.all(servers.map((server) => server.stop()));
  return { ms: median(times), before, growth };
}

if (process.argv[2] === 'serve') {
  await serve(JSON.parse(process.argv[3]));
} else {
  const [n, rounds] = [Number(process.argv[2] ?? 10_000), Number(process.argv[3] ?? 5)];
  const redis = await Redis.start();
  console.log(`fetchSockets of ${n} sockets on three servers, median of ${rounds}`);
  console.log('| servers | time | asking: memory before, growth | answering: memory before, growth |');
  console.log('|---|---|---|---|');
  for (const [name, Member] of [['Carillon', ConsoleMember], ['Node.js', NodeProcessMember]]) {
    const { ms, before, growth } = await measure(Member, redis, n, rounds);
    const cells = before.map((mb, at) => `${mb.toFixed(0)} MB, +${growth[at].toFixed(0)} MB`);
    console.log(`| ${name} | ${ms.toFixed(0)} ms | ${cells.join(' | ')} |`);
  }
  await redis.stop();
}
