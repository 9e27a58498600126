"use strict";
const results = JSON.parse(document.getElementById("results-json").textContent);
const $ = (id) => document.getElementById(id);
const SETTINGS = ["easy", "medium", "hard"];
const COLORS = ["#1f5fbf", "#d9480f", "#2b8a3e", "#9c36b5", "#c2255c", "#0c8599", "#846358",
  "#e8a200", "#5c7cfa", "#74b816", "#f06595", "#495057", "#00b894", "#b5651d", "#7a1fa2",
  "#a1a800"];
const names = Object.keys(results.detectors);
const color = Object.fromEntries(names.map((name, i) => [name, COLORS[i % COLORS.length]]));
const dash = Object.fromEntries(names.map((name, i) =>
  [name, ["solid", "dash", "dot"][Math.floor(i / COLORS.length) % 3]]));
const shown = new Set(names);

const data = () => results.data[$("data").value];
const setting = () => $("setting").value;
const visible = () => names.filter((name) => shown.has(name));
const figures = (name) => data().detectors[name];

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
const number = (value, digits = 1) =>
  value === null || value === undefined ? "–" : value.toLocaleString("en-US",
    {minimumFractionDigits: digits, maximumFractionDigits: digits});
const percent = (value) => number(value === null || value === undefined ? null : 100 * value);

// A table that sorts by a click on its headings. Columns: title, value (what is sorted by), show.
function table(id, columns, start = 0, descending = true) {
  const root = $(id);
  const state = {column: start, descending};
  const compare = (a, b) => {
    const [x, y] = [a, b].map(columns[state.column].value);
    const empty = (v) => v === null || v === undefined || Number.isNaN(v);
    if (empty(x) || empty(y)) return empty(x) - empty(y);
    const order = typeof x === "string" ? x.localeCompare(y) : x - y;
    return state.descending ? -order : order;
  };
  let rows = [];
  const draw = () => {
    const head = element("tr", {}, ...columns.map((column, index) => {
      const cell = element("th", {scope: "col", tabindex: "0", class: column.text ? "text" : ""},
        column.title);
      if (index === state.column) {
        cell.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
      }
      const sort = () => {
        state.descending = index === state.column ? !state.descending : !column.text;
        state.column = index;
        draw();
        root.querySelectorAll("th")[index].focus();
      };
      cell.addEventListener("click", sort);
      cell.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
      return cell;
    }));
    const body = [...rows].sort(compare).map((row) => element("tr", {}, ...columns.map((column) =>
      element("td", {class: `${column.text ? "text" : ""} ${column.wide ? "wide" : ""}`},
        ...[column.show ? column.show(row) : column.value(row) ?? "–"].flat()))));
    root.replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
  };
  return (next) => { rows = next; draw(); };
}

const withInterval = (value, interval) => [number(value, 2), ...(interval && interval[0] !== null
  ? [element("small", {}, `${number(interval[0])} to ${number(interval[1])}`)] : [])];
const cost = (row, threads) => row.cost?.[`threads_${threads}`]?.milliseconds;
const allThreads = [...new Set(names.flatMap((name) => Object.keys(results.detectors[name].cost
  ?? {}).filter((key) => key.startsWith("threads_")).map((key) => key.slice(8))))];

const drawResults = table("results", [
  {title: "Detector", text: true, value: (row) => row.name},
  ...SETTINGS.map((key) => ({
    title: key[0].toUpperCase() + key.slice(1),
    value: (row) => row[`AP_${key}`],
    show: (row) => withInterval(row[`AP_${key}`], row.interval_95[key]),
  })),
  ...allThreads.map((threads) => ({
    title: `ms, ${threads} thread${threads === "1" ? "" : "s"}`,
    value: (row) => cost(row, threads),
    show: (row) => number(cost(row, threads)),
  })),
  {title: "Memory, MiB", value: (row) => row.cost?.peak_memory_mib,
    show: (row) => number(row.cost?.peak_memory_mib, 0)},
  {title: "Parameters", value: (row) => row.parameters, show: (row) => number(row.parameters, 0)},
  {title: "File, MB", value: (row) => row.file_bytes,
    show: (row) => number(row.file_bytes == null ? null : row.file_bytes / 1e6, 2)},
  {title: "License", text: true, wide: true, value: (row) => row.license ?? ""},
], 3);

