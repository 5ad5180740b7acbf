/* The gallery and the viewer. Names come from files and go into the page as text only. */

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
  if (result in ERRORS) node.append(badge(ERRORS[result], "wrong"));
  const share = data.confidences[place];
  const confidence = share === undefined ? "" : `confidence ${share > 0.99 ? "over 99" : Math.round(100 * share)} %`;
  if (unsure.has(place)) node.append(badge(["uncertain", confidence].filter(Boolean).join(", "), "unsure"));
  else if (confidence) node.append(badge(confidence, "plain"));
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
  box.classList.toggle("row", box.childElementCount < 4);
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
  tellFindings(byId("viewer-findings"), place);
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
