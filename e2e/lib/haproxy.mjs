// A real HAProxy before several nodes, with a sticky cookie and soft stops as in
// `deploy/haproxy/haproxy.cfg`, and its counters.

import { writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { Child, freePort, temporaryDirectory } from './process.mjs';

function configuration({ port, statistics, nodes }) {
  const servers = nodes.map(
    (node) => `  server ${node.name} 127.0.0.1:${node.port} cookie ${node.name}`,
  );
  return `
global
  maxconn 8000
  stats socket ${statistics} mode 600
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  timeout tunnel 1h
  timeout http-keep-alive 10s
  option http-no-delay
  option redispatch
frontend public
  bind 127.0.0.1:${port}
  default_backend nodes
backend nodes
  balance leastconn
  option httpchk GET /readyz
  http-check expect status 200
  http-check disable-on-404
  cookie NODE insert indirect nocache httponly
  default-server check inter 200ms fall 5 rise 1
${servers.join('\n')}
`;
}

export class HaProxy {
  static async start({ nodes }) {
    const proxy = new HaProxy();
    proxy.name = 'haproxy';
    const directory = temporaryDirectory('haproxy');
    const port = await freePort();
    proxy.url = `http://127.0.0.1:${port}`;
    proxy.statistics = join(directory, 'statistics');
    const file = join(directory, 'haproxy.cfg');
    writeFileSync(file, configuration({ port, statistics: proxy.statistics, nodes }));
    proxy.child = new Child('haproxy', 'haproxy', ['-db', '-f', file]);
    await proxy.child.until('all nodes are up', async () => {
      const rows = await proxy.rows().catch(() => []);
      return rows.filter(({ status }) => status === 'UP').length > nodes.length;
    });
    return proxy;
  }

  /** HAProxy's own counters, one row for each frontend, server and backend. */
  async rows() {
    const text = await new Promise((resolve, reject) => {
      const socket = createConnection(this.statistics);
      let answer = '';
      socket.setEncoding('utf8').on('data', (part) => (answer += part));
      socket.on('end', () => resolve(answer));
      socket.on('error', reject);
      socket.end('show stat\n');
    });
    const [header, ...lines] = text.trim().split('\n');
    const names = header.replace('# ', '').split(',');
    return lines.map((line) => {
      const values = line.split(',');
      return Object.fromEntries(names.map((name, at) => [name, values[at]]));
    });
  }

  async row(name) {
    return (await this.rows()).find(({ svname }) => svname === name);
  }

  async stop() {
    await this.child.stop('SIGTERM');
  }
}
