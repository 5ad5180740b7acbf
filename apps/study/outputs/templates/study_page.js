/* The page at work: what it holds, its state, the table, the runs behind a cell. */

const data = JSON.parse(byId("data").textContent);
const METRICS = Object.keys(data.metrics);
const MEAN = "mean";
const STRIPS = 12; // objects with a strip before all are asked for
const BRANCHES = { main: "main", zero: "zero", few: "few", fused: "fused" };
const SELECTIONS = { last: "last", best: "best, chosen on the test set" };

const state = { metric: METRICS[0], branch: "main", selected: "last", block: 0, find: "", object: 0, strips: STRIPS };

const block = () => data.blocks[state.block];
const rowNames = () => (block().objects.length > 1 ? [...block().objects, MEAN] : block().objects);
const isMean = (place) => place === block().objects.length;

/** The cells of a view, of a block: by row and method. */
function viewOf(number, selected = state.selected) {
  return data.views[`${state.metric} ${state.branch} ${selected}`][number];
}

const isFigure = (cell) => Array.isArray(cell);
const figureWords = ([mean, deviation]) => mean.toFixed(1) + (deviation === null ? "" : ` ± ${deviation.toFixed(1)}`);

/** 1 where the test says that a cell is above the reference, -1 below, else 0. */
function verdict(cell) {
  const difference = isFigure(cell) ? cell[4] : null;
  if (!difference || difference[5] === null || difference[5] > data.level) return 0;
  return Math.sign(difference[1]);
}

/** The figure of a run in the view that is shown, null where it has none. */
function figureOf(run) {
  const branch = state.branch === "main" ? run.main : state.branch;
  const figures = run.figures[`${branch} ${state.selected}`];
  return figures ? figures[METRICS.indexOf(state.metric)] : null;
}

function viewWords() {
  const branch = state.branch === "main" ? "main branch" : `branch ${state.branch}`;
  return `${data.metrics[state.metric]}, ${branch}, ${state.selected} epoch`
    + (state.selected === "best" ? " (chosen on the test set)" : "") + `, ${block().title}`;
}

/* ---- table ---- */

function named(tag, words, attributes = {}) {
  return element(tag, attributes, element("bdi", {}, words));
}

function small(words) {
  return element("small", {}, words);
}

function showTable() {
  const { methods, reference, sources, objects } = block();
  const head = element("tr", {}, element("th", { scope: "col" }, "object"));
  methods.forEach((method, column) => {
    const cell = named("th", method, { scope: "col" });
    if (column === reference) cell.append(small("reference"));
    head.append(cell);
  });
  const beside = block().published[state.metric] ?? {};
  const published = Object.keys(beside).length ? sources : [];
  for (const [source, way] of published) head.append(element("th", { scope: "col", class: "published" }, source, small(way)));
  const body = element("tbody");
  const view = viewOf(state.block);
  const shown = rowNames().map((_, place) => place).filter((place) => isMean(place) || matches(objects[place]));
  for (const place of shown) body.append(tableRow(place, view, published, beside));
  const table = element("table", { class: "grid-table" }, element("caption", { class: "hidden" }, viewWords()), element("thead", {}, head), body);
  const found = shown.filter((place) => !isMean(place)).length;
  byId("table-words").textContent = viewWords() + (found < objects.length ? `; ${found} of ${objects.length} objects` : "");
  byId("live-table").replaceChildren(
    element("div", { class: "wide", role: "region", tabindex: "0", "aria-labelledby": "table-words" }, table),
  );
}

const matches = (name) => name.toLowerCase().includes(state.find.toLowerCase());

function tableRow(place, view, published, beside) {
  const head = named("th", rowNames()[place], { scope: "row" });
  const row = element("tr", isMean(place) ? { class: "mean" } : {}, head);
  const { length } = block().objects;
  if (isMean(place) && view.common < length) head.append(small(`over ${view.common} of ${length} objects that all columns have`));
  view.cells[place].forEach((cell, column) => row.append(tableCell(cell, place, column)));
  const words = beside[place] ?? published.map(() => "");
  published.forEach((_, at) => row.append(element("td", { class: "published" }, words[at])));
  return row;
}

function tableCell(cell, place, column) {
  const sign = verdict(cell);
  const node = element("td", { class: `open-cell ${isFigure(cell) ? ["worse", "", "better"][sign + 1] : "none"}` });
  const button = element("button", { type: "button", class: "cell", "data-row": place, "data-column": column });
  if (isFigure(cell)) {
    if (sign) button.append(element("span", { class: "sign", "aria-hidden": "true" }, sign > 0 ? "▲ " : "▼ "));
    button.append(element("span", { class: `rank-${cell[3]}` }, figureWords(cell)));
    if (cell[2] < data.seeds) button.append(" ", small(`(${cell[2]})`));
  } else {
    button.append(cell);
  }
  const says = sign ? `, ${sign > 0 ? "higher" : "lower"} than ${block().methods[block().reference]}` : "";
  const text = isFigure(cell) ? figureWords(cell) : cell;
  button.setAttribute("aria-label", `${rowNames()[place]}, ${block().methods[column]}: ${text}${says}`);
  button.addEventListener("click", () => openCell(place, column));
  node.append(button);
  return node;
}

/* ---- the runs behind a cell ---- */

