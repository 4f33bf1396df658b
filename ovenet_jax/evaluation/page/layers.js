// What can be shown of an image: layers, and their colours.

const FIXED = [0, 158, 115, 255];
const BROKEN = [213, 74, 0, 255];
const OTHER = [64, 120, 240, 255];
const VEIL = [128, 128, 128, 110];
const CLEAR = [0, 0, 0, 0];

const packedColor = ([r, g, b, a = 255]) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;
const colorOf = (id) => (id < setup.colors.length ? setup.colors[id] : [0, 0, 0]);
const nameOf = (id) => (id < setup.names.length ? setup.names[id] : "ignored");
const cssColor = (color) => `rgb(${color.slice(0, 3).join(" ")})`;

/** A canvas of `width` x `height` whose pixels are color(index), a packed one. */
function painted(width, height, color) {
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const words = new Uint32Array(pixels.data.buffer);
  for (let i = 0; i < words.length; i++) words[i] = color(i);
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function classTable(only) {
  const table = new Uint32Array(256);
  setup.colors.forEach((color, id) => {
    table[id] = only === null || only === id ? packedColor(color) : packedColor(VEIL);
  });
  return table; // what is ignored stays clear
}

const overMaps = (maps, color) => ({
  canvas: painted(maps.width, maps.height, color),
  rectangle: [
    maps.origin[0] - maps.spacing[0] / 2 + 0.5,
    maps.origin[1] - maps.spacing[1] / 2 + 0.5,
    maps.width * maps.spacing[0],
    maps.height * maps.spacing[1],
  ],
});

const overImage = (image, canvas) => ({ canvas, rectangle: [0, 0, ...image.size] });

/** Fusion's first against its last prediction, per pixel of the truth or, where there is none, of the network. */
function changedLayer(image, maps) {
  const before = maps.rankings[maps.predictions[0]].classes[0];
  const after = maps.rankings[maps.answer].classes[0];
  const colors = [CLEAR, FIXED, BROKEN, OTHER, VEIL].map(packedColor);
  if (!image.label) {
    return overMaps(maps, (i) => (before[i] === after[i] ? colors[4] : colors[3]));
  }
  return overTruth(image, maps, (truth, i) => {
    if (truth === IGNORED) return colors[0];
    if (before[i] === after[i]) return colors[4];
    return after[i] === truth ? colors[1] : before[i] === truth ? colors[2] : colors[3];
  });
}

function errorLayer(image, maps) {
  const answer = maps.rankings[maps.answer].classes[0];
  const [clear, wrong, veil] = [CLEAR, BROKEN, VEIL].map(packedColor);
  return overTruth(image, maps, (truth, i) => (truth === IGNORED ? clear : answer[i] === truth ? veil : wrong));
}

function overTruth(image, maps, color) {
  const [width, height] = image.label_size;
  const columns = Array.from({ length: width }, (_, x) => maps.indexAt(x * image.stride, 0));
  const rows = Array.from({ length: height }, (_, y) => maps.indexAt(0, y * image.stride));
  let i = 0;
  const canvas = painted(width, height, () => {
    const x = i % width;
    const index = rows[(i - x) / width] + columns[x];
    return color(image.label[i++], index);
  });
  return overImage(image, canvas);
}

function confidenceLayer(maps) {
  const table = Uint32Array.from({ length: maps.levels + 1 }, (_, step) => {
    const hex = setup.scale[Math.round((255 * step) / maps.levels)];
    return packedColor([1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  });
  return overMaps(maps, (i) => table[clip(maps.confidence[i], 0, maps.levels)]);
}

/** The colour wheel: hue is the direction (right red, down yellow-green), full colour the longest offsets. */
function wheelColor(x, y, longest) {
  const saturation = Math.min(1, Math.hypot(x, y) / longest);
  const hue = ((Math.atan2(y, x) / Math.PI) * 3 + 6) % 6;
  const channel = (n) => {
    const k = (n + hue) % 6;
    return Math.round(255 * (1 - saturation * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [channel(5), channel(3), channel(1)];
}

function longestOffset(maps) {
  if (!maps.longest) {
    const lengths = Float32Array.from(maps.seed[0], (_, i) => Math.hypot(...maps.offsetOf(i))).sort();
    maps.longest = Math.max(lengths[Math.floor(0.99 * (lengths.length - 1))], 0.01);
  }
  return maps.longest;
}

const offsetLayer = (maps) => {
  const longest = longestOffset(maps);
  return overMaps(maps, (i) => packedColor(wheelColor(...maps.offsetOf(i), longest)));
};

/** The layers of an image: what they are called, how they are made of a view, and which key explains them. */
function layersOf(image) {
  const { views } = image;
  const has = (key) => views.some((view) => view[key]);
  const all = [...new Set(views.flatMap((view) => view.predictions))];
  const names = all.length > 1 ? all.filter((name) => name !== "main") : all; // beside S_f it is shown as that
  const of = (key, layer) => (view) => (view[key] ? layer(view) : overMaps(view, () => 0));
  const classes = (name) => (view, only) => {
    const table = classTable(only);
    const plane = view.rankings[name in view.rankings ? name : view.answer].classes[0];
    return overMaps(view, (i) => table[plane[i]]);
  };
  const truth = (_, only) => {
    const table = classTable(only);
    return overImage(image, painted(...image.label_size, (i) => table[image.label[i]]));
  };
  const layers = [
    ["input", "input", () => overImage(image, image.picture), null],
    image.label && ["truth", "truth", truth, "classes"],
    ...names.map((name) => [name, TITLES[name], classes(name), "classes"]),
    names.length > 1 && ["changed", "changed by fusion", (view) => changedLayer(image, view), "changed"],
    image.label && ["errors", "errors", (view) => errorLayer(image, view), "errors"],
    has("confidence") && ["confidence", CONFIDENCE, of("confidence", confidenceLayer), "confidence"],
    has("seed") && ["offsets", "offsets", of("seed", offsetLayer), "offsets"],
  ];
  return layers.filter(Boolean).map(([id, title, make, key]) => ({ id, title, make, key }));
}
