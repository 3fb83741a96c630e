/** The page: what its controls do. Depth comes from `predictor.js`; this file only asks for it and shows it. */

import { AssetError, fetchJson } from './assets.js';
import { loadCheck } from './check.js';
import { EngineError } from './engine.js';
import { FrameRate, follow, listCameras, playClip, release, requestCamera, SourceError, stopStream } from './live.js';
import { decodePicture, grabVideo, PictureError } from './pictures.js';
import { canWritePng, depthPng } from './png16.js';
import { Predictor } from './predictor.js';
import { DepthView } from './view.js';

const SCHEMA = 1;
const STILL_LONG_SIDE = 4096;
/** Live pictures come again and again: larger ones cost more to copy than they show. */
const LIVE_LONG_SIDE = 1280;
const SHORT_UNITS = { metres: 'm', 'network units': 'units' };

const $ = (id) => document.getElementById(id);

class App {
  #kit;
  #check;
  #predictor;
  #view;
  /** The picture that is to be shown next, of those that stand still. */
  #still = null;
  /** Ends the video or camera that is shown. */
  #live = null;
  /** A video that is being opened. */
  #opening = null;
  #source = 'picture';

  constructor(kit, check) {
    this.#kit = kit;
    this.#check = check;
    this.#predictor = new Predictor(kit, check, progress, (verdict) => this.#showGpu(verdict));
    const elements = Object.fromEntries(
      ['stage', 'picture', 'depth', 'readout', 'bar', 'ticks'].map((id) => [id, $(id)]),
    );
    this.#view = new DepthView(elements, SHORT_UNITS[kit.unit] ?? kit.unit, kit.colour_range);
    this.#describe();
  }

  /** Load the first model and show the stored frame. */
  async start() {
    await this.#useModel(this.#kit.default_variant);
    this.#listen();
    document.body.classList.add('ready');
    $('workbench').hidden = false;
    $('cards').hidden = false;
    await this.#showStoredFrame();
  }

  // -------------------------------------------------------------------------------------- description

