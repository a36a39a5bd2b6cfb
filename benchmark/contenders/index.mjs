// Who is measured. A module's `open(job)` gives `{ embed(texts), close?() }`; `embed` answers with a list of flat number
// arrays which, one after the other, are the rows in input order. `job` holds the contender's own `settings` too.

export const contenders = [
  // Every default: with OpenVINO's package beside it, whatever its trial finds.
  { name: 'embedcore', label: 'embedcore', file: 'embedcore.mjs' },
  { name: 'embedcore-onnxruntime', label: 'embedcore, ONNX Runtime', file: 'embedcore.mjs', settings: { engine: 'onnxruntime' } },
  { name: 'embedcore-openvino-fp32', label: 'embedcore, OpenVINO in fp32', file: 'embedcore.mjs', settings: { engine: 'openvino', precision: 'fp32' } },
  { name: 'embedcore-openvino-bf16', label: 'embedcore, OpenVINO in bf16', file: 'embedcore.mjs', settings: { engine: 'openvino', precision: 'bf16' } },

  // Raw ONNX Runtime on ready-made inputs: what is left when everything around the model costs nothing.
  { name: 'floor-session2-1024', label: 'floor: 1 session × 2 threads, 1024 tokens', file: 'floor.py', settings: { sessionThreads: 2, callers: 1, budget: 1024 } },
  { name: 'floor-callers2-512', label: 'floor: 2 callers × 1 thread, 512 tokens', file: 'floor.py', settings: { sessionThreads: 1, callers: 2, budget: 512 } },
  { name: 'floor-callers2-1024', label: 'floor: 2 callers × 1 thread, 1024 tokens', file: 'floor.py', settings: { sessionThreads: 1, callers: 2, budget: 1024 } },
  { name: 'floor-callers2-row1', label: 'floor: 2 callers × 1 thread, 1 row', file: 'floor.py', settings: { sessionThreads: 1, callers: 2, rows: 1 } },
  { name: 'floor-session2-row1', label: 'floor: 1 session × 2 threads, 1 row', file: 'floor.py', settings: { sessionThreads: 2, callers: 1, rows: 1 } },

  { name: 'transformers.js-1', label: 'transformers.js fp32, batch 1', file: 'transformers.mjs', settings: { batchSize: 1 } },
  { name: 'transformers.js-8', label: 'transformers.js fp32, batch 8', file: 'transformers.mjs', settings: { batchSize: 8 } },
  { name: 'transformers.js-32', label: 'transformers.js fp32, batch 32', file: 'transformers.mjs', settings: { batchSize: 32 } },

  { name: 'fastembed-1', label: 'fastembed, batch 1, 256 tokens', file: 'fastembed.mjs', settings: { batchSize: 1, maxLength: 256 } },
  { name: 'fastembed-32', label: 'fastembed, batch 32, 256 tokens', file: 'fastembed.mjs', settings: { batchSize: 32, maxLength: 256 } },
  // 256 rows, each padded to 512 tokens: hence the memory.
  { name: 'fastembed-defaults', label: 'fastembed, its defaults', file: 'fastembed.mjs', settings: {}, needsMB: 16_500 },

  { name: 'xenova-wasm', label: '@xenova WASM, 1 thread, 1 text a call', file: 'xenova.mjs', settings: { executionProvider: 'wasm' } },
  { name: 'xenova-native', label: '@xenova native, 1 text a call', file: 'xenova.mjs', settings: { executionProvider: 'cpu' } },
];
