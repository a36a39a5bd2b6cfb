// What the guides and the types say, and what the sources do.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import ts from 'typescript';
import { expect } from 'vitest';

import { root } from './support';

export interface Statement {
  /** The page, or the file and the name that it documents. */
  where: string;
  /** The interface, if it documents a property of one. */
  owner: string;
  text: string;
}

const folded = (text: string) => text.replace(/\s+/g, ' ').trim();

/** The text of a file of this repository. */
export const textOf = (file: string) => readFileSync(join(root, file), 'utf8');

/** Pages for users. What was measured, and how, is not among what they promise. */
export const PAGES = ['README.md', 'SECURITY.md', ...readdirSync(join(root, 'docs')).filter((name) => name.endsWith('.md') && !['speed.md', 'trust.md'].includes(name)).map((name) => `docs/${name}`)];

/** What the pages say outside of their code, by paragraphs and rows, without the sections whose heading is one of `without`. */
export function guides(without: RegExp): Statement[] {
  return PAGES.flatMap((page) => {
    const prose = textOf(page).replace(/^```.*?^```/gms, '').replace(/\]\([^)]*\)/g, ']').replace(/^!\[.*$/gm, '');
    const sections = prose.split(/^#+ /m).filter((section) => !without.test(section));
    return sections.flatMap((section) => section.split(/\n\n|\n(?=[|-])/)).map((text) => ({ where: page, owner: '', text: folded(text) }));
  });
}

/** The comments of the types, one for each thing that has any. */
export function comments(): Statement[] {
  return readdirSync(root).filter((name) => name.endsWith('.d.ts')).flatMap((file) => {
    const source = ts.createSourceFile(file, textOf(file), ts.ScriptTarget.Latest, true);
    const found = new Map<ts.Node, Statement>();
    const visit = (node: ts.Node, owner: string): void => {
      const name = (node as ts.NamedDeclaration).name?.getText() ?? '';
      for (const docs of ts.getJSDocCommentsAndTags(node).filter((each) => ts.isJSDoc(each))) {
        const text = folded(docs.getText().replace(/^\s*\/?\*+\/?|\*\/$/gm, ''));
        if (!found.has(docs)) found.set(docs, { where: `${file} ${[owner, name].filter(Boolean).join('.')}`, owner, text });
      }
      const inside = ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node) || ts.isClassDeclaration(node) ? name : owner;
      ts.forEachChild(node, (child) => visit(child, inside));
    };
    visit(source, '');
    return [...found.values()];
  });
}

/** What the types say that an option is where it is left out, by `Interface.option`. */
export function defaults(): Map<string, string> {
  const stated = comments().flatMap(({ where, owner, text }) => {
    const said = /\bDefault ([`\d'\[-].*|true.*|false.*)/.exec(text)?.[1];
    return owner !== '' && said !== undefined ? [[where.replace(/^\S+ /, ''), said] as const] : [];
  });
  return new Map(stated);
}

/** Numbers that a text about an option allows and forbids: at the ends that it tells ("1–100", "0 to 60000", "from 1", "above 0", "up to 512"), and just beyond. */
export function limits(text: string): { taken: number[]; refused: number[] } {
  const plain = text.replace(/\s+/g, ' ').replace(/−/g, '-').replace(/(?<=\d),(?=\d{3})/g, '').replace('percent, or a share of 0–1', '0–100');
  const [, least, most] = RANGE.exec(plain) ?? [];
  const [from, above, upTo] = [FROM, ABOVE, UP_TO].map((end) => end.exec(plain)?.[1]);
  const step = most !== undefined && Number(most) <= 1 ? 0.01 : 1;
  const [lower, upper] = [least ?? from, most ?? upTo].map((end) => (end === undefined ? [] : [Number(end)]));
  const open = above === undefined ? [] : [Number(above)];
  return {
    taken: [...lower!, ...upper!, ...open.map((end) => end + 0.01)],
    refused: [...lower!.map((end) => end - step), ...upper!.map((end) => end + step), ...open],
  };
}
const RANGE = /(?<![\w.(])(-?\d[\d.]*?)(?:–| to )(\d[\d.]*\d|\d)(?![\w.]*\d| %)/;
const FROM = /(?<!(?:numbers|and) )\b[Ff]rom (\d+)(?=[.,:;]|$)/;
const ABOVE = /, above (\d+)(?=[.,;]|$)/;
const UP_TO = /: up to (\d+)(?=[.,;]|$)/;
/** All of these. */
export const ENDS = [RANGE, FROM, ABOVE, UP_TO];

/** What a constant of the sources says (`src/….rs` or `lib/….ts`), times in milliseconds. */
export function constant<Value = number>(file: string, name: string): () => Value {
  return () => {
    const [, value] = new RegExp(`const ${name}(?:: [^=]+)? = ([^;]+);`).exec(textOf(file)) ?? expect.fail(`${file} has no ${name}`);
    const plain = value!.replace(/(?<=\d)_(?=\d)/g, '').replace(/Duration::from_(secs|millis)\((.+)\)/g, (_, unit: string, number: string) => (unit === 'secs' ? `1000 * (${number})` : number));
    return new Function(`return ${plain.replace(/if cfg!\(test\) \{.*?\} else \{(.*?)\}/, '$1')};`)() as Value;
  };
}
