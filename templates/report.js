/* The page at work: threshold, gallery, viewer. Names come from files and go into the page as text only. */

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("scores").textContent);
const pictures = JSON.parse(byId("pictures").textContent);

const scored = [...data.scores.keys()].filter((place) => data.scores[place] !== null);
const judged = scored.filter((place) => data.labels[place] !== null);
const labelled = judged.length > 0;
const scoresOf = (places) => places.map((place) => data.scores[place]);
const labelsOf = (places) => places.map((place) => data.labels[place]);
const found = labelled ? sweep(scoresOf(judged), labelsOf(judged)) : null;
const [low, high] = span([...scoresOf(scored), ...(data.threshold === null ? [] : [data.threshold])]);
const DIGITS = Math.min(8, Math.max(0, 3 - Math.floor(Math.log10(high - low))));
const STEPS = 1000;

const OUTCOMES = { tp: "found", tn: "normal, rightly", fp: "false positive", fn: "false negative" };
const FILTERS = {
  all: ["all", () => true],
  ...(labelled ? {
    errors: ["errors", (place) => ["fp", "fn"].includes(outcomeAt(place))],
    fp: ["false positives", (place) => outcomeAt(place) === "fp"],
    fn: ["false negatives", (place) => outcomeAt(place) === "fn"],
    tp: ["true positives", (place) => outcomeAt(place) === "tp"],
    tn: ["true negatives", (place) => outcomeAt(place) === "tn"],
  } : {}),
  ...(judged.length < scored.length || !labelled ? {
    called: ["called abnormal", (place) => data.scores[place] !== null && data.scores[place] >= state.threshold],
    passed: ["called normal", (place) => data.scores[place] !== null && data.scores[place] < state.threshold],
  } : {}),
  ...(scored.length < data.scores.length ? { unscored: ["not scored", (place) => data.scores[place] === null] } : {}),
};
const ORDERS = {
  high: ["score, highest first", (place) => -data.scores[place]],
  low: ["score, lowest first", (place) => data.scores[place]],
  ...(labelled ? {
    error: ["error, largest first", (place) => (data.labels[place] === null ? Infinity
      : -errorOf(data.scores[place], data.labels[place], state.threshold))],
  } : {}),
  near: ["nearest the threshold", (place) => Math.abs(data.scores[place] - state.threshold)],
  name: ["name", null],
};

const state = { threshold: firstThreshold(), filter: "all", order: "high", find: "", page: 0, size: 24, list: [], open: -1 };

/** Where the threshold starts: as stored, else the largest F1, else nothing is called abnormal but the highest. */
function firstThreshold() {
  if (data.threshold !== null) return data.threshold;
  return found ? found.threshold : high;
}

/** The least and the largest, apart at any rate. */
function span(values) {
  const least = values.reduce((a, b) => Math.min(a, b), Infinity);
  const most = values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!Number.isFinite(least)) return [0, 1];
  const room = most > least ? 0 : Math.max(Math.abs(most), 1) / 100;
  return [least - room, most + room];
}

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const inWords = (score) => (score === null ? "no score" : score.toFixed(DIGITS));
const percent = (share) => (Number.isFinite(share) ? `${(100 * share).toFixed(2)} %` : "n/a");
const outcomeAt = (place) => (data.labels[place] === null || data.scores[place] === null ? null
  : outcome(data.scores[place], data.labels[place], state.threshold));

/** Put a number into an output: rounded to read, whole in data-value. */
function tell(id, value, words) {
  byId(id).textContent = words;
  byId(id).dataset.value = String(value);
}

/* ---- threshold ---- */

function showThreshold(source) {
  const { threshold } = state;
  if (source !== "slider") byId("slider").value = Math.round((threshold - low) / (high - low) * STEPS);
  if (source !== "exact") byId("exact").value = Number(threshold.toFixed(DIGITS + 2));
  byId("exact").dataset.value = String(threshold);
  byId("slider").setAttribute("aria-valuetext", inWords(threshold));
  const stored = threshold === data.threshold;
  byId("stored").disabled = data.threshold === null || stored;
  byId("whence").textContent = stored ? "This is the stored threshold."
    : data.threshold === null ? "No threshold is stored: this one was chosen on these very images."
    : `Moved; the stored threshold is ${inWords(data.threshold)}.`;
  const called = scored.filter((place) => data.scores[place] >= threshold).length;
  tell("called", called, called.toLocaleString("en"));
  byId("called-of").textContent = `of ${scored.length.toLocaleString("en")}`;
  if (labelled) showOutcomes();
  showCharts();
}

