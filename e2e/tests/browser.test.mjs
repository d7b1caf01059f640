// The chat page of the built-in demo in a real browser: two tabs on two nodes talk to each other. A
// screenshot stays in `artifacts/chat.png`.
//
// CHROMIUM names the browser when it is not /usr/bin/chromium.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { Node } from '../lib/node.mjs';
import { Redis } from '../lib/redis.mjs';
import { until } from '../lib/until.mjs';

const ARTIFACTS = fileURLToPath(new URL('../../artifacts/', import.meta.url));
const SANDBOX_FREE = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'];
const QUIET = ['--disable-background-networking', '--disable-component-update', '--no-first-run'];

const servers = {};
let browser;
const tabs = {};

/** One person: a browser profile of its own with one tab, whose complaints are kept. */
async function open(node) {
  const context = await browser.newContext({ viewport: { width: 1100, height: 720 } });
  const page = await context.newPage();
  const tab = { page, complaints: [], origins: new Set(), origin: node.url };
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) {
      tab.complaints.push(message.text());
    }
  });
  page.on('pageerror', (error) => tab.complaints.push(String(error)));
  page.on('request', (request) => tab.origins.add(new URL(request.url()).origin));
  tab.at = (id) => page.getByTestId(id);
  tab.shows = async (id, text) => {
    let seen;
    await until(
      `${id} shows ${text}`,
      async () => {
        seen = await tab.at(id).innerText();
        return seen.includes(text);
      },
      { every: 20, detail: () => seen },
    );
  };
  tab.says = async (text) => {
    await tab.at('message-input').fill(text);
    await tab.at('send').click();
  };
  await page.goto(`${node.url}/`);
  return tab;
}

before(async () => {
  servers.redis = await Redis.start();
  const { redis } = servers;
  [servers.a, servers.b] = await Promise.all([
    Node.start({ name: 'a', redis, demo: true }),
    Node.start({ name: 'b', redis, demo: true }),
  ]);
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [...SANDBOX_FREE, ...QUIET],
  });
});

after(async () => {
  await browser?.close();
  await Promise.all([servers.a, servers.b].map((node) => node?.interrupt()));
  await servers.redis?.stop();
});

describe('the chat page in two tabs on two nodes', () => {
  test('connects and upgrades to WebSocket', async () => {
    tabs.ada = await open(servers.a);
    tabs.grace = await open(servers.b);
    for (const [name, tab] of [
      ['Ada', tabs.ada],
      ['Grace', tabs.grace],
    ]) {
      await tab.shows('status', 'connected');
      await tab.shows('transport', 'websocket');
      await tab.at('name').fill(name);
      await tab.at('name').press('Enter');
    }
  });

  test('shows who is there', async () => {
    await tabs.ada.shows('peers', 'Grace');
    await tabs.grace.shows('peers', 'Ada');
  });

  test('carries messages to everyone', async () => {
    await tabs.ada.says('Hello from node a');
    await tabs.grace.shows('messages', 'Hello from node a');
    await tabs.ada.shows('messages', 'Hello from node a');
    await tabs.grace.says('Hello back from node b, grüße');
    await tabs.ada.shows('messages', 'Hello back from node b, grüße');
    assert.equal(await tabs.ada.at('messages').getByText('Hello back').count(), 1);
    assert.equal(await tabs.grace.at('messages').getByText('Hello from').count(), 1);
    mkdirSync(ARTIFACTS, { recursive: true });
    await tabs.ada.page.screenshot({ path: `${ARTIFACTS}chat.png` });
  });

  test('carries messages to a room', async () => {
    for (const tab of [tabs.ada, tabs.grace]) {
      await tab.at('room-input').fill('lounge');
      await tab.at('join-room').click();
      await tab.shows('messages', 'You joined #lounge');
    }
    await tabs.grace.says('Only for the lounge');
    await tabs.ada.shows('messages', 'Only for the lounge');
  });

  test('carries messages to one socket', async () => {
    await tabs.ada.at('peers').getByRole('button', { name: 'Grace' }).click();
    await tabs.ada.says('Between the two of us');
    await tabs.grace.page.getByRole('tab', { name: '@Ada' }).click();
    await tabs.grace.shows('messages', 'Between the two of us');
  });

  test('sees the other one leave', async () => {
    await tabs.ada.page.close();
    await until('Grace is alone', async () => (await tabs.grace.at('peers').innerText()) === '');
  });

  test('comes back after its node was away', async () => {
    const { b } = servers;
    await b.kill();
    await tabs.grace.shows('status', 'reconnecting');
    await b.restart();
    await tabs.grace.shows('status', 'connected');
    await tabs.grace.says('Here again');
    await tabs.grace.shows('messages', 'Here again');
    // While the node was away the browser reported each attempt to reach it.
    const { complaints } = tabs.grace;
    tabs.grace.complaints = complaints.filter((text) => !/ERR_CONNECTION|WebSocket/.test(text));
  });

  test('has nothing to complain about and asks nobody else', () => {
    for (const tab of Object.values(tabs)) {
      assert.deepEqual(tab.complaints, []);
      assert.deepEqual([...tab.origins], [tab.origin]);
    }
  });
});
