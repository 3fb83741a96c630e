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
  /** An engine that WebGPU is being tried with. */
  #candidate = null;
  /** How often a model was chosen: what was begun for an earlier one has to notice. */
  #turn = 0;
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
  get description() {
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
    await this.#startWasm();
    this.#onProgress('Preparing the model', null);
    try {
      await this.#wasm.load(model, []);
    } catch (error) {
      if (this.#model) await this.#wasm.load(this.#model, []);
      throw error;
    }
    this.#turn += 1;
    this.#candidate?.close();
    this.#candidate = null;
    this.#gpu?.close();
    this.#gpu = null;
    this.#variant = variant;
    this.#model = model;
    this.#onProgress('Checking itself against the stored frame', null);
    const trial = await this.#try(this.#wasm, variant);
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
    return this.#try(this, this.#variant);
  }

  /**
   * @param {Engine | Predictor} network
   * @param {string} variant
   * @returns {Promise<Trial>}
   */
  async #try(network, variant) {
    const limit = this.#kit.variants[variant].largest_difference;
    const { depth } = await network.predict(this.#check.picture);
    const difference = compare(this.#check, depth);
    let milliseconds = Infinity;
    const end = performance.now() + TIMED_MS;
    for (let i = 0; i < TIMED_RUNS && (i === 0 || performance.now() < end); i++) {
      milliseconds = Math.min(milliseconds, (await network.predict(this.#check.picture)).milliseconds);
    }
    return { engine: network.description, difference, limit, passed: difference.largest <= limit, milliseconds };
  }

  // ------------------------------------------------------------------------------------------ WebGPU

  /** Never fails: whatever goes wrong is a reason to stay with WASM. */
  async #tryGpu(variant, model, wasmMilliseconds) {
    const known = this.#refused.get(variant);
    if (known) return this.#onGpu(known);
    const turn = this.#turn;
    const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
    if (turn !== this.#turn) return; // another model was chosen meanwhile, and has its own trial
    if (!adapter) return this.#onGpu({ state: 'absent', text: 'This browser offers no WebGPU here.' });
    if (navigator.connection?.saveData) {
      return this.#onGpu({ state: 'absent', text: 'WebGPU is not tried: it takes 27 MB, and this browser saves data.' });
    }
    this.#onGpu({ state: 'trying', text: 'Trying WebGPU in the background.' });
    const engine = new Engine('webgpu');
    this.#candidate = engine;
    try {
      const { passed, difference, milliseconds } = await this.#gpuTrial(engine, variant, model);
      const times = `${Math.round(milliseconds)} ms, WASM ${Math.round(wasmMilliseconds)} ms`;
      if (turn !== this.#turn) throw new Error('another model was chosen');
      if (!passed) throw new Error(`it differs by up to ${(100 * difference.largest).toPrecision(2)} %`);
      if (milliseconds >= wasmMilliseconds) throw new Error(`it is right but not faster: ${times}`);
      this.#gpu = engine;
      this.#candidate = null;
      this.#onGpu({ state: 'used', text: `WebGPU runs this model: right, and faster (${times}).` });
    } catch (error) {
      engine.close();
      // Another model may have been chosen meanwhile, which says nothing against WebGPU.
      if (turn === this.#turn) this.#refuse(variant, `WebGPU was tried and is not used: ${error.message}.`);
    }
  }

  /** A trial that ends after a while, one way or the other: a GPU may hang. */
  async #gpuTrial(engine, variant, model) {
    const runtime = await this.#runtime('webgpu', null);
    const seconds = GPU_PATIENCE_MS / 1000;
    const timer = setTimeout(() => engine.close(`it gave no answer within ${seconds} s`), GPU_PATIENCE_MS);
    try {
      await engine.start(runtime);
      await engine.load(model, this.#kit.variants[variant].cpu_nodes_on_webgpu);
      return await this.#try(engine, variant);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Stay with WASM for the model that is used now. */
  #refuse(variant, text) {
    const verdict = { state: 'refused', text };
    this.#refused.set(variant, verdict);
    this.#candidate = null;
    this.#gpu = null;
    this.#onGpu(verdict);
  }

  // ----------------------------------------------------------------------------------------- loading

  async #startWasm() {
    if (this.#wasm) return;
    const runtime = await this.#runtime('wasm', 'Loading onnxruntime');
    const engine = new Engine('wasm');
    try {
      await engine.start(runtime);
    } catch (error) {
      engine.close();
      throw error;
    }
    this.#wasm = engine;
  }

  /** @param {string | null} text for the progress bar; null in the background */
  async #runtime(provider, text) {
    const { base, [provider]: files } = this.#kit.web_runtime;
    const at = (asset) => ({ ...asset, file: base + asset.file });
    return { script: await this.#asset(at(files.script), text), binary: await this.#asset(at(files.binary), text) };
  }

  /** A file's content, fetched once. */
  #asset(asset, text) {
    if (!this.#assets.has(asset.file)) {
      const size = `${(asset.bytes / 1e6).toFixed(1)} MB`;
      const report = text === null ? () => {} : (share) => this.#onProgress(`${text} (${size})`, share);
      const content = fetchAsset(asset, report);
      this.#assets.set(asset.file, content);
      content.catch(() => this.#assets.delete(asset.file)); // so that it may be tried again
    }
    return this.#assets.get(asset.file);
  }
}