function showOutcomes() {
  const at = outcomes(scoresOf(judged), labelsOf(judged), state.threshold);
  for (const name of ["sensitivity", "specificity", "f1"]) tell(name, at[name], percent(at[name]));
  byId("sensitivity-of").textContent = `${at.tp} of ${at.tp + at.fn} abnormal`;
  byId("specificity-of").textContent = `${at.tn} of ${at.tn + at.fp} normal`;
  byId("f1-of").textContent = `precision ${percent(at.precision)}`;
  byId("live").dataset.counts = JSON.stringify([at.tp, at.fn, at.fp, at.tn]);
}

function showCharts() {
  const of = (label) => scoresOf(judged.filter((place) => data.labels[place] === label));
  const groups = labelled ? [{ name: "abnormal", scores: of(1) }, { name: "normal", scores: of(0) }]
    : [{ name: "images", scores: scoresOf(scored) }];
  drawHistogram(byId("histogram"), groups, { low, high, threshold: state.threshold, words: inWords });
  byId("histogram").setAttribute("aria-label", `Histogram of scores from ${inWords(low)} to ${inWords(high)}; `
    + groups.map((group) => `${group.scores.length} ${group.name}`).join(", ") + `; threshold ${inWords(state.threshold)}`);
  if (!found) return;
  const at = outcomes(scoresOf(judged), labelsOf(judged), state.threshold);
  const prevalence = of(1).length / judged.length;
  drawCurve(byId("roc"), found.roc, {
    chance: [[0, 0], [1, 1]], dot: [1 - at.specificity, at.sensitivity], across: "false positive rate", up: "sensitivity",
  });
  drawCurve(byId("pr"), found.pr, {
    chance: [[0, prevalence], [1, prevalence]], dot: [at.sensitivity, at.precision], across: "recall", up: "precision",
  });
}

function setThreshold(value, source) {
  state.threshold = value;
  showThreshold(source);
  state.page = 0;
  showGallery();
}

/* ---- gallery ---- */

/** The places of all images that the filter lets through, in order; those without a score come last. */
function listed() {
  const [, passes] = FILTERS[state.filter];
  const words = state.find.toLowerCase();
  const list = [...data.names.keys()].filter((place) => passes(place) && data.names[place].toLowerCase().includes(words));
  const [, key] = ORDERS[state.order];
  const rank = (place) => (data.scores[place] === null ? Infinity : key(place));
  if (key === null) return list.sort((a, b) => data.names[a].localeCompare(data.names[b], "en", { numeric: true }));
  const ranks = new Map(list.map((place) => [place, rank(place)]));
  return list.sort((a, b) => (ranks.get(a) === ranks.get(b) ? a - b : ranks.get(a) - ranks.get(b)));
}

let shown = new Map(); // the cards on the page, by place

function showGallery() {
  for (const [name, [, passes]] of Object.entries(FILTERS)) {
    byId(`count-${name}`).textContent = [...data.names.keys()].filter(passes).length.toLocaleString("en");
  }
  state.list = listed();
  const pages = Math.max(1, Math.ceil(state.list.length / state.size));
  state.page = Math.min(pages - 1, Math.max(0, state.page));
  const first = state.page * state.size;
  const here = state.list.slice(first, first + state.size);
  const cards = new Map(here.map((place) => [place, shown.get(place) ?? card(place)]));
  if ([...cards.keys()].join() !== [...shown.keys()].join()) byId("cards").replaceChildren(...cards.values());
  shown = cards;
  for (const [place, node] of cards) describe(node.querySelector(".words"), place);
  const range = `${(first + 1).toLocaleString("en")}–${(first + here.length).toLocaleString("en")}`;
  const where = here.length ? `${range} of ${state.list.length.toLocaleString("en")}` : "no image is like that";
  for (const node of document.querySelectorAll(".where")) node.textContent = where;
  for (const node of document.querySelectorAll(".previous")) node.disabled = state.page === 0;
  for (const node of document.querySelectorAll(".next")) node.disabled = state.page === pages - 1;
}

