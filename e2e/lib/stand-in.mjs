// The program that takes the place of the `carillon` binary with E2E_NODE=node: a Node.js server
// which keeps the parts of the binary's contract that the tests rely on (flags, ready line,
// probes, drain).

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { createAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';
import msgpack from 'socket.io-msgpack-parser';
import { installDemo, installRules } from './rules.mjs';

const PAGES = new URL('../../gateway/src/pages/', import.meta.url);

const { values: flags } = parseArgs({
  options: { listen: { type: 'string' }, 'internal-listen': { type: 'string' } },
});
const settings = JSON.parse(process.env.STAND_IN_SETTINGS);

function milliseconds(duration) {
  const [, number, unit] = /^(\d+)(ms|s)$/.exec(duration);
  return Number(number) * (unit === 's' ? 1000 : 1);
}

function engineOptions({ engine = {}, socket = {} }) {
  const options = {};
  for (const [key, option] of [
    ['ping_interval', 'pingInterval'],
    ['ping_timeout', 'pingTimeout'],
    ['upgrade_timeout', 'upgradeTimeout'],
    ['connect_timeout', 'connectTimeout'],
  ]) {
    if (engine[key]) {
      options[option] = milliseconds(engine[key]);
    }
  }
  if (socket.parser === 'msgpack') {
    options.parser = msgpack;
  }
  return options;
}

async function adapterOptions() {
  if (!process.env.CARILLON_REDIS) {
    return {};
  }
  const clients = [0, 1].map(() =>
    createClient({ url: process.env.CARILLON_REDIS }).on('error', () => {}),
  );
  await Promise.all(clients.map((client) => client.connect()));
  return { adapter: createAdapter(...clients) };
}

function listen(server, address) {
  const { hostname, port } = new URL(`http://${address}`);
  return new Promise((resolve) => {
    server.listen(Number(port || 80), hostname, () => {
      resolve(`${hostname}:${server.address().port}`);
    });
  });
}

// A publish that is in flight when Redis goes is a rejection nobody handles in the Node.js adapter.
process.on('unhandledRejection', () => {});

let draining = false;
/** Answers probes, and `/` with the chat page of the demo. */
function answer(request, response) {
  response.statusCode = draining ? 404 : 200;
  if (request.url === '/') {
    const part = (name) => readFileSync(new URL(name, PAGES), 'utf8');
    response.setHeader('content-type', 'text/html');
    response.write(
      part('chat.html').replace(/\{\{(chat\.\w+)\}\}/g, (_placeholder, name) => part(name)),
    );
  }
  response.end();
}

const http = createServer(answer);
const internal = createServer(answer);
const io = new Server(http, { ...engineOptions(settings), ...(await adapterOptions()) });
(settings.demo ? installDemo : installRules)(io);
const listening = {
  timestamp: new Date().toISOString(),
  level: 'INFO',
  event: 'listening',
  public: await listen(http, flags.listen),
  internal: await listen(internal, flags['internal-listen']),
  message: 'listening',
};
console.log(JSON.stringify(listening));

process.once('SIGINT', () => process.exit(130));
process.once('SIGTERM', async () => {
  const { ready_delay, spread } = settings.drain;
  draining = true;
  await delay(milliseconds(ready_delay));
  const end = performance.now() + milliseconds(spread);
  while (io.engine.clientsCount > 0) {
    const [session] = Object.values(io.engine.clients);
    session.close();
    await delay(Math.max(0, (end - performance.now()) / (io.engine.clientsCount + 1)));
  }
  process.exit(0);
});
