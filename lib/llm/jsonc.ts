// JSON as people write it: with comments, and a comma after the last one.

import { messageOf } from '../call/errors';

/** What is no JSON in a text, and where, as an editor shows it. */
export class JsonFault extends Error {
  constructor(what: string, line: number, column: number) {
    super(`${what} at line ${line}, column ${column}`);
  }
}

/**
 * The value of a text of JSON that may have comments, a comma after the last element, and a byte order mark.
 * @throws {@link JsonFault}
 */
export function parseJsonc(text: string): unknown {
  const plain = plainJson(text);
  try {
    return JSON.parse(plain) as unknown;
  } catch (error) {
    const said = messageOf(error);
    const [, at] = /at position (\d+)/.exec(said) ?? [];
    const what = said.replace(/ (in JSON )?at position .*$/s, '').replace(/, .*is not valid JSON$/s, '');
    // Without a position, it is the end that is missing.
    throw fault(what, plain, at === undefined ? plain.trimEnd().length : Number(at));
  }
}

function fault(what: string, text: string, at: number): JsonFault {
  const before = text.slice(0, at).split('\n');
  return new JsonFault(what, before.length, before.at(-1)!.length + 1);
}

/** A text, a comment, a comma, or anything else that stands for itself. One pass, whatever the text is. */
const TOKEN = /"[^"\\\n]*(?:\\.[^"\\\n]*)*"?|\/\/[^\n]*|\/\*[^*]*\*+(?:[^/*][^*]*\*+)*\/|\/\*[^]*|,|[^\s",/]+|\//g;

/** The same with spaces for what JSON does not have, so that all places stay. */
function plainJson(text: string): string {
  const parts: string[] = [];
  let end = 0;
  /** The part that is a comma of which it is not yet known whether anything follows. */
  let comma = -1;
  /** What came last. */
  let before = '';
  const source = text.startsWith('\uFEFF') ? ` ${text.slice(1)}` : text;
  for (const { 0: token, index } of source.matchAll(TOKEN)) {
    parts.push(source.slice(end, index));
    end = index + token.length;
    if (token.startsWith('//') || token.startsWith('/*')) {
      if (token.startsWith('/*') && !(token.length >= 4 && token.endsWith('*/'))) throw fault('The comment is not closed, which begins', source, index);
      parts.push(token.replace(/[^\n]/g, ' '));
      continue;
    }
    if (comma >= 0 && /^[}\]]/.test(token)) parts[comma] = ' ';
    // One that follows nothing is a mistake, and is left to be told.
    comma = token === ',' && /[^[{,:]$/.test(before) ? parts.length : -1;
    before = token;
    parts.push(token);
  }
  parts.push(source.slice(end));
  return parts.join('');
}
