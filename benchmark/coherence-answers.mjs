// Good answers and ones that are worse in a known way, and models that go on from them: all made by script from fixtures/answers.json.

import { readFileSync } from 'node:fs';

/** `{ prompt, good, further }`: an answer of three sentences, and two that a model which knows the matter adds. */
export const answers = JSON.parse(readFileSync(new URL('../fixtures/answers.json', import.meta.url), 'utf8'));

const sentencesOf = (text) => text.match(/[^.!?]+[.!?]+/g).map((sentence) => sentence.trim());

/** Verbs behind which "not" makes a sentence its opposite. */
const VERBS = /\b(is|are|was|were|can|could|will|would|should|must|may|has|have|do|does)\b(?! not)/;

/** A sentence that says the opposite. */
function denied(sentence) {
  if (VERBS.test(sentence)) return sentence.replace(VERBS, '$1 not');
  return `It is not true that ${sentence[0].toLowerCase()}${sentence.slice(1)}`;
}

/** Ways in which an answer is worse. */
export const degrade = {
  contradicting: ({ good }) => sentencesOf(good).slice(0, 2).flatMap((sentence) => [sentence, denied(sentence)]).join(' '),
  'off-topic': (_, other) => other.good,
  truncated: ({ good }) => good.slice(0, Math.floor(good.length * 0.6)).replace(/\W+$/, ''),
  repeated: ({ good }) => Array.from({ length: 3 }, () => sentencesOf(good)[0]).join(' '),
};

/** Ways that nothing but knowledge of the matter could tell. */
export const invisible = {
  'wholly denied': ({ good }) => sentencesOf(good).map(denied).join(' '),
  'a false number or word': ({ good }) => good.replace(/\d+/g, (digits) => `${Number(digits) * 3 + 1}`).replace(/\b(less|lower|more|longer|warm|strong|first)\b/g, (word) => ({ less: 'more', lower: 'higher', more: 'less', longer: 'shorter', warm: 'cold', strong: 'weak', first: 'last' })[word]),
};

/** What a model says next. `informed` knows the matter; `obedient` goes on with whatever was said; `echo` says the same again. */
export const models = {
  informed: ({ answer }, step) => answer.further[step - 1],
  obedient: ({ answer, other, kind }, step) => (kind === 'off-topic' ? other : answer).further[step - 1],
  echo: ({ candidate }) => candidate,
};

/** The candidates for a prompt: the good answer at a place of its own, and one of each of these kinds. */
export function candidatesFor(index, kinds) {
  const answer = answers[index];
  // As good as any of the others, and never the same twice.
  const other = answers[(index + 7) % answers.length];
  const all = kinds.map(([kind, make]) => ({ kind, candidate: make(answer, other), answer, other }));
  all.splice(index % (kinds.length + 1), 0, { kind: 'good', candidate: answer.good, answer, other });
  return all;
}

/** Three of the four kinds, another three for each prompt. */
export function threeOf(index) {
  const kinds = Object.entries(degrade);
  return kinds.filter((_, at) => at !== Math.floor(index / 2) % kinds.length);
}

/** Prompts that the evaluation was made with in view, and those that it was not. */
export const halves = { development: (index) => index % 2 === 0, 'held out': (index) => index % 2 === 1 };

/** How often the good answer wins, in all and against each kind. */
export async function quality(engine, model, half, kindsOf = threeOf) {
  const won = { all: 0, of: 0, against: {} };
  for (let index = 0; index < answers.length; index++) {
    if (!halves[half](index)) continue;
    const all = candidatesFor(index, kindsOf(index));
    const steps = new Map(all.map((one) => [one.candidate, one]));
    const call = (prompt) => {
      const [, candidate, ...further] = prompt.split('\n\n');
      return models[model](steps.get(candidate), further.length);
    };
    const { index: best, all: ranked } = await engine.selectBestCandidate(all.map(({ candidate }) => candidate), answers[index].prompt, call, { useCache: false });
    won.of++;
    if (all[best].kind === 'good') won.all++;
    const good = ranked[all.findIndex(({ kind }) => kind === 'good')];
    for (const [at, { kind }] of all.entries()) {
      if (kind === 'good') continue;
      const pair = (won.against[kind] ??= { won: 0, of: 0 });
      pair.of++;
      if (good.metrics.CCI > ranked[at].metrics.CCI || (good.metrics.CCI === ranked[at].metrics.CCI && all[best].kind === 'good')) pair.won++;
    }
  }
  return won;
}
