// Draws the charts of a report: one x range, one cursor and one set of switched-off lines for all of them.
"use strict";

const HEIGHT = 220; // of a chart in pixels, as in page.css
const FEW = 50; // values that have a dot each
const data = JSON.parse(document.querySelector("#data").textContent);
const plots = new Map(); // figure -> its uPlot, once its section is open
const hidden = new Set(); // names of switched-off lines
const everything = [0, Math.max(data.steps, 1)];
let range = everything; // steps that are shown
const colours = {}; // by name, as the theme has them

// ---------------------------------------------------------------- colours

/** Resolves the style sheet's colours: a canvas knows no variables. */
function readColours() {
  const probe = document.querySelector("#probe");
  const palette = Array.from({ length: data.palette }, (_, place) => `c${place}`);
  for (const name of ["text", "muted", "line", "ready", ...palette]) {
    probe.style.color = `var(--${name})`;
    colours[name] = getComputedStyle(probe).color;
  }
}

const faded = (name, share) => colours[name].replace(/^rgb\((.*)\)$/, `rgba($1, ${share})`);

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  readColours();
  plots.forEach((plot) => plot.redraw(false));
}

// ---------------------------------------------------------------- numbers

function text(value, digits = 4) {
  if (value == null) return "-";
  const rounded = +value.toPrecision(digits);
  const size = Math.abs(rounded);
  return size && (size < 1e-3 || size >= 1e6) ? rounded.toExponential() : String(rounded);
}

/** Ticks of a logarithmic axis: round numbers within a decade, else 1, 2 and 5 or powers of ten. */
function logTicks(plot, axis, low, high) {
  const decades = Math.log10(high / low);
  const found = [];
  if (decades < 1) {
    const unit = 10 ** Math.floor(Math.log10(high - low));
    const step = [0.2, 0.5, 1, 2].map((by) => by * unit).find((by) => (high - low) / by <= 6);
    for (let at = Math.ceil(low / step); at * step <= high; at++) found.push(+(at * step).toPrecision(6));
    return found;
  }
  const every = Math.ceil(decades / 8);
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += every)
    for (const digit of decades > 3 ? [1] : [1, 2, 5]) found.push(+`${digit}e${power}`);
  return found.filter((at) => at >= low && at <= high);
}

