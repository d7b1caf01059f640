// A Node.js server of the fault tests, with the rules of `chaos.toml`. Its variables: REDIS, and ADAPTER for the name of
// the gateway's mode it has to match.

import { createServer } from 'node:http';
import { createAdapter, createShardedAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';

const listen = process.argv[process.argv.indexOf('--listen') + 1];
const port = Number(listen.split(':').at(-1));

async function redisClient() {
  const client = createClient({
    url: process.env.REDIS,
    socket: { reconnectStrategy: () => 100, connectTimeout: 1000 },
    disableOfflineQueue: true,
  });
  client.on('error', () => {});
  await client.connect();
  return client;
}

// The adapter does not look at what becomes of its publishes.
process.on('unhandledRejection', (error) => console.error(`unhandled: ${error}`));

const [publisher, subscriber] = [await redisClient(), await redisClient()];
const adapter =
  process.env.ADAPTER === 'redis-sharded'
    ? createShardedAdapter(publisher, subscriber, { subscriptionMode: 'dynamic' })
    : createAdapter(publisher, subscriber);

const http = createServer();
const io = new Server(http, { adapter, pingInterval: 4000, pingTimeout: 8000 });

io.on('connection', (socket) => {
  io.to('watch').emit('came', socket.id);
  socket.on('disconnect', () => io.to('watch').emit('went', socket.id));
  socket.on('join', async (room, ack) => {
    await socket.join(room);
    ack();
  });
  socket.on('leave', async (room, ack) => {
    await socket.leave(room);
    ack();
  });
  socket.on('say', (room, text, ack) => {
    io.to(room).emit('msg', text);
    ack();
  });
  socket.on('say-two', (one, other, text, ack) => {
    io.to([one, other]).emit('msg', text);
    ack();
  });
  socket.on('say-all', (text, ack) => {
    io.emit('msg', text);
    ack();
  });
});

http.listen(port, '127.0.0.1', () => {
  const { address, port: bound } = http.address();
  console.log(JSON.stringify({ event: 'listening', public: `${address}:${bound}` }));
});
