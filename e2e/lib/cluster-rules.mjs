// What every server of the cluster tests does with the events of its clients and of other servers, as
// rules of a Carillon node and as code of a Node.js server.

/** One line of TOML for each thing a server does in a namespace. */
function rulesOf(path, name) {
  return `
[[namespace]]
path = "${path}"
auth = "none"

[[namespace.on]]
event = "join"
join = "$0"
allow = ["*"]
ack = ["ok"]

[[namespace.on]]
event = "leave"
leave = "$0"
ack = ["ok"]

[[namespace.on_server]]
event = "who"
ack = ["${name}"]

[[namespace.on_server]]
event = "echo"
ack = ["$0"]

[[namespace.on_server]]
event = "tell everyone"
emit = { event = "told", to = "everyone", args = "$*" }

[[namespace.on_server]]
event = "tell red"
emit = { event = "told", to = { rooms = ["red"] }, args = ["$0"] }
`;
}

/** The rules of the node `name`. */
export function clusterRules(name) {
  return rulesOf('/', name) + rulesOf('/tenant-*', name);
}

/** Installs the same on a Node.js server; `took(nsp, args)` hears of each event of another server. */
export function installClusterRules(io, name, took) {
  const answers = {
    news: () => undefined,
    who: () => name,
    echo: (first) => first,
  };
  const installServer = (namespace) => {
    for (const [event, answer] of Object.entries(answers)) {
      namespace.on(event, (...args) => {
        const ack = typeof args.at(-1) === 'function' ? args.pop() : () => {};
        took(namespace.name, [event, ...args]);
        if (event !== 'news') {
          ack(answer(...args));
        }
      });
    }
  };
  const installClients = (namespace) => {
    namespace.on('connection', (socket) => {
      socket.on('join', (room, ack) => {
        socket.join(room);
        ack('ok');
      });
      socket.on('leave', (room, ack) => {
        socket.leave(room);
        ack('ok');
      });
    });
  };
  io.on('new_namespace', installServer);
  installServer(io.of('/'));
  installClients(io.of('/'));
  installClients(io.of(/^\/tenant-.*$/));
}
