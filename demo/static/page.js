// <depth-compare>: two pictures of a frame over each other with a divider between them, for every frame of a clip.
// Everything can be reached by keyboard: the divider and the frames are range inputs.

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

class DepthCompare extends HTMLElement {
  connectedCallback() {
    if (this.config) return;
    try {
      this.config = JSON.parse(this.dataset.config);
    } catch {
      return;
    }
    const { frames, layers, left, right } = this.config;
    this.frame = Math.min(this.config.frame ?? Math.floor(frames.length / 2), frames.length - 1);
    this.left = left;
    this.right = right;
    this.single = layers.length === 1;
    this.append(...[this.top(), this.stage(), this.bottom(), this.bar()].filter(Boolean));
    this.setSplit(this.single ? 100 : 50);
    this.show();
    if (this.hasAttribute("tour") && !matchMedia("(prefers-reduced-motion: reduce)").matches) this.tour();
  }

  disconnectedCallback() {
    this.pause();
  }

  title(key) {
    return this.config.layers.find((layer) => layer.key === key)?.title ?? key;
  }

  source(key, frame) {
    const layer = this.config.layers.find((each) => each.key === key);
    return layer?.src ?? `${this.config.base}${key}/${frame}.webp`;
  }

  top() {
    if (this.single || this.config.layers.length < 3) return null;
    const choice = (side, label) => {
      const select = make("select", { "aria-label": label });
      for (const { key, title } of this.config.layers) select.append(make("option", { value: key }, title));
      select.value = this[side];
      select.addEventListener("change", () => {
        this[side] = select.value;
        this.show();
      });
      return make("label", {}, make("span", {}, label), select);
    };
    const mark = make("button", { type: "button", class: "dc-mark", title: "Mark a point whose distance you know", "aria-pressed": "false" }, "Mark a known distance");
    mark.addEventListener("click", () => this.setMarking(!this.marking));
    this.markButton = mark;
    return make("div", { class: "dc-top" }, choice("left", "Left"), choice("right", "Right"), mark);
  }

  stage() {
    const [height, width] = this.config.hw;
    this.under = make("img", { alt: "", draggable: "false" });
    this.over = make("img", { alt: "", draggable: "false", class: "dc-over" });
    this.tags = [make("span", { class: "dc-tag dc-left" }), make("span", { class: "dc-tag dc-right" })];
    this.spot = make("span", { class: "dc-spot", hidden: true });
    const stage = make("div", { class: "dc-stage", style: `aspect-ratio:${width}/${height};--ratio:${width / height}` }, this.under, this.over, ...this.tags, this.spot);
    if (!this.single) {
      this.divider = make("input", { type: "range", min: "0", max: "100", step: "0.5", value: "50", class: "dc-split", "aria-label": "Divider between the two pictures" });
      this.divider.addEventListener("input", () => {
        this.touring = false;
        this.setSplit(Number(this.divider.value));
      });
      stage.append(make("span", { class: "dc-line", "aria-hidden": "true" }), this.divider);
    }
    stage.addEventListener("pointerdown", (event) => this.marking && this.markPlace(event, stage), true);
    this.stageElement = stage;
    return stage;
  }

  bottom() {
    const count = this.config.frames.length;
    if (count < 2) return null;
    this.playButton = make("button", { type: "button", class: "dc-play", "aria-label": "Play" }, "▶");
    this.playButton.addEventListener("click", () => (this.timer ? this.pause() : this.play()));
    this.slider = make("input", { type: "range", min: "0", max: String(count - 1), step: "1", value: String(this.frame), class: "dc-frames", "aria-label": "Frame" });
    this.slider.addEventListener("input", () => {
      this.pause();
      this.frame = Number(this.slider.value);
      this.show();
    });
    this.counter = make("output", { class: "dc-counter" });
    return make("div", { class: "dc-bottom" }, this.playButton, this.slider, this.counter);
  }