function card(place) {
  const button = element("button", { type: "button", class: "open", "aria-label": `Enlarge ${data.names[place]}` });
  button.append(views(place, false));
  button.addEventListener("click", () => openViewer(place));
  const name = element("bdi", { class: "name", title: data.names[place] });
  name.textContent = data.names[place];
  return element("li", { class: "card", "data-place": place }, button, name, element("p", { class: "words" }));
}

/** Score, label and what comes of the threshold, in words. */
function describe(node, place) {
  const score = element("span", { class: "score" });
  score.textContent = inWords(data.scores[place]);
  node.replaceChildren(score);
  const result = outcomeAt(place);
  if (data.scores[place] !== null) {
    const abnormal = data.scores[place] >= state.threshold;
    node.append(badge(abnormal ? "called abnormal" : "called normal", abnormal ? "abnormal" : "normal"));
  }
  if (data.labels[place] !== null) node.append(badge(data.labels[place] ? "labelled abnormal" : "labelled normal", "plain"));
  if (result === "fp" || result === "fn") node.append(badge(OUTCOMES[result], "wrong"));
  if (data.reasons[place]) {
    const reason = element("span", { class: "reason" });
    reason.textContent = data.reasons[place];
    node.append(reason);
  }
}

function badge(words, name) {
  const node = element("span", { class: `badge ${name}` });
  node.textContent = words;
  return node;
}

/** Input, truth, map and overlay of an image, as far as there are. */
function views(place, large) {
  const made = pictures[place];
  const box = element("span", { class: "views" });
  if (!made) {
    box.append(view("no picture in this file", null));
    return box;
  }
  const ratio = `${made.width} / ${made.height}`;
  const image = (source, words) => {
    const node = element("img", { src: `data:image/${source}`, alt: large ? words : "", decoding: "async" });
    node.width = made.width;
    node.height = made.height;
    return node;
  };
  if (made.image) box.append(view("input", image(made.image, "the image itself"), ratio));
  if (data.truth) {
    const normal = data.labels[place] === 0;
    const truth = made.truth ? image(made.truth, "what is abnormal, white") : element("span", { class: normal ? "empty" : "none" });
    if (!made.truth) truth.textContent = normal ? "nothing marked" : "no mask given";
    box.append(view("ground truth", truth, ratio));
  }
  if (made.map) box.append(view("anomaly map", image(made.map, "the anomaly map"), ratio));
  if (made.map && made.image) box.append(view("overlay", overlay(made, image), ratio));
  return box;
}

/** The map over the input, the hotter the less transparent, and the predicted mask's outline. */
function overlay(made, image) {
  const over = image(made.map, "");
  over.className = "over";
  const stack = element("span", { class: "stack" }, image(made.image, "the image with its anomaly map over it"), over);
  if (made.outline) {
    const box = { viewBox: `0 0 ${made.width} ${made.height}`, preserveAspectRatio: "none", class: "outline", "aria-hidden": "true" };
    const svg = shape("svg", box);
    svg.append(shape("path", { d: made.outline }));
    stack.append(svg);
  }
  return stack;
}

function view(words, content, ratio) {
  const frame = element("span", { class: "frame" });
  if (content) frame.append(content);
  if (ratio) frame.style.aspectRatio = ratio;
  const title = element("span", { class: "title" });
  title.textContent = words;
  return element("span", { class: "view" }, frame, title);
}

/* ---- viewer ---- */

function openViewer(place) {
  state.open = state.list.indexOf(place);
  showViewer();
  if (!byId("viewer").open) byId("viewer").showModal();
}

