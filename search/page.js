// The page of a code search: what is typed is asked for, and what is found is drawn. Text of others goes into text nodes only.
'use strict';

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat('en-US');
const counted = (count, what) => `${whole.format(count)} ${what}${count === 1 ? '' : 's'}`;

/** An element with its class, attributes and children; strings become text. */
function made(tag, { class: name = '', ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const KINDS = ['function', 'method', 'class', 'type', 'constant', 'file', 'section', 'chunk'];
const LIMIT = 20;
/** Longest query that is kept in the address. */
const MOST_KEPT = 2000;

// ---- what is asked

/** What the page shows: matches of `query`, what is similar to a place, or near-duplicates. */
let asked = { query: '', similar: undefined, duplicates: false, paths: '', languages: [], kinds: [] };
/** What was shown before something else was asked for, to go back to. */
const before = [];
/** The latest question; answers to others are dropped. */
let latest = 0;
let running;
let status = { languages: {} };

const filters = () => ({
  ...(asked.paths.trim() && { paths: asked.paths.trim().split(/\s+/) }),
  ...(asked.languages.length > 0 && { languages: asked.languages }),
  ...(asked.kinds.length > 0 && { kinds: asked.kinds }),
});

async function post(path, given, signal) {
  const response = await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(given), signal });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new Error(answer.error?.message ?? `The server answered with ${response.status}`), { code: answer.error?.code });
  return answer;
}

/** Asks for what is to be shown, and shows it if nothing else was asked for meanwhile. */
async function ask() {
  const mine = ++latest;
  running?.abort();
  running = new AbortController();
  keep();
  const { query, similar, duplicates } = asked;
  if (!similar && !duplicates && query.trim() === '') return drawn([], '');
  if (duplicates) $('said').textContent = 'Comparing all declarations …';
  const began = performance.now();
  try {
    const [path, given] = duplicates ? ['duplicates', {}] : similar ? ['similar', { file: similar.file, line: similar.line, limit: LIMIT }] : ['search', { query, limit: LIMIT }];
    const answer = await post(path, { ...given, ...filters() }, running.signal);
    if (mine !== latest) return;
    const took = `${whole.format(Math.round(performance.now() - began))} ms`;
    const groups = duplicates ? answer.groups : [{ matches: answer.matches }];
    const said = duplicates
      ? `${counted(groups.length, 'group')} of near-duplicates, in ${took}`
      : `${counted(answer.matches.length, 'match').replace('matchs', 'matches')}${similar ? ` similar to ${similar.name}` : ''}, in ${took}`;
    drawn(groups, said);
    performance.measure('answer', { start: began, detail: query.length });
  } catch (error) {
    if (mine !== latest || error.name === 'AbortError') return;
    drawn([], '', error instanceof TypeError ? 'The server cannot be reached any more.' : error.message);
  }
}

/** Changes what is asked; what is looked up rather than typed can be gone back from. */
function change(more, { back = false } = {}) {
  if (back) before.push(asked);
  asked = { ...asked, ...more };
  shown();
  return ask();
}

function goBack() {
  if (before.length === 0) return false;
  asked = before.pop();
  shown();
  ask();
  return true;
}

/** Keeps it in the address, so that it can be opened again. */
function keep() {
  const { query, similar, duplicates, paths, languages, kinds } = asked;
  const kept = new URLSearchParams();
  if (query && query.length <= MOST_KEPT) kept.set('q', query);
  if (similar) kept.set('similar', JSON.stringify([similar.file, similar.line, similar.name]));
  if (duplicates) kept.set('duplicates', '1');
  if (paths && paths.length <= MOST_KEPT) kept.set('paths', paths);
  for (const language of languages) kept.append('language', language);
  for (const kind of kinds) kept.append('kind', kind);
  const text = kept.toString();
  if (text.length < 8 * MOST_KEPT) history.replaceState(null, '', text ? `#${text}` : location.pathname);
}

function kept() {
  const found = new URLSearchParams(location.hash.slice(1));
  let similar;
  try {
    const [file, line, name] = JSON.parse(found.get('similar'));
    similar = { file: String(file), line: Number(line), name: String(name) };
  } catch {
    // There is none.
  }
  asked = {
    query: found.get('q') ?? '', similar, duplicates: found.has('duplicates'), paths: found.get('paths') ?? '',
    languages: found.getAll('language'), kinds: found.getAll('kind').filter((kind) => KINDS.includes(kind)),
  };
}

// ---- what is shown

/** The controls, as what is asked for. */
function shown() {
  if ($('query').value !== asked.query) $('query').value = asked.query;
  if ($('paths').value !== asked.paths) $('paths').value = asked.paths;
  $('duplicates').setAttribute('aria-pressed', String(asked.duplicates));
  const count = (asked.paths.trim() ? 1 : 0) + asked.languages.length + asked.kinds.length;
  $('filtered').textContent = count > 0 ? `(${count})` : '';
  const languages = [...new Set([...Object.keys(status.languages), ...asked.languages])].sort();
  choices('languages', languages, (language) => status.languages[language] ?? 0);
  choices('kinds', KINDS);
}

