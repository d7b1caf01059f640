// An emitter of the fault tests. It is told over a TCP connection what to emit, one JSON object per line, and answers
// each line when Redis has taken the message or has not.

import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { Emitter } from '@socket.io/redis-emitter';
import { createClient, createCluster } from 'redis';

const [url, port] = process.argv.slice(2);

// What cannot be sent now is lost, as it is for the nodes: a message that waits in a queue is one that is late.
const socket = { reconnectStrategy: () => 100, connectTimeout: 1000 };
const options = { socket, disableOfflineQueue: true };
const client = url.includes(',')
  ? createCluster({ rootNodes: url.split(',').map((one) => ({ url: one })), defaults: options })
  : createClient({ url, ...options });
client.on('error', () => {});

let publishing;
const emitter = new Emitter({
  publish: (channel, message) => {
    publishing = client.publish(channel, message);
  },
});

await client.connect();

const control = connect(Number(port), '127.0.0.1');
control.setNoDelay(true);
// The harness ends, so does this process.
control.on('close', () => process.exit(0));
control.on('error', () => process.exit(0));

createInterface({ input: control }).on('line', (line) => {
  const { id, rooms, text } = JSON.parse(line);
  const answer = (ok) => control.write(`${JSON.stringify({ id, ok })}\n`);
  publishing = undefined;
  emitter.to(rooms).emit('msg', text);
  Promise.resolve(publishing).then(
    () => answer(true),
    () => answer(false),
  );
});
