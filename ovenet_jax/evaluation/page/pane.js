// One canvas with its readout: the view of one network.

class Pane {
  constructor(inspector, number) {
    this.inspector = inspector;
    this.number = number;
    this.picture = element("canvas", { class: "picture" });
    this.marks = element("canvas", { class: "marks" });
    this.view = element("div", { class: "view" }, this.picture, this.marks);
    this.readout = element("div", { class: "readout", "aria-live": "polite" });
    const title = setup.runs.length > 1 ? [element("h3", {}, setup.runs[number])] : [];
    this.root = element("div", { class: "pane" }, ...title, this.view, this.readout);
    this.cache = new Map();
  }

  get maps() {
    return this.inspector.image.views[this.number];
  }

  resize() {
    const { width, height } = this.view.getBoundingClientRect();
    this.size = [width, height];
    for (const canvas of [this.picture, this.marks]) {
      canvas.width = Math.round(width * devicePixelRatio);
      canvas.height = Math.round(height * devicePixelRatio);
    }
  }

  layer(id) {
    const { image, only } = this.inspector;
    const layer = this.inspector.layers.find((one) => one.id === id);
    const key = `${image.number} ${id} ${layer.key === "classes" ? only : ""}`;
    if (!this.cache.has(key)) {
      if (this.cache.size > 24) this.cache.clear();
      this.cache.set(key, layer.make(this.maps, only));
    }
    return this.cache.get(key);
  }

  /** From corners of image pixels to the screen's. */
  transform(context) {
    const { scale, center } = this.inspector;
    const zoom = scale * devicePixelRatio;
    const [width, height] = this.size.map((side) => (side * devicePixelRatio) / 2);
    context.setTransform(zoom, 0, 0, zoom, width - center[0] * zoom, height - center[1] * zoom);
  }

  toScreen([x, y]) {
    const { scale, center } = this.inspector;
    return [(x + 0.5 - center[0]) * scale + this.size[0] / 2, (y + 0.5 - center[1]) * scale + this.size[1] / 2];
  }

