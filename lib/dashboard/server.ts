import { join } from 'node:path';

import type { Given } from '../call/options';
import { PROMETHEUS_TYPE } from '../monitor/reports';
import { servePage } from '../server/page';
import type { PageServer, ServeOptions } from '../server/serve-options';

/** A page that is being served. `/metrics` (for Prometheus) and `/health` lie beside it. */
export interface DashboardServer extends PageServer {}

/** What a page shows. */
export interface Live {
  /** Everything, as JSON. */
  snapshot(): string;
  prometheus(): string;
  health(): object;
  /** Sends what is new (`point`) or everything anew (`snapshot`), as JSON, until the function that it gives is called. */
  subscribe(send: (event: 'point' | 'snapshot', json: string) => void): () => void;
}

export function serve(live: Live, options: Given<ServeOptions>, whenClosed: () => void): Promise<DashboardServer> {
  const page = {
    name: 'The dashboard',
    // See `dashboard/` and `scripts/page.mjs`.
    directory: join(__dirname, 'page'),
    files: ['index.html', 'page.css', 'page.js', 'uPlot.css', 'uPlot.js', 'icon.svg'],
    health: () => live.health(),
    texts: {
      '/metrics': { type: PROMETHEUS_TYPE, body: () => live.prometheus() },
      '/snapshot': { type: 'application/json', body: () => live.snapshot() },
    },
    // All that was before, at once: nothing can be missed between it and what follows.
    greeting: () => ({ event: 'snapshot', json: live.snapshot() }),
    subscribe: (send: (event: string, json: string) => void) => live.subscribe(send),
  };
  return servePage(page, options, whenClosed);
}
