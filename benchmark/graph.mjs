// Graphs of ONNX with something added: as much of the encoding of Protocol Buffers as that takes.

/** Fields of the messages of ONNX (onnx.proto) that are written here. */
export const [MODEL_GRAPH, GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT] = [7, 1, 5, 11, 12];

/** The fields of a message in the encoding of Protocol Buffers. */
export function fieldsOf(message) {
  const fields = [];
  for (let at = 0; at < message.length; ) {
    const begin = at;
    let key, length;
    [key, at] = varint(message, at);
    const [number, wire] = [Math.floor(key / 8), key % 8];
    let body;
    if (wire === 0) [, at] = varint(message, at);
    else if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else {
      [length, at] = varint(message, at);
      body = message.subarray(at, (at += length));
    }
    fields.push({ number, raw: message.subarray(begin, at), body });
  }
  return fields;
}

function varint(message, at) {
  let [value, factor] = [0, 1];
  for (; ; factor *= 128) {
    const byte = message[at++];
    value += (byte & 127) * factor;
    if (byte < 128) return [value, at];
  }
}

function writtenVarint(value) {
  const all = [];
  for (; value >= 128; value = Math.floor(value / 128)) all.push((value % 128) + 128);
  return Buffer.from([...all, value]);
}

export function whole(number, value) {
  return Buffer.concat([writtenVarint(number * 8), writtenVarint(value)]);
}

export function bytes(number, body) {
  return Buffer.concat([writtenVarint(number * 8 + 2), writtenVarint(body.length), body]);
}

export function text(number, value) {
  return bytes(number, Buffer.from(value));
}

/** A graph that has the mean of its token vectors, too: `weights`, rows × tokens, say what each counts, and `pooled` is rows × 1 × width. */
export function pooled(model, half) {
  const node = (operator, inputs, output, ...attributes) => bytes(GRAPH_NODE, Buffer.concat([...inputs.map((name) => text(1, name)), text(2, output), text(4, operator), ...attributes]));
  const attribute = (name, ...value) => bytes(5, Buffer.concat([text(1, name), ...value]));
  const shape = bytes(5, Buffer.concat([whole(1, 3), whole(2, 7), bytes(9, Buffer.from(BigInt64Array.from([0n, 1n, -1n]).buffer))]));
  const port = (number, name, sizes) => bytes(number, Buffer.concat([text(1, name), bytes(2, bytes(1, Buffer.concat([whole(1, 1), bytes(2, Buffer.concat(Array(sizes).fill(bytes(1, Buffer.alloc(0)))))])))]));
  const tokens = half ? 'pool.tokens' : 'last_hidden_state';
  const added = [
    ...(half ? [node('Cast', ['last_hidden_state'], tokens, attribute('to', whole(3, 1), whole(20, 2)))] : []),
    node('Constant', [], 'pool.shape', attribute('value', shape, whole(20, 4))),
    node('Reshape', ['weights', 'pool.shape'], 'pool.row'),
    node('MatMul', ['pool.row', tokens], 'pooled'),
    port(GRAPH_INPUT, 'weights', 2),
    port(GRAPH_OUTPUT, 'pooled', 3),
  ];
  // A message may come in pieces, whose lists are joined.
  return Buffer.concat([model, bytes(MODEL_GRAPH, Buffer.concat(added))]);
}
