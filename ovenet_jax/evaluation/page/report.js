// Tables that sort, and charts drawn when they come into view.

for (const table of document.querySelectorAll(".sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => sortBy(table, heads, column)));
}

function sortBy(table, heads, column) {
  const rising = heads[column].getAttribute("aria-sort") === "descending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", rising ? "ascending" : "descending");
  const valueOf = (row) => {
    const cell = row.cells[column];
    return "sort" in cell.dataset ? Number(cell.dataset.sort) : cell.textContent.trim();
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  const rows = [...table.tBodies[0].rows].sort((a, b) => (rising ? 1 : -1) * compare(valueOf(a), valueOf(b)));
  table.tBodies[0].append(...rows);
}

const charts = JSON.parse(byId("charts").textContent);
let loading = null;

/** Plotly comes with the page, deflated; it is read when the first chart is wanted. */
function loadPlotly() {
  loading ||= inflated("plotly").then((code) => {
    document.head.append(element("script", {}, new TextDecoder().decode(code)));
    return window.Plotly;
  });
  return loading;
}

const COLORS = ["#2f81d6", "#d2691e", "#1a9b6c", "#8f63cf", "#c2498d", "#7d8b99"];
const plain = (name) => name.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;"); // Plotly reads markup
const titled = (text, more = {}) => ({ title: { text }, ...more });

/**
 * Lines [{name, x, y, counts}] over titled axes: x in order of appearance if it is text; `shares` shows y in percent;
 * `exact` shows x in percent, too, and adds the line on which x and y are equal. counts: the number of pixels at each x.
 */
function lineChart({ x, y, lines, shares, exact }) {
  const names = [...new Set(lines.map(({ name }) => name))];
  const data = lines.map((line, i) => ({
    ...line,
    name: plain(line.name),
    legendgroup: line.name,
    showlegend: lines.findIndex(({ name }) => name === line.name) === i,
    line: { color: COLORS[names.indexOf(line.name) % COLORS.length] },
    mode: "lines+markers",
    customdata: line.counts,
    hovertemplate: line.counts && `${exact ? "predicted %{x:.1%}, observed " : ""}%{y:.2%} of %{customdata:,} pixels`,
  }));
  const ends = { x: [0, 1], y: [0, 1], line: { color: COLORS.at(-1), dash: "dot" } };
  if (exact) data.push({ ...ends, name: "calibrated", mode: "lines", hoverinfo: "skip" });
  const percent = (on) => (on ? { tickformat: ".0%" } : {});
  const span = exact ? { range: [0, 1] } : {};
  const layout = {
    height: 380,
    margin: { t: 20, r: 10 },
    hovermode: x === "step" ? "x unified" : "closest",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    xaxis: titled(x, { ...percent(exact), ...span, ...(typeof lines[0].x[0] === "string" ? { type: "category" } : {}) }),
    yaxis: titled(y, { ...percent(shares || exact), ...span }),
  };
  return { data, layout };
}

/** The share of correct pixels in bins [[pixels, sum of their probabilities, correct pixels]]; x(bin, i) is a bin's place. */
const accuracy = ({ name, bins }, x) => ({
  name,
  x: bins.map(x),
  y: bins.map(([count, , correct]) => (count ? correct / count : null)),
  counts: bins.map(([count]) => count),
});

/** ends: the upper ends of all bins but the last, in pixels. */
function distanceChart({ ends, lines }) {
  const spans = [0, ...ends].map((end, i) => (i < ends.length ? `${end}–${ends[i]}` : `over ${end}`));
  const axes = { x: "pixels to the nearest boundary between classes", y: "accuracy", shares: true };
  return lineChart({ ...axes, lines: lines.map((line) => accuracy(line, (_, i) => spans[i])) });
}

function calibrationChart(lines) {
  const filled = lines.map(({ name, bins }) => ({ name, bins: bins.filter(([count]) => count) }));
  const predicted = ([count, total]) => total / count;
  return lineChart({ x: "predicted", y: "observed", exact: true, lines: filled.map((line) => accuracy(line, predicted)) });
}

/** Pixel counts, a row per true class; the shade is the root of the share of the row. */
function confusionChart(counts) {
  const names = setup.names.map(plain);
  const sums = counts.map((row) => Math.max(1, row.reduce((sum, count) => sum + count, 0)));
  const gap = names.length < 40 ? 1 : 0;
  const heat = {
    type: "heatmap",
    x: names,
    y: names,
    z: counts.map((row, i) => row.map((count) => Math.sqrt(count / sums[i]))),
    customdata: counts.map((row, i) => row.map((count) => [count, count / sums[i]])),
    hovertemplate:
      "true: %{y}<br>predicted: %{x}<br>%{customdata[0]:,} pixels, %{customdata[1]:.2%} of the true class<extra></extra>",
    colorscale: [[0, "rgba(47,129,214,0)"], [1, "rgb(47,129,214)"]],
    zmin: 0,
    zmax: 1,
    showscale: false,
    xgap: gap,
    ygap: gap,
  };
  const axis = { type: "category", showgrid: false, tickfont: { size: 11 } };
  const layout = {
    height: clip(26 * names.length + 160, 380, 900),
    margin: { t: 10, r: 10 },
    xaxis: titled("predicted", { ...axis, tickangle: -60 }),
    yaxis: titled("true", { ...axis, autorange: "reversed" }),
  };
  return { data: [heat], layout };
}

const MAKERS = {
  confusion: confusionChart,
  distance: distanceChart,
  calibration: calibrationChart,
  loss: (lines) => lineChart({ x: "step", y: "loss", lines }),
  eval_loss: (lines) => lineChart({ x: "step", y: "loss", lines }),
  eval_miou: (lines) => lineChart({ x: "step", y: "mIoU", shares: true, lines }),
};

function themed({ data, layout }) {
  const color = (name) => {
    const probe = element("span", { style: { color: `var(--${name})` } });
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  };
  const [ink, rule, raised] = ["ink", "rule", "raised"].map(color);
  const axis = { gridcolor: rule, linecolor: rule, zerolinecolor: rule, automargin: true };
  const look = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, family: "system-ui, sans-serif" },
    hoverlabel: { bgcolor: raised, bordercolor: rule, font: { color: ink } },
  };
  const axes = { xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } };
  return { data, layout: { ...look, ...layout, ...axes } };
}

async function drawChart(place) {
  const plotly = await loadPlotly();
  const name = place.dataset.chart;
  const { data, layout } = themed(MAKERS[name](charts[name]));
  await plotly.react(place, data, layout, { responsive: true, displayModeBar: false });
  place.dataset.drawn = "yes";
}

const places = [...document.querySelectorAll(".chart")];
const watcher = new IntersectionObserver(
  (entries) =>
    entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
      watcher.unobserve(target);
      drawChart(target);
    }),
  { rootMargin: "300px" },
);
places.forEach((place) => watcher.observe(place));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  places.filter((place) => place.dataset.drawn).forEach(drawChart);
});
