// What must not be read in a message, whoever has written it: keys, wherever a request carries them.

const CARRIERS = /auth|cookie|key|token|secret|password|signature/i;

/** Shorter ones would take ordinary words out of messages. */
const SHORTEST = 4;

/** A part of a URL without its escapes; one that has something else behind a percent sign is meant as it is. */
export function decodedPart(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Whether a header, or a parameter of a URL, may carry a key. */
export function carriesSecret(name: string): boolean {
  return CARRIERS.test(name);
}

/** A key as servers may repeat it: as it is, with the escapes of a URL or of a form, in either case, and of JSON. */
function spellingsOf(secret: string): string[] {
  let escaped: string[] = [];
  try {
    escaped = [encodeURIComponent(secret), encodeURI(secret)];
  } catch {
    // Half a character has no escapes.
  }
  const inUrls = [...escaped, new URLSearchParams([['', secret]]).toString().slice(1)];
  return [secret, ...inUrls, ...inUrls.map((url) => url.replace(/%../g, (escape) => escape.toLowerCase())), JSON.stringify(secret).slice(1, -1), secret.replaceAll('/', '\\/')];
}

/** Texts without the keys of a request. */
export type Redact = (text: string) => string;

/** Takes out of texts what the headers and the query of a request have as keys. */
export function redactor(headers: Record<string, string>, url: URL, proxy?: string): Redact {
  const secrets = new Set<string>();
  const add = (secret: string) => {
    if (secret.length >= SHORTEST) spellingsOf(secret).forEach((spelling) => secrets.add(spelling));
  };
  const addValue = (value: string) => {
    add(value);
    const [scheme, ...rest] = value.split(' ');
    for (const part of rest) add(part);
    if (scheme!.toLowerCase() !== 'basic') return;
    const pair = Buffer.from(rest.join(''), 'base64').toString();
    add(pair);
    add(pair.slice(pair.indexOf(':') + 1));
  };
  for (const [name, value] of Object.entries(headers)) if (carriesSecret(name)) addValue(value);
  // As it is sent, and as servers read it: with plus signs as they are, or as spaces.
  for (const part of url.search.slice(1).split('&')) {
    const [[name, value] = ['', '']] = new URLSearchParams(part);
    if (!carriesSecret(name)) continue;
    const sent = part.slice(part.indexOf('=') + 1);
    for (const spelling of [sent, decodedPart(sent), value]) add(spelling);
  }
  if (proxy !== undefined) {
    const { password } = new URL(proxy);
    add(password);
    add(decodedPart(password));
  }
  const longestFirst = [...secrets].sort((a, b) => b.length - a.length);
  return (text) => longestFirst.reduce((rest, secret) => rest.replaceAll(secret, '***'), text);
}
