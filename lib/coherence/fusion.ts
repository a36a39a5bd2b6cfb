import { invalid, isArray, readGiven, show } from '../call/input';
import { optionReader, record, refused, type Given } from '../call/options';
import { canonicalJson, faithfulJson } from '../results/canonical-json';
import { gestaltRatio } from './gestalt';

/** Anything that JSON can hold. */
export type Json = string | number | boolean | null | Json[] | { [name: string]: Json };

/** What a planner answers: an object of sections, of any shape. */
export type Plan = { readonly [section: string]: unknown };

/**
 * How much planners count: a number for each; for each, a number by modality; or numbers by modality, the same for all, as
 * `PromptAnalyzer` gives them.
 */
export type PlannerWeights = readonly (number | Readonly<Record<string, number>>)[] | Readonly<Record<string, number>>;

/** Options of {@link ContentFusionAgent}, and of its calls. */
export interface FusionOptions {
  /**
   * The modality of each section, by its name or path (`'scene'`, `'scene.mood'`): what lies below a section belongs to it, too.
   * A section that is not named belongs to the modality that is the most important one. Default: that of plans with `scene`,
   * `semantics`, `style`, `image`, `audio` and `text`.
   */
  schema?: Readonly<Record<string, string>> | undefined;
  /** The weight from which an entry of a list is kept: that of all planners that name it. Default: half of the weight of all. */
  keepThreshold?: number | undefined;
}

/** Where plans agree, and where they do not. */
export interface FusionReport {
  /**
   * How much the planners agree, 0–1: the mean over all lists and texts, each by the weight of its modality. Of very many different
   * ones in a section (more than 71 texts, 1000 lists), a sample of the pairs stands for all.
   */
  agreementScore: number;
  /** The same by section, each by its path (`scene.mood`; of a name with a point, `scene["a.b"]`); of a section that holds others, their mean. */
  perSectionAgreement: Record<string, number>;
  /** What each planner says, in their order, where they disagree: below 0.5 for lists and other values, 0.55 for texts. `null`: nothing. */
  conflicts: Record<string, (Json | null)[]>;
  /** The same in words. */
  notes: string;
  /** How much the merged plan is to be relied on, 0–1: the agreement, and 1 for a single plan. */
  confidence: number;
}

/** Plans, merged. */
export interface Fusion<P = { [section: string]: Json }> {
  merged: P;
  report: FusionReport;
}

const readOptions = optionReader<FusionOptions>({ schema: record, keepThreshold: true });

/** Sections of plans for a text, an image and a sound of one scene. */
const SCHEMA: Readonly<Record<string, string>> = {
  scene: 'text', scene_summary: 'text', sceneSummary: 'text', semantics: 'text', semantic_constraints: 'text', text: 'text', narrative: 'text', narrative_tone: 'text',
  primary_entities: 'text', secondary_entities: 'text', entities: 'text', core_semantics: 'text',
  style: 'image', style_controls: 'image', image: 'image', visual: 'image', visual_attributes: 'image', mood: 'image', mood_emotion: 'image',
  audio: 'audio', audio_intent: 'audio', sound: 'audio', music: 'audio',
};

/** Below these, planners disagree. */
const LISTS_AGREE = 0.5;
const TEXTS_AGREE = 0.55;

/** Most pairs of different lists, and of different texts, that are compared. */
const MOST_LISTS = 500_000;
const MOST_TEXTS = 2500;

type Kind = 'list' | 'object' | 'text' | 'value';

/** Merges any number of JSON plans, and says where they disagree. */
export class ContentFusionAgent {
  readonly #options: Given<FusionOptions>;