  #describe() {
    const { place, network, unit, working_hw: hw, clip_frames: frames, refined, held_out: heldOut } = this.#kit;
    document.title = `Depth of ${place}`;
    $('place').textContent = place;
    const tuned = refined ? `tuned on ${frames} frames` : 'as its authors trained it: tuning found nothing better';
    $('facts').textContent = `${network} · ${tuned} · depth in ${unit} · works at ${hw[1]} × ${hw[0]}`;
    $('unit').textContent = `Depth in ${unit}${unit === 'metres' ? '' : ' (up to one factor)'}`;
    $('models').append(...Object.entries(this.#kit.variants).map(([name, variant]) => modelOption(name, variant)));
    $('error-text').textContent = heldOut
      ? `Mean relative error at ${heldOut.points} structure-from-motion points that were not trained on: before tuning, and of the model that is chosen above.`
      : 'The clip left no points to measure it with.';
    $('licence').append(`Network and weights: ${this.#kit.network_licence}, from `, sourceLink(this.#kit.network_source));
    $('versions').textContent = `sfmttr ${this.#kit.sfmttr} · onnxruntime-web ${this.#kit.web_runtime.version}`;
    $('caution').textContent = this.#kit.caution;
    $('caution').hidden = !this.#kit.caution;
    if (!canWritePng) disable($('save-depth'), 'This browser cannot compress files.');
  }

  #showHeldOut(name) {
    const { held_out: heldOut, variants } = this.#kit;
    const error = variants[name].held_out_abs_rel;
    if (!heldOut || error === null) {
      $('error').textContent = 'Unknown';
      return;
    }
    $('error').textContent = `${percent(heldOut.abs_rel_before)} → ${percent(error)}`;
  }

  // ------------------------------------------------------------------------------------------- events

  #listen() {
    $('sources').addEventListener('change', (event) => this.#guard(() => this.#changeSource(event.target.value)));
    $('models').addEventListener('change', (event) => this.#guard(() => this.#changeModel(event.target.value)));
    $('picture-file').addEventListener('change', (event) => this.#guard(() => this.#takeFiles(event.target)));
    $('clip-file').addEventListener('change', (event) => this.#guard(() => this.#takeFiles(event.target)));
    $('stored-frame').addEventListener('click', () => this.#guard(() => this.#showStoredFrame()));
    $('camera-start').addEventListener('click', () => this.#guard(() => this.#startCamera('')));
    $('camera-stop').addEventListener('click', () => this.#stopLive());
    $('cameras').addEventListener('change', (event) => this.#guard(() => this.#startCamera(event.target.value)));
    $('check-again').addEventListener('click', () => this.#guard(() => this.#checkAgain()));
    $('map').addEventListener('change', (event) => {
      this.#view.map = event.target.value;
      this.#view.recolour();
    });
    $('range').addEventListener('change', (event) => {
      this.#view.ownRange = event.target.value === 'own';
      this.#view.recolour();
    });
    $('save-depth').addEventListener('click', () => this.#guard(() => this.#saveDepth()));
    $('save-colours').addEventListener('click', () => $('depth').toBlob((blob) => save(blob, 'depth-colours.png')));
    this.#listenToPlayer();
    this.#listenToDrops();
  }

  #listenToPlayer() {
    const video = $('video');
    $('play').addEventListener('click', () => this.#guard(() => (video.paused ? video.play() : video.pause())));
    $('seek').addEventListener('input', (event) => {
      video.currentTime = event.target.value * (video.duration || 0);
    });
    video.addEventListener('play', () => ($('play').textContent = 'Pause'));
    video.addEventListener('pause', () => ($('play').textContent = 'Play'));
    video.addEventListener('timeupdate', () => {
      if (!Number.isFinite(video.duration)) return;
      $('seek').value = video.currentTime / video.duration;
      $('clock').textContent = `${clock(video.currentTime)} / ${clock(video.duration)}`;
    });
  }

  #listenToDrops() {
    const holdsFiles = (event) => event.dataTransfer?.types.includes('Files');
    addEventListener('dragover', (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      $('dropzone').hidden = false;
    });
    addEventListener('dragleave', (event) => {
      if (!event.relatedTarget) $('dropzone').hidden = true;
    });
    addEventListener('drop', (event) => {
      $('dropzone').hidden = true;
      if (!holdsFiles(event)) return;
      event.preventDefault();
      this.#guard(() => this.#take(event.dataTransfer.files[0]));
    });
    addEventListener('paste', (event) => {
      const file = event.clipboardData?.files[0];
      if (file) this.#guard(() => this.#take(file));
    });
  }

  /** Run an action of the user's; what goes wrong is said on the page. */
  async #guard(action) {
    $('message').hidden = true;
    try {
      await action();
    } catch (error) {
      // A video that another one took the place of.
      if (error.name !== 'AbortError') say(error);
    }
  }

  // ------------------------------------------------------------------------------------------ sources

  #changeSource(source) {
    this.#stopLive();
    this.#source = source;
    for (const each of ['picture', 'clip', 'camera']) $(`bar-${each}`).hidden = each !== source;
    document.querySelector(`input[name=source][value=${source}]`).checked = true;
  }

  async #takeFiles(input) {
    const [file] = input.files;
    input.value = ''; // so that the same file can be chosen again
    if (file) await this.#take(file);
  }

  async #take(file) {
    if (file.type.startsWith('video/')) {
      this.#changeSource('clip');
      await this.#playClip(file);
    } else {
      this.#changeSource('picture');
      const picture = await decodePicture(file, STILL_LONG_SIDE);
      const smaller = picture.width < picture.fullWidth ? ` (made ${picture.width} px wide)` : '';
      await this.#showStill({ ...picture, name: `${file.name}${smaller}` });
    }
  }

  #showStoredFrame() {
    return this.#showStill({ ...this.#check.picture, name: 'Stored frame of the clip' });
  }

  async #showStill(picture) {
    this.#stopLive();
    this.#still = picture;
    const { depth, milliseconds } = await this.#predictor.predict(picture);
    // Meanwhile another picture or a camera may have been chosen.
    if (this.#still !== picture) return;
    $('picture-name').textContent = picture.name;
    $('speed').textContent = `${Math.round(milliseconds)} ms`;
    this.#view.show(picture, depth);
  }

  async #playClip(file) {
    const opening = new AbortController();
    this.#opening = opening;
    $('clip-hint').textContent = 'Opening the video …';
    try {
      await playClip($('video'), file, opening.signal);
    } catch (error) {
      if (!opening.signal.aborted) release($('video'));
      throw error;
    } finally {
      // Unless another one is being opened by now.
      if (this.#opening === opening) this.#opening = null;
      if (!this.#opening) $('clip-hint').textContent = 'or drop one here';
    }
    $('player').hidden = false;
    this.#follow(file.name);
  }

  async #startCamera(deviceId) {
    this.#stopLive();
    $('camera-hint').textContent = 'Waiting for the camera …';
    try {
      const stream = await requestCamera(deviceId);
      // The user may have gone elsewhere before allowing it, or pressed twice.
      if (this.#source !== 'camera' || this.#live) return stopStream(stream);
      const [track] = stream.getVideoTracks();
      track.addEventListener('ended', () => {
        this.#stopLive();
        say(new SourceError('The camera was disconnected.'));
      });
      $('video').srcObject = stream;
      $('camera-start').hidden = true;
      $('camera-stop').hidden = false;
      this.#follow(track.label || 'Camera');
      await $('video').play();
      await this.#listCameras(track.getSettings().deviceId);
    } finally {
      $('camera-hint').textContent = 'Nothing leaves this browser.';
    }
  }

  async #listCameras(current) {
    const cameras = await listCameras();
    const options = cameras.map((camera, i) => new Option(camera.label || `Camera ${i + 1}`, camera.deviceId));
    $('cameras').replaceChildren(...options);
    $('cameras').value = current ?? '';
    $('cameras').hidden = cameras.length < 2;
  }

  /** Show the video's frames with their depth until `#stopLive`. */
  #follow(name) {
    this.#still = null;
    const live = new AbortController();
    this.#live = live;
    const rate = new FrameRate();
    $('picture-name').textContent = name;
    const show = async () => {
      const picture = grabVideo($('video'), LIVE_LONG_SIDE);
      const { depth, milliseconds } = await this.#predictor.predict(picture);
      if (live.signal.aborted) return;
      this.#view.show(picture, depth);
      const rateNow = rate.count();
      const frames = rateNow === null ? '' : `${rateNow.toFixed(1)} frames/s · `;
      $('speed').textContent = `${frames}${Math.round(milliseconds)} ms`;
    };
    void this.#guard(async () => {
      try {
        await follow($('video'), live.signal, show);
      } catch (error) {
        this.#stopLive();
        throw error;
      }
    });
  }

  #stopLive() {
    if (this.#opening) {
      this.#opening.abort();
      this.#opening = null;
      release($('video'));
    }
    if (!this.#live) return;
    this.#live.abort();
    this.#live = null;
    release($('video'));
    $('player').hidden = true;
    $('camera-start').hidden = false;
    $('camera-stop').hidden = true;
    $('cameras').hidden = true;
  }

  // ------------------------------------------------------------------------------------------- models

  async #useModel(name) {
    $('models').setAttribute('aria-busy', 'true');
    try {
      const trial = await this.#predictor.use(name);
      this.#showTrial(trial);
      this.#showHeldOut(name);
    } finally {
      // Where that failed, it is still the one before.
      for (const input of $('models').querySelectorAll('input')) input.checked = input.value === this.#predictor.variant;
      $('models').removeAttribute('aria-busy');
      done();
    }
  }

  async #changeModel(name) {
    await this.#useModel(name);
    // Chosen so early that no depth is there yet: the first would be by the model before.
    if (!this.#view.shown) return this.#still ? this.#showStill(this.#still) : undefined;
    const { picture } = this.#view.shown;
    const { depth, milliseconds } = await this.#predictor.predict(picture);
    // A video that plays has gone on; one that stands still has not.
    if (this.#view.shown.picture !== picture) return;
    $('speed').textContent = `${Math.round(milliseconds)} ms`;
    this.#view.show(picture, depth);
  }

  async #checkAgain() {
    $('check-verdict').textContent = 'Checking …';
    $('check-verdict').className = 'verdict';
    this.#showTrial(await this.#predictor.selfCheck());
  }

  #showTrial({ engine, difference, limit, passed, milliseconds }) {
    const verdict = $('check-verdict');
    verdict.textContent = passed ? 'Passed' : 'Failed';
    verdict.className = `verdict ${passed ? 'good' : 'bad'}`;
    verdict.dataset.largest = String(difference.largest);
    const found = `Largest relative difference from the stored depth: ${percent(difference.largest)} (limit ${percent(limit)}), mean ${percent(difference.mean)}, at ${difference.places} places.`;
    const altered = this.#check.faithful
      ? ''
      : ' This browser alters the pixels that it gives to pages, which protects privacy and spoils depth.';
    const advice = passed ? '' : ' Do not rely on depth from this browser.';
    $('check-text').textContent = found + altered + advice;
    $('chip-check').textContent = `Self-check ${passed ? 'passed' : 'failed'}`;
    $('chip-check').className = `chip ${passed ? 'good' : 'bad'}`;
    $('chips').hidden = false;
    this.#showEngine(engine);
    const why =
      engine.startsWith('WASM') && !globalThis.crossOriginIsolated
        ? ' More threads need a server that isolates this page, as serve.py does.'
        : '';
    $('engine-text').textContent = `${Math.round(milliseconds)} ms for the stored frame.${why}`;
  }

