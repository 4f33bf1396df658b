// All panes together: what is shown, and what people do.

class Inspector {
  constructor(root) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.panes = setup.runs.map((_, number) => new Pane(this, number));
    this.find(".panes").append(...this.panes.map((pane) => pane.root));
    this.top = null;
    this.base = "input";
    this.blend = 0.7;
    this.only = null;
    this.kept = this.pointed = null;
    this.stroke = [];
    this.pending = new Set();
    this.pointers = new Map();
    this.fillSelects();
    this.listen();
  }

  fillSelects() {
    const titles = setup.images.map(({ name, note }) => (note ? `${name} · ${note}` : name));
    this.find(".images").replaceChildren(...titles.map((title, value) => element("option", { value }, title)));
  }

  async open(number, wanted = {}) {
    const order = (this.order = (this.order || 0) + 1);
    const image = await loadImage(number);
    if (order !== this.order) return; // another one was chosen meanwhile
    this.image = image;
    this.layers = layersOf(image);
    const known = (id) => this.layers.some((layer) => layer.id === id);
    this.top = [wanted.layer, this.top, ...image.views.map(({ answer }) => answer)].find(known); // "main" may have none
    this.base = [wanted.base, this.base, "input"].find(known);
    if (wanted.blend !== undefined) this.blend = clip(wanted.blend, 0, 1);
    this.only = null;
    this.kept = this.pointed = null;
    this.stroke = [];
    this.find(".images").value = number;
    this.root.style.setProperty("--aspect", `${image.size[0]} / ${image.size[1]}`);
    this.showLayers();
    this.resize();
    if (wanted.zoom) {
      this.scale = clip(wanted.zoom, this.fitting, this.most);
      this.center = wanted.center;
      this.holdInside();
    }
    if (wanted.kept) this.kept = this.inside(wanted.kept);
    this.refresh();
    this.root.dataset.ready = image.name;
  }

  /** Draws again with the next frame. */
  refresh(...what) {
    if (!this.pending.size) requestAnimationFrame(() => this.draw());
    for (const part of what.length ? what : ["picture", "marks", "link"]) this.pending.add(part);
  }

  draw() {
    const pending = new Set(this.pending);
    this.pending.clear();
    for (const pane of this.panes) {
      if (pending.has("picture")) pane.drawPicture();
      pane.drawMarks();
      pane.showReadout();
    }
    if (pending.has("picture")) this.find(".zoom").textContent = `${(100 * this.scale).toFixed(0)} %`;
    if (pending.has("link")) this.showLink();
  }

  showLayers() {
    const buttons = this.layers.map(({ id, title }, number) => {
      const attributes = { type: "button", "data-layer": id, "aria-pressed": id === this.top, title: `key ${number + 1}` };
      const button = element("button", attributes, title);
      button.addEventListener("click", () => this.choose(id));
      return button;
    });
    this.find(".layers").replaceChildren(...buttons);
    const option = ({ id, title }) => element("option", { value: id }, title);
    this.find(".base").replaceChildren(...this.layers.map(option));
    this.find(".base").value = this.base;
    this.find(".blend").value = Math.round(100 * this.blend);
    this.showKey();
  }

  choose(id) {
    this.top = id;
    for (const button of this.root.querySelectorAll("[data-layer]")) {
      button.setAttribute("aria-pressed", button.dataset.layer === id);
    }
    this.showKey();
    this.refresh();
  }

  /** What the colours of the chosen layer are called. */
  showKey() {
    const kind = this.layers.find((layer) => layer.id === this.top).key;
    this.find(".key").replaceChildren(...(kind ? this.keys()[kind]() : []));
  }

  keys() {
    const moved = this.image.label
      ? [chip(FIXED, "fixed"), chip(BROKEN, "broken"), chip(OTHER, "still wrong, another class")]
      : [chip(OTHER, "another class")];
    return {
      classes: () => this.classKey(),
      changed: () => [...moved, chip(VEIL, "the same class")],
      errors: () => [chip(BROKEN, "wrong"), chip(VEIL, "right")],
      confidence: () => {
        const scale = `linear-gradient(to right, ${setup.scale.join(",")})`;
        const [least, most] = CONFIDENCE_ENDS;
        return [least, element("i", { class: "ramp", style: { background: scale } }), most];
      },
      offsets: () => {
        const wheel = painted(64, 64, (i) => {
          const [x, y] = [((i % 64) - 31.5) / 31.5, (Math.floor(i / 64) - 31.5) / 31.5];
          return Math.hypot(x, y) > 1 ? 0 : packedColor(wheelColor(x, y, 1));
        });
        wheel.className = "wheel";
        const longest = longestOffset(this.image.views.find((view) => view.seed)).toPrecision(3);
        return [wheel, `hue: where the seed lies; full saturation: ${longest} px`];
      },
    };
  }

  classKey() {
    const { image } = this;
    const counts = new Map();
    const planes = [image.label, ...image.views.map((view) => view.rankings[view.answer].classes[0])].filter(Boolean);
    for (const plane of planes) {
      for (const id of plane) counts.set(id, (counts.get(id) || 0) + 1 / plane.length);
    }
    counts.delete(IGNORED);
    const ids = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
    return ids.map((id) => {
      const attributes = { type: "button", class: "chip", "aria-pressed": this.only === id, title: "this class alone" };
      const button = element("button", attributes, swatch(colorOf(id)), nameOf(id));
      button.addEventListener("click", () => {
        this.only = this.only === id ? null : id;
        this.showKey();
        this.refresh();
      });
      return button;
    });
  }

  // -- view --

  resize() {
    if (!this.image) return;
    const wasFitting = !this.scale || this.scale <= this.fitting * 1.001;
    for (const pane of this.panes) pane.resize();
    const [width, height] = this.panes[0].size;
    this.fitting = Math.min(width / this.image.size[0], height / this.image.size[1]);
    this.most = Math.max(24, 2 * this.fitting);
    if (wasFitting || this.shownImage !== this.image) this.fit();
    this.shownImage = this.image;
    this.holdInside();
    this.refresh("picture");
  }

  fit() {
    this.scale = this.fitting;
    this.center = this.image.size.map((side) => side / 2);
    this.refresh();
  }

  /** Zooms by a factor; the position under the screen's point stays there. */
  zoom(factor, point = this.panes[0].size.map((side) => side / 2)) {
    const before = this.fromScreen(point);
    this.scale = clip(this.scale * factor, this.fitting, this.most);
    const after = this.fromScreen(point);
    this.center = this.center.map((value, axis) => value + before[axis] - after[axis]);
    this.holdInside();
    this.refresh();
  }

  pan(dx, dy) {
    this.center = [this.center[0] - dx / this.scale, this.center[1] - dy / this.scale];
    this.holdInside();
    this.refresh();
  }

  holdInside() {
    this.center = this.center.map((value, axis) => {
      const half = this.panes[0].size[axis] / this.scale / 2;
      const side = this.image.size[axis];
      return 2 * half >= side ? side / 2 : clip(value, half, side - half);
    });
  }

  /** A point of the screen, from the pane's corner, as a position; `inside` makes it one of the image's pixels. */
  fromScreen([x, y]) {
    const [width, height] = this.panes[0].size;
    return [(x - width / 2) / this.scale + this.center[0] - 0.5, (y - height / 2) / this.scale + this.center[1] - 0.5];
  }

  inside(position) {
    return position.map((value, axis) => clip(Math.round(value), 0, this.image.size[axis] - 1));
  }

  isOutside(position) {
    return position.some((value, axis) => value < -0.5 || value > this.image.size[axis] - 0.5);
  }

  keep(position) {
    this.kept = position;
    this.refresh("marks", "link");
  }

  // -- links --

  showLink() {
    const values = { image: this.image.name, layer: this.top };
    if (this.base !== "input") values.base = this.base;
    values.blend = this.blend.toFixed(2);
    if (this.kept) [values.x, values.y] = this.kept;
    if (this.scale > this.fitting * 1.001) {
      values.zoom = this.scale.toFixed(3);
      [values.cx, values.cy] = this.center.map((value) => value.toFixed(1));
    }
    const hash = `#${new URLSearchParams(values)}`;
    this.find(".link").href = hash;
    clearTimeout(this.addressing); // browsers refuse an address that changes with every frame
    this.addressing = setTimeout(() => history.replaceState(null, "", hash), 250);
  }

  /** Opens what a link names; the first image where it names none. */
  async follow(hash) {
    const values = new URLSearchParams(hash.slice(1));
    const number = setup.images.findIndex(({ name }) => name === values.get("image"));
    const [blend, zoom, ...numbers] = ["blend", "zoom", "x", "y", "cx", "cy"].map((key) =>
      values.has(key) && Number.isFinite(Number(values.get(key))) ? Number(values.get(key)) : undefined,
    );
    const pair = (a, b) => (a === undefined || b === undefined ? null : [a, b]);
    const center = pair(numbers[2], numbers[3]);
    const wanted = { layer: values.get("layer"), base: values.get("base"), blend, kept: pair(numbers[0], numbers[1]) };
    await this.open(Math.max(0, number), { ...wanted, zoom: center && zoom, center });
  }

  // -- what people do --

  listen() {
    const { find } = this;
    find(".images").addEventListener("change", (event) => this.open(Number(event.target.value)));
    find(".previous").addEventListener("click", () => this.step(-1));
    find(".next").addEventListener("click", () => this.step(1));
    find(".base").addEventListener("change", (event) => {
      this.base = event.target.value;
      this.refresh();
    });
    find(".blend").addEventListener("input", (event) => {
      this.blend = event.target.value / 100;
      this.refresh();
    });
    find(".zoom-in").addEventListener("click", () => this.zoom(1.5));
    find(".zoom-out").addEventListener("click", () => this.zoom(1 / 1.5));
    find(".fit").addEventListener("click", () => this.fit());
    find(".strokes").addEventListener("click", () => this.toggleStrokes());
    find(".link").addEventListener("click", (event) => this.copyLink(event));
    for (const pane of this.panes) this.listenTo(pane);
    this.root.addEventListener("keydown", (event) => this.onKey(event));
    window.addEventListener("hashchange", () => {
      this.root.scrollIntoView({ behavior: "smooth" });
      this.follow(location.hash);
    });
    new ResizeObserver(() => this.resize()).observe(find(".panes"));
  }

  step(by) {
    const count = setup.images.length;
    this.open((this.image.number + by + count) % count);
  }

  toggleStrokes() {
    this.stroking = !this.stroking;
    this.find(".strokes").setAttribute("aria-pressed", this.stroking);
    this.root.classList.toggle("stroking", this.stroking);
  }

  async copyLink(event) {
    event.preventDefault();
    const link = this.find(".link");
    try {
      await navigator.clipboard.writeText(link.href);
      this.find(".said").textContent = "Copied.";
    } catch {
      this.find(".said").textContent = "The address bar has it.";
    }
    setTimeout(() => (this.find(".said").textContent = ""), 2500);
  }

  listenTo(pane) {
    const { marks } = pane;
    marks.tabIndex = 0;
    marks.setAttribute("role", "application");
    marks.setAttribute("aria-label", "Image with seeds. Arrow keys move to other pixels, Enter keeps one.");
    marks.addEventListener("pointerdown", (event) => this.onDown(pane, event));
    marks.addEventListener("pointermove", (event) => this.onMove(pane, event));
    for (const kind of ["pointerup", "pointercancel"]) marks.addEventListener(kind, (event) => this.onUp(pane, event));
    marks.addEventListener("pointerleave", () => {
      if (!this.pointers.size) this.point(null);
    });
    marks.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey && document.activeElement !== marks) return; // the page scrolls
        event.preventDefault();
        const speed = event.ctrlKey ? 0.01 : 0.0025; // pinching on a touchpad comes as small steps with Ctrl
        this.zoom(Math.exp(-clip(event.deltaY, -200, 200) * speed), [event.offsetX, event.offsetY]);
      },
      { passive: false },
    );
  }

  point(position) {
    this.pointed = position && !this.isOutside(position) ? this.inside(position) : null;
    this.refresh("marks");
  }

  onDown(pane, event) {
    if (event.button > 0) return;
    pane.marks.focus({ preventScroll: true });
    pane.marks.setPointerCapture(event.pointerId);
    const start = [event.offsetX, event.offsetY];
    this.pointers.set(event.pointerId, start);
    const single = this.pointers.size === 1;
    this.gesture = { start, moved: !single, stroke: single && (this.stroking || event.shiftKey) };
    if (this.gesture.stroke) this.stroke = [];
    if (event.pointerType === "touch" && single) this.point(this.fromScreen(start));
  }

  onMove(pane, event) {
    const here = [event.offsetX, event.offsetY];
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      this.point(this.fromScreen(here));
      return;
    }
    if (this.pointers.size === 2) this.pinch(event.pointerId, before, here);
    const { gesture } = this;
    if (Math.hypot(here[0] - gesture.start[0], here[1] - gesture.start[1]) > 4) gesture.moved = true;
    if (this.pointers.size === 1 && gesture.moved) {
      if (gesture.stroke) this.addToStroke(before, here);
      else if (event.pointerType === "touch") this.point(this.fromScreen(here));
      else this.pan(here[0] - before[0], here[1] - before[1]);
    }
    this.pointers.set(event.pointerId, here);
  }

  pinch(moving, before, here) {
    const [[, other]] = [...this.pointers].filter(([id]) => id !== moving);
    const distance = (point) => Math.max(1, Math.hypot(point[0] - other[0], point[1] - other[1]));
    this.pan((here[0] - before[0]) / 2, (here[1] - before[1]) / 2);
    this.zoom(distance(here) / distance(before), [(here[0] + other[0]) / 2, (here[1] + other[1]) / 2]);
  }

  addToStroke(from, to) {
    const steps = Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1]) / 2);
    for (let i = 0; i <= steps; i++) {
      const point = from.map((value, axis) => value + ((to[axis] - value) * i) / Math.max(1, steps));
      const position = this.fromScreen(point);
      if (!this.isOutside(position)) this.stroke.push(position);
    }
    this.kept = null;
    this.refresh("marks");
  }

  onUp(pane, event) {
    if (!this.pointers.delete(event.pointerId) || this.gesture.moved || event.type === "pointercancel") return;
    const position = this.fromScreen([event.offsetX, event.offsetY]);
    if (this.isOutside(position)) return;
    this.stroke = [];
    const maps = pane.maps;
    const here = this.inside(position);
    const again = this.kept && maps.indexAt(...this.kept) === maps.indexAt(...here);
    this.keep(again ? null : here);
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(select|input)$/i.test(event.target.tagName)) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const actions = {
      "+": () => this.zoom(1.5),
      "=": () => this.zoom(1.5),
      "-": () => this.zoom(1 / 1.5),
      0: () => this.fit(),
      n: () => this.step(1),
      p: () => this.step(-1),
      s: () => this.toggleStrokes(),
      "[": () => this.setBlend(this.blend - 0.1),
      "]": () => this.setBlend(this.blend + 0.1),
      Enter: () => this.pointed && this.keep(this.pointed),
      Escape: () => {
        this.stroke = [];
        this.keep(null);
      },
    };
    const onCanvas = event.target.classList.contains("marks");
    if (event.key in arrows && onCanvas) this.move(...arrows[event.key], event.shiftKey ? 10 : 1);
    else if (/^[1-9]$/.test(event.key) && this.layers[event.key - 1]) this.choose(this.layers[event.key - 1].id);
    else if (event.key in actions && (event.key !== "Enter" || onCanvas)) actions[event.key]();
    else return;
    event.preventDefault();
  }

  setBlend(value) {
    this.blend = clip(value, 0, 1);
    this.find(".blend").value = Math.round(100 * this.blend);
    this.refresh();
  }

  /** Moves the kept pixel, or the one pointed at, by pixels of the network, and the view with it. */
  move(dx, dy, by) {
    const { spacing } = this.panes[0].maps;
    const from = this.kept || this.pointed || this.inside(this.center);
    const to = this.inside([from[0] + dx * by * spacing[0], from[1] + dy * by * spacing[1]]);
    if (this.kept) this.kept = to;
    else this.pointed = to;
    const [x, y] = this.panes[0].toScreen(to);
    const [width, height] = this.panes[0].size;
    this.pan(clip(x, 24, width - 24) - x, clip(y, 24, height - 24) - y);
  }
}

if (setup.images.length) {
  const inspector = new Inspector(byId("inspector"));
  inspector.follow(location.hash);
}
