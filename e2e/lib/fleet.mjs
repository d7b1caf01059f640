// Many official clients in processes of their own, so that they do not share a core with the test.

import { fileURLToPath } from 'node:url';
import { Child } from './process.mjs';
import { until, within } from './until.mjs';

const MEMBERS = fileURLToPath(new URL('./fleet-members.mjs', import.meta.url));

/** A `Child` that is asked over Node's own channel between processes. */
class Squad extends Child {
  constructor(name, plan) {
    const stdio = ['ignore', 'pipe', 'pipe', 'ipc'];
    super(name, process.execPath, [MEMBERS, JSON.stringify(plan)], { stdio });
    this.waiting = [];
    this.process.on('message', (report) => this.waiting.shift()?.(report));
  }

  ask(question) {
    const answer = new Promise((resolve) => this.waiting.push(resolve));
    this.process.send(question);
    return within(`${this.name} answers ${question}`, answer, 30_000);
  }
}

export class Fleet {
  /** Starts `size` clients of `server` in `processes` processes, with all transports in turn. */
  static start({ server, size, processes }) {
    const fleet = new Fleet();
    fleet.size = size;
    fleet.squads = Array.from({ length: processes }, (_, at) => {
      const share = Math.floor(size / processes) + (at < size % processes ? 1 : 0);
      return new Squad(`squad ${at}`, { url: server.url, size: share });
    });
    return fleet;
  }

  /** What all clients have seen; each one is a record of `fleet-members.mjs`. */
  async report() {
    const reports = await Promise.all(this.squads.map((squad) => squad.ask('report')));
    return reports.flat();
  }

  /** Waits until all clients are connected, over the transport they shall end on. */
  async connected(what, also = () => true) {
    let members = [];
    const detail = () => {
      const missing = members.filter((member) => !member.settled || !also(member));
      return `${missing.length} are not, for example ${JSON.stringify(missing.slice(0, 3))}`;
    };
    await until(
      what,
      async () => {
        members = await this.report();
        return members.every((member) => member.settled && also(member));
      },
      { deadline: 60_000, every: 50, detail },
    );
    return members;
  }

  async stop() {
    await Promise.all(
      this.squads.map(async (squad) => {
        if (squad.exit === undefined) {
          squad.process.send('end');
          await within(`${squad.name} ends`, squad.ended, 30_000);
        }
      }),
    );
  }
}
