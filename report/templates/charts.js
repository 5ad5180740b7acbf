/* Charts as SVG, drawn at the size that the page gives them so that their words stay readable. */

const NAMED = { ...MARGIN, top: 30, bottom: 44 }; // with room for the axes' names
const BINS = 40;

/** A unit square with a curve, a dashed line of chance, and a dot where the threshold is. */
function drawCurve(svg, points, { chance, dot, across, up }) {
  const place = area(svg, Math.min(290, Math.max(230, svg.clientWidth * 0.7)), NAMED);
  const { x, y } = place;
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(shape("line", { x1: x(0), x2: x(1), y1: y(tick), y2: y(tick), class: "grid" }));
    svg.append(shape("text", { x: x(0) - 8, y: y(tick) + 4, class: "end" }, tick));
    svg.append(shape("text", { x: x(tick), y: y(0) + 18, class: "middle" }, tick));
  }
  svg.append(path(chance, place, "chance"), path(points, place, "curve"));
  svg.append(shape("text", { x: x(1), y: y(0) + 38, class: "end axis" }, across));
  svg.append(shape("text", { x: x(0), y: y(1) - 14, class: "axis" }, up));
  if (dot.every(Number.isFinite)) svg.append(shape("circle", { cx: x(dot[0]), cy: y(dot[1]), r: 5.5, class: "dot" }));
}

/** Shares of a class by score: abnormal above the axis and normal below it; without labels all above. */
function drawHistogram(svg, groups, { low, high, threshold, words }) {
  const place = area(svg, groups.length > 1 ? 250 : 200);
  const drawn = groups.map((group) => histogram(group.scores, low, high, BINS));
  const top = Math.max(0.01, ...drawn.flat());
  const [middle, reach] = groups.length > 1 ? [0.5, 0.5] : [0, 1];
  const [, step] = [0.02, 0.05, 0.1, 0.2, 0.25, 0.5].reduce((best, one) => (top / one >= 2 ? [top, one] : best), [top, top]);
  const height = (share) => share / top * reach * 0.96;
  for (let tick = 0; tick <= top + 1e-9; tick += step) {
    for (const sign of groups.length > 1 && tick > 0 ? [1, -1] : [1]) {
      const y = place.y(middle + sign * height(tick));
      svg.append(shape("line", { x1: place.x(0), x2: place.x(1), y1: y, y2: y, class: tick ? "grid" : "axis-line" }));
      svg.append(shape("text", { x: place.x(0) - 8, y: y + 4, class: "end" }, `${Math.round(100 * tick)} %`));
    }
  }
  groups.forEach((group, which) => drawBars(svg, place, drawn[which], group, which ? -1 : 1, middle, height));
  for (const tick of place.width < 440 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]) {
    const at = { x: place.x(tick), y: place.y(0) + 20, class: tick === 0 ? "start" : tick === 1 ? "end" : "middle" };
    svg.append(shape("text", at, words(low + tick * (high - low))));
  }
  const at = place.x((threshold - low) / (high - low));
  svg.append(shape("line", { x1: at, x2: at, y1: place.y(1) - 4, y2: place.y(0) + 4, class: "threshold-line" }));
}

function drawBars(svg, place, shares, group, sign, middle, height) {
  const wide = (place.x(1) - place.x(0)) / shares.length;
  shares.forEach((share, bin) => {
    if (!share) return;
    const ends = [place.y(middle), place.y(middle + sign * height(share))].sort((a, b) => a - b);
    const box = { x: place.x(0) + bin * wide + 0.5, y: ends[0], width: Math.max(1, wide - 1), height: ends[1] - ends[0] };
    svg.append(shape("rect", { ...box, class: `bars ${group.name}` }));
  });
  const y = sign > 0 ? place.y(1) + 8 : place.y(0) - 6;
  svg.append(shape("text", { x: place.x(0) + 8, y, class: `group ${group.name}` }, `${group.name} (${group.scores.length})`));
}
