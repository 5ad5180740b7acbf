/* Charts of a study: every seed, shots, cost, last against best. A method has one colour and one number in all. */

const COLOURS = 10;
const ROW = 24; // pixels of a method's row
const LETTER = 7.2; // pixels that a letter of a label takes
const colour = (method) => `m${method % COLOURS}`;

/** Round numbers between two ends, about `count` of them. */
function ticks(low, high, count = 4) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((one) => one * power >= rough) * power;
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(Number((at * step).toPrecision(12)));
  return found;
}

/** Ends around values, a twentieth wider on either side, at least `least` apart. */
function ends(values, least = 1) {
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const room = Math.max((high - low) * 0.05, (least - (high - low)) / 2);
  return [low - room, high + room];
}

const shareOf = ([low, high]) => (value) => (value - low) / (high - low);

function titled(node, words) {
  node.append(shape("title", {}, ""));
  node.lastChild.textContent = words;
  return node;
}

/** A method's number in its colour. */
function badgeAt(svg, x, y, method, words) {
  const group = shape("g", { class: colour(method) });
  group.append(shape("circle", { cx: x, cy: y, r: 9, class: "point" }));
  group.append(shape("text", { x, y: y + 4, class: "number middle" }, method + 1));
  svg.append(titled(group, words));
}

/** A drawing area with lines for both axes' ticks. */
function axes(svg, height, across, up, left = 46) {
  const place = area(svg, height, { ...MARGIN, left, right: 18, bottom: 30 });
  for (const tick of up) {
    const y = place.y(tick.at);
    svg.append(shape("line", { x1: place.x(0), x2: place.x(1), y1: y, y2: y, class: "grid" }));
    svg.append(shape("text", { x: place.x(0) - 8, y: y + 4, class: "end" }, tick.words));
  }
  for (const tick of across) {
    const x = place.x(tick.at);
    svg.append(shape("line", { x1: x, x2: x, y1: place.y(0), y2: place.y(1), class: "grid" }));
    svg.append(shape("text", { x, y: place.y(0) + 20, class: "middle" }, tick.words));
  }
  return place;
}

function ticksOf(range, count) {
  return ticks(...range, count).map((value) => ({ at: shareOf(range)(value), words: value }));
}

function showCharts() {
  showStrips();
  showLegend();
  showShots();
  showCost();
  showFlatter();
}

/* ---- every seed ---- */

function showStrips() {
  const { objects, runs } = block();
  const having = new Set(runs.filter((run) => figureOf(run) !== null).map((run) => run.object));
  const places = objects.map((_, place) => place).filter((place) => matches(objects[place]) && having.has(place));
  byId("all-strips").hidden = places.length <= state.strips;
  byId("all-strips").textContent = `Show all ${places.length} objects`;
  const figures = places.slice(0, state.strips).map((place) => {
    const words = `A dot for every seed, ${objects[place]}, ${viewWords()}`;
    const svg = shape("svg", { role: "img", "aria-label": words, "data-object": place });
    return [element("figure", {}, element("figcaption", {}, named("h3", objects[place])), svg), svg, place];
  });
  byId("strips").replaceChildren(...figures.map(([figure]) => figure));
  if (!figures.length) byId("strips").append("No run of this view has figures.");
  for (const [, svg, place] of figures) drawStrip(svg, runs.filter((run) => run.object === place && figureOf(run) !== null));
}

function drawStrip(svg, runs) {
  const { methods } = block();
  const present = methods.map((_, method) => method).filter((method) => runs.some((run) => run.method === method));
  const range = ends(runs.map(figureOf));
  const wide = Math.min(160, Math.max(60, 16 + LETTER * Math.max(...present.map((method) => methods[method].length))));
  const height = ROW * present.length + MARGIN.top + 30;
  const place = axes(svg, height, ticksOf(range, 4), [], wide);
  present.forEach((method, row) => {
    const y = MARGIN.top + ROW * (row + 0.5);
    const own = runs.filter((run) => run.method === method);
    const mean = own.reduce((sum, run) => sum + figureOf(run), 0) / own.length;
    const group = shape("g", { class: colour(method) });
    svg.append(shape("text", { x: wide - 8, y: y + 4, class: "end label" }, clipped(methods[method], wide)));
    const x = place.x(shareOf(range)(mean));
    group.append(shape("line", { x1: x, x2: x, y1: y - 9, y2: y + 9, class: "mean-line" }));
    for (const run of own) {
      const dot = shape("circle", { cx: place.x(shareOf(range)(figureOf(run))), cy: y, r: 4, class: "seed" });
      group.append(titled(dot, `${methods[method]}, seed ${run.seed}: ${figureOf(run).toFixed(2)}`));
    }
    svg.append(group);
  });
}

