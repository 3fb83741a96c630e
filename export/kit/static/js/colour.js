/** Depth in colours, and the bar that says which colour is which depth. */

export const NO_DEPTH = [38, 40, 46];

/** Points of each map, evenly spread, near first. Spectral is ColorBrewer's. */
const MAPS = {
  spectral: [
    [158, 1, 66],
    [213, 62, 79],
    [244, 109, 67],
    [253, 174, 97],
    [254, 224, 139],
    [255, 255, 191],
    [230, 245, 152],
    [171, 221, 164],
    [102, 194, 165],
    [50, 136, 189],
    [94, 79, 162],
  ],
  // Told apart by lightness alone, with any colour vision.
  grey: [
    [250, 250, 250],
    [12, 12, 14],
  ],
};

const tables = new Map();

/** As many as the run’s own pictures have: the 256th of theirs stands for no depth. */
const COLOURS = 255;

/** `COLOURS` colours as the 32-bit values of RGBA bytes. */
function colourTable(name) {
  if (!tables.has(name)) {
    const points = MAPS[name];
    const bytes = new Uint8ClampedArray(COLOURS * 4);
    for (let i = 0; i < COLOURS; i++) {
      const place = (i / (COLOURS - 1)) * (points.length - 1);
      const low = Math.min(Math.floor(place), points.length - 2);
      for (let c = 0; c < 3; c++) {
        // Cut, not rounded: that is how matplotlib, which colours the run's own pictures, makes bytes.
        bytes[4 * i + c] = Math.trunc(points[low][c] + (place - low) * (points[low + 1][c] - points[low][c]));
      }
      bytes[4 * i + 3] = 255;
    }
    tables.set(name, new Uint32Array(bytes.buffer));
  }
  return tables.get(name);
}

/**
 * @typedef {object} ColourRange
 * @property {number} near depth that the first colour stands for
 * @property {number} far depth that the last colour stands for
 */

/** Where `depth` lies between near (0) and far (1): in log depth, so that equal steps are equal relative errors. */
export function colourPosition(depth, { near, far }) {
  const position = Math.log(depth / near) / Math.log(far / near);
  return Math.min(1, Math.max(0, position));
}

const INFINITY_BITS = 0x7f800000;
/** Of a float's bits, these are left out when its colour is looked up: depths within 0.012 % share one. */
const SKIPPED_BITS = 10;

/**
 * @param {Float32Array} depth
 * @param {number} width
 * @param {number} height
 * @param {ColourRange} range
 * @param {string} map
 * @returns {ImageData}
 */
export function colourise(depth, width, height, range, map) {
  const { colours, first } = lookUpTable(range, map);
  const none = new Uint32Array(new Uint8ClampedArray([...NO_DEPTH, 255]).buffer)[0];
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const bits = new Int32Array(depth.buffer, depth.byteOffset, depth.length);
  const last = colours.length - 1;
  for (let i = 0; i < pixels.length; i++) {
    // As integers, positive floats are in the same order, negative ones are negative, and NaN is beyond infinity.
    if (bits[i] > 0 && bits[i] < INFINITY_BITS) {
      const place = (bits[i] >> SKIPPED_BITS) - first;
      pixels[i] = colours[place < 0 ? 0 : place > last ? last : place];
    } else {
      pixels[i] = none;
    }
  }
  return image;
}

/** Colours of all depths from near to far, by the leading bits of the depth: much faster than a logarithm each. */
function lookUpTable(range, map) {
  const table = colourTable(map);
  const [near, far] = new Int32Array(new Float32Array([range.near, range.far]).buffer);
  const first = near >> SKIPPED_BITS;
  const middles = new Int32Array((far >> SKIPPED_BITS) - first + 1);
  for (let i = 0; i < middles.length; i++) middles[i] = ((first + i) << SKIPPED_BITS) + (1 << (SKIPPED_BITS - 1));
  const depths = new Float32Array(middles.buffer);
  const colourOf = (value) => table[Math.round((COLOURS - 1) * colourPosition(value, range))];
  return { first, colours: Uint32Array.from(depths, colourOf) };
}

/** The range between the 1st and the 98th percentile of one picture's depth. */
export function rangeOf(depth) {
  const step = Math.max(1, Math.floor(depth.length / 20000));
  const some = depth.filter((value, i) => i % step === 0 && value > 0 && value < Infinity).sort();
  if (!some.length) return { near: 1, far: 2 };
  const near = some[Math.floor(0.01 * (some.length - 1))];
  const far = some[Math.floor(0.98 * (some.length - 1))];
  return { near, far: Math.max(far, near * 1.05) };
}

const TICKS = [[1, 1.5, 2, 2.5, 3, 4, 5, 6, 8], [1, 1.5, 2, 3, 5], [1, 2, 3, 5], [1, 2, 5], [1]];

/** At most `most` round depths within the range; its two ends where it is too narrow for any. */
export function roundDepths({ near, far }, most) {
  const decades = [];
  for (let d = Math.floor(Math.log10(near)); d <= Math.ceil(Math.log10(far)); d++) decades.push(d);
  for (const factors of TICKS) {
    const ticks = decades.flatMap((d) => factors.map((factor) => Number((factor * 10 ** d).toPrecision(3))));
    const inside = ticks.filter((tick) => tick >= near && tick <= far);
    if (inside.length >= 2 && inside.length <= most) return inside;
  }
  return [near, far];
}

/** Three significant digits, without an exponent. */
export function formatNumber(value) {
  if (!Number.isFinite(value)) return '–';
  return new Intl.NumberFormat('en', { maximumSignificantDigits: 3, useGrouping: false }).format(value);
}

/** Draw the map, near to far, onto a canvas. */
export function drawBar(canvas, map) {
  Object.assign(canvas, { width: COLOURS, height: 1 });
  const image = new ImageData(COLOURS, 1);
  new Uint32Array(image.data.buffer).set(colourTable(map));
  canvas.getContext('2d').putImageData(image, 0, 0);
}