function showViewer() {
  const place = state.list[state.open];
  byId("viewer-name").replaceChildren(element("bdi", {}, data.names[place]));
  byId("viewer-place").textContent = `${(state.open + 1).toLocaleString("en")} of ${state.list.length.toLocaleString("en")}`;
  describe(byId("viewer-words"), place);
  byId("viewer-views").replaceChildren(views(place, true));
  byId("viewer-previous").disabled = state.open === 0;
  byId("viewer-next").disabled = state.open === state.list.length - 1;
}

function step(by) {
  const next = state.open + by;
  if (next < 0 || next >= state.list.length) return;
  state.open = next;
  showViewer();
}

/** Back in the gallery, the image seen last is on the page and has the focus. */
function closed() {
  const place = state.list[state.open];
  state.page = Math.floor(state.open / state.size);
  showGallery();
  shown.get(place)?.querySelector("button").focus();
}

function keys(event) {
  if (event.target.matches("input")) return; // arrows move the slider there
  const moves = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };
  if (!(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  step(moves[event.key]);
}

/* ---- controls ---- */

function buildControls() {
  for (const [name, [words]] of Object.entries(FILTERS)) {
    const input = element("input", { type: "radio", name: "filter", value: name, id: `filter-${name}` });
    input.checked = name === state.filter;
    const label = element("label", { for: `filter-${name}` }, `${words} `, element("span", { id: `count-${name}`, class: "count" }));
    byId("filters").append(input, label);
  }
  for (const [name, [words]] of Object.entries(ORDERS)) byId("sort").append(element("option", { value: name }, words));
  byId("opacity").value = byId("viewer-opacity").value = Math.round(100 * data.opacity);
}

function setOpacity(value) {
  byId("opacity").value = byId("viewer-opacity").value = value;
  document.documentElement.style.setProperty("--map-opacity", value / 100);
}

function listen() {
  // Scores are 32-bit numbers, and so is a threshold that they are held against.
  byId("slider").addEventListener("input", (event) => {
    setThreshold(Math.fround(low + (high - low) * event.target.value / STEPS), "slider");
  });
  byId("exact").addEventListener("input", (event) => {
    if (Number.isFinite(event.target.valueAsNumber)) setThreshold(Math.fround(event.target.valueAsNumber), "exact");
  });
  byId("stored").addEventListener("click", () => setThreshold(data.threshold, "button"));
  byId("best").addEventListener("click", () => setThreshold(found.threshold, "button"));
  const again = (change) => (event) => {
    change(event.target.value);
    state.page = 0;
    showGallery();
  };
  byId("filters").addEventListener("change", again((value) => { state.filter = value; }));
  byId("sort").addEventListener("change", again((value) => { state.order = value; }));
  byId("find").addEventListener("input", again((value) => { state.find = value; }));
  byId("size").addEventListener("change", again((value) => { state.size = Number(value); }));
  for (const id of ["opacity", "viewer-opacity"]) byId(id).addEventListener("input", (event) => setOpacity(event.target.value));
  byId("outline")?.addEventListener("change", (event) => document.body.classList.toggle("plain", !event.target.checked));
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const [name, by] of [["previous", -1], ["next", 1]]) {
    for (const button of document.querySelectorAll(`.pages .${name}`)) button.addEventListener("click", () => turn(by));
    byId(`viewer-${name}`).addEventListener("click", () => step(by));
  }
  byId("viewer-close").addEventListener("click", () => byId("viewer").close());
  byId("viewer").addEventListener("close", closed);
  byId("viewer").addEventListener("keydown", keys);
  byId("viewer").addEventListener("click", (event) => { if (event.target === byId("viewer")) byId("viewer").close(); });
  new ResizeObserver(showCharts).observe(byId("threshold-part"));
}

function turn(by) {
  state.page += by;
  showGallery();
  byId("gallery").scrollIntoView();
}

function start() {
  byId("curves").hidden = !found;
  byId("best").hidden = !found;
  for (const node of document.querySelectorAll("[data-labelled]")) node.hidden = !labelled;
  if (found) for (const name of ["auroc", "ap"]) tell(name, found[name], percent(found[name]));
  buildControls();
  setOpacity(Math.round(100 * data.opacity));
  listen();
  showThreshold("start");
  showGallery();
}

start();
