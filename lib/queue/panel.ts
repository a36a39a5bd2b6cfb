import { show } from '../call/input';
import { refused } from '../call/options';
import type { IntelligentEmbeddingCache } from '../index';
import { sharedTable, type DashboardPanel, type PanelSource, type PanelTable } from '../monitor/panels';
import type { QueueDepth } from './channel';
import type { QueueWorker } from './registry';

/** How old what a page shows may be, in milliseconds. */
const FRESH_MS = 2000;

/** What is known of a queue at a moment. */
export interface QueueOverview {
  depth?: QueueDepth;
  workers: QueueWorker[];
}

/** Shows a queue on the page of a dashboard: how much there is to do, who does it, and the tier that vectors go through. */
export class QueuePanel implements PanelSource {
  readonly #name: string;
  readonly #look: () => Promise<QueueOverview>;
  readonly #cache: IntelligentEmbeddingCache;
  #known: QueueOverview = { workers: [] };
  #at = -Infinity;
  #looking = false;

  constructor(name: string, look: () => Promise<QueueOverview>, cache: IntelligentEmbeddingCache) {
    [this.#name, this.#look, this.#cache] = [name, look, cache];
  }

  /** What was known at the last look; the next one sees what is asked for now. */
  panel(): DashboardPanel {
    this.#refresh();
    const { depth, workers } = this.#known;
    const texts = workers.reduce((sum, worker) => sum + worker.texts, 0);
    const value = (count: number) => ({ value: count });
    return {
      title: `Queue ${this.#name}`,
      values: {
        ...(depth && { waiting: value(depth.waiting), active: value(depth.active), failed: value(depth.failed) }),
        workers: value(workers.length),
      },
      tables: [
        {
          title: `${workers.length} workers, ${texts} texts answered`,
          columns: ['Host', 'Process', 'Model', 'Chunks at a time', 'Running', 'Chunks', 'Failed', 'Texts', 'Computed', 'Up'],
          rows: workers.map((each) => [each.host, each.pid, each.model, each.concurrency, each.running, each.chunks, each.failed, each.texts, each.computed, `${Math.round(each.uptimeMs / 1000)} s`]),
        },
        this.#tier(),
      ],
    };
  }

  #tier(): PanelTable {
    const { shared, disk } = this.#cache.getPerformanceMetrics().stats;
    return sharedTable(shared ?? disk ?? {});
  }

  #refresh(): void {
    if (this.#looking || performance.now() - this.#at < FRESH_MS) return;
    this.#looking = true;
    void this.#look()
      .then((known) => (this.#known = known), () => {})
      .finally(() => {
        this.#looking = false;
        this.#at = performance.now();
      });
  }
}

/** A name that BullMQ takes: of a queue, or what keys begin with. */
export function nameOf(option: string, value: unknown): string {
  if (typeof value === 'string' && value !== '' && !value.includes(':')) return value;
  throw refused(option, `${show(value)} is not a name, of one character at least and without a colon`);
}
