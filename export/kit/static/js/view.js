/** Picture and depth beside each other, the depth under the pointer, and the colour bar. */

import { colourise, colourPosition, drawBar, formatNumber, rangeOf, roundDepths } from './colour.js';

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class DepthView {
  #elements;
  #unit;
  #clipRange;
  #shown = null;
  #pointer = null;
  map = 'spectral';
  /** Whether each picture gets its own range of colours, instead of the clip's. */
  ownRange = false;

  /**
   * @param {Record<string, HTMLElement>} elements stage, picture, depth, readout, bar, ticks
   * @param {string} unit short, for labels
   * @param {{near: number, far: number}} clipRange
   */
  constructor(elements, unit, clipRange) {
    this.#elements = elements;
    this.#unit = unit;
    this.#clipRange = clipRange;
    for (const canvas of [elements.picture, elements.depth]) {
      canvas.addEventListener('pointermove', (event) => this.#pointAt(event));
      canvas.addEventListener('pointerdown', (event) => this.#pointAt(event));
      canvas.addEventListener('pointerleave', (event) => event.pointerType === 'mouse' && this.#point(null));
    }
    elements.depth.addEventListener('keydown', (event) => this.#onKey(event));
    elements.depth.addEventListener('blur', () => this.#point(null));
    new ResizeObserver(() => this.#drawTicks()).observe(elements.ticks);
    this.recolour();
  }

  /** What is shown: `{picture, depth}`, or null. */
  get shown() {
    return this.#shown;
  }

  /** The range of the colours that are shown. */
  get range() {
    return this.ownRange && this.#shown ? rangeOf(this.#shown.depth) : this.#clipRange;
  }

  /**
   * @param {import('./pictures.js').Picture} picture
   * @param {Float32Array} depth of the same size
   */
  show(picture, depth) {
    const { stage, picture: canvas } = this.#elements;
    this.#shown = { picture, depth };
    const { width, height } = picture;
    stage.classList.toggle('stacked', width > 1.8 * height);
    stage.style.setProperty('--aspect', width / height);
    put(canvas, new ImageData(picture.rgba, width, height));
    this.recolour();
    this.#readOut();
  }

  /** Draw the depth and the bar again, after a change of map or range. */
  recolour() {
    if (this.#shown) {
      const { picture, depth } = this.#shown;
      put(this.#elements.depth, colourise(depth, picture.width, picture.height, this.range, this.map));
    }
    drawBar(this.#elements.bar, this.map);
    this.#drawTicks();
  }

  #drawTicks() {
    const { ticks } = this.#elements;
    const range = this.range;
    const most = Math.max(2, Math.floor(ticks.clientWidth / 56));
    const labels = roundDepths(range, most).map((depth) => {
      const label = document.createElement('span');
      label.textContent = formatNumber(depth);
      label.style.left = `${100 * colourPosition(depth, range)}%`;
      return label;
    });
    ticks.replaceChildren(...labels);
  }

  #pointAt(event) {
    if (!this.#shown) return;
    const box = event.currentTarget.getBoundingClientRect();
    this.#point({ u: (event.clientX - box.left) / box.width, v: (event.clientY - box.top) / box.height });
  }

  #onKey(event) {
    if (!(event.key in KEYS) || !this.#shown) return;
    event.preventDefault();
    const { width, height } = this.#shown.picture;
    const far = event.shiftKey ? 10 : 1;
    const { u, v } = this.#pointer ?? { u: 0.5, v: 0.5 };
    const [dx, dy] = KEYS[event.key];
    this.#point({ u: u + (far * dx) / width, v: v + (far * dy) / height });
  }

  /** `u` and `v` are shares of width and height, so that the place stays when pictures change size. */
  #point(place) {
    const inside = (share) => Math.min(1 - 1e-6, Math.max(0, share));
    this.#pointer = place && { u: inside(place.u), v: inside(place.v) };
    this.#readOut();
  }

  #readOut() {
    const { stage, readout } = this.#elements;
    const marks = stage.querySelectorAll('.mark');
    for (const mark of marks) mark.hidden = !this.#pointer;
    if (!this.#pointer || !this.#shown) {
      readout.textContent = 'Point at or tap the pictures to read the depth.';
      return;
    }
    const { u, v } = this.#pointer;
    const { picture, depth } = this.#shown;
    const x = Math.floor(u * picture.width);
    const y = Math.floor(v * picture.height);
    const value = `${formatNumber(depth[y * picture.width + x])} ${this.#unit}`;
    readout.textContent = `${value} at pixel (${x}, ${y})`;
    for (const mark of marks) {
      mark.style.left = `${100 * u}%`;
      mark.style.top = `${100 * v}%`;
      mark.classList.toggle('left', u > 0.75);
      mark.dataset.depth = value;
    }
  }
}

function put(canvas, image) {
  if (canvas.width !== image.width || canvas.height !== image.height) {
    Object.assign(canvas, { width: image.width, height: image.height });
  }
  canvas.getContext('2d').putImageData(image, 0, 0);
}
