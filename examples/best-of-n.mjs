// Chooses the best of several answers of a language model by how coherently each goes on, and shows why.
//
//   node examples/best-of-n.mjs

import { CoherenceEngine } from 'embedcore/coherence';

const prompt = 'Why does water boil at a lower temperature in the mountains?';

/** What a model answers; a stand-in for `(prompt, { seed, signal }) => ollama.generate(prompt, { seed, signal })`. */
const ANSWERS = [
  'Water boils when its vapour pressure reaches that of the air. Water does not boil when its vapour pressure reaches that of the air.',
  'Water boils when its vapour pressure reaches that of the air. In the mountains the air pressure is lower, so less heat is needed.',
  'Opera began in Florence. Its first composers wanted to bring back the drama of the Greeks.',
  'Water boils when its vapour pressure reaches that of the air. In the mountains the air pressu',
];
const FURTHER = ['That is why food takes longer to cook in boiling water in the mountains.', 'A pressure cooker helps: it raises the pressure above the water.'];
const model = async (asked, { seed }) => {
  if (asked !== prompt) return FURTHER[seed - 1];
  if (seed === 4) throw new Error('the model is busy');
  return ANSWERS[seed];
};

const engine = new CoherenceEngine({ k: 5, h: 2, fallbackResponse: '(no answer)', monitor: false });
const { all, index, metrics, admissible, debug } = await engine.selectBestCandidate(prompt, model);

console.log(`${prompt}\n\n    CCI    EVB    CR     TS     ES     PD`);
for (const { candidate, metrics: own } of all) {
  const numbers = ['CCI', 'EVB', 'CR', 'TS', 'ES', 'PD'].map((part) => (own ? own[part].toFixed(3) : '  –  ')).join('  ');
  console.log(`${candidate.index === index ? '★' : candidate.failed ? '✗' : ' '}  ${numbers}  ${candidate.response.slice(0, 70)}`);
}
console.log(`\nCandidate ${index} wins by ${debug.margin.toFixed(3)}; its CCI is ${metrics.CCI.toFixed(3)}, ${admissible ? 'admissible' : 'not admissible'} from ${debug.threshold}.`);

await engine.selectBestCandidate(prompt, model);
const { calls, failures, callsSaved, hitRatio } = engine.getOptimizationMetrics();
console.log(`Asked again: ${calls} calls of the model in all, ${failures} failed, ${callsSaved} saved (hit ratio ${hitRatio.toFixed(2)}).`);
await engine.close();