  #showEngine(engine) {
    $('engine').textContent = engine;
    $('chip-engine').textContent = engine;
  }

  #showGpu({ state, text }) {
    $('gpu-text').textContent = text;
    $('gpu-text').dataset.state = state;
    this.#showEngine(this.#predictor.description);
    if (state === 'used') void this.#guard(() => this.#checkAgain());
  }

  // --------------------------------------------------------------------------------------------- save

  async #saveDepth() {
    if (!this.#view.shown) return;
    const { picture, depth } = this.#view.shown;
    const { kind, unit, png_steps_per_unit: steps, sfmttr } = this.#kit;
    const meaning = { kind, unit, steps, software: `sfmttr ${sfmttr}` };
    save(await depthPng(depth, picture.width, picture.height, meaning), 'depth.png');
  }
}

// ------------------------------------------------------------------------------------------------ page

function progress(text, share) {
  $('status').hidden = false;
  $('status-text').textContent = `${text} …`;
  $('progress').hidden = false;
  if (share === null) $('progress').removeAttribute('value');
  else $('progress').value = share;
}

function done() {
  $('status').hidden = true;
}

const FOR_PEOPLE = [AssetError, PictureError, SourceError];

function say(error) {
  const known = FOR_PEOPLE.some((kind) => error instanceof kind);
  const text =
    error instanceof EngineError ? `onnxruntime could not do it: ${error.message}. Reload the page.` : error.message;
  $('message').textContent = text;
  $('message').hidden = false;
  $('message').scrollIntoView({ block: 'nearest' });
  if (!known) console.error(error);
}

