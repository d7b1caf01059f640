// The program of one process of a fleet: connects its share of clients and tells on request what
// they have seen.

import { Client, TRANSPORTS } from './client.mjs';
import { until } from './until.mjs';

/** So many clients connect at the same time: a fleet shall arrive, not attack. */
const CONNECTING_MAX = 25;

const { url, size } = JSON.parse(process.argv[2]);
const transports = Object.keys(TRANSPORTS);
const clients = [];

function settled(client) {
  const final = TRANSPORTS[client.transport].at(-1);
  return client.socket.connected && client.engine.transport.name === final;
}

function reportOf(client) {
  return {
    transport: client.transport,
    settled: settled(client),
    connects: client.connects,
    disconnects: client.disconnects,
    errors: client.errors.map((error) => `${error.message} ${error.description ?? ''}`),
    messages: client.args().map(([message]) => message),
  };
}

process.on('message', (question) => {
  if (question === 'report') {
    process.send(clients.map(reportOf));
  } else {
    clients.forEach((client) => client.socket.disconnect());
    process.disconnect();
  }
});

for (let at = 0; at < size; at += 1) {
  const client = new Client(
    { name: 'fleet', url },
    {
      name: `member ${at}`,
      transport: transports[at % transports.length],
      reconnection: true,
      reconnectionDelay: 50,
      reconnectionDelayMax: 500,
      // The cookie jar of the client: without it a polling client is not sticky.
      withCredentials: true,
    },
  );
  clients.push(client);
  await until('there is room for another one', () => {
    return clients.filter((one) => !settled(one) && one.socket.active).length < CONNECTING_MAX;
  });
}
