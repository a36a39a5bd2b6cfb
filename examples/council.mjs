// Has three planners plan a scene at the same time, merges what they answer, and shows where they disagree.
//
//   node examples/council.mjs

import { DynamicSemanticCouncil } from 'embedcore/coherence';

/** Stand-ins for language models with a role each. */
const planners = [
  {
    name: 'writer',
    weights: { text: 2 },
    plan: async () => ({ scene: { summary: 'a quiet beach at dawn', entities: ['beach', 'gulls', 'boat'] }, style: { mood: 'calm', palette: ['blue', 'gold'] }, audio: { sounds: ['waves', 'gulls'], tempo: 60 } }),
  },
  {
    name: 'painter',
    weights: { image: 2 },
    plan: async () => '```json\n{"scene": {"summary": "a quiet beach at dusk", "entities": ["Beach", "boat", "lighthouse"]}, "style": {"mood": "melancholy", "palette": ["orange", "gold"]}, "audio": {"sounds": ["waves"], "tempo": 60}}\n```',
  },
  {
    name: 'composer',
    weights: { audio: 2 },
    plan: async () => ({ scene: { summary: 'a quiet beach at dawn', entities: ['beach', 'gulls'] }, style: { mood: 'calm', palette: ['blue', 'gold'] }, audio: { sounds: ['waves', 'wind', 'piano'], tempo: 72 } }),
  },
  { name: 'dreamer', timeoutMs: 100, plan: () => new Promise(() => {}) },
];

const council = new DynamicSemanticCouncil({ planners, monitor: false });
const { merged, report, analysis, plans } = await council.run('Paint the picture of a quiet beach, and let me hear the waves');

console.log(`most important: ${analysis.order.map((name) => `${name} ${analysis.weights[name].toFixed(2)}`).join(', ')}`);
console.log(`planners: ${plans.map(({ name, success, timedOut }) => `${name} ${success ? '✓' : timedOut ? '(too late)' : '✗'}`).join(', ')}\n`);
console.log(JSON.stringify(merged, undefined, 2));
console.log(`\nagreement ${report.agreementScore.toFixed(2)}, by section:`);
for (const [section, agreement] of Object.entries(report.perSectionAgreement)) {
  const conflict = report.conflicts[section];
  console.log(`  ${agreement.toFixed(2)}  ${section}${conflict ? `  ✗ ${conflict.map((value) => JSON.stringify(value)).join(' / ')}` : ''}`);
}
