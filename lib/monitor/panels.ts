// What others have to show on the page of a dashboard, beside what a monitor records.

/** A cell of a table: text, a number, or nothing. */
export type PanelCell = string | number | null;

/** A table of a {@link DashboardPanel}. Rows beyond the first 1000 are left out. */
export interface PanelTable {
  title: string;
  columns: string[];
  rows: PanelCell[][];
}

/** A part of a dashboard's page for something that a monitor does not record, as it is at one moment. */
export interface DashboardPanel {
  /** Its heading; two with the same one are one. */
  title: string;
  /** What its chart shows over time, by the name of the line: a value, and the bounds of its spread where there is one. */
  values: Record<string, { value: number; low?: number | undefined; high?: number | undefined }>;
  tables: PanelTable[];
}

/** How the server does that caches share, by name, as one of them tells it. */
export function sharedTable(told: object): PanelTable {
  const { latencyMs, ...figures } = told as Record<string, unknown>;
  const latencies = Object.entries(latencyMs ?? {}).map(([name, ms]): [string, unknown] => [`${name} of a round trip, ms`, ms]);
  const rows = [...Object.entries(figures), ...latencies].map(([name, value]): PanelCell[] => [name, typeof value === 'number' ? value : String(value)]);
  return { title: 'Shared tier, as this process sees it', columns: ['', 'Value'], rows };
}

/** Something that has a panel for as long as it lives. */
export interface PanelSource {
  panel(): DashboardPanel;
}

/** By monitor. Held weakly: to be shown keeps nothing alive. */
const sources = new WeakMap<object, Set<WeakRef<PanelSource>>>();

/** Shows a source on the page of every dashboard of `monitor`, until what this gives is called. */
export function showPanel(monitor: object, source: PanelSource): () => void {
  let all = sources.get(monitor);
  if (!all) sources.set(monitor, (all = new Set()));
  const entry = new WeakRef(source);
  all.add(entry);
  return () => void all.delete(entry);
}

/** The sources of `monitor` that are alive. */
export function panelSources(monitor: object): PanelSource[] {
  const alive: PanelSource[] = [];
  const all = sources.get(monitor);
  for (const entry of all ?? []) {
    const source = entry.deref();
    if (source) alive.push(source);
    else all!.delete(entry);
  }
  return alive;
}