function modelOption(name, { model, held_out_abs_rel: error }) {
  const label = document.createElement('label');
  const input = Object.assign(document.createElement('input'), { type: 'radio', name: 'model', value: name });
  const title = document.createElement('span');
  title.textContent = name;
  const size = document.createElement('small');
  size.textContent = `${(model.bytes / 1e6).toFixed(1)} MB`;
  title.append(size);
  if (error !== null) label.title = `held-out error ${percent(error)}`;
  label.append(input, title);
  return label;
}

/** Where the network comes from: a link where it is an address. */
function sourceLink(source) {
  if (!/^https?:\/\//.test(source)) return source;
  return Object.assign(document.createElement('a'), { href: source, textContent: source, rel: 'noreferrer' });
}

function disable(button, why) {
  button.disabled = true;
  button.title = why;
}

function percent(share) {
  if (!Number.isFinite(share)) return 'without bounds';
  return `${new Intl.NumberFormat('en', { maximumSignificantDigits: share < 1e-3 ? 2 : 3 }).format(100 * share)}\u00a0%`;
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`;
}

function save(blob, name) {
  const address = URL.createObjectURL(blob);
  Object.assign(document.createElement('a'), { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

async function main() {
  try {
    if (typeof WebAssembly !== 'object') throw new AssetError('This browser has no WebAssembly. Use a current one.');
    progress('Reading the kit', null);
    const kit = await fetchJson('kit.json');
    if (kit.schema !== SCHEMA) throw new AssetError('kit.json and this page are from different kits.');
    const app = new App(kit, await loadCheck(kit.check));
    await app.start();
  } catch (error) {
    done();
    say(error);
  }
}

await main();
