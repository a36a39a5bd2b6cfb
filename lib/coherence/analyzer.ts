import { signalOf } from '../call/checks';
import { invalid, isArray, requireString, show } from '../call/input';
import { checkWatch } from '../call/limits';
import { listOf, optionReader, refused, untouched, type Given } from '../call/options';
import type { SemanticEmbedder } from '../index';
import { limited } from '../llm/limited';
import { cosine, Texts } from './texts';

/** A kind of content that a prompt can ask for. */
export interface ModalityDefinition {
  name: string;
  /** Words, or several words in a row, that speak for it. */
  keywords: readonly string[];
  /** Prompts that ask for it, for `analyzer: 'embeddings'`. Default: the keywords. */
  examples?: readonly string[] | undefined;
}

/** Options of {@link PromptAnalyzer}. */
export interface PromptAnalyzerOptions<Analyzer extends 'keywords' | 'embeddings' = 'keywords' | 'embeddings'> {
  /** What there is. Default: `text`, `image` and `audio`. Of two that are equal, the one before counts more. */
  modalities?: readonly ModalityDefinition[] | undefined;
  /** `'keywords'` (default) counts words. `'embeddings'` compares meanings with those of examples, and answers later. */
  analyzer?: Analyzer | undefined;
  /** Makes vectors, for `'embeddings'`. Default: a generator with the built-in model. */
  generator?: SemanticEmbedder | undefined;
}

/** Options of {@link PromptAnalyzer.analyze}. */
export interface AnalyzeOptions {
  /** Ends the call, with `ABORTED`. */
  signal?: AbortSignal | undefined;
  /** Longest time, in milliseconds. Default: no limit. */
  timeoutMs?: number | undefined;
}

/** What a prompt asks for. */
export interface PromptAnalysis {
  /** How much each modality counts, by its name: above 0, and as many in all as there are modalities. */
  weights: Record<string, number>;
  /** Names of the modalities, the most important one first. */
  order: string[];
  /** What that was decided by: words that speak for it or, by embeddings, the similarity to its examples, -1–1. */
  scores: Record<string, number>;
}

const readModality = optionReader<ModalityDefinition>({ name: true, keywords: true, examples: true });
const readOptions = optionReader<PromptAnalyzerOptions>({ modalities: listOf((one, path) => readModality(one, path)), analyzer: true, generator: untouched });
const readCall = optionReader<AnalyzeOptions>({ signal: untouched, timeoutMs: true });

/** What a word that speaks for a modality adds to its weight. */
const BY_HIT = 0.5;

/** A prompt with more distinct words than these tells more: each is a hit for `text`. */
const LONG = [15, 25];

/** How sharply similarities become weights: what 0.1 more makes of a weight is e times as much. */
const TEMPERATURE = 0.1;

