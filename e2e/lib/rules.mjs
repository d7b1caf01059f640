// The contract of `rules.toml` on a Node.js server, and that of the built-in demo.

const SOCKET_ID = /^[A-Za-z0-9_-]{20}$/;

function refusal(code, message) {
  return { error: { code, message } };
}

/** Answers events that no rule names the way a node does. */
function refuseOthers(socket, known) {
  socket.onAny((event, ...args) => {
    const ack = args.at(-1);
    if (!known.includes(event) && typeof ack === 'function') {
      ack(refusal('unknown_event', `no rule for the event ${event}`));
    }
  });
}

/** An event that may be sent with or without asking for an acknowledgement. */
function on(socket, event, handle) {
  socket.on(event, (...args) => {
    const ack = typeof args.at(-1) === 'function' ? args.pop() : () => {};
    const answer = handle(...args);
    ack(...(answer ?? []));
  });
}

function echo(socket) {
  on(socket, 'echo', (...args) => args);
}

function installMain(namespace) {
  // A question from another server of the cluster, not from a client.
  namespace.on('question', (ack) => ack('here'));
  namespace.on('connection', (socket) => {
    socket.emit('hello', socket.id, socket.handshake.auth);
    on(socket, 'to-all', (...args) => void namespace.emit('msg', ...args));
    on(socket, 'to-others', (...args) => void socket.broadcast.emit('msg', ...args));
    on(socket, 'to-sender', (...args) => void socket.emit('msg', ...args));
    on(socket, 'to-room', (room, value) => void namespace.to(room).emit('msg', value));
    on(socket, 'to-rooms', (a, b, value) => void namespace.to([a, b]).emit('msg', value));
    on(socket, 'to-id', (id, value) => void namespace.to(id).emit('msg', value));
    on(socket, 'except-room', (room, value) => void namespace.except(room).emit('msg', value));
    on(socket, 'volatile-all', (...args) => void namespace.volatile.emit('msg', ...args));
    echo(socket);
    on(socket, 'join', (room) => {
      if (SOCKET_ID.test(room)) {
        return [refusal('reserved_room', 'a room may not have the form of a socket id')];
      }
      socket.join(room);
      return ['ok'];
    });
    on(socket, 'leave', (room) => {
      if (SOCKET_ID.test(room)) {
        return [refusal('reserved_room', 'a room may not have the form of a socket id')];
      }
      socket.leave(room);
      return ['ok'];
    });
    refuseOthers(socket, socket.eventNames());
  });
}

function installLobby(namespace) {
  namespace.on('connection', (socket) => {
    socket.join('lobby');
    socket.broadcast.emit('came', socket.id);
    socket.on('disconnect', () => namespace.emit('went', socket.id));
    on(socket, 'to-lobby', (...args) => void namespace.to('lobby').emit('msg', ...args));
    echo(socket);
  });
}

function installTenants(namespaces) {
  namespaces.on('connection', (socket) => {
    on(socket, 'to-all', (...args) => void socket.nsp.emit('msg', ...args));
    echo(socket);
  });
}

export function installRules(io) {
  installMain(io.of('/'));
  installLobby(io.of('/lobby'));
  installTenants(io.of(/^\/tenant-.*$/));
}

/** The rules of `gateway/demo.toml`. */
export function installDemo(io) {
  io.on('connection', (socket) => {
    const { id } = socket;
    socket.emit('welcome', id);
    socket.broadcast.emit('joined', id, socket.handshake.auth.name);
    socket.on('disconnect', () => io.emit('left', id, socket.handshake.auth.name));
    on(socket, 'present', (to) => void io.to(to.id).emit('present', id, to.name));
    on(socket, 'chat message', (text, { name }) => {
      io.emit('chat message', text, { from: id, name });
    });
    on(socket, 'join room', (room) => {
      socket.join(room);
      return [room];
    });
    on(socket, 'leave room', (room) => {
      socket.leave(room);
      return [room];
    });
    on(socket, 'room message', ({ room, text, name }) => {
      if (!socket.rooms.has(room)) {
        return [refusal('not_member', `not a member of ${room}`)];
      }
      io.to(room).emit('room message', { room, from: id, name, text });
      return [];
    });
    on(socket, 'direct', ({ id: to, text, name }) => {
      io.to(to).emit('direct', { from: id, name, text });
      return [];
    });
  });
}
