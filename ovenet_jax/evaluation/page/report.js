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
  const axes = Object.keys(layout).filter((key) => /^[xy]axis/.test(key));
  const look = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, family: "system-ui, sans-serif" },
    hoverlabel: { bgcolor: raised, bordercolor: rule, font: { color: ink } },
  };
  const drawn = Object.fromEntries(axes.map((key) => [key, { ...axis, ...layout[key] }]));
  return { data, layout: { ...look, ...layout, ...drawn } };
}

async function drawChart(place) {
  const plotly = await loadPlotly();
  const { data, layout } = themed(charts[place.dataset.chart]);
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