const drawDifferences = table("differences", [
  {title: "First", text: true, value: (row) => row.first},
  {title: "Second", text: true, value: (row) => row.second},
  {title: "Faces", text: true, value: (row) => row.setting},
  {title: "Difference", value: (row) => row.difference, show: (row) => number(row.difference, 2)},
  {title: "95 % interval", value: (row) => row.interval_95?.[0],
    show: (row) => row.interval_95
      ? `${number(row.interval_95[0], 2)} to ${number(row.interval_95[1], 2)}` : "–"},
], 3);

const point = (row, key) => row[key].threshold === null ? null : row[key].threshold;
const drawUse = table("use", [
  {title: "Detector", text: true, value: (row) => row.name},
  {title: "Precision", value: (row) => row.at_threshold.precision,
    show: (row) => percent(row.at_threshold.precision)},
  {title: "Recall", value: (row) => row.at_threshold.recall,
    show: (row) => percent(row.at_threshold.recall)},
  {title: "False / image", value: (row) => row.at_threshold.false_positives_per_image,
    show: (row) => number(row.at_threshold.false_positives_per_image, 2)},
  {title: "Threshold for recall", value: (row) => point(row, "for_recall"),
    show: (row) => number(point(row, "for_recall"), 3)},
  {title: "its precision", value: (row) => row.for_recall.precision,
    show: (row) => percent(row.for_recall.precision)},
  {title: "Threshold for false / image", value: (row) => point(row, "for_false_positives"),
    show: (row) => number(point(row, "for_false_positives"), 3)},
  {title: "its recall", value: (row) => row.for_false_positives.recall,
    show: (row) => percent(row.for_false_positives.recall)},
  {title: "Calibration error", value: (row) => row.calibration.error,
    show: (row) => number(row.calibration.error, 3)},
], 2);

const drawPublished = table("published", [
  {title: "Detector", text: true, value: (row) => row.detector},
  ...SETTINGS.map((key) => ({title: key[0].toUpperCase() + key.slice(1), value: (row) => row[key],
    show: (row) => number(row[key])})),
  {title: "Protocol", text: true, wide: true, value: (row) => row.protocol},
  {title: "Source", text: true, wide: true, value: (row) => row.source},
], 3);

const matches = (text, id) => text.toLowerCase().includes($(id).value.trim().toLowerCase());
const limit = (id) => $(id).value === "" ? null : Number($(id).value);

function tables() {
  const rows = names.map((name) => ({name, ...figures(name)}));
  const megabytes = limit("megabytes");
  const least = limit("least");
  drawResults(rows.filter((row) => shown.has(row.name) && matches(row.name, "filter")
    && (megabytes === null || (row.file_bytes != null && row.file_bytes / 1e6 <= megabytes))
    && (least === null || row.AP_hard >= least)));
  drawDifferences(data().differences.filter((row) => row.setting === setting()
    && shown.has(row.first) && shown.has(row.second)
    && matches(`${row.first} ${row.second}`, "difference-filter")
    && (!$("clear").checked || (row.interval_95
      && (row.interval_95[0] > 0 || row.interval_95[1] < 0)))));
  drawUse(rows.filter((row) => shown.has(row.name)));
  drawPublished(results.published.filter((row) =>
    matches(`${row.detector} ${row.protocol} ${row.source}`, "published-filter")));
}

const LAYOUT = {margin: {l: 56, r: 12, t: 34, b: 48}, font: {family: "system-ui, sans-serif",
  size: 12}, showlegend: false, hovermode: "closest", paper_bgcolor: "#fff", plot_bgcolor: "#fff"};
const CONFIG = {responsive: true, displaylogo: false, displayModeBar: innerWidth > 700,
  modeBarButtonsToRemove: ["select2d", "lasso2d"]};
const axis = (title, more = {}) => ({title: {text: title}, gridcolor: "#e6eaef", zeroline: false,
  ...more});
const chart = (id, traces, layout) =>
  Plotly.react(id, traces, {...LAYOUT, ...layout}, CONFIG);

