// What a text says about itself, without a model: whether it hedges, breaks off, repeats or contradicts itself.

/** Characters that are looked at; what follows says nothing new about how a text is written. */
const LONGEST = 20_000;

/** Sentences that are compared with each other. */
const MOST_COMPARED = 40;

/** Words and phrases by which a sentence says that it is not sure. */
const HEDGES = [
  'might', 'maybe', 'perhaps', 'possibly', 'presumably', 'supposedly', 'probably', 'apparently', 'unclear', 'unsure', 'uncertain', 'could be', 'may be', 'not sure',
  'not certain', 'i think', 'i guess', 'i believe', 'i suppose', 'hard to say', 'seems to', 'seem to', 'as far as i know', 'do not know', "don't know", 'no idea', 'cannot tell',
];

/** Words that turn a sentence into its opposite. */
const NEGATIONS = new Set([
  'not', 'no', 'never', 'none', 'nothing', 'neither', 'nor', 'nobody', 'nowhere', 'cannot', 'without', 'hardly', 'untrue', 'false', 'wrong', 'incorrect', 'impossible',
]);

/** Words that say little about what a sentence is about. */
const FUNCTION_WORDS = new Set(
  ('a an the this that these those it its he she they we you i is are was were be been being am do does did done have has had will would can could may might must shall should ' +
    'of in on at by to from for with as and or but if then than so too very also there here case true what how why who when which my our your their his her me us them').split(' '),
);

/** What nobody should be told, or should have told: instructions to harm, secrets, and attempts to take a reader over. */
const UNSAFE = [
  /\b(?:kill|hurt|harm|cut) (?:yourself|your\s?self|himself|herself|themselves)\b/iu,
  /\b(?:build|make|assemble) (?:a |an )?(?:pipe )?bomb\b/iu,
  /\bignore (?:all |any )?(?:the )?(?:previous|prior|above) instructions\b/iu,
  /\brm\s+-rf\s+\/(?:\s|$)/u,
  /-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----/u,
  /\b(?:AKIA[0-9A-Z]{16}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,})\b/u,
  /\bpassword\s*(?:is|[:=])\s*\S{4,}/iu,
];

/** What a text says about itself, each from 0 to 1. */
export interface TextStatistics {
  /** Share of its sentences that hedge. */
  hedging: number;
  /** 1 where it ends; less where it breaks off, or leaves a bracket or a block of code open. */
  completeness: number;
  /** Share of it that it has said before. */
  repetition: number;
  /** Share of its sentences that another one denies. */
  contradiction: number;
  /** 1 without anything that nobody should be told; less with it. */
  safety: number;
}

/** A sentence as it is compared: what it is about, and whether it denies it. */
interface Claim {
  about: Set<string>;
  denies: boolean;
}

/** Linear in the length of the text. */
export function textStatistics(text: string): TextStatistics {
  const seen = text.slice(0, LONGEST);
  const sentences = sentencesOf(seen);
  const claims = sentences.slice(0, MOST_COMPARED).map(claimOf);
  const denied = claims.filter((claim, at) => claims.some((other, beside) => at !== beside && contradicts(claim, other))).length;
  const hedged = sentences.filter(hedges).length;
  const unsafe = UNSAFE.filter((pattern) => pattern.test(seen)).length;
  return {
    hedging: share(hedged, sentences.length),
    completeness: completeness(text),
    repetition: repetition(seen, sentences),
    contradiction: share(denied, claims.length),
    safety: 1 / (1 + 3 * unsafe),
  };
}

/** Share of the claims of one text that the other denies, 0–1. */
export function contradiction(text: string, other: string): number {
  const [own, others] = [text, other].map((one) => sentencesOf(one.slice(0, LONGEST)).slice(0, MOST_COMPARED).map(claimOf)) as [Claim[], Claim[]];
  return share(own.filter((claim) => others.some((one) => contradicts(claim, one))).length, own.length);
}

/** Share of the words of one text, but for those that say little, that the other has in some form, 0–1. */
export function wordsIn(text: string, of: string): number {
  const [own, wanted] = [text, of].map((one) => wordsOf(one.slice(0, LONGEST)).filter((word) => !FUNCTION_WORDS.has(word)).map(stem));
  const there = new Set(own);
  const distinct = new Set(wanted);
  return share([...distinct].filter((word) => there.has(word)).length, distinct.size);
}

function share(part: number, all: number): number {
  return all === 0 ? 0 : part / all;
}

function sentencesOf(text: string): string[] {
  return text.split(/(?<=[.!?…。！？])["')\]”’»]*\s+|\n+/u).map((sentence) => sentence.trim()).filter((sentence) => sentence !== '');
}

/** Lower case, with one form of apostrophe. */
function wordsOf(text: string): string[] {
  return text.toLowerCase().replaceAll('’', "'").match(/[\p{L}\p{N}]+(?:'[\p{L}]+)?/gu) ?? [];
}

function hedges(sentence: string): boolean {
  const words = ` ${wordsOf(sentence).join(' ')} `;
  return HEDGES.some((hedge) => words.includes(` ${hedge} `));
}

function claimOf(sentence: string): Claim {
  const about = new Set<string>();
  let negations = 0;
  for (const word of wordsOf(sentence)) {
    if (NEGATIONS.has(word) || word.endsWith("n't")) negations++;
    else if (!FUNCTION_WORDS.has(word)) about.add(stem(word));
  }
  return { about, denies: negations % 2 === 1 };
}

/** So that "boils" and "boil" are one: an ending is left out. */
function stem(word: string): string {
  return word.length > 4 ? word.replace(/(?:ies|es|s|ing|ed)$/u, '') : word;
}

/** Two sentences about nearly the same, of which one denies what the other says. */
function contradicts(one: Claim, other: Claim): boolean {
  if (one.denies === other.denies || one.about.size < 2 || other.about.size < 2) return false;
  let common = 0;
  for (const word of one.about) if (other.about.has(word)) common++;
  return common / Math.min(one.about.size, other.about.size) >= 0.75;
}

const FEW_WORDS = 6;

/** Whether a text comes to its end: a short answer needs none. */
function completeness(text: string): number {
  const trimmed = text.trimEnd();
  const end = trimmed.slice(-400);
  if ((trimmed.match(/^```/gmu) ?? []).length % 2 === 1) return 0.2;
  const short = (trimmed.slice(0, 400).match(/\S+/gu) ?? []).length <= FEW_WORDS && trimmed.length <= 400;
  // A list, a heading or code ends as it likes.
  const last = end.slice(end.lastIndexOf('\n') + 1).trim();
  const free = /^(?:[-*+•#|>]|\d+[.)]|```|[}\])])/u.test(last);
  const ended = /[.!?…:;。！？"'”’»)\]}`*_|]$/u.test(trimmed);
  return ended || short || free ? 1 : 0.2;
}

/** Share of the runs of four words, or of the sentences, that were there before. */
function repetition(text: string, sentences: string[]): number {
  const words = wordsOf(text);
  const runs = new Set<string>();
  for (let at = 0; at + 4 <= words.length; at++) runs.add(words.slice(at, at + 4).join(' '));
  const ofRuns = words.length < 8 ? 0 : 1 - runs.size / (words.length - 3);
  const distinct = new Set(sentences.map((sentence) => wordsOf(sentence).join(' ')));
  return Math.max(ofRuns, sentences.length < 2 ? 0 : 1 - distinct.size / sentences.length);
}
