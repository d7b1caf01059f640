// A Node.js Socket.IO server with the Redis adapter and the rules of these tests, in this process,
// so that a test can call `io.emit` and its relatives itself.

import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { Server } from 'socket.io';
import { installRules } from './rules.mjs';

export class NodeServer {
  static async start({ redis, options = {} }) {
    const server = new NodeServer();
    server.name = 'node-server';
    server.clients = [await redis.client(), await redis.client()];
    server.http = createServer();
    server.io = new Server(server.http, { ...options, adapter: createAdapter(...server.clients) });
    installRules(server.io);
    await new Promise((resolve) => server.http.listen(0, '127.0.0.1', resolve));
    server.url = `http://127.0.0.1:${server.http.address().port}`;
    return server;
  }

  async stop() {
    this.io.disconnectSockets(true);
    await new Promise((resolve) => this.io.close(resolve));
    await Promise.all(this.clients.map((client) => client.close()));
  }
}
