/**
 * One session of onnxruntime-web, off the page's own thread, so that the page stays usable while depth is computed.
 * A worker has one runtime for life; models may be exchanged. `engine.js` is its other end.
 */

const ERRORS_ONLY = 3;

let ort = null;
let provider = '';
let session = null;
let queue = Promise.resolve();

const tasks = {
  /** Load the runtime: `script` is a blob: address and `binary` a buffer, both already checked. */
  async start({ script, binary, threads, wanted }) {
    ort = await import(script);
    ort.env.wasm.wasmBinary = binary;
    ort.env.wasm.numThreads = threads;
    provider = wanted;
  },

  /** Take another model. `cpuNodes` are nodes that WebGPU's kernels claim but cannot run. */
  async load({ model, cpuNodes }) {
    await session?.release();
    session = null;
    const chosen = provider === 'webgpu' ? { name: 'webgpu', forceCpuNodeNames: cpuNodes } : provider;
    session = await ort.InferenceSession.create(model, { executionProviders: [chosen], logSeverityLevel: ERRORS_ONLY });
  },

  /**
   * Depth of one picture of `width` x `height`, given as RGBA bytes. To a network that sees the frames beside it, too,
   * the picture is its own neighbour.
   */
  async predict({ rgba, width, height }) {
    if (!session) throw new Error('no model is loaded');
    const image = new ort.Tensor('uint8', withoutAlpha(rgba), [1, height, width, 3]);
    const start = performance.now();
    const { depth } = await session.run(Object.fromEntries(session.inputNames.map((name) => [name, image])));
    const values = await depth.getData();
    const milliseconds = performance.now() - start;
    // A copy: the values may lie in the runtime's own memory, which must stay where it is.
    const result = { depth: values.slice(), milliseconds };
    image.dispose();
    depth.dispose();
    return [result, [result.depth.buffer]];
  },
};

function withoutAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return rgb;
}

self.onmessage = ({ data: { id, task, argument } }) => {
  // One task after the other: a session can neither be exchanged nor asked twice while it runs.
  queue = queue.then(async () => {
    try {
      const [result, transfer] = (await tasks[task](argument)) ?? [];
      self.postMessage({ id, result }, transfer ?? []);
    } catch (error) {
      self.postMessage({ id, error: String(error?.message ?? error) });
    }
  });
};