/** Modalities that most prompts are about. */
const DEFAULTS: readonly ModalityDefinition[] = [
  {
    name: 'text',
    keywords: (
      'story stories tale narrative narrate narrator plot character characters dialogue chapter novel poem poetry verse essay article summary summarize write explain describe tell ' +
      'event moment scene happen happens paragraph sentence letter script biography legend fable moral'
    ).split(' '),
    examples: [
      'Write a short story about two sisters who inherit a lighthouse.',
      'Explain in plain words how a vaccine works.',
      'Summarize the main arguments of this debate in three paragraphs.',
      'Compose a poem about leaving home.',
      'Draft an apology to a customer whose parcel was lost.',
      'Tell me what happens to the hero at the end of the tale.',
      'Describe the history of the city for a travel guide.',
      'Write dialogue between a detective and a suspect.',
      'Give me a product description and a slogan.',
      'What are the reasons for and against the new law?',
      'Translate this paragraph and keep its tone.',
      'Outline a chapter on the causes of the war.',
      'Write step by step instructions for repairing a bicycle.',
      'Write a speech for a wedding.',
      'Argue why cities should have more trees.',
    ],
  },
  {
    name: 'image',
    keywords: (
      'see look view watch appear visible visual image images picture photo photograph painting paint draw drawing sketch illustration illustrate portrait landscape scene color colour ' +
      'colors colours bright dark light shadow shade shape texture pattern style design logo icon render camera'
    ).split(' '),
    examples: [
      'Draw a fox in a snowy forest at dusk.',
      'A photograph of an old market with lanterns and fog.',
      'Paint a portrait of a woman in a red coat in the style of the impressionists.',
      'Design a logo with a blue mountain and a rising sun.',
      'A wide view of a valley with golden light and long shadows.',
      'An illustration of a dragon curled around a tower, in watercolour.',
      'Render a modern kitchen with marble surfaces and a large window.',
      'A close-up of dew on a spider web, shallow depth of field.',
      'A poster of a city skyline in pastel colours.',
      'Sketch a steam train that crosses a stone bridge.',
      'Make the background darker and the sky more orange.',
      'Show what the castle looks like from above.',
      'A cartoon cat with huge green eyes that wears a top hat.',
      'A map of an island with forests, drawn in ink.',
      'Wallpaper with a pattern of leaves.',
    ],
  },
  {
    name: 'audio',
    keywords: (
      'hear sound sounds listen audio music musical song sing singing noise noisy quiet loud silence silent voice whisper shout echo echoes tone pitch melody rhythm beat harmony chord ' +
      'tune bass drum drums guitar piano violin orchestra podcast hum soundtrack'
    ).split(' '),
    examples: [
      'Compose a slow piano piece for a rainy evening.',
      'The sound of waves and distant gulls on a beach.',
      'A drum track at 120 beats a minute with a heavy bass.',
      'Record a calm voice that reads bedtime instructions.',
      'A jingle of five seconds for a radio show.',
      'Thunder that rolls over the hills, then silence.',
      'A choir that hums a lullaby in a stone church.',
      'Footsteps on gravel and a creaking door.',
      'An upbeat song with guitar and clapping.',
      'Background noise of a busy cafe.',
      'A podcast intro with a warm male narrator.',
      'Mix violins and a cello into a tense soundtrack.',
      'The ringing of an old telephone.',
      'Make the vocals louder and add some echo.',
      'A bird call at dawn.',
    ],
  },
];

/** A modality as it is looked for. */
interface Known {
  name: string;
  keywords: string[];
  examples: string[];
}

/**
 * Says how much of each modality a prompt asks for: by words that speak for it, or by its meaning.
 *
 * By words, a modality weighs 1 + 0.5 for each of its keywords in the prompt (`text` has one more past 15 distinct words, and
 * another past 25); by meaning, `exp(10 s)` of the cosine `s` of the prompt and the modality's examples. Either way weights are
 * scaled so that their sum is the number of modalities.
 */
export class PromptAnalyzer<Analyzer extends 'keywords' | 'embeddings' = 'keywords'> implements AsyncDisposable {
  readonly #modalities: Known[];
  readonly #texts: Texts | undefined;
  #centroids: Promise<(Float32Array | undefined)[]> | undefined;

  /** @throws `EmbeddingError` `INVALID_CONFIG` naming the option. */
  constructor(options: PromptAnalyzerOptions<Analyzer> = {}) {
    const { modalities = DEFAULTS, analyzer = 'keywords', generator } = readOptions(options) as Given<PromptAnalyzerOptions>;
    if (analyzer !== 'keywords' && analyzer !== 'embeddings') throw refused('analyzer', `${show(analyzer)} is not 'keywords' or 'embeddings'`);
    this.#modalities = knownOf(modalities);
    const texts = new Texts(generator);
    this.#texts = analyzer === 'embeddings' ? texts : undefined;
  }

  /** Names of the modalities, as they were declared. */
  get modalities(): string[] {
    return this.#modalities.map(({ name }) => name);
  }