/** Buttons of which several may be pressed. Those that are there stay, so that the keyboard keeps its place. */
function choices(name, values, countOf) {
  const box = $(name);
  const there = new Map([...box.children].map((button) => [button.dataset.value, button]));
  for (const value of values) {
    const button = there.get(value) ?? made('button', {
      type: 'button', 'data-value': value,
      onclick: () => change({ [name]: asked[name].includes(value) ? asked[name].filter((one) => one !== value) : [...asked[name], value] }),
    });
    there.delete(value);
    button.textContent = countOf ? `${value} ${whole.format(countOf(value))}` : value;
    button.setAttribute('aria-pressed', String(asked[name].includes(value)));
    box.append(button);
  }
  for (const button of there.values()) button.remove();
}

/** What is found of the words of a query in a text. */
function finder(query) {
  const parts = query.slice(0, MOST_KEPT).split(/[^\p{L}\p{N}]+/u).flatMap((word) => [word, ...word.split(/(?<=[a-z0-9])(?=[A-Z])/)]);
  const words = [...new Set(parts.map((word) => word.toLowerCase()).filter((word) => word.length > 2))].slice(0, 40).sort((a, b) => b.length - a.length);
  return words.length > 0 ? new RegExp(`(${words.join('|')})`, 'giu') : undefined;
}

/** A text with what the query has in it marked. */
function marked(text, find) {
  if (!find) return [text];
  return text.split(find).map((part, i) => (i % 2 === 1 ? made('mark', {}, part) : part)).filter((part) => part !== '');
}

/** Source with its colours, and what the query has in it marked. */
function coloured(code, language, find) {
  const parts = document.createDocumentFragment();
  for (const [kind, text] of highlighted(code, language)) parts.append(...(kind ? [made('span', { class: kind }, ...marked(text, find))] : marked(text, find)));
  return parts;
}

/** Control characters of a name, so that they can be seen and steer nothing. */
const visible = (name) => name.replace(/\p{Cc}/gu, (c) => (c.charCodeAt(0) < 32 ? String.fromCharCode(0x2400 + c.charCodeAt(0)) : '\ufffd'));

function card(match, find) {
  const { file, line, endLine, kind, language, name, signature, summary, score, stale, code, more } = match;
  const place = `${visible(file)}:${line}`;
  const source = made('pre', { tabindex: -1, 'aria-label': 'Source' }, made('code', {}, code === null ? signature : coloured(code, language, find)));
  const article = made('article', { tabindex: -1, 'aria-label': `${kind} ${visible(name)} in ${place}` },
    made('div', { class: 'head' },
      made('h2', {}, ...marked(visible(name), find)), made('span', { class: 'kind' }, kind), made('span', { class: 'place' }, place),
      ...(stale ? [made('span', { class: 'stale' }, 'changed since it was indexed')] : []),
      made('span', { class: 'score', title: `Score ${score}` }, score.toFixed(2))),
    ...(summary ? [made('p', { class: 'summary' }, ...marked(summary, find))] : []),
    source);
  const opened = made('button', { type: 'button', hidden: '', onclick: () => open(article) }, `${whole.format(more)} more lines`);
  if (more > 0) opened.hidden = false;
  const copy = made('button', { type: 'button', class: 'copy', onclick: () => copied(article) }, 'Copy the place');
  article.append(made('div', { class: 'actions' }, opened, made('button', { type: 'button', class: 'similar', onclick: () => similarTo(article) }, 'Similar'), copy));
  Object.assign(article, { match, source, opened, copy, find });
  return article;
}

/** Cards that are drawn at once, those up to the one that has the keyboard included; those below the screen follow when that is done. */
const AT_ONCE = 6;
let least = 0;

/** A group of near-duplicates. */
function group({ matches, lines, count }) {
  const left = count > matches.length ? `, of which ${matches.length} are shown` : '';
  const title = `${counted(count, 'declaration')} alike, ${counted(lines, 'line')} to spare${left}`;
  return made('li', { class: 'group' }, made('h2', {}, title), made('ol', {}, ...matches.map((match) => made('li', {}, card(match)))));
}

/** Draws groups of matches, and what is said about them. */
function drawn(groups, said, problem = '') {
  const find = asked.similar || asked.duplicates ? undefined : finder(asked.query);
  const all = groups.flatMap((one) => (one.lines === undefined ? one.matches.map((match) => () => made('li', {}, card(match, find))) : [() => group(one)]));
  const first = Math.max(AT_ONCE, least);
  $('matches').replaceChildren(...all.slice(0, first).map((make) => make()));
  const mine = latest;
  const rest = all.slice(first);
  const more = () => {
    if (mine !== latest || rest.length === 0) return;
    $('matches').append(...rest.splice(0, AT_ONCE).map((make) => make()));
    setTimeout(more);
  };
  setTimeout(more);
  $('said').textContent = said;
  $('problem').textContent = problem;
  $('problem').hidden = problem === '';
  document.body.dataset.drawn = String(latest);
}

