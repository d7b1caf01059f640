// The contract of ../../gateway.toml on Node.js: the settings a new project starts with.
import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';

const http = createServer();
const io = new Server(http, { serveClient: false });

// One node of a cluster where a Redis is named.
if (process.env.REDIS_URL) {
  const publisher = createClient({ url: process.env.REDIS_URL });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  io.adapter(createAdapter(publisher, subscriber));
}

io.on('connection', (socket) => {
  socket.on('join', (room, ack) => {
    socket.join(room);
    ack?.();
  });
  socket.on('leave', (room, ack) => {
    socket.leave(room);
    ack?.();
  });
  socket.on('bcast', ({ room, payload }) => {
    (room === undefined ? io : io.to(room)).emit('msg', payload);
  });
  socket.on('to', ({ id, payload }) => {
    io.to(id).emit('msg', payload);
  });
  socket.on('echo', (...args) => {
    const ack = args.pop();
    if (typeof ack === 'function') ack(...args);
  });
});

http.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
  const { address, port } = http.address();
  console.log(JSON.stringify({ event: 'listening', public: `${address}:${port}` }));
});