function openCell(place, column) {
  const { methods, reference } = block();
  byId("viewer-name").replaceChildren(
    element("bdi", {}, isMean(place) ? "mean over objects" : block().objects[place]), " · ", element("bdi", {}, methods[column]),
  );
  const cell = viewOf(state.block).cells[place][column];
  byId("viewer-words").textContent = `${viewWords()}: ${isFigure(cell) ? `${figureWords(cell)} over ${cell[2]} ${cell[2] === 1 ? "seed" : "seeds"}` : cell}`;
  byId("viewer-difference").textContent = column === reference ? "This is the reference."
    : differenceWords(isFigure(cell) ? cell[4] : null, methods[reference], isMean(place));
  byId("viewer-runs").replaceChildren(runsTable(place, column));
  byId("viewer").showModal();
}

function differenceWords(difference, reference, mean) {
  if (!difference) return `No seed has a figure of this method and of ${reference}.`;
  const [pairs, by, low, high, p, adjusted] = difference;
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
  const start = `Less ${reference}, seed by seed: ${signed(by)} points over ${pairs} ${pairs === 1 ? "pair" : "pairs"}`;
  if (p === null) return `${start}; no test can be made.`;
  const corrected = mean ? "" : `, after Holm's correction ${adjusted.toFixed(3)}`;
  const interval = low === null ? "too few for an interval" : `95 % interval ${signed(low)} to ${signed(high)}`;
  return `${start}, ${interval}; p ${p.toFixed(4)}${corrected}.`;
}

function runsTable(place, column) {
  const several = isMean(place);
  const runs = block().runs.filter((run) => run.method === column && (several || run.object === place));
  const branch = state.branch;
  const columns = METRICS.filter((_, at) => runs.some((run) => (figuresOf(run, branch) ?? [])[at] != null));
  const head = element("tr", {}, element("th", { scope: "col" }, "seed"), element("th", { scope: "col" }, "report"));
  if (several) head.append(element("th", { scope: "col" }, "object"));
  for (const metric of columns) head.append(element("th", { scope: "col" }, data.metrics[metric]));
  for (const words of ["seconds", "peak MB", "state"]) head.append(element("th", { scope: "col" }, words));
  const body = element("tbody");
  for (const run of runs) body.append(runRow(run, columns, several));
  return element("table", { class: "grid-table" }, element("thead", {}, head), body);
}

function figuresOf(run, branch) {
  return run.figures[`${branch === "main" ? run.main : branch} ${state.selected}`];
}

function runRow(run, columns, several) {
  const row = element("tr", {}, element("th", { scope: "row" }, String(run.seed)), reportCell(run));
  const figures = figuresOf(run, state.branch);
  const cell = (words) => row.append(element("td", {}, words));
  if (several) row.append(named("td", block().objects[run.object]));
  for (const metric of columns) {
    const value = figures ? figures[METRICS.indexOf(metric)] : null;
    cell(value === null ? "–" : value.toFixed(2));
  }
  cell(run.seconds === null ? "–" : run.seconds.toFixed(1));
  cell(run.memory === null ? "–" : run.memory.toFixed(0));
  row.append(element("td", run.reason ? { class: "why" } : {}, run.reason ? `${run.state}: ${run.reason}` : run.state));
  return row;
}

function reportCell({ link, job }) {
  return element("td", {}, link ? element("a", { href: link, "aria-label": `report of run ${job}` }, job) : job);
}

/* ---- controls ---- */

/** A row of buttons of which one is on; `name` is the state that they set. */
function radios(box, name, choices, words) {
  for (const choice of choices) {
    const input = element("input", { type: "radio", name, value: choice, id: `${name}-${choice}` });
    input.checked = state[name] === choice;
    box.append(input, element("label", { for: `${name}-${choice}` }, words[choice]));
    input.addEventListener("change", () => change({ [name]: choice }));
  }
}

function options(select, words) {
  select.replaceChildren(...words.map((word, place) => element("option", { value: place }, word)));
}

function change(by) {
  Object.assign(state, by);
  if ("block" in by) fillObjects();
  show();
}

function fillObjects() {
  options(byId("object"), rowNames().map((name, place) => (isMean(place) ? "mean over objects" : name)));
  state.object = rowNames().length - 1;
  byId("object").value = state.object;
  byId("trade-controls").hidden = rowNames().length < 2;
}

function buildControls() {
  options(byId("metric"), METRICS.map((metric) => data.metrics[metric]));
  options(byId("block"), data.blocks.map((one) => one.title));
  byId("block-label").hidden = data.blocks.length < 2;
  radios(byId("branches"), "branch", data.branches, BRANCHES);
  radios(byId("selections"), "selected", data.selections, SELECTIONS);
  fillObjects();
  byId("metric").addEventListener("change", (event) => change({ metric: METRICS[event.target.value] }));
  byId("block").addEventListener("change", (event) => change({ block: Number(event.target.value) }));
  byId("object").addEventListener("change", (event) => change({ object: Number(event.target.value) }));
  byId("find").addEventListener("input", (event) => change({ find: event.target.value }));
  byId("all-strips").addEventListener("click", () => change({ strips: Infinity }));
  byId("viewer-close").addEventListener("click", () => byId("viewer").close());
  for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
}

function show() {
  showTable();
  for (const node of document.querySelectorAll(".what")) node.textContent = `${viewWords()}.`;
  showCharts();
}

function start() {
  if (!data.blocks.length) return;
  for (const node of document.querySelectorAll(".js")) node.hidden = false;
  buildControls();
  show();
  startMaps();
  let width = 0; // charts are drawn anew when the page's width changes, not its height
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width !== width) showCharts();
    width = contentRect.width;
  }).observe(byId("seeds-part"));
}

start();
