/** A runtime with a model in it, running in a worker of its own: the page's end of `worker.js`. */

/** The engine could not do what it was asked. */
export class EngineError extends Error {}

export class Engine {
  #worker;
  #waiting = new Map();
  #next = 0;
  #ended = '';

  /**
   * @param {'wasm' | 'webgpu'} provider
   * @param {number} threads of WASM
   */
  constructor(provider, threads) {
    this.provider = provider;
    this.threads = threads;
    this.#worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
    this.#worker.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) resolve(result);
      else reject(new EngineError(error));
    };
    this.#worker.onerror = (event) => this.#fail(event.message || 'the worker did not start');
  }

  /**
   * A started engine without a model.
   *
   * @param {'wasm' | 'webgpu'} provider
   * @param {{script: ArrayBuffer, binary: ArrayBuffer}} runtime
   */
  static async start(provider, runtime) {
    const cores = navigator.hardwareConcurrency || 1;
    // More than one thread needs memory that workers share, which browsers allow to isolated pages only.
    const engine = new Engine(provider, globalThis.crossOriginIsolated && provider === 'wasm' ? Math.min(4, cores) : 1);
    const script = URL.createObjectURL(new Blob([runtime.script], { type: 'text/javascript' }));
    try {
      // The address of the script is kept: the runtime starts its threads from it.
      const { binary } = runtime;
      await engine.#ask('start', { script, binary, threads: engine.threads, wanted: provider });
    } catch (error) {
      engine.close();
      throw error;
    }
    return engine;
  }

  /**
   * @param {ArrayBuffer} model
   * @param {string[]} cpuNodes see `worker.js`
   */
  load(model, cpuNodes) {
    return this.#ask('load', { model: new Uint8Array(model), cpuNodes });
  }

  /**
   * @param {{rgba: Uint8ClampedArray, width: number, height: number}} picture
   * @returns {Promise<{depth: Float32Array, milliseconds: number}>} row by row, in the model's unit
   */
  predict({ rgba, width, height }) {
    return this.#ask('predict', { rgba, width, height });
  }

  /** End the worker, whatever it is doing. */
  close() {
    this.#worker.terminate();
    this.#fail('it was closed');
  }

  /** What runs, in words. */
  get description() {
    if (this.provider === 'webgpu') return 'WebGPU';
    return this.threads > 1 ? `WASM, ${this.threads} threads` : 'WASM, 1 thread';
  }

  #ask(task, argument) {
    if (this.#ended) return Promise.reject(new EngineError(this.#ended));
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, task, argument });
    });
  }

  #fail(reason) {
    this.#ended = reason;
    for (const { reject } of this.#waiting.values()) reject(new EngineError(reason));
    this.#waiting.clear();
  }
}
