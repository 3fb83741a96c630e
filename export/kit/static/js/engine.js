/** A runtime with a model in it, running in a worker of its own: the page's end of `worker.js`. */

/** The engine could not do what it was asked. */
export class EngineError extends Error {}

export class Engine {
  #worker;
  #script = '';
  #waiting = new Map();
  #next = 0;
  #ended = '';

  /** @param {'wasm' | 'webgpu'} provider */
  constructor(provider) {
    const cores = navigator.hardwareConcurrency || 1;
    this.provider = provider;
    // More than one thread needs memory that workers share, which browsers allow to isolated pages only.
    this.threads = globalThis.crossOriginIsolated && provider === 'wasm' ? Math.min(4, cores) : 1;
    this.#worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
    this.#worker.onmessage = ({ data }) => this.#settle(data);
    this.#worker.onerror = (event) => this.close(event.message || 'its worker did not start');
  }

  /**
   * Load the runtime; a model comes next.
   *
   * @param {{script: ArrayBuffer, binary: ArrayBuffer}} runtime
   */
  start({ script, binary }) {
    // The address stays: the runtime starts its threads from it.
    this.#script = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
    return this.#ask('start', { script: this.#script, binary, threads: this.threads, wanted: this.provider });
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

  /** End the worker, whatever it is doing. Who waits for it gets `reason`. */
  close(reason = 'it was closed') {
    this.#worker.terminate();
    URL.revokeObjectURL(this.#script);
    this.#ended ||= reason;
    for (const { reject } of this.#waiting.values()) reject(new EngineError(this.#ended));
    this.#waiting.clear();
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

  #settle({ id, result, error }) {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve(result);
    else waiting?.reject(new EngineError(error));
  }
}