/** Range of the y axis for what is visible, with a margin. */
function yRange(chart, log) {
  const [least, most] = chart.range;
  return (plot, low, high) => {
    if (low == null) return log ? [0.1, 1] : [0, 1];
    if (log) {
      const margin = Math.max((high / low) ** 0.06, 1.01);
      return [low / margin, high * margin];
    }
    if (chart.axis === "fixed") [low, high] = [least, most];
    if (chart.zero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
    const margin = (high - low) * 0.06 || Math.abs(high) * 0.1 || 0.1;
    return [least === 0 && chart.axis !== "fixed" ? Math.max(low - margin, 0) : low - margin, high + margin];
  };
}

// ---------------------------------------------------------------- drawing

/** Running mean over a thirtieth of the line. */
function smoothed(values) {
  const reach = Math.floor(values.length / 60);
  return values.map((value, at) => {
    if (value == null) return value;
    const near = values.slice(Math.max(at - reach, 0), at + reach + 1).filter((other) => other != null);
    return near.reduce((sum, other) => sum + other) / near.length;
  });
}

const isBound = (line) => line.kind === "bound" || line.kind === "far";

/** Returns the columns of a chart, its series and its bands. A band is two invisible series. */
function columns(chart, log) {
  const drawable = (values) => (log ? values.map((value) => (value > 0 ? value : null)) : values);
  const tables = [];
  const series = [{}];
  const bands = [];
  const hasMeans = chart.lines.some((line) => line.kind === "seed");
  for (const line of chart.lines) {
    const bound = isBound(line);
    const colour = bound ? "muted" : `c${line.colour % data.palette}`;
    const thin = line.kind === "seed";
    const smoothing = chart.noisy && smooth();
    const table = [data.grids[line.grid], drawable(smoothing ? smoothed(line.y) : line.y)];
    series.push({
      label: line.name,
      kind: line.kind,
      show: !hidden.has(line.name),
      auto: line.kind !== "far", // widens the axis
      dash: bound ? [3, 4] : line.colour < data.palette ? [] : [7, 3],
      stroke: () => (thin ? faded(colour, 0.4) : colours[colour]),
      width: thin || bound ? 1 : hasMeans ? 2.5 : 1.5,
      points: {
        ...((bound || line.y.length <= FEW) && { show: !bound }),
        fill: () => (thin ? faded(colour, 0.4) : colours[colour]),
        size: thin ? 3 : 5,
      },
    });
    if (smoothing && !thin) {
      table.push(drawable(line.y));
      const stroke = () => faded(colour, 0.25);
      series.push({ label: line.name, kind: "raw", show: !hidden.has(line.name), width: 1, stroke, points: { show: false } });
    }
    if (line.low) {
      const at = series.length;
      for (const end of [line.low, line.high]) {
        table.push(drawable(end));
        series.push({ label: line.name, kind: "band", show: !hidden.has(line.name), points: { show: false } });
      }
      bands.push({ series: [at + 1, at], fill: () => faded(colour, 0.22) });
    }
    tables.push(table);
  }
  return { columns: tables.length ? uPlot.join(tables) : [[]], series, bands };
}

/** Shades the steps that were ready to stop, by their share. */
function drawReady(plot) {
  if (!data.ready) return;
  const { ctx, bbox } = plot;
  const steps = data.grids[data.ready.grid];
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  data.ready.y.forEach((share, at) => {
    if (!share || steps[at] < range[0] || (steps[at - 1] ?? 0) > range[1]) return;
    const left = plot.valToPos(steps[at - 1] ?? 0, "x", true);
    ctx.fillStyle = faded("ready", 0.1 + 0.2 * share);
    ctx.fillRect(left, bbox.top, plot.valToPos(steps[at], "x", true) - left, bbox.height);
  });
  ctx.restore();
}

function drawZero(plot) {
  const { ctx, bbox } = plot;
  const y = plot.valToPos(0, "y", true);
  ctx.fillStyle = colours.text;
  if (y >= bbox.top && y <= bbox.top + bbox.height) ctx.fillRect(bbox.left, y, bbox.width, devicePixelRatio);
}

function draw(figure) {
  const chart = data.charts[figure.dataset.chart];
  const button = figure.querySelector(".log");
  const log = button.getAttribute("aria-pressed") === "true";
  const place = figure.querySelector(".plot");
  const { columns: values, series, bands } = columns(chart, log);
  const axis = {
    stroke: () => colours.muted,
    font: "11px system-ui, sans-serif",
    grid: { stroke: () => colours.line, width: 1 },
    ticks: { show: false },
  };
  plots.get(figure)?.destroy();
  const plot = new uPlot(
    {
      width: place.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      padding: [8, 24, 0, 0],
      series,
      bands,
      scales: { x: { time: false, range: () => range }, y: { distr: log ? 3 : 1, range: yRange(chart, log) } },
      axes: [
        { ...axis, size: 22, gap: 2 },
        {
          ...axis,
          size: 54,
          gap: 4,
          values: (_, ticks) => ticks.map((value) => text(value)),
          ...(log && { splits: logTicks, filter: (_, ticks) => ticks }),
        },
      ],
      cursor: {
        y: false,
        points: { size: 7 },
        drag: { setScale: false },
        sync: { key: "steps", filters: { pub: (kind) => kind === "mousemove" || kind === "mouseleave" } },
        bind: { dblclick: () => () => zoom(...everything) },
      },
      hooks: {
        drawClear: [drawReady],
        drawAxes: chart.zero ? [drawZero] : [],
        setCursor: [() => showValues(figure)],
        setSelect: [(self) => {
          const { left, width } = self.select;
          self.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          if (width > 4) zoom(self.posToVal(left, "x"), self.posToVal(left + width, "x"));
        }],
      },
    },
    values,
    place,
  );
  plots.set(figure, plot);
  showValues(figure);
}

/** Draws what is not drawn yet in the open sections. */
function drawOpen() {
  for (const figure of document.querySelectorAll("main > details[open] figure")) if (!plots.has(figure)) draw(figure);
}

// ---------------------------------------------------------------- what all charts share

/** Shows the steps from `first` to `last` in every chart. */
function zoom(first, last) {
  const width = Math.min(Math.max(last - first, Math.min(4, everything[1])), everything[1]);
  first = Math.min(Math.max(first, 0), everything[1] - width);
  range = [first, first + width];
  plots.forEach((plot) => plot.setScale("x", { min: range[0], max: range[1] }));
  showSteps();
}

/** Zooms about the cursor, or the middle. */
function zoomBy(factor) {
  const plot = plots.values().next().value;
  const left = plot?.cursor.left ?? -1;
  const at = left >= 0 ? plot.posToVal(left, "x") : (range[0] + range[1]) / 2;
  zoom(at - (at - range[0]) * factor, at + (range[1] - at) * factor);
}

function switchLine(name) {
  if (!hidden.delete(name)) hidden.add(name);
  const show = !hidden.has(name);
  for (const button of document.querySelectorAll(".legend button"))
    if (button.dataset.name === name) button.setAttribute("aria-pressed", show);
  plots.forEach((plot) =>
    plot.batch(() => plot.series.forEach((line, at) => at && line.label === name && plot.setSeries(at, { show }))),
  );
}

/** The values of a chart's main lines at the cursor, else the last ones. */
function valuesOf(plot) {
  const found = new Map();
  plot.series.forEach((line, at) => {
    if (!at || (line.kind !== "main" && !isBound(line))) return;
    const values = plot.data[at];
    const under = plot.cursor.left >= 0 ? plot.cursor.idxs[at] : null;
    found.set(line.label, under != null ? values[under] : values.findLast((value) => value != null));
  });
  return found;
}

function showValues(figure) {
  const plot = plots.get(figure);
  if (!plot) return;
  const values = valuesOf(plot);
  for (const button of figure.querySelectorAll(".legend button"))
    button.querySelector("output").textContent = text(values.get(button.dataset.name));
  showSteps(plot);
}

const count = (step) => Math.round(step).toLocaleString("en");

function showSteps(plot) {
  const at = plot?.cursor.left >= 0 && plot.cursor.idx != null ? `step ${count(plot.data[0][plot.cursor.idx])} · ` : "";
  document.querySelector("#where").textContent = `${at}steps ${count(range[0])} to ${count(range[1])}`;
}

// ---------------------------------------------------------------- people

function press(event, figure) {
  const plot = plots.get(figure);
  const steps = plot.data[0];
  const now = plot.cursor.left >= 0 ? plot.cursor.idx : steps.findLastIndex((step) => step <= range[1]);
  const by = Math.max(1, Math.round(steps.length / 100));
  const go = { ArrowLeft: now - by, ArrowRight: now + by, Home: 0, End: steps.length - 1 }[event.key];
  if (go !== undefined) {
    const step = steps[Math.min(Math.max(go, 0), steps.length - 1)];
    const width = range[1] - range[0];
    if (step < range[0]) zoom(step, step + width);
    if (step > range[1]) zoom(step - width, step);
    plot.setCursor({ left: plot.valToPos(step, "x"), top: 0 }, true, true);
    const values = [...valuesOf(plot)].map(([name, value]) => `${name} ${text(value)}`);
    document.querySelector("#said").textContent = `step ${count(step)}: ${values.join(", ")}`;
  } else if (event.key === "+" || event.key === "=") zoomBy(0.5);
  else if (event.key === "-") zoomBy(2);
  else if (event.key === "0") zoom(...everything);
  else return;
  event.preventDefault();
}

const darkness = matchMedia("(prefers-color-scheme: dark)");
const preferred = () => (darkness.matches ? "dark" : "light");
const smooth = () => document.body.classList.contains("smooth");
const theme = () => document.documentElement.dataset.theme;

setTheme(preferred());
darkness.addEventListener("change", () => setTheme(preferred()));
document.querySelector("#theme").onclick = () => setTheme(theme() === "dark" ? "light" : "dark");
document.querySelector("#smooth").onclick = (event) => {
  event.target.setAttribute("aria-pressed", document.body.classList.toggle("smooth"));
  for (const figure of plots.keys()) if (data.charts[figure.dataset.chart].noisy) draw(figure);
};
document.querySelector("#in").onclick = () => zoomBy(0.5);
document.querySelector("#out").onclick = () => zoomBy(2);
document.querySelector("#all").onclick = () => zoom(...everything);

const resized = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const plot = plots.get(target.closest("figure"));
    const width = Math.floor(contentRect.width);
    if (plot && width && width !== plot.width) plot.setSize({ width, height: HEIGHT });
  }
});
for (const figure of document.querySelectorAll("figure")) {
  const chart = data.charts[figure.dataset.chart];
  const button = figure.querySelector(".log");
  button.hidden = chart.axis === "fixed" || chart.range[0] === null || chart.range[0] < 0; // no logarithm
  button.setAttribute("aria-pressed", chart.axis === "log");
  button.onclick = () => {
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
    draw(figure);
  };
  figure.querySelector(".plot").onkeydown = (event) => press(event, figure);
  resized.observe(figure.querySelector(".plot"));
}
for (const button of document.querySelectorAll(".legend button")) button.onclick = () => switchLine(button.dataset.name);
for (const section of document.querySelectorAll("main > details")) section.ontoggle = drawOpen;
drawOpen();
showSteps();

let before = null; // of printing
addEventListener("beforeprint", () => {
  const sections = [...document.querySelectorAll("main > details:not([open])")];
  before = { theme: theme(), sections };
  for (const section of sections) section.open = true;
  drawOpen();
  setTheme("light");
});
addEventListener("afterprint", () => {
  for (const section of before.sections) section.open = false;
  setTheme(before.theme);
});