  /** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
  constructor(options: FusionOptions = {}) {
    this.#options = checked(readOptions(options));
  }

  /**
   * Merges plans. Of lists, entries are kept that planners of enough weight name, in the order in which they are named first;
   * texts that differ in case or in space around them are one entry. Texts and other values are those of the planner with the
   * highest weight for the section's modality, of equal ones the first. Objects are merged section by section.
   *
   * @param weights Default: 1 for each.
   * @param priority Modalities, the most important one first, or what has them as `order`.
   * @throws `EmbeddingError` `INVALID_ARGUMENT` for no plans, and for what is none; `INVALID_CONFIG` naming the option.
   */
  fuse<P extends object = { [section: string]: Json }>(
    plans: readonly P[], weights: PlannerWeights = {}, priority: readonly string[] | { readonly order: readonly string[] } = [], options: FusionOptions = {},
  ): Fusion<P> {
    const { schema = SCHEMA, keepThreshold } = { ...this.#options, ...checked(readOptions(options)) };
    const all = plansOf(plans);
    const order = orderOf(priority);
    const { weigh, scale } = weightsOf(weights, all.length);
    const merging = new Merging(all, weigh, schema as Record<string, string>, order, keepThreshold === undefined ? undefined : keepThreshold * scale);
    return { merged: merging.merged as P, report: merging.report() };
  }
}

function checked(options: Given<FusionOptions>): Given<FusionOptions> {
  const { schema = {}, keepThreshold = 0 } = options;
  for (const [section, modality] of Object.entries(schema)) if (typeof modality !== 'string' || modality === '') throw refused(`schema.${section}`, `${show(modality)} is not the name of a modality`);
  if (typeof keepThreshold !== 'number' || !(keepThreshold >= 0)) throw refused('keepThreshold', `${show(keepThreshold)} is not a number from 0`);
  return options;
}

/** Plans as they are now. */
function plansOf(plans: unknown): { [section: string]: Json }[] {
  if (!isArray(plans)) throw invalid(`The plans are ${show(plans)}, not an array of plans`);
  const all = readGiven('The plans', () => Array.from(plans));
  if (all.length === 0) throw invalid('There are no plans to merge: pass at least one');
  return all.map((plan, at) => planOf(plan, `Plan ${at}`));
}

/** A copy of a plan. */
export function planOf(plan: unknown, what: string): { [section: string]: Json } {
  if (typeof plan !== 'object' || plan === null || isArray(plan)) throw invalid(`${what} is ${show(plan)}, not an object of sections`);
  const copy = JSON.parse(faithfulJson(plan, what)) as unknown;
  if (typeof copy !== 'object' || copy === null || isArray(copy)) throw invalid(`${what} is ${show(plan)}, not an object of sections`);
  return copy as { [section: string]: Json };
}

function orderOf(priority: unknown): string[] {
  const order = readGiven('The priority', () => {
    const given: unknown = isArray(priority) ? priority : (priority as { order?: unknown } | null | undefined)?.order;
    return isArray(given) ? Array.from(given) : undefined;
  });
  if (!order || order.some((name) => typeof name !== 'string')) throw invalid(`The priority is ${show(priority)}, not an array of modalities`);
  return order as string[];
}

/** What each planner weighs, by modality. */
type Weigh = (planner: number, modality: string) => number;

/** Beyond this, sums of weights would be infinite. */
const LARGE = 1e100;

/** What planners weigh, by modality, and what the same scale makes of other weights: a sum of very large ones is no number. */
function weightsOf(weights: unknown, count: number): { weigh: Weigh; scale: number } {
  const own = readGiven('The weights', () => {
    if (!isArray(weights)) return [modalitiesOf(weights, 'weights')];
    if (weights.length !== count) throw invalid(`There are ${weights.length} weights for ${count} plans: pass one for each`);
    return Array.from(weights, (weight: unknown, at) => (typeof weight === 'number' ? weightOf(weight, `weights[${at}]`) : modalitiesOf(weight, `weights[${at}]`)));
  });
  const most = own.reduce((most: number, each) => Math.max(most, ...(typeof each === 'number' ? [each] : each.values())), 0);
  const scale = most > LARGE ? LARGE / most : 1;
  const weigh: Weigh = (planner, modality) => {
    const each = own.length === 1 ? own[0]! : own[planner]!;
    // A modality that is not named weighs 1.
    return scale * (typeof each === 'number' ? each : (each.get(modality) ?? 1));
  };
  return { weigh, scale };
}

function modalitiesOf(weights: unknown, where: string): Map<string, number> {
  if (typeof weights !== 'object' || weights === null) throw invalid(`${where} is ${show(weights)}, not weights by modality, nor an array with one for each plan`);
  return new Map(Object.entries(weights).map(([modality, weight]): [string, number] => [modality, weightOf(weight, `${where}.${modality}`)]));
}

function weightOf(weight: unknown, where: string): number {
  if (typeof weight === 'number' && weight >= 0 && weight !== Infinity) return weight;
  throw invalid(`${where} is ${show(weight)}, not a number from 0`);
}

interface Section {
  kind: Kind;
  agreement: number;
  weight: number;
}

/** One merge. */
class Merging {
  readonly merged: { [section: string]: Json };
  readonly #plans: { [section: string]: Json }[];
  readonly #weigh: Weigh;
  readonly #schema: Record<string, string>;
  readonly #order: string[];
  readonly #keepThreshold: number | undefined;
  readonly #sections: Section[] = [];
  readonly #agreement = new Map<string, number>();
  readonly #conflicts = new Map<string, (Json | null)[]>();