function charts() {
  const line = (name) => ({color: color[name], dash: dash[name], width: 2});
  const curves = (x, y) => visible().map((name) => {
    const curve = figures(name).curves[setting()];
    return {x: curve[x], y: curve[y], name, mode: "lines", line: line(name),
      customdata: curve.threshold,
      hovertemplate: `${name}<br>%{x:.3f}, %{y:.3f}<br>score %{customdata:.3f}<extra></extra>`};
  });
  chart("precision", curves("recall", "precision"), {title: {text: `Precision, ${setting()}`},
    xaxis: axis("recall", {range: [0, 1]}), yaxis: axis("precision", {range: [0, 1.02]})});
  chart("recall", curves("false_positives_per_image", "recall"), {
    title: {text: `Recall, ${setting()}`},
    xaxis: axis("false positives an image", {type: "log", range: [-2.5, 2], dtick: 1}),
    yaxis: axis("recall", {range: [0, 1.02]})});
  const timed = visible().filter((name) => cost(figures(name), $("threads").value));
  chart("speed", [{mode: "markers+text", textposition: "top center", cliponaxis: false,
    x: timed.map((name) => cost(figures(name), $("threads").value)),
    y: timed.map((name) => figures(name)[`AP_${setting()}`]), text: timed,
    marker: {color: timed.map((name) => color[name]), size: timed.map((name) =>
      8 + 4 * Math.log10(Math.max(figures(name).parameters ?? 1e4, 1e4) / 1e4))},
    hovertemplate: "%{text}<br>%{x:.1f} ms, AP %{y:.2f}<extra></extra>"}], {
    xaxis: axis("milliseconds an image", {type: "log", dtick: "D2"}), yaxis: axis(`AP, ${setting()}`)});
  const group = $("group").value;
  const labels = Object.keys(figures(names[0]).slices[group] ?? {});
  const faces = figures(names[0]).slices[group] ?? {};
  chart("slices", visible().map((name) => ({type: "bar", name,
    x: labels.map((label) => `${label}<br>${faces[label].faces}`),
    y: labels.map((label) => figures(name).slices[group][label]?.[$("figure").value] ?? null),
    marker: {color: color[name]}, hovertemplate: `${name}: %{y:.1f}<extra></extra>`})),
    {xaxis: axis(group), yaxis: axis($("figure").value, {range: [0, 100]}), barmode: "group"});
  for (const [id, key, title] of [["missed", "missed", "Missed faces"],
    ["false", "false", "False detections"]]) {
    const kinds = Object.keys(figures(names[0]).errors[key]);
    chart(id, kinds.map((kind, index) => ({type: "bar", orientation: "h", name: kind,
      y: visible(), x: visible().map((name) => figures(name).errors[key][kind]),
      marker: {color: COLORS[index]}, hovertemplate: `${kind}: %{x}<extra></extra>`})), {
      title: {text: title}, barmode: "stack", showlegend: true,
      legend: {orientation: "h", y: -0.16, traceorder: "normal"}, margin: {...LAYOUT.margin, l: 8},
      xaxis: axis("", {}), yaxis: {automargin: true, autorange: "reversed"}});
  }
  chart("calibration", [{x: [0, 1], y: [0, 1], mode: "lines", hoverinfo: "skip",
    line: {color: "#b8c0ca", dash: "dot"}}, ...visible().map((name) => {
    const bins = figures(name).calibration.bins;
    return {x: bins.map((bin) => bin.score), y: bins.map((bin) => bin.right), name,
      text: bins.map((bin) => bin.detections), mode: "lines+markers", line: line(name),
      hovertemplate: `${name}<br>score %{x:.2f}, right %{y:.2f}, %{text} detections<extra></extra>`};
  })], {xaxis: axis("score", {range: [0, 1]}), yaxis: axis("share that is right",
    {range: [0, 1.02]})});
}

function pictures() {
  const least = Number($("score").value);
  $("score-value").textContent = least.toFixed(2);
  const found = (picture) => visible().map((name) => picture.detectors[name].found);
  const differ = (picture) => Math.max(...found(picture), 0) - Math.min(...found(picture), 1e9);
  const missed = (picture) => picture.count - Math.max(...found(picture), 0);
  const rank = $("order").value === "differ" ? differ : missed;
  const svg = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const box = ([x, y, width, height], stroke, thick) => svg("rect", {x, y, width, height, stroke,
    fill: "none", "stroke-width": thick});
  $("pictures").replaceChildren(...[...data().pictures].sort((a, b) => rank(b) - rank(a))
    .map((picture) => {
      const root = svg("svg", {viewBox: `0 0 ${picture.width} ${picture.height}`, role: "img",
        "aria-label": picture.name});
      const thick = picture.width / 300;
      root.append(svg("image", {href: picture.src, width: picture.width, height: picture.height}));
      if ($("truth").checked) {
        for (const [x, y, w, h, counts] of picture.faces) {
          root.append(box([x, y, w, h], counts ? "#fff" : "#9aa4b0", 2.4 * thick));
        }
      }
      for (const name of visible()) {
        for (const row of picture.detectors[name].boxes) {
          if (row[4] >= least) root.append(box(row, color[name], thick));
        }
      }
      const counts = visible().map((name) =>
        `${name} ${picture.detectors[name].found} (+${picture.detectors[name].wrong} wrong)`);
      return element("figure", {}, root, element("figcaption", {},
        `${picture.name}: ${picture.count} faces. At ${results.settings.threshold}: `
        + counts.join(", ")));
    }));
}

