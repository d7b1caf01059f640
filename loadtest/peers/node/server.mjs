// The contract of ../../gateway.toml on Node.js: one process, the settings a new project starts with.
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const http = createServer();
const io = new Server(http, { serveClient: false });

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