  constructor(plans: { [section: string]: Json }[], weigh: Weigh, schema: Record<string, string>, order: string[], keepThreshold: number | undefined) {
    this.#plans = plans;
    this.#weigh = weigh;
    this.#schema = schema;
    this.#order = order;
    this.#keepThreshold = keepThreshold;
    // One plan is its own answer, and nobody disagrees.
    this.merged = plans.length === 1 ? plans[0]! : this.#objects(plans, '', undefined);
  }

  report(): FusionReport {
    const judged = this.#sections.filter(({ kind }) => kind !== 'value');
    // Plans without lists and texts agree as far as their values do.
    const agreementScore = meanOf(judged.length > 0 ? judged : this.#sections);
    const conflicts = Object.fromEntries(this.#conflicts);
    return { agreementScore, perSectionAgreement: Object.fromEntries(this.#agreement), conflicts, notes: this.#notes(), confidence: agreementScore };
  }

  #notes(): string {
    const count = this.#plans.length;
    const led = this.#order.length > 0 ? ` Most important: ${this.#order.join(', then ')}.` : '';
    if (count === 1) return `1 plan: nothing to merge.${led}`;
    const names = [...this.#conflicts.keys()];
    const conflicts = names.length === 0 ? 'They agree in all sections.' : `They disagree about ${names.slice(0, 20).join(', ')}${names.length > 20 ? ` and ${names.length - 20} more` : ''}.`;
    return `${count} plans merged. ${conflicts}${led}`;
  }

  /** The modality of a section: that of the longest path that is in the schema. */
  #modality(path: string, above: string | undefined): string {
    if (Object.hasOwn(this.#schema, path)) return this.#schema[path]!;
    return above ?? this.#order[0] ?? '';
  }

  /** Sections of objects, in the order in which they are named first. */
  #objects(values: (Json | undefined)[], path: string, above: string | undefined, spelt = ''): { [section: string]: Json } {
    const names = new Set(values.flatMap((value) => (kindOf(value) === 'object' ? Object.keys(value as object) : [])));
    const from = this.#sections.length;
    const entries = [...names].map((name): [string, Json] => {
      const own = values.map((value) => (kindOf(value) === 'object' && Object.hasOwn(value as object, name) ? (value as { [section: string]: Json })[name] : undefined));
      return [name, this.#section(own, pathTo(path, name), above, spelt === '' ? name : `${spelt}.${name}`)];
    });
    if (path !== '' && this.#sections.length > from) this.#agreement.set(path, meanOf(this.#sections.slice(from)));
    return Object.fromEntries(entries);
  }

  /** What the planners say about a section; `undefined` where one says nothing. */
  #section(values: (Json | undefined)[], path: string, above: string | undefined, spelt: string): Json {
    const modality = this.#modality(spelt, above);
    const weights = values.map((_, planner) => this.#weigh(planner, modality));
    const leader = leaderOf(values, weights);
    const kind = kindOf(values[leader])!;
    if (kind === 'object') {
      // Whoever has something else there disagrees with all of it.
      const others = values.some((value) => value !== undefined && kindOf(value) !== 'object');
      const merged = this.#objects(values, path, modality, spelt);
      if (others || Object.keys(merged).length === 0) this.#judge(path, kind, others ? 0 : 1, weights, values);
      return merged;
    }
    this.#judge(path, kind, agreementOn(kind, values), weights, values);
    return kind === 'list' ? this.#vote(values, weights) : values[leader]!;
  }

  #judge(path: string, kind: Kind, agreement: number, weights: number[], values: (Json | undefined)[]): void {
    this.#sections.push({ kind, agreement, weight: weights.reduce((sum, weight) => sum + weight, 0) });
    this.#agreement.set(path, agreement);
    if (agreement < (kind === 'text' ? TEXTS_AGREE : LISTS_AGREE)) this.#conflicts.set(path, values.map((value) => value ?? null));
  }

  /** Entries that planners of enough weight name; each as the one of them says it that weighs most. */
  #vote(values: (Json | undefined)[], weights: number[]): Json[] {
    const entries = new Map<string, { weight: number; by: number; entry: Json }>();
    values.forEach((value, planner) => {
      if (kindOf(value) !== 'list') return;
      const named = new Map((value as Json[]).map((entry): [string, Json] => [entryKey(entry), entry]).reverse());
      for (const key of new Set((value as Json[]).map(entryKey))) {
        const weight = weights[planner]!;
        const known = entries.get(key);
        if (!known) entries.set(key, { weight, by: weight, entry: named.get(key)! });
        else {
          known.weight += weight;
          if (weight > known.by) Object.assign(known, { by: weight, entry: named.get(key)! });
        }
      }
    });
    const all = weights.reduce((sum, weight) => sum + weight, 0);
    const least = this.#keepThreshold ?? all / 2;
    // Sums of weights that are written as decimals are off by their rounding.
    return [...entries.values()].filter(({ weight }) => weight >= least - 1e-9 * all).map(({ entry }) => entry);
  }
}

/** The path of a section: one whose name could be read as a path is quoted, so that no two sections have the same. */
function pathTo(above: string, name: string): string {
  if (name === '' || /[.[]/.test(name)) return `${above}[${JSON.stringify(name)}]`;
  return above === '' ? name : `${above}.${name}`;
}

/** Who decides: who weighs most of those that say something; of equal ones, the first. */
function leaderOf(values: (Json | undefined)[], weights: number[]): number {
  let leader = -1;
  values.forEach((value, planner) => {
    if (value !== undefined && (leader === -1 || weights[planner]! > weights[leader]!)) leader = planner;
  });
  return leader;
}

function kindOf(value: Json | undefined): Kind | undefined {
  if (value === undefined) return undefined;
  if (isArray(value)) return 'list';
  if (typeof value === 'string') return 'text';
  return typeof value === 'object' && value !== null ? 'object' : 'value';
}

/** Planners that say the same, as far as it can be told apart. */
interface Group<T> {
  said: T;
  count: number;
}

/**
 * How much planners agree about a section of a kind: the mean over all pairs of which one says something, at least. Whoever says
 * nothing, or something of another kind, agrees with nobody. What many say is compared once.
 */
function agreementOn(kind: Kind, values: (Json | undefined)[]): number {
  const own = values.filter((value) => kindOf(value) === kind);
  const silent = values.filter((value) => value === undefined).length;
  const pairs = pairsAmong(values.length) - pairsAmong(silent);
  if (pairs === 0) return 1;
  if (kind === 'list') {
    const sets = grouped((own as Json[][]).map((list) => new Set(list.map(entryKey))), (set) => JSON.stringify([...set].sort()));
    return alikeAmong(sets, jaccard, MOST_LISTS) / pairs;
  }
  if (kind === 'text') return alikeAmong(grouped((own as string[]).map(folded), (text) => text), gestaltRatio, MOST_TEXTS) / pairs;
  return alikeAmong(grouped(own, (value) => JSON.stringify(value)), () => 0, 0) / pairs;
}

function pairsAmong(count: number): number {
  return (count * (count - 1)) / 2;
}

function grouped<T>(all: readonly T[], keyOf: (said: T) => string): Group<T>[] {
  const groups = new Map<string, Group<T>>();
  for (const said of all) {
    const key = keyOf(said);
    const known = groups.get(key);
    if (known) known.count++;
    else groups.set(key, { said, count: 1 });
  }
  return [...groups.values()];
}

/**
 * The sum of the likeness of all pairs: 1 within a group, and each group compared with each other one, up to `most` pairs of them;
 * of more groups, each is compared with some after it, and these pairs stand for all.
 */
function alikeAmong<T>(groups: readonly Group<T>[], likeness: (a: T, b: T) => number, most: number): number {
  const own = groups.reduce((sum, { count }) => sum + pairsAmong(count), 0);
  const all = groups.length;
  const each = pairsAmong(all) <= most;
  const next = each ? all - 1 : Math.max(1, Math.floor(most / all));
  let [alike, compared] = [0, 0];
  for (const [at, a] of groups.entries()) {
    for (let step = 1; step <= next; step++) {
      if (each && at + step >= all) break;
      const b = groups[(at + step) % all]!;
      alike += likeness(a.said, b.said) * a.count * b.count;
      compared += a.count * b.count;
    }
  }
  if (compared === 0) return own;
  const count = groups.reduce((sum, group) => sum + group.count, 0);
  return own + (alike * (pairsAmong(count) - own)) / compared;
}

/** What makes two entries of lists the same. */
function entryKey(entry: Json): string {
  return typeof entry === 'string' ? `"${folded(entry)}` : canonicalJson(entry, 'entry');
}

function folded(text: string): string {
  return text.trim().toLowerCase();
}

function jaccard(a: Set<string>, b: Set<string>): number {
  let common = 0;
  for (const one of a) if (b.has(one)) common++;
  const all = a.size + b.size - common;
  return all === 0 ? 1 : common / all;
}

function mean(values: number[]): number {
  return values.length === 0 ? 1 : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** By weight; plainly where nothing weighs anything. */
function meanOf(sections: Section[]): number {
  const weight = sections.reduce((sum, section) => sum + section.weight, 0);
  if (weight === 0) return mean(sections.map(({ agreement }) => agreement));
  return sections.reduce((sum, section) => sum + section.weight * section.agreement, 0) / weight;
}
