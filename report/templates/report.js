/* The page at work: what it holds, its state, the threshold, the controls. */

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

const unsure = new Set(data.uncertain);

const ERRORS = { fp: "false positive", fn: "false negative" };
const FILTERS = {
  all: ["all", () => true],
  ...(labelled ? {
    errors: ["errors", (place) => outcomeAt(place) in ERRORS],
    fp: ["false positives", (place) => outcomeAt(place) === "fp"],
    fn: ["false negatives", (place) => outcomeAt(place) === "fn"],
    tp: ["true positives", (place) => outcomeAt(place) === "tp"],
    tn: ["true negatives", (place) => outcomeAt(place) === "tn"],
  } : {}),
  ...(judged.length < scored.length || !labelled ? {
    called: ["called abnormal", (place) => data.scores[place] !== null && data.scores[place] >= state.threshold],
    passed: ["called normal", (place) => data.scores[place] !== null && data.scores[place] < state.threshold],
  } : {}),
  ...(unsure.size ? { uncertain: ["uncertain", (place) => unsure.has(place)] } : {}),
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
  // Where the page has figures from elsewhere, of scores on another scale, it tells no second AUROC.
  if (found && byId("auroc")) for (const name of ["auroc", "ap"]) tell(name, found[name], percent(found[name]));
  buildControls();
  setOpacity(Math.round(100 * data.opacity));
  listen();
  showThreshold("start");
  showGallery();
}

start();
