/**
 * Files of the kit and of the runtime: fetched with progress, and refused unless size and hash are what the kit says.
 */

/** A file could not be had, or is not the one that the kit was made with. The message is for the person at the page. */
export class AssetError extends Error {}

/**
 * @typedef {object} Asset
 * @property {string} file address, relative to the page or absolute
 * @property {number} bytes
 * @property {string} sha384 in base64, as subresource integrity writes it
 */

/**
 * The content of `asset`. `onProgress` gets the share that has arrived, 0 to 1, or null where it cannot be known.
 *
 * @param {Asset} asset
 * @param {(share: number | null) => void} onProgress
 * @returns {Promise<ArrayBuffer>}
 */
export async function fetchAsset(asset, onProgress = () => {}) {
  // Digests are for secure pages only (https and localhost). Elsewhere the browser itself checks while fetching, which
  // works everywhere, but gives nothing away before the end.
  if (!globalThis.crypto?.subtle) {
    onProgress(null);
    const response = await answer(asset.file, { integrity: `sha384-${asset.sha384}` });
    return response.arrayBuffer();
  }
  const response = await answer(asset.file);
  const content = await readWithProgress(response, asset, onProgress);
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-384', content));
  if (btoa(String.fromCharCode(...digest)) !== asset.sha384) {
    throw new AssetError(`${nameOf(asset)} is not the file that this kit was made with. Unzip the kit again.`);
  }
  return content;
}

/** JSON of the kit itself. */
export async function fetchJson(file) {
  const response = await answer(file);
  try {
    return await response.json();
  } catch {
    throw new AssetError(`${file} is damaged. Unzip the kit again.`);
  }
}

async function answer(file, options = {}) {
  let response;
  try {
    response = await fetch(file, options);
  } catch (error) {
    const { host } = new URL(file, location.href);
    const advice =
      host === location.host
        ? 'Is the server still running, and is the kit complete and unchanged?'
        : `It comes from ${host}: is there a network connection? A kit made with --bundle-runtime needs none.`;
    throw new AssetError(`${file} could not be fetched. ${advice}`, { cause: error });
  }
  if (!response.ok) {
    throw new AssetError(`${file} could not be fetched (status ${response.status}). Upload all of the unzipped kit.`);
  }
  return response;
}

/** Bytes of a response, which must be as many as the kit says. */
async function readWithProgress(response, asset, onProgress) {
  const content = new Uint8Array(asset.bytes);
  let arrived = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (arrived + value.length <= asset.bytes) content.set(value, arrived);
    arrived += value.length;
    onProgress(Math.min(1, arrived / asset.bytes));
  }
  if (arrived !== asset.bytes) {
    const found = `${arrived} bytes instead of ${asset.bytes}`;
    throw new AssetError(`${nameOf(asset)} came with ${found}: cut short or replaced. Unzip the kit again.`);
  }
  return content.buffer;
}

function nameOf(asset) {
  return asset.file.split('/').pop();
}
