// The seed inspector: pictures and maps of images as layers, and what a network says of the pixel under the pointer.
// Positions are pixels of the original image, the centre of the first one at (0, 0).

const byId = (id) => document.getElementById(id);
const setup = JSON.parse(byId("inspector-setup").textContent);
const IGNORED = 255; // in labels
const OF_BOUNDARIES = setup.images.some(({ views }) => views.some(({ predictions }) => predictions.includes("offset")));
const CONFIDENCE = OF_BOUNDARIES ? "boundary" : "confidence F";
const CONFIDENCE_ENDS = OF_BOUNDARIES ? ["0: interior", "1: boundary"] : ["0: initial", "1: seed"];
const TITLES = { ...setup.titles, offset: "direction" };
const ROLES = {
  initial: ["S_i", "before"],
  seed: ["S_s", "at the seed"],
  fused: ["S_f", "after"],
  main: ["prediction", ""],
  offset: ["direction", ""],
};

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "style") Object.assign(made.style, value);
    else if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const part = (tag, name, ...children) => element(tag, name ? { class: name } : {}, ...children);
const field = (name, text) => element("b", { "data-field": name }, text);
const line = (title, ...rest) => part("div", "line", part("span", "", title), ...rest);
const swatch = (color) => element("i", { class: "swatch", style: { background: cssColor(color) } });
const chip = (color, text) => part("span", "chip", swatch(color), text);
const truthChip = (id) =>
  id === undefined ? "" : part("span", "chip", part("small", "", "truth"), swatch(colorOf(id)), nameOf(id));
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;
const clip = (value, least, most) => Math.min(Math.max(value, least), most);

// ---- decoding, the reverse of packing.py ----

function bytesOf(id) {
  const text = byId(id).textContent;
  return Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

async function inflated(id) {
  const stream = new Blob([bytesOf(id)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** What one network says of an image: planes of integers at its own resolution. */
class Maps {
  constructor(view, data) {
    Object.assign(this, view);
    [this.width, this.height] = view.map_size;
    let at = 0;
    const plane = (byNeighbours) => {
      const count = this.width * this.height;
      const values = decoded(data, at, count);
      at += 2 * count;
      if (byNeighbours) addForetold(values, this.width);
      return values;
    };
    this.rankings = {};
    for (const name of view.predictions) {
      const classes = [plane(false), plane(false), plane(false)];
      const left = [plane(true), plane(true), plane(true)];
      this.rankings[name] = { classes, left };
    }
    if (view.has_confidence) this.confidence = plane(true);
    if (view.has_seeds) this.seed = [plane(true), plane(true)];
  }

  get answer() {
    return this.predictions.at(-1);
  }

  /** The index of the network's pixel that holds a position. */
  indexAt(x, y) {
    const column = clip(Math.round((x - this.origin[0]) / this.spacing[0]), 0, this.width - 1);
    const row = clip(Math.round((y - this.origin[1]) / this.spacing[1]), 0, this.height - 1);
    return row * this.width + column;
  }

  /** The position of a pixel's centre. */
  positionOf(index) {
    const column = index % this.width;
    const row = (index - column) / this.width;
    return [this.origin[0] + column * this.spacing[0], this.origin[1] + row * this.spacing[1]];
  }

  /** The offset to a pixel's seed, in pixels of the image. */
  offsetOf(index) {
    return this.seed.map((plane, axis) => (plane[index] / this.parts) * this.spacing[axis]);
  }

  seedOf(index) {
    const [x, y] = this.positionOf(index);
    const [dx, dy] = this.offsetOf(index);
    return [x + dx, y + dy];
  }

  /** The network's pixel nearest to a pixel's seed. */
  indexOfSeed(index) {
    const column = Math.round((index % this.width) + this.seed[0][index] / this.parts);
    const row = Math.round(Math.floor(index / this.width) + this.seed[1][index] / this.parts);
    return clip(row, 0, this.height - 1) * this.width + clip(column, 0, this.width - 1);
  }

  confidenceOf(index) {
    return this.confidence[index] / this.levels;
  }

  /** [class, probability] of the most probable classes, none where there is no probability left. */
  rankingOf(name, index) {
    const { classes, left } = this.rankings[name];
    return classes
      .map((plane, rank) => [plane[index], ((rank ? left[rank - 1][index] : this.levels) - left[rank][index]) / this.levels])
      .filter(([, share]) => share > 0);
  }

  percent(share) {
    return `${(100 * share).toFixed(this.levels > 100 ? 1 : 0)} %`;
  }
}

function decoded(data, at, count) {
  const values = new Int16Array(count);
  for (let i = 0; i < count; i++) {
    const unsigned = data[at + i] | (data[at + count + i] << 8);
    values[i] = unsigned & 1 ? -((unsigned + 1) >> 1) : unsigned >> 1;
  }
  return values;
}

function addForetold(values, width) {
  for (let i = 0; i < values.length; i++) {
    const inside = i % width > 0;
    const left = inside ? values[i - 1] : 0;
    const above = i >= width ? values[i - width] : 0;
    const corner = inside && i >= width ? values[i - width - 1] : 0;
    values[i] += clip(left + above - corner, Math.min(left, above), Math.max(left, above));
  }
}

async function loadImage(number) {
  const image = { ...setup.images[number], number };
  const loads = [
    createImageBitmap(new Blob([bytesOf(`picture-${number}`)], { type: "image/webp" })),
    image.label_size ? inflated(`label-${number}`) : null,
    ...image.views.map((_, view) => inflated(`maps-${view}-${number}`)),
  ];
  const [picture, label, ...maps] = await Promise.all(loads);
  image.picture = picture;
  image.label = label;
  image.views = image.views.map((view, i) => new Maps(view, maps[i]));
  return image;
}

function labelAt(image, x, y) {
  if (!image.label) return undefined;
  const [width, height] = image.label_size;
  const column = clip(Math.round(x / image.stride), 0, width - 1);
  return image.label[clip(Math.round(y / image.stride), 0, height - 1) * width + column];
}
