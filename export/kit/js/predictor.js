/**
 * Which model runs on what. WASM always works, so it comes first; WebGPU takes over for a model once it has computed
 * the stored frame rightly, and faster. Nothing here touches the page.
 */

import { fetchAsset } from './assets.js';
import { compare } from './check.js';
import { Engine } from './engine.js';

const GPU_PATIENCE_MS = 60_000;
/** The fastest of these counts: browsers compile while they run, and other programs take their share. */
const TIMED_RUNS = 6;
const TIMED_MS = 2000;

/**
 * What a trial on the stored frame gave.
 *
 * @typedef {object} Trial
 * @property {string} engine in words
 * @property {import('./check.js').Difference} difference
 * @property {number} limit of the largest relative difference
 * @property {boolean} passed
 * @property {number} milliseconds a prediction takes, once it is warm
 */

/** @typedef {{state: 'absent' | 'trying' | 'used' | 'refused', text: string}} GpuVerdict */

export class Predictor {
  #kit;
  #check;
  #onProgress;
  #onGpu;
  #assets = new Map();
  #queue = Promise.resolve();
  #wasm = null;
  #gpu = null;
  #variant = null;
  #model = null;
  /** @type {Map<string, GpuVerdict>} of the models that WebGPU was refused for */
  #refused = new Map();

  /**
   * @param {object} kit kit.json
   * @param {import('./check.js').Check} check
   * @param {(text: string, share: number | null) => void} onProgress
   * @param {(verdict: GpuVerdict) => void} onGpu
   */
  constructor(kit, check, onProgress, onGpu) {
    this.#kit = kit;
    this.#check = check;
    this.#onProgress = onProgress;
    this.#onGpu = onGpu;
  }

  /** The model that is used. */
  get variant() {
    return this.#variant;
  }

  /** What runs now, in words. */
  get engine() {
    return (this.#gpu ?? this.#wasm)?.description ?? '';
  }

  /**
   * Load a model and try it on the stored frame. Afterwards, in the background, try it on WebGPU.
   *
   * @param {string} variant
   * @returns {Promise<Trial>}
   */
  use(variant) {
    const turn = this.#queue.then(() => this.#use(variant));
    this.#queue = turn.catch(() => {});
    return turn;
  }

  async #use(variant) {
    const model = await this.#asset(this.#kit.variants[variant].model, `Loading the ${variant} model`);
    this.#wasm ??= await this.#start('wasm', 'Loading onnxruntime');
    this.#onProgress('Preparing the model', null);
    try {
      await this.#wasm.load(model, []);
    } catch (error) {
      if (this.#model) await this.#wasm.load(this.#model, []);
      throw error;
    }
    this.#gpu?.close();
    this.#gpu = null;
    this.#variant = variant;
    this.#model = model;
    this.#onProgress('Checking itself against the stored frame', null);
    const trial = await this.#try(this.#wasm);
    void this.#tryGpu(variant, model, trial.milliseconds);
    return trial;
  }

  /**
   * @param {import('./pictures.js').Picture} picture
   * @returns {Promise<{depth: Float32Array, milliseconds: number}>}
   */
  async predict(picture) {
    const gpu = this.#gpu;
    if (!gpu) return this.#wasm.predict(picture);
    try {
      return await gpu.predict(picture);
    } catch (error) {
      // A GPU may go away, or be taken by another program. WASM still has the model.
      if (this.#gpu === gpu) this.#refuse(this.#variant, `WebGPU stopped (${error.message}); WASM goes on.`);
      gpu.close();
      return this.#wasm.predict(picture);
    }
  }

  /** Try the model again, on what runs it now. */
  selfCheck() {
    return this.#try(this.#gpu ?? this.#wasm);
  }

  /** @returns {Promise<Trial>} */
  async #try(engine) {
    const limit = this.#kit.variants[this.#variant].largest_difference;
    const { depth } = await engine.predict(this.#check.picture);
    const difference = compare(this.#check, depth);
    let milliseconds = Infinity;
    const end = performance.now() + TIMED_MS;
    for (let i = 0; i < TIMED_RUNS && (i === 0 || performance.now() < end); i++) {
      milliseconds = Math.min(milliseconds, (await engine.predict(this.#check.picture)).milliseconds);
    }
    return { engine: engine.description, difference, limit, passed: difference.largest <= limit, milliseconds };
  }

  // ------------------------------------------------------------------------------------------ WebGPU

  /** Never fails: whatever goes wrong is a reason to stay with WASM. */
  async #tryGpu(variant, model, wasmMilliseconds) {
    const known = this.#refused.get(variant);
    if (known) return this.#onGpu(known);
    const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
    if (!adapter) return this.#onGpu({ state: 'absent', text: 'This browser offers no WebGPU here.' });
    if (navigator.connection?.saveData) {
      return this.#onGpu({ state: 'absent', text: 'WebGPU is not tried: it takes 27 MB, and this browser saves data.' });
    }
    this.#onGpu({ state: 'trying', text: 'Trying WebGPU in the background.' });
    let engine = null;
    const late = new Promise((_, reject) => {
      setTimeout(() => reject(new Error(`no answer within ${GPU_PATIENCE_MS / 1000} s`)), GPU_PATIENCE_MS);
    });
    const trial = async () => {
      engine = await this.#start('webgpu', null);
      await engine.load(model, this.#kit.variants[variant].cpu_nodes_on_webgpu);
      return this.#try(engine);
    };
    try {
      const { passed, difference, milliseconds } = await Promise.race([trial(), late]);
      if (this.#variant !== variant) return engine.close();
      const times = `${Math.round(milliseconds)} ms, WASM ${Math.round(wasmMilliseconds)} ms`;
      if (!passed) throw new Error(`it differs by up to ${(100 * difference.largest).toPrecision(2)} %`);
      if (milliseconds >= wasmMilliseconds) throw new Error(`it is right but not faster: ${times}`);
      this.#gpu = engine;
      this.#onGpu({ state: 'used', text: `WebGPU runs this model: right, and faster (${times}).` });
    } catch (error) {
      engine?.close();
      this.#refuse(variant, `WebGPU was tried and is not used: ${error.message}.`);
    }
  }

  #refuse(variant, text) {
    const verdict = { state: 'refused', text };
    this.#refused.set(variant, verdict);
    if (this.#variant !== variant) return;
    this.#gpu = null;
    this.#onGpu(verdict);
  }

  // ----------------------------------------------------------------------------------------- loading

  /** @param {string | null} text for the progress bar; null in the background */
  async #start(provider, text) {
    const { base, [provider]: files } = this.#kit.web_runtime;
    const at = (asset) => ({ ...asset, file: base + asset.file });
    const script = await this.#asset(at(files.script), text);
    const binary = await this.#asset(at(files.binary), text);
    return Engine.start(provider, { script, binary });
  }

  /** A file's content, fetched once. */
  async #asset(asset, text) {
    if (!this.#assets.has(asset.file)) {
      const size = `${(asset.bytes / 1e6).toFixed(1)} MB`;
      const report = text === null ? () => {} : (share) => this.#onProgress(`${text} (${size})`, share);
      this.#assets.set(asset.file, await fetchAsset(asset, report));
    }
    return this.#assets.get(asset.file);
  }
}