/** As much of a name as a margin holds. */
function clipped(name, wide) {
  const most = Math.floor((wide - 16) / LETTER);
  return name.length <= most ? name : `${name.slice(0, most - 1)}…`;
}

/* ---- shots, cost, selection ---- */

function showLegend() {
  byId("legend").replaceChildren(...block().methods.map((method, place) => element("li", { class: colour(place) },
    element("span", { class: "number" }, String(place + 1)), element("bdi", {}, method))));
}

/** The blocks of this group with a number of shots, the fewest first. */
function shotBlocks() {
  return data.blocks.map((_, place) => place).filter((place) => data.blocks[place].group === block().group
    && data.blocks[place].shot !== null).sort((a, b) => data.blocks[a].shot - data.blocks[b].shot);
}

/** A method's figure for the chosen object in a block, null where it has none. */
function chosen(number, method, selected = state.selected) {
  const other = data.blocks[number];
  const row = isMean(state.object) ? other.objects.length : other.objects.indexOf(block().objects[state.object]);
  const cell = viewOf(number, selected).cells[row]?.[other.methods.indexOf(block().methods[method])];
  return isFigure(cell) ? cell : null;
}

function showShots() {
  const numbers = shotBlocks();
  byId("shots-figure").hidden = numbers.length < 2 || block().shot === null;
  if (byId("shots-figure").hidden) return;
  const lines = block().methods.map((_, method) => numbers.map((number, at) => [at / (numbers.length - 1), chosen(number, method)])
    .filter(([, cell]) => cell));
  const all = lines.flat().flatMap(([, [mean, deviation]]) => [mean - (deviation ?? 0), mean + (deviation ?? 0)]);
  if (!all.length) return byId("shots").replaceChildren();
  const range = ends(all);
  const inset = (at) => 0.05 + 0.9 * at;
  const across = numbers.map((number, at) => ({ at: inset(at / (numbers.length - 1)), words: data.blocks[number].shot }));
  const place = axes(byId("shots"), 290, across, ticksOf(range, 5));
  const y = (value) => place.y(shareOf(range)(value));
  lines.forEach((line, method) => drawLine(byId("shots"), line.map(([at, cell]) => [place.x(inset(at)), cell]), y, method));
  byId("shots").setAttribute("aria-label", `${viewWords()}, against shots; the table has the figures`);
}

function drawLine(svg, line, y, method) {
  if (!line.length) return;
  const group = shape("g", { class: colour(method) });
  const d = (points) => points.map(([x, at], place) => `${place ? "L" : "M"}${x.toFixed(2)} ${at.toFixed(2)}`).join("");
  const above = line.map(([x, [mean, deviation]]) => [x, y(mean + (deviation ?? 0))]);
  const below = line.map(([x, [mean, deviation]]) => [x, y(mean - (deviation ?? 0))]).reverse();
  group.append(shape("path", { d: `${d([...above, ...below])}Z`, class: "band" }));
  group.append(shape("path", { d: d(line.map(([x, [mean]]) => [x, y(mean)])), class: "method-line" }));
  svg.append(group);
  for (const [x, cell] of line) badgeAt(svg, x, y(cell[0]), method, `${block().methods[method]}: ${figureWords(cell)}`);
}