/** The whole source of a match, or as much as is shown of it. */
async function open(article) {
  const { match, source, opened, find } = article;
  try {
    const { code, more } = await post('source', { file: match.file, line: match.line, endLine: match.endLine });
    if (code === null) return;
    source.replaceChildren(made('code', {}, coloured(code, match.language, find)));
    opened.hidden = more === 0;
    opened.textContent = `${whole.format(more)} more lines are in the file`;
    opened.disabled = true;
  } catch (error) {
    opened.hidden = false;
    opened.textContent = error.message;
  }
}

function similarTo({ match: { file, line, name } }) {
  change({ similar: { file, line, name: visible(name) }, duplicates: false }, { back: true });
}

async function copied({ match: { file, line }, copy }) {
  const text = `${file}:${line}`;
  try {
    await navigator.clipboard.writeText(text);
    copy.textContent = 'Copied';
  } catch {
    copy.textContent = visible(text);
  }
}

// ---- what is done

$('form').addEventListener('submit', (event) => event.preventDefault());
$('query').addEventListener('input', (event) => {
  before.length = 0;
  change({ query: event.target.value, similar: undefined, duplicates: false });
});
$('paths').addEventListener('input', (event) => change({ paths: event.target.value }));
$('duplicates').addEventListener('click', () => change({ duplicates: !asked.duplicates, similar: undefined }, { back: !asked.duplicates }));

/** The cards, one after the other, and the one that has the keyboard. */
const cards = () => [...document.querySelectorAll('article')];
const current = () => document.activeElement?.closest?.('article');

/** Moves the keyboard from card to card; above the first one is the query. */
function move(by) {
  const all = cards();
  const at = all.indexOf(current()) + by;
  if (at < 0) $('query').focus();
  else all[Math.min(at, all.length - 1)]?.focus();
}

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const { key, target } = event;
  const typing = target instanceof HTMLInputElement;
  const article = current();
  const does = {
    ArrowDown: () => (!typing || target.id === 'query') && move(1),
    ArrowUp: () => !typing && move(-1),
    Escape: () => {
      if (goBack()) $('query').focus();
      else if (document.activeElement !== $('query')) $('query').focus();
      else change({ query: '', similar: undefined, duplicates: false });
    },
    '/': () => !typing && $('query').select(),
    Enter: () => (target.id === 'query' ? cards()[0]?.focus() : target === article && open(article)),
    s: () => !typing && article && similarTo(article),
    c: () => !typing && article && copied(article),
  }[key];
  if (!does || (typing && ['/', 's', 'c'].includes(key))) return;
  // Buttons take Enter themselves.
  if (key === 'Enter' && target instanceof HTMLButtonElement) return;
  if (does() !== false) event.preventDefault();
});

const THEMES = ['auto', 'dark', 'light'];
const dark = matchMedia('(prefers-color-scheme: dark)');
function theme(name) {
  document.documentElement.dataset.theme = name === 'auto' ? (dark.matches ? 'dark' : 'light') : name;
  $('theme').textContent = `Theme: ${name}`;
}
const remembered = () => {
  try {
    return localStorage.getItem('theme') ?? 'auto';
  } catch {
    return 'auto';
  }
};
let themeName = THEMES.includes(remembered()) ? remembered() : 'auto';
theme(themeName);
dark.addEventListener('change', () => theme(themeName));
$('theme').addEventListener('click', () => {
  themeName = THEMES[(THEMES.indexOf(themeName) + 1) % THEMES.length];
  try {
    localStorage.setItem('theme', themeName);
  } catch {
    // It holds for this page then.
  }
  theme(themeName);
});

/** Follows the index: when it has changed, what is shown is asked for again. */
const events = new EventSource('events');
events.addEventListener('status', (event) => {
  status = JSON.parse(event.data);
  const { name, state, files, annotations, problem } = status;
  document.title = name;
  $('title').textContent = visible(name);
  $('status').dataset.state = state;
  const there = `${counted(annotations, 'declaration')} of ${counted(files, 'file')}`;
  $('status').textContent = state === 'updating' ? `${there}; being brought up to date …` : state === 'failed' ? `${there}; not up to date: ${problem}` : there;
  shown();
  // Comparing all takes long: whoever wants it again asks again.
  if (!asked.duplicates && (state === 'ready' || latest === 0)) askAgain();
});
events.onerror = () => {
  $('status').dataset.state = 'lost';
  $('status').textContent = 'The server cannot be reached; trying again …';
};

/** Asks again without taking the keyboard away from where it is. */
async function askAgain() {
  const at = cards().indexOf(current());
  least = at + 1;
  await ask();
  least = 0;
  if (at >= 0) cards()[at]?.focus({ preventScroll: true });
}

kept();
shown();
if (asked.duplicates) ask();