  drawPicture() {
    const { image, base, top, blend, scale } = this.inspector;
    const context = this.picture.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.picture.width, this.picture.height);
    this.transform(context);
    context.save();
    context.beginPath();
    context.rect(0, 0, ...image.size);
    context.clip();
    for (const [id, alpha] of base === top ? [[top, 1]] : [[base, 1], [top, blend]]) {
      if (alpha === 0) continue;
      const { canvas, rectangle } = this.layer(id);
      context.globalAlpha = alpha;
      context.imageSmoothingEnabled = id === "input" && scale * devicePixelRatio < 3;
      context.drawImage(canvas, ...rectangle);
    }
    context.restore();
  }

  drawMarks() {
    const { kept, pointed, stroke } = this.inspector;
    const context = this.marks.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.marks.width, this.marks.height);
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.lineCap = "round";
    if (stroke.length) this.drawStroke(context, stroke);
    if (kept) this.drawPixel(context, kept, true);
    if (pointed) this.drawPixel(context, pointed, !kept);
  }

  drawPixel(context, position, strong) {
    const maps = this.maps;
    const index = maps.indexAt(...position);
    const [x, y] = this.toScreen(maps.positionOf(index));
    const { scale } = this.inspector;
    const half = [0, 1].map((axis) => Math.max(3, (maps.spacing[axis] * scale) / 2));
    const twice = (draw) => {
      for (const [color, width] of [["rgb(0 0 0 / 75%)", 4], ["white", 1.8]]) {
        context.strokeStyle = color;
        context.lineWidth = strong ? width : width * 0.7;
        context.beginPath();
        draw();
        context.stroke();
      }
    };
    context.globalAlpha = strong ? 1 : 0.75;
    if (maps.seed) {
      const seed = this.toScreen(maps.seedOf(index));
      twice(() => {
        context.moveTo(x, y);
        context.lineTo(...seed);
      });
      const [[id]] = maps.rankingOf("seed" in maps.rankings ? "seed" : maps.answer, index);
      context.fillStyle = cssColor(colorOf(id));
      context.beginPath();
      context.arc(...seed, strong ? 6 : 4.5, 0, 7);
      context.fill();
      twice(() => context.arc(...seed, strong ? 6 : 4.5, 0, 7));
    }
    twice(() => context.rect(x - half[0], y - half[1], 2 * half[0], 2 * half[1]));
    context.globalAlpha = 1;
  }

  drawStroke(context, stroke) {
    const maps = this.maps;
    if (!maps.seed) return;
    const pixels = this.strokePixels(stroke);
    const lines = new Path2D();
    const ends = new Path2D();
    for (const index of pixels) {
      const [x, y] = this.toScreen(maps.seedOf(index));
      lines.moveTo(...this.toScreen(maps.positionOf(index)));
      lines.lineTo(x, y);
      ends.moveTo(x + 2.5, y);
      ends.arc(x, y, 2.5, 0, 7);
    }
    for (const [color, width] of [["rgb(0 0 0 / 60%)", 2.6], ["rgb(255 255 255 / 90%)", 1.1]]) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.stroke(lines);
      context.stroke(ends);
    }
    context.fillStyle = "white";
    context.fill(ends);
  }

  strokePixels(stroke) {
    return [...new Set(stroke.map((position) => this.maps.indexAt(...position)))];
  }

  // -- readout --

  showReadout() {
    const { kept, pointed, stroke, image } = this.inspector;
    const position = kept || pointed;
    const parts = [];
    if (stroke.length && !kept) parts.push(this.strokeSummary(stroke));
    else if (!position) parts.push(this.hint(image));
    else parts.push(...this.pixelReadout(position, Boolean(kept)));
    this.readout.replaceChildren(...parts);
  }

  hint(image) {
    const { levels, parts, spacing, seed, map_stride } = this.maps;
    const seeds = seed ? `, seeds of ${(spacing[0] / parts).toPrecision(2)} px` : "";
    const notes = [`Probabilities in steps of ${(100 / levels).toFixed(1)} %${seeds}.`];
    const one = (of, stride) => `In each direction one of ${stride} pixels of the ${of} is shown.`;
    if (map_stride > 1) notes.unshift(one("network", map_stride));
    if (image.stride > 1) notes.unshift(one(`image (${image.size.join(" x ")})`, image.stride));
    const lead = `Point at a pixel to see its ${seed ? "seed and the predicted classes of both" : "classes"}. Click to keep it.`;
    return part("div", "hint", part("p", "", lead), ...notes.map((note) => part("p", "faint", note)));
  }

  pixelReadout(position, kept) {
    const { image } = this.inspector;
    const maps = this.maps;
    const index = maps.indexAt(...position);
    const truth = labelAt(image, ...position);
    const columns = maps.predictions.map((name) => [...ROLES[name], maps.rankingOf(name, index)]);
    const badge = kept ? part("span", "badge", "kept") : "";
    const parts = [
      part("div", "where", field("pixel", position.join(", ")), truthChip(truth), badge),
      this.rankingTable(columns, truth, "pixel"),
    ];
    if (maps.confidence) {
      const share = maps.confidenceOf(index);
      const bar = part("span", "bar", element("i", { style: { width: `${100 * share}%` } }));
      parts.push(line(CONFIDENCE, bar, field("confidence", maps.percent(share))));
    }
    return maps.seed ? [...parts, ...this.seedReadout(index)] : parts;
  }

  seedReadout(index) {
    const maps = this.maps;
    const offset = maps.offsetOf(index);
    const seed = maps.seedOf(index);
    const at = maps.indexOfSeed(index);
    const truth = labelAt(this.inspector.image, ...seed);
    const length = part("span", "faint", `${Math.hypot(...offset).toFixed(1)} px`);
    const parts = [
      line("offset", field("offset", `${offset.map(signed).join(", ")} px`), length),
      part("div", "where", "seed at ", field("seed", seed.map((value) => value.toFixed(1)).join(", ")), truthChip(truth)),
    ];
    if (maps.predictions.length === 1) return parts;
    const ends = [
      [maps.predictions[0], "before"],
      [maps.answer, "after"],
    ];
    const columns = ends.map(([name, role]) => [ROLES[name][0], role, maps.rankingOf(name, at)]);
    return [...parts, this.rankingTable(columns, truth, "seed")];
  }

  /** columns: [title, role, ranking]. */
  rankingTable(columns, truth, name) {
    const head = columns.map(([title, role]) => element("th", { scope: "col" }, `${title} `, part("small", "", role)));
    const rows = [0, 1, 2].map((rank) =>
      part("tr", "", ...columns.map(([, , ranking]) => this.rankingCell(ranking[rank], rank === 0 ? truth : IGNORED))),
    );
    const attributes = { class: `ranking of-${columns.length}`, "data-field": name };
    return element("table", attributes, part("thead", "", part("tr", "", ...head)), part("tbody", "", ...rows));
  }

  rankingCell(entry, truth = IGNORED) {
    if (!entry) return part("td", "");
    const [id, share] = entry;
    const name = part("span", "name", nameOf(id));
    const cell = part("div", "cell", swatch(colorOf(id)), name, part("span", "share", this.maps.percent(share)));
    const made = element("td", { title: nameOf(id) }, cell);
    if (truth !== IGNORED) made.className = id === truth ? "right" : "wrong";
    made.style.backgroundImage = `linear-gradient(to right, var(--cover) ${100 * share}%, transparent 0)`;
    return made;
  }

  strokeSummary(stroke) {
    const { image } = this.inspector;
    const maps = this.maps;
    const pixels = this.strokePixels(stroke);
    const mean = (value) => pixels.reduce((sum, index) => sum + value(index), 0) / pixels.length;
    const truthOf = (index) => labelAt(image, ...maps.positionOf(index));
    const values = [["pixels of the network", String(pixels.length)]];
    if (maps.confidence) values.push([`mean ${CONFIDENCE}`, maps.percent(mean((i) => maps.confidenceOf(i)))]);
    if (maps.seed) values.push(["mean length of offsets", `${mean((i) => Math.hypot(...maps.offsetOf(i))).toFixed(1)} px`]);
    if (maps.seed && image.label) {
      const same = mean((i) => Number(truthOf(i) === labelAt(image, ...maps.seedOf(i))));
      values.push(["seeds of the pixel's own class", maps.percent(same)]);
    }
    for (const name of image.label ? maps.predictions : []) {
      const right = mean((i) => Number(maps.rankings[name].classes[0][i] === truthOf(i)));
      values.push([`right in ${TITLES[name]}`, maps.percent(right)]);
    }
    const head = part("div", "where", part("b", "", "Stroke"), part("span", "faint", "Esc clears it"));
    return part("div", "stroke", head, ...values.map(([title, value]) => line(title, part("b", "", value))));
  }
}