function words() {
  const list = (object) => element("dl", {}, ...Object.entries(object).flatMap(([key, text]) =>
    [element("dt", {}, key), element("dd", {}, String(text))]));
  $("protocol").textContent = Object.entries(data().protocol)
    .map(([key, text]) => `${key}: ${text}`).join(" · ");
  $("machine").textContent = `${results.machine.processor}, ${results.machine.cores} cores, `
    + "pixels to boxes, one image at a time, detectors taking turns. "
    + "A larger mark has more parameters.";
  const asked = results.settings;
  $("use-note").textContent = `${asked.setting} faces, detections that score `
    + `${asked.threshold} or more; the threshold that finds ${100 * asked.recall} % of the faces; `
    + `the one with at most ${asked.false_positives} false positives an image. Both thresholds are `
    + "chosen on these images: choose yours on others.";
  $("errors-note").textContent = `${asked.setting} faces, score from ${asked.threshold}. A missed `
    + "face counts once, by the first reason that holds: badly placed, less than 20 px high, "
    + "occluded, heavily blurred, atypical pose, extreme light, other.";
  $("protocols").replaceChildren(...names.map((name) => element("details", {},
    element("summary", {}, name), list({...figures(name).protocol,
      source: figures(name).source ?? "–", "settings from": figures(name).protocol_source ?? "–",
      license: figures(name).license ?? "–"}))));
}

function draw() { words(); tables(); charts(); pictures(); }

for (const name of Object.keys(results.data)) {
  $("data").append(element("option", {value: name}, name));
}
for (const threads of allThreads) {
  $("threads").append(element("option", {value: threads},
    `${threads} thread${threads === "1" ? "" : "s"}`));
}
for (const group of Object.keys(figures(names[0]).slices)) {
  $("group").append(element("option", {value: group}, group));
}
$("score").value = results.settings.threshold;
for (const name of names) {
  const check = element("input", {type: "checkbox", checked: "", value: name});
  check.addEventListener("change", () => {
    check.checked ? shown.add(name) : shown.delete(name);
    draw();
  });
  $("detectors").append(element("label", {}, check, element("span", {class: "key",
    style: `background: ${color[name]}`}), name));
}
for (const id of ["data", "setting"]) $(id).addEventListener("change", draw);
for (const id of ["threads", "group", "figure"]) $(id).addEventListener("change", charts);
for (const id of ["filter", "megabytes", "least", "difference-filter", "clear",
  "published-filter"]) $(id).addEventListener("input", tables);
for (const id of ["order", "score", "truth"]) $(id).addEventListener("input", pictures);
// A page about one training has its loss and no times and published figures.
function training(facts) {
  $("title").textContent = document.title = facts.title;
  $("training").hidden = false;
  $("training-facts").append(...facts.sentences.map((text) => element("li", {}, text)));
  chart("loss", [
    {x: facts.iteration, y: facts.loss, name: "loss, mean of the last 20", mode: "lines",
      line: {color: COLORS[0]}},
    {x: facts.iteration, y: facts.learning_rate, name: "learning rate", mode: "lines",
      line: {color: COLORS[1], dash: "dash"}, yaxis: "y2"},
  ], {showlegend: true, legend: {orientation: "h", y: 1.12}, margin: {...LAYOUT.margin, r: 84},
    xaxis: axis("iteration"), yaxis: axis("loss", {rangemode: "tozero"}),
    yaxis2: {title: {text: "learning rate"}, overlaying: "y", side: "right", showgrid: false,
      rangemode: "tozero", tickformat: ".1e"}});
}

$("published-section").hidden = !results.published.length;
$("speed-section").hidden = !allThreads.length;
draw();
if (results.training) training(results.training);
document.body.dataset.ready = "yes";
