// A TCP proxy that can swallow what passes through the connections it has, as a network does that
// has lost the way: no end of connection is signalled, and new connections work.

import { connect, createServer } from 'node:net';

export class BlackHoleProxy {
  static async start({ port }) {
    const proxy = new BlackHoleProxy();
    proxy.pairs = new Set();
    proxy.server = createServer((near) => proxy.join(near, connect(port, '127.0.0.1')));
    await new Promise((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
    proxy.url = `redis://127.0.0.1:${proxy.server.address().port}`;
    return proxy;
  }

  join(near, far) {
    const pair = { near, far, swallowed: false };
    this.pairs.add(pair);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ]) {
      from.setNoDelay(true);
      from.on('data', (bytes) => {
        if (!pair.swallowed) {
          to.write(bytes);
        }
      });
      from.on('error', () => {});
      from.on('close', () => {
        if (!pair.swallowed) {
          to.destroy();
        }
      });
    }
  }

  /** From now on nothing passes through the connections that exist. */
  swallow() {
    for (const pair of this.pairs) {
      pair.swallowed = true;
    }
  }

  async stop() {
    for (const { near, far } of this.pairs) {
      near.destroy();
      far.destroy();
    }
    await new Promise((resolve) => this.server.close(resolve));
  }
}
