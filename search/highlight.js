// Source code → pieces with what they are: comments, strings, numbers, keywords, types, calls. One look at each character, whatever it
// holds; where a language is read wrong, colours are wrong and nothing else.
'use strict';

(() => {
  const words = (text) => new Set(text.split(' '));

  /** Of all languages together: a word that is a keyword in another one is seldom a name. */
  const KEYWORDS = words(
    'abstract actor alias and as assert async auto await base begin bool boolean break by byte case catch chan char checked class co_await co_return concept const constexpr ' +
    'continue crate debugger declare def default defer deferred delegate delete do double dyn each elif else elsif end ensure enum esac except explicit export extends ' +
    'extension extern false final finally float fn for foreach foreach from fun func function get given global go goto guard if impl implements implicit import in include init ' +
    'inline instanceof int interface internal into is isset it lambda last lateinit lazy let local long loop match mod module move mut mutable namespace native new next nil none ' +
    'noexcept nonlocal not null nullptr object of open operator or out override package pass pin private protected protocol pub public raise readonly record ref register ' +
    'repeat require rescue return rune sealed select self set short signed sizeof static str strictfp string struct super suspend switch synchronized template then this throw ' +
    'throws trait transient true try type typealias typedef typename typeof undefined union unless unsafe unsigned until use using val var vararg virtual void volatile when ' +
    'where while with yield True False None Self',
  );
  const SQL = words('add all alter and as asc between by case check column commit constraint create cross current database default delete desc distinct drop else end exists false ' +
    'foreign from full function group having if in index inner insert into is join key language left like limit not null offset on or order outer primary procedure references ' +
    'replace returns right rollback select set table temporary then trigger true union unique update using values view when where with');

  const SLASHES = words('c cpp csharp go java javascript kotlin php rust scala svelte swift typescript vue');
  const HASHES = words('bash php python ruby');
  const TRIPLE = words('java kotlin python scala swift');
  const BACKTICK = words('bash go javascript svelte typescript vue');

  /** The end of what `close` ends, from `at` on; a backslash takes the next character with it, unless the text is raw. */
  function end(code, at, close, raw, lines) {
    for (let i = at; i < code.length; i++) {
      if (code[i] === '\\' && !raw) i++;
      else if (code.startsWith(close, i)) return i + close.length;
      else if (code[i] === '\n' && !lines) return i;
    }
    return code.length;
  }

  const line = (code, at) => {
    const found = code.indexOf('\n', at);
    return found < 0 ? code.length : found;
  };
  const after = (code, at, close) => {
    const found = code.indexOf(close, at);
    return found < 0 ? code.length : found + close.length;
  };

  const WORD = /[\p{L}\p{Nl}_$][\p{L}\p{Nl}\p{Nd}\p{Mn}_$]*/uy;
  const NUMBER = /\d[\w.]*/y;

  /** The piece that begins at `at`: its kind, if any, and its end. */
  function piece(code, at, language) {
    const c = code[at];
    const two = code.slice(at, at + 2);
    if (language === 'markdown' || language === 'text') return ['', code.length];
    if (SLASHES.has(language) || language === 'sql') {
      if (two === '/*') return ['comment', after(code, at + 2, '*/')];
      if (two === '//' && language !== 'sql') return ['comment', line(code, at)];
    }
    if (c === '#' && HASHES.has(language) && !(language === 'bash' && at > 0 && !/\s/.test(code[at - 1]))) return ['comment', line(code, at)];
    if (two === '--' && language === 'sql') return ['comment', line(code, at)];
    if (c === '"' || c === "'" || (c === '`' && BACKTICK.has(language))) {
      const three = c.repeat(3);
      if (TRIPLE.has(language) && code.startsWith(three, at)) return ['string', end(code, at + 3, three, false, true)];
      // Rust's lifetimes, and Scala's symbols.
      if (c === "'" && (language === 'rust' || language === 'scala') && !/^'(\\.|[^\\'])[^']{0,8}'/u.test(code.slice(at, at + 12))) return ['', at + 1];
      const raw = language === 'sql' || (language === 'bash' && c === "'") || (language === 'go' && c === '`');
      const lines = c === '`' || ['bash', 'php', 'ruby', 'rust', 'sql'].includes(language);
      return ['string', end(code, at + 1, c, raw, lines)];
    }
    NUMBER.lastIndex = at;
    if (NUMBER.test(code)) return ['number', NUMBER.lastIndex];
    WORD.lastIndex = at;
    if (!WORD.test(code)) return ['', at + 1];
    const to = WORD.lastIndex;
    const word = code.slice(at, to);
    if (language === 'sql' ? SQL.has(word.toLowerCase()) : KEYWORDS.has(word)) return ['keyword', to];
    if (/^\s{0,2}[(!]/.test(code.slice(to, to + 3)) && code[to] !== '!') return ['call', to];
    return [/^\p{Lu}/u.test(word) ? 'type' : '', to];
  }

  /** The pieces of `code`, in order: `[kind, text]`; a kind may be empty. */
  globalThis.highlighted = (code, language) => {
    const pieces = [];
    let plain = 0;
    let at = 0;
    while (at < code.length) {
      const [kind, to] = piece(code, at, language);
      if (kind !== '') {
        if (plain < at) pieces.push(['', code.slice(plain, at)]);
        pieces.push([kind, code.slice(at, to)]);
        plain = to;
      }
      at = to;
    }
    if (plain < code.length) pieces.push(['', code.slice(plain)]);
    return pieces;
  };
})();
