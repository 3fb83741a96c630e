/** Depth as a 16-bit PNG that states its own scale and unit, as sfmttr's own files do. */

const PNG_MAX = 65535;

/** Whether this browser can compress, which a PNG needs. */
export const canWritePng = 'CompressionStream' in globalThis;

/**
 * depth = value / steps; 0 is no depth. `steps` is made ten times coarser until the farthest depth fits.
 *
 * @param {Float32Array} depth row by row
 * @param {number} width
 * @param {number} height
 * @param {{kind: string, unit: string, steps: number, software: string}} meaning
 * @returns {Promise<Blob>}
 */
export async function depthPng(depth, width, height, { kind, unit, steps, software }) {
  let farthest = 0;
  for (const value of depth) if (Number.isFinite(value) && value > farthest) farthest = value;
  while (Math.round(farthest * steps) > PNG_MAX) steps /= 10;
  const sentence = `depth = value / ${Number(steps.toPrecision(10))} ${unit}`;
  const texts = {
    Description: `${sentence}; 0 = no depth; camera z`,
    Software: software,
    'sfmttr:depth_scale': String(steps),
    'sfmttr:depth_unit': unit,
    'sfmttr:depth_kind': kind,
  };
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 16); // bits; the rest is 0: grey, deflate, no interlacing
  const chunks = [
    chunk('IHDR', new Uint8Array(header.buffer)),
    ...Object.entries(texts).map(([key, text]) => chunk('tEXt', latin1(`${key}\0${text}`))),
    chunk('IDAT', await deflate(scanlines(depth, width, height, steps))),
    chunk('IEND', new Uint8Array()),
  ];
  return new Blob([new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]), ...chunks], { type: 'image/png' });
}

/** Rows of big-endian values, each after the number of its filter (0: none). */
function scanlines(depth, width, height, steps) {
  const rows = new Uint8Array(height * (1 + 2 * width));
  let to = 0;
  for (let y = 0; y < height; y++) {
    to++;
    for (let x = 0; x < width; x++) {
      const value = depth[y * width + x];
      const known = Number.isFinite(value) && value > 0;
      // What is nearer than half a step is still depth, and 0 means none.
      const step = known ? Math.max(1, Math.round(value * steps)) : 0;
      rows[to++] = step >> 8;
      rows[to++] = step & 255;
    }
  }
  return rows;
}

async function deflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function latin1(text) {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

/** Length, type, data, and the checksum of the last two. */
function chunk(type, data) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(latin1(type), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