function showCost() {
  const points = block().methods.map((_, method) => ({ method, cell: chosen(state.block, method), seconds: secondsOf(method) }))
    .filter(({ cell, seconds }) => cell && seconds !== null);
  byId("cost-words").textContent = points.length ? "Seconds depend on the machine and on what ran beside it." : "No run of this view has figures and seconds.";
  if (!points.length) return byId("cost").replaceChildren();
  const range = ends(points.map(({ cell }) => cell[0]));
  const logs = ends(points.map(({ seconds }) => Math.log10(Math.max(seconds, 1e-3))), 0.5);
  const across = seconds(logs).map((value) => ({ at: shareOf(logs)(Math.log10(value)), words: value }));
  const place = axes(byId("cost"), 290, across, ticksOf(range, 5));
  for (const { method, cell, seconds: cost } of points) {
    const x = place.x(shareOf(logs)(Math.log10(Math.max(cost, 1e-3))));
    badgeAt(byId("cost"), x, place.y(shareOf(range)(cell[0])), method, `${block().methods[method]}: ${figureWords(cell)}, ${cost.toFixed(1)} s`);
  }
  byId("cost").setAttribute("aria-label", `${viewWords()}, against seconds of a run: `
    + points.map(({ method, cell, seconds: cost }) => `${block().methods[method]} ${figureWords(cell)} in ${cost.toFixed(1)} s`).join("; "));
}

/** Round seconds for an axis of logarithms: 1, 2, 5, 10, ... within its ends. */
function seconds([low, high]) {
  const found = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
    for (const one of [1, 2, 3, 5, 7]) found.push(Number((one * 10 ** power).toPrecision(3)));
  }
  const inside = found.filter((value) => Math.log10(value) >= low && Math.log10(value) <= high);
  return inside.length > 7 ? inside.filter((value) => /^[0.]*[15]/.test(String(value))) : inside;
}

/** The mean of a method's seconds, over the runs of the chosen object. */
function secondsOf(method) {
  const own = block().runs.filter((run) => run.method === method && run.seconds !== null
    && (isMean(state.object) || run.object === state.object));
  return own.length ? own.reduce((sum, run) => sum + run.seconds, 0) / own.length : null;
}

function showFlatter() {
  byId("flatter-figure").hidden = data.selections.length < 2;
  if (data.selections.length < 2) return;
  const pairs = block().methods.map((_, method) => [method, chosen(state.block, method, "last"), chosen(state.block, method, "best")])
    .filter(([, last, best]) => last && best);
  if (!pairs.length) {
    byId("flatter-words").textContent = "No run of this view has both.";
    return byId("flatter").replaceChildren();
  }
  const range = ends(pairs.flatMap(([, last, best]) => [last[0], best[0]]));
  const place = axes(byId("flatter"), ROW * pairs.length + MARGIN.top + 30, ticksOf(range, 5), [], 30);
  pairs.forEach(([method, last, best], row) => {
    const y = MARGIN.top + ROW * (row + 0.5);
    const [from, to] = [last, best].map(([mean]) => place.x(shareOf(range)(mean)));
    const group = shape("g", { class: colour(method) });
    group.append(shape("line", { x1: from, x2: to, y1: y, y2: y, class: "mean-line" }));
    group.append(shape("circle", { cx: to, cy: y, r: 5, class: "ring" }), shape("circle", { cx: from, cy: y, r: 5, class: "point" }));
    byId("flatter").append(titled(group, `${block().methods[method]}: last ${figureWords(last)}, best ${figureWords(best)}`));
    badgeAt(byId("flatter"), 14, y, method, block().methods[method]);
  });
  const gains = pairs.map(([, last, best]) => best[0] - last[0]);
  const mean = gains.reduce((a, b) => a + b, 0) / gains.length;
  byId("flatter-words").textContent = `Filled: last epoch. Ring: best epoch. Choosing it on the test set adds ${mean.toFixed(2)} points on average, at most ${Math.max(...gains).toFixed(2)}.`;
  byId("flatter").setAttribute("aria-label", pairs.map(([method, last, best]) => `${block().methods[method]}: last ${last[0].toFixed(1)}, best ${best[0].toFixed(1)}`).join("; "));
}
