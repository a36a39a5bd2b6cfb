import type { PanelCell } from '../index';
import type { DashboardPanel, PanelSource } from '../monitor/panels';
import type { Selection } from './selection';

/** Runs that are shown. */
const NEWEST = 20;

/** Characters of a text that are shown. */
const SHOWN = 80;

const PARTS = ['CCI', 'EVB', 'CR', 'TS', 'ES', 'PD'] as const;

/** A run as it is shown: no more of it is kept. */
interface Run {
  title: string;
  cci: { value: number; low: number; high: number };
  candidates: PanelCell[][];
  summary: PanelCell[];
}

/** The latest runs of an engine, for the page of a dashboard. */
export class Runs implements PanelSource {
  readonly #model: string | undefined;
  #newest: Run[] = [];
  count = 0;

  constructor(model: string | undefined) {
    this.#model = model;
  }

  add(prompt: string | undefined, { index: won, metrics, admissible, all, debug }: Selection): void {
    const asked = prompt === undefined ? null : shown(prompt);
    const known = debug.cci.filter((cci) => cci !== null);
    this.count++;
    this.#newest.push({
      title: `Candidates of the latest run${asked === null ? '' : `: ${asked}`}`,
      cci: { value: metrics.CCI, low: Math.min(...known), high: Math.max(...known) },
      candidates: all.map(({ index, metrics: own, trajectory }) => [
        index,
        index === won ? '★' : own ? null : 'failed',
        ...PARTS.map((part) => own?.[part] ?? null),
        shown(own ? trajectory.candidate.response : (trajectory.error?.message ?? '')),
      ]),
      summary: [asked, debug.candidates, debug.failed, won, metrics.CCI, debug.margin, admissible ? 'yes' : 'no', `${Number(debug.durationMs.toPrecision(3))} ms`],
    });
    if (this.#newest.length > NEWEST) this.#newest.shift();
  }

  /** The winner's CCI over time, between those of all candidates; the candidates of the latest run; the latest runs. */
  panel(): DashboardPanel {
    const last = this.#newest.at(-1);
    return {
      title: this.#model === undefined ? 'Coherence' : `Coherence of ${this.#model}`,
      values: last ? { 'CCI of the winner': last.cci } : {},
      tables: [
        { title: last?.title ?? 'Candidates of the latest run', columns: ['Candidate', 'Won', ...PARTS, 'Answer'], rows: last?.candidates ?? [] },
        {
          title: `${this.count} runs`,
          columns: ['Prompt', 'Candidates', 'Failed', 'Won', 'CCI', 'Ahead by', 'Admissible', 'Time'],
          rows: this.#newest.map(({ summary }) => summary).reverse(),
        },
      ],
    };
  }
}

/** The beginning of a text; a copy, that keeps no long text alive. */
function shown(text: string): string {
  const line = text.slice(0, 4 * SHOWN).replace(/\s+/gu, ' ').trim();
  return Buffer.from(line.length > SHOWN ? `${line.slice(0, SHOWN - 1)}…` : line).toString();
}