  bar() {
    const { bar } = this.config;
    if (!bar) return null;
    const strip = make("span", { class: "dc-strip", style: `background:linear-gradient(90deg,${bar.stops.join(",")})` });
    const ticks = bar.ticks.map(({ at, text }) => make("span", { style: `left:${(100 * at).toFixed(2)}%` }, text));
    this.depthBar = make("div", { class: "dc-bar" }, make("span", { class: "dc-end" }, "near"), make("span", { class: "dc-scale" }, strip, make("span", { class: "dc-ticks" }, ...ticks)), make("span", { class: "dc-end" }, `far (${bar.unit})`));
    this.errorBar = make("div", { class: "dc-bar", hidden: true }, make("span", { class: "dc-end" }, "0 % error"), make("span", { class: "dc-scale" }, make("span", { class: "dc-strip dc-error" })), make("span", { class: "dc-end" }, `${this.config.errorBar?.most ?? ""} or more`));
    return this.single ? null : make("div", {}, this.depthBar, this.errorBar);
  }

  show() {
    this.under.src = this.source(this.right, this.frame);
    this.over.src = this.source(this.left, this.frame);
    this.over.alt = `Frame ${this.frame + 1}: ${this.title(this.left)}`;
    this.under.alt = `Frame ${this.frame + 1}: ${this.title(this.right)}`;
    this.tags[0].textContent = this.title(this.left);
    this.tags[1].textContent = this.title(this.right);
    this.tags[0].hidden = this.tags[1].hidden = this.single;
    this.dataset.frame = this.frame;
    if (this.slider) {
      this.slider.value = this.frame;
      this.slider.setAttribute("aria-valuetext", `frame ${this.frame + 1} of ${this.config.frames.length}`);
      this.counter.textContent = `${this.frame + 1} / ${this.config.frames.length}`;
    }
    if (this.errorBar) {
      const errors = [this.left, this.right].some((key) => key.startsWith("error_"));
      const depths = [this.left, this.right].some((key) => !key.startsWith("error_") && key !== "photo");
      this.errorBar.hidden = !errors;
      this.depthBar.hidden = !depths;
    }
    this.spot.hidden = !this.place || this.place.frame !== this.frame;
    this.prefetch();
  }

  prefetch() {
    if (!this.config.base) return;
    const count = this.config.frames.length;
    for (const step of [1, 2, 3]) for (const key of new Set([this.left, this.right])) new Image().src = this.source(key, (this.frame + step) % count);
  }

  setSplit(percent) {
    this.style.setProperty("--split", `${percent}%`);
    if (this.divider) this.divider.value = percent;
    this.dataset.split = percent;
    if (!this.single) {
      this.tags[0].style.opacity = percent < 16 ? 0 : 1;
      this.tags[1].style.opacity = percent > 84 ? 0 : 1;
    }
  }

  play() {
    this.playButton.textContent = "❚❚";
    this.playButton.setAttribute("aria-label", "Pause");
    this.timer = setInterval(() => {
      if (!this.under.complete || !this.over.complete) return; // wait for pictures rather than skip frames
      this.frame = (this.frame + 1) % this.config.frames.length;
      this.show();
    }, 1000 / (this.config.fps ?? 10));
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    if (this.playButton) {
      this.playButton.textContent = "▶";
      this.playButton.setAttribute("aria-label", "Play");
    }
  }

  setMarking(on) {
    this.marking = on;
    this.classList.toggle("marking", on);
    this.markButton.setAttribute("aria-pressed", String(on));
    if (on) this.pause();
  }

  markPlace(event, stage) {
    event.preventDefault();
    event.stopPropagation();
    const box = stage.getBoundingClientRect();
    const [height, width] = this.config.hw;
    const at = (share, size) => Math.max(0, Math.min(size - 1, Math.floor(share * size)));
    const column = at((event.clientX - box.left) / box.width, width);
    const row = at((event.clientY - box.top) / box.height, height);
    this.place = { frame: this.frame, row, column };
    this.spot.hidden = false;
    this.spot.style.left = `${(100 * (column + 0.5)) / width}%`;
    this.spot.style.top = `${(100 * (row + 0.5)) / height}%`;
    this.setMarking(false);
    const field = document.querySelector("#known-place textarea, #known-place input");
    if (field) {
      field.value = `${this.frame}, ${row}, ${column}`;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    this.markButton.textContent = "Marked: enter its distance under Download";
  }

  tour() {
    // Once, slowly, across and back to the middle, which shows what the divider is for.
    this.touring = true;
    const begun = performance.now();
    const step = (now) => {
      const t = (now - begun) / 3600;
      if (!this.touring || !this.isConnected || t >= 1) return;
      this.setSplit(50 + 38 * Math.sin(2 * Math.PI * t));
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }
}

customElements.define("depth-compare", DepthCompare);
