/** The self-check: the model's depth of a stored frame, as this browser computes it, beside what it should be. */

import { AssetError, fetchAsset } from './assets.js';
import { decodePicture } from './pictures.js';

/**
 * @typedef {object} Check
 * @property {{rgba: Uint8ClampedArray, width: number, height: number}} picture the stored frame
 * @property {Float32Array} expected depth at every `step`-th pixel both ways, from pixel `first` on
 * @property {number} first
 * @property {number} step
 * @property {boolean} faithful whether this browser gives the frame's pixels as they are stored
 */

/**
 * @typedef {object} Difference
 * @property {number} largest relative
 * @property {number} mean relative
 * @property {number} places that were compared
 */

/**
 * @param {object} description `check` of kit.json
 * @returns {Promise<Check>}
 */
export async function loadCheck(description) {
  const [frame, expected] = await Promise.all([fetchAsset(description.frame), fetchAsset(description.expected)]);
  const picture = await decodePicture(new Blob([frame], { type: 'image/png' }), Infinity);
  const { first, step } = description;
  return { picture, expected: readNpy(expected), first, step, faithful: pixelSum(picture) === description.pixel_sum };
}

/**
 * @param {Check} check
 * @param {Float32Array} depth of the stored frame
 * @returns {Difference}
 */
export function compare(check, depth) {
  const { width, height } = check.picture;
  let largest = 0;
  let sum = 0;
  let places = 0;
  for (let y = check.first; y < height; y += check.step) {
    for (let x = check.first; x < width; x += check.step) {
      const expected = check.expected[places++];
      const difference = Math.abs(depth[y * width + x] - expected) / expected;
      // NaN compares as false to everything, and must count as the worst there is.
      if (!(difference <= largest)) largest = Number.isNaN(difference) ? Infinity : difference;
      sum += difference;
    }
  }
  if (places !== check.expected.length) throw new AssetError('The stored depth does not fit the stored frame.');
  return { largest, mean: sum / places, places };
}

/** Float32 values of an npy file, version 1. */
function readNpy(buffer) {
  const view = new DataView(buffer);
  const headerLength = view.getUint16(8, true);
  const header = new TextDecoder('latin1').decode(new Uint8Array(buffer, 10, headerLength));
  if (!header.includes("'descr': '<f4'") || !header.includes("'fortran_order': False")) {
    throw new AssetError('The stored depth is of a kind that this page cannot read.');
  }
  return new Float32Array(buffer.slice(10 + headerLength));
}

/** Sum of all red, green and blue values: some browsers alter pixels on their way to a page, to protect privacy. */
function pixelSum({ rgba }) {
  let sum = 0;
  for (let i = 0; i < rgba.length; i += 4) sum += rgba[i] + rgba[i + 1] + rgba[i + 2];
  return sum;
}
