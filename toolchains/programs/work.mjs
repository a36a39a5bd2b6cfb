// What every toolchain has to do with embedcore, however it was loaded. Nothing is printed unless it is asked for.
import { readFileSync } from 'node:fs';

const TEXT = 'Signature: fn read_lines(path: &Path) -> io::Result<Vec<String>> | Summary: Opens a file and reads its lines.';

/** The first values of that text's vector, as Node.js gets them from a clone. */
const EXPECTED = [
  -0.023723681, 0.10965154, 0.050627843, -0.016336963, -0.065118827, 0.13812283, -0.045288529, -0.037360761,
];

const texts = (count) => Array.from({ length: count }, (_, i) => `text ${i} ${'reads a file and parses it '.repeat(i % 40)}`);

function demand(condition, what) {
  if (!condition) throw new Error(`Wrong: ${what}`);
}

/** Uses the built-in model in all ways and throws where something is not right. */
export async function check({ EmbeddingError, OptimizedEmbeddingGenerator, prepareText }) {
  const generator = new OptimizedEmbeddingGenerator();
  await generator.initialize();
  const matrix = await generator.embed([TEXT, 'another text']);
  demand(matrix.data instanceof Float32Array && matrix.rows === 2 && matrix.dimensions === 256, 'the shape of the matrix');
  const row = matrix.row(0);
  EXPECTED.forEach((value, i) => demand(Math.abs(row[i] - value) < 1e-6, `value ${i}: ${row[i]} in place of ${value}`));
  const annotation = { nodeId: 'a', signature: 'fn read_lines(path: &Path) -> io::Result<Vec<String>>', summary: 'Opens a file and reads its lines.' };
  demand(prepareText(annotation) === TEXT, 'the prepared text');
  const [result] = await generator.generateEmbeddings([annotation]);
  demand(Array.isArray(result.embedding) && result.embedding.every((value, i) => value === row[i]), 'the vector of the annotation');
  for await (const { nodeId } of generator.stream([annotation])) demand(nodeId === 'a', 'the stream');
  const error = await generator.embed(['']).catch((error) => error);
  demand(error instanceof EmbeddingError && error instanceof Error && error.code === 'INVALID_ARGUMENT', 'the error');
  const wrong = (() => {
    try {
      return new OptimizedEmbeddingGenerator({ pooling: 'sum' });
    } catch (error) {
      return error;
    }
  })();
  demand(wrong instanceof EmbeddingError && wrong.code === 'INVALID_CONFIG', 'the error of a constructor');
  // No cleanup: a process has to end without it.
}

/** Ends the process with code 7 in the middle of a call. */
export async function exitMidway({ OptimizedEmbeddingGenerator }) {
  const generator = new OptimizedEmbeddingGenerator();
  await generator.initialize();
  await generator.embed(texts(3000), { progressCallback: () => process.exit(7) });
  throw new Error('The call ended before the process did');
}

/** Starts a call for which nobody waits, and gives the generator. */
export async function leaveWork({ OptimizedEmbeddingGenerator }) {
  const generator = new OptimizedEmbeddingGenerator();
  await generator.initialize();
  generator.embed(texts(1000)).catch(() => {});
  return generator;
}

/** Bytes of physical memory that the process holds. */
function resident() {
  try {
    return 1024 * Number(/VmRSS:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
  } catch {
    return process.memoryUsage().rss;
  }
}

/** How late a timer of 5 ms is while texts embed, and what ten rounds of the same work leave in memory. */
export async function measure({ OptimizedEmbeddingGenerator }) {
  const generator = new OptimizedEmbeddingGenerator({ cache: false });
  await generator.initialize();
  const all = texts(1500);
  const memory = [];
  const late = [];
  for (let round = 0; round < 10; round++) {
    let due = performance.now() + 5;
    const timer = setInterval(() => {
      const now = performance.now();
      late.push(Math.max(0, now - due));
      due = now + 5;
    }, 5);
    await generator.embed(all);
    clearInterval(timer);
    globalThis.gc?.();
    globalThis.Bun?.gc(true);
    memory.push(resident());
  }
  late.sort((a, b) => a - b);
  const mb = (bytes) => Math.round(bytes / 2 ** 20);
  const at = (share) => Number(late[Math.floor(late.length * share)].toFixed(1));
  console.log(JSON.stringify({ lateP50: at(0.5), lateP99: at(0.99), samples: late.length, afterRound2: mb(memory[1]), afterRound10: mb(memory[9]) }));
}

const ways = { check, exit: exitMidway, leave: leaveWork, measure };

/** Does what the first argument of the program says. */
export const work = (embedcore, way = process.argv[2] ?? 'check') => ways[way](embedcore);