  /**
   * What a prompt asks for: at once by keywords, later by embeddings. An empty prompt asks for all alike.
   * @throws `EmbeddingError` `INVALID_ARGUMENT`; by embeddings, `ABORTED`, `TIMED_OUT` and what the generator rejects with.
   */
  analyze(prompt: string, options: AnalyzeOptions = {}): Analyzer extends 'embeddings' ? Promise<PromptAnalysis> : PromptAnalysis {
    return (this.#texts ? this.#byMeaning(prompt, options, this.#texts) : this.#byWords(prompt, options)) as Analyzer extends 'embeddings' ? Promise<PromptAnalysis> : PromptAnalysis;
  }

  /** Frees a generator of its own. */
  async close(): Promise<void> {
    await this.#texts?.close();
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #byWords(prompt: string, options: AnalyzeOptions): PromptAnalysis {
    checked(options);
    const words = wordsOf(requireString('The prompt', prompt));
    const distinct = new Set(words);
    // Several words in a row are looked for in all of it.
    const joined = this.#modalities.some(({ keywords }) => keywords.some((keyword) => keyword.includes(' '))) ? ` ${words.join(' ')} ` : '';
    const scores = this.#modalities.map(({ name, keywords }) => {
      const hits = keywords.filter((keyword) => distinct.has(keyword) || (keyword.includes(' ') && joined.includes(` ${keyword} `))).length;
      return name === 'text' ? hits + LONG.filter((count) => distinct.size > count).length : hits;
    });
    return this.#analysis(scores, scores.map((hits) => 1 + BY_HIT * hits));
  }

  async #byMeaning(prompt: string, options: AnalyzeOptions, texts: Texts): Promise<PromptAnalysis> {
    requireString('The prompt', prompt);
    return limited(checked(options), async () => {
      const centroids = await (this.#centroids ??= this.#learn(texts));
      const vector = await texts.vector(prompt);
      const scores = centroids.map((centroid) => cosine(vector, centroid));
      return this.#analysis(scores, scores.map((score) => Math.exp((score - Math.max(...scores)) / TEMPERATURE)));
    });
  }

  /** The mean direction of the examples of each modality, with the length 1. */
  #learn(texts: Texts): Promise<(Float32Array | undefined)[]> {
    const learned = Promise.all(this.#modalities.map(async ({ examples }) => {
      const vectors = await Promise.all(examples.map((example) => texts.vector(example)));
      return unit(vectors.filter((vector) => vector !== undefined));
    }));
    // A failure is not kept: the next one may succeed.
    learned.catch(() => (this.#centroids = undefined));
    return learned;
  }

  #analysis(scores: number[], raw: number[]): PromptAnalysis {
    const names = this.modalities;
    const sum = raw.reduce((all, each) => all + each, 0);
    const named = (values: number[]) => Object.fromEntries(names.map((name, at) => [name, values[at]!]));
    const order = names.map((_, at) => at).sort((a, b) => scores[b]! - scores[a]! || a - b);
    return { weights: named(raw.map((each) => (each * names.length) / sum)), order: order.map((at) => names[at]!), scores: named(scores) };
  }
}

function checked(options: AnalyzeOptions) {
  const { signal, timeoutMs } = readCall(options);
  return { ...checkWatch<never>({ timeoutMs }), signal: signalOf(signal) };
}

/** Punctuation around a word. Looked for at the beginning of a run only: a run in the middle of a word is passed once. */
const AROUND = /^[\p{P}\p{S}]+|(?<![\p{P}\p{S}])[\p{P}\p{S}]+$/gu;

/** Words of a text in lower case, without the punctuation around them. */
function wordsOf(text: string): string[] {
  return text.toLowerCase().split(/\s+/u).map((word) => word.replace(AROUND, '')).filter((word) => word !== '');
}

function knownOf(modalities: unknown): Known[] {
  if (!isArray(modalities) || modalities.length === 0) throw refused('modalities', `${show(modalities)} is not an array of at least one { name, keywords }`);
  const names = new Set<string>();
  return (modalities as Given<ModalityDefinition>[]).map(({ name, keywords, examples }, at) => {
    const where = `modalities[${at}]`;
    if (typeof name !== 'string' || name === '') throw refused(`${where}.name`, `${show(name)} is not the name of a modality`);
    if (names.has(name)) throw refused(`${where}.name`, `there are two modalities ${show(name)}`);
    names.add(name);
    const words = textsOf(keywords, `${where}.keywords`).map((keyword) => wordsOf(keyword).join(' '));
    const own = [...new Set(words)].filter((word) => word !== '');
    return { name, keywords: own, examples: examples === undefined ? own : textsOf(examples, `${where}.examples`) };
  });
}

function textsOf(texts: unknown, where: string): string[] {
  if (isArray(texts) && texts.every((text) => typeof text === 'string')) return [...(texts as string[])];
  throw refused(where, `${show(texts)} is not an array of texts`);
}

function unit(vectors: readonly Float32Array[]): Float32Array | undefined {
  const [first] = vectors;
  if (!first) return undefined;
  const mean = new Float32Array(first.length);
  for (const vector of vectors) {
    if (vector.length !== mean.length) throw invalid(`generator made vectors of ${mean.length} and of ${vector.length} values: they cannot be compared`);
    const length = Math.hypot(...vector);
    vector.forEach((value, at) => (mean[at]! += value / length));
  }
  const length = Math.hypot(...mean);
  return length === 0 ? undefined : mean.map((value) => value / length);
}
