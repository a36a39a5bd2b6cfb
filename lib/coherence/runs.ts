import type { DashboardPanel, PanelSource } from '../monitor/panels';
import type { Selection } from './selection';

/** Runs that are shown. */
const NEWEST = 20;

/** Characters of a text that are shown. */
const SHOWN = 80;

const PARTS = ['CCI', 'EVB', 'CR', 'TS', 'ES', 'PD'] as const;

interface Run {
  prompt: string | undefined;
  selection: Selection;
}

/** The latest runs of an engine, for the page of a dashboard. */
export class Runs implements PanelSource {
  readonly #model: string | undefined;
  #newest: Run[] = [];
  count = 0;

  constructor(model: string | undefined) {
    this.#model = model;
  }

  add(prompt: string | undefined, selection: Selection): void {
    this.count++;
    this.#newest.push({ prompt, selection });
    if (this.#newest.length > NEWEST) this.#newest.shift();
  }

  /** The winner's CCI over time, between those of all candidates; the candidates of the latest run; the latest runs. */
  panel(): DashboardPanel {
    const last = this.#newest.at(-1);
    const known = last?.selection.debug.cci.filter((cci) => cci !== null) ?? [];
    return {
      title: this.#model === undefined ? 'Coherence' : `Coherence of ${this.#model}`,
      values: last ? { 'CCI of the winner': { value: last.selection.metrics.CCI, low: Math.min(...known), high: Math.max(...known) } } : {},
      tables: [
        {
          title: last?.prompt === undefined ? 'Candidates of the latest run' : `Candidates of the latest run: ${shown(last.prompt)}`,
          columns: ['Candidate', 'Won', ...PARTS, 'Answer'],
          rows: (last?.selection.all ?? []).map(({ index, metrics, trajectory }) => [
            index,
            index === last!.selection.index ? '★' : metrics ? null : 'failed',
            ...PARTS.map((part) => metrics?.[part] ?? null),
            shown(metrics ? trajectory.candidate.response : (trajectory.error?.message ?? '')),
          ]),
        },
        {
          title: `${this.count} runs`,
          columns: ['Prompt', 'Candidates', 'Failed', 'Won', 'CCI', 'Ahead by', 'Admissible', 'Time'],
          rows: [...this.#newest].reverse().map(({ prompt, selection: { index, metrics, admissible, debug } }) => [
            prompt === undefined ? null : shown(prompt),
            debug.candidates,
            debug.failed,
            index,
            metrics.CCI,
            debug.margin,
            admissible ? 'yes' : 'no',
            `${Number(debug.durationMs.toPrecision(3))} ms`,
          ]),
        },
      ],
    };
  }
}

function shown(text: string): string {
  const line = text.slice(0, 4 * SHOWN).replace(/\s+/gu, ' ').trim();
  return line.length > SHOWN ? `${line.slice(0, SHOWN - 1)}…` : line;
}
