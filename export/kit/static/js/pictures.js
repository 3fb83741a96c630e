/** From files, videos and cameras to RGBA pixels. */

/** A picture cannot be used. The message is for the person at the page. */
export class PictureError extends Error {}

/**
 * @typedef {object} Picture
 * @property {Uint8ClampedArray} rgba
 * @property {number} width
 * @property {number} height
 * @property {number} [fullWidth] before it was made smaller
 */

/**
 * Pixels of an image file, turned as its EXIF says, at most `longSide` wide and high.
 *
 * @param {Blob} file
 * @param {number} longSide px
 * @returns {Promise<Picture>}
 */
export async function decodePicture(file, longSide) {
  let bitmap;
  try {
    // Colour profiles are left alone, as they are where the network was trained.
    bitmap = await createImageBitmap(file, { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
  } catch (error) {
    const name = file.name ?? 'This file';
    throw new PictureError(`${name} is not a picture that this browser can read. Try a JPEG or a PNG.`, { cause: error });
  }
  try {
    return grab(bitmap, bitmap.width, bitmap.height, longSide);
  } finally {
    bitmap.close();
  }
}

/** The frame that a playing `video` shows now. */
export function grabVideo(video, longSide) {
  return grab(video, video.videoWidth, video.videoHeight, longSide);
}

let canvas = null;

function grab(source, fullWidth, fullHeight, longSide) {
  const scale = Math.min(1, longSide / Math.max(fullWidth, fullHeight));
  const width = Math.max(1, Math.round(fullWidth * scale));
  const height = Math.max(1, Math.round(fullHeight * scale));
  canvas ??= document.createElement('canvas');
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d', { willReadFrequently: true, alpha: false });
  context.imageSmoothingQuality = 'high';
  context.drawImage(source, 0, 0, width, height);
  return { rgba: context.getImageData(0, 0, width, height).data, width, height, fullWidth };
}
