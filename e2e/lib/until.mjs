// Waiting. Nothing in these tests sleeps for a fixed time: they wait for a condition, and the
// deadline is only the point at which a test stops hoping.

import { setTimeout as delay } from 'node:timers/promises';

/// What a wait may take when the test says nothing else: generous, because only a failing test uses it up.
export const DEADLINE = 15_000;

/**
 * Resolves with the first truthy value of `condition`, which may be asynchronous. Rejects after
 * `deadline` milliseconds, naming `what` was awaited and what `detail()` sees then.
 */
export async function until(what, condition, { deadline = DEADLINE, every = 3, detail } = {}) {
  const end = performance.now() + deadline;
  for (;;) {
    const value = await condition();
    if (value) {
      return value;
    }
    if (performance.now() > end) {
      const seen = detail ? `: ${detail()}` : '';
      throw new Error(`not within ${deadline} ms: ${what}${seen}`);
    }
    await delay(every);
  }
}

/** Bounds one promise that has no condition to poll. */
export async function within(what, promise, deadline = DEADLINE) {
  const abort = new AbortController();
  const late = delay(deadline, undefined, { signal: abort.signal }).then(() => {
    throw new Error(`not within ${deadline} ms: ${what}`);
  });
  late.catch(() => {});
  try {
    return await Promise.race([promise, late]);
  } finally {
    abort.abort();
  }
}
