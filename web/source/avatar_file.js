// Reads an avatar's file as docs/format.md describes it.

const SCHEMA = 1;

// Text in base64 of a gzip file -> ArrayBuffer.
export async function unpacked(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Response(stream).arrayBuffer();
}

// The header and tensors of a file; float tensors as Float32Array. Throws an Error whose message is a sentence.
export function parsed(buffer) {
  const header = new DataView(buffer).getUint32(0, true);
  const entries = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, header)));
  const own = JSON.parse(entries.__metadata__.effigy);
  delete entries.__metadata__;
  if (own.baked?.schema !== SCHEMA || !own.baked.sliders) {
    throw new Error('This file cannot move by itself. Ask whoever sent it for a web page of the avatar.');
  }
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(entries)) {
    const bytes = buffer.slice(8 + header + begin, 8 + header + end);
    tensors[name] = { shape, values: READERS[dtype]?.(bytes) };
  }
  return { header: own, tensors };
}

const READERS = {
  F32: (bytes) => new Float32Array(bytes),
  F16: (bytes) => Float32Array.from(new Uint16Array(bytes), (bits) => halves()[bits]),
  I16: (bytes) => new Int16Array(bytes),
  I32: (bytes) => new Int32Array(bytes),
};

let table;

// The value of each of the 65,536 half-precision numbers.
function halves() {
  table ??= Float32Array.from({ length: 65536 }, (_, bits) => {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  });
  return table;
}
