/* What scores and labels say: the same definitions as metrics.py. A score AT a threshold counts as abnormal. */

/** AUROC, average precision, F1-max with its threshold, and both curves; null if only one class is there.
 *  One walk over the distinct scores from high to low, all ties of a score together. */
function sweep(scores, labels) {
  const places = [...scores.keys()].sort((a, b) => scores[b] - scores[a]);
  const positives = labels.reduce((sum, label) => sum + label, 0);
  const negatives = labels.length - positives;
  if (!positives || !negatives) return null;
  let [found, alarms, halfPairs, precisions] = [0, 0, 0, 0];
  let [f1, threshold] = [-1, NaN];
  const roc = [[0, 0]], pr = [];
  for (let start = 0, end; start < places.length; start = end) {
    const score = scores[places[start]];
    let tied = 0;
    for (end = start; end < places.length && scores[places[end]] === score; end++) tied += labels[places[end]];
    const others = end - start - tied;
    halfPairs += tied * (2 * (negatives - alarms) - others);
    found += tied;
    alarms += others;
    const precision = found / (found + alarms);
    precisions += tied * precision;
    roc.push([alarms / negatives, found / positives]);
    if (!tied) continue;
    pr.push([(found - tied) / positives, precision], [found / positives, precision]); // the area under steps is AP
    const here = 2 * found / (found + alarms + positives);
    if (here >= f1) [f1, threshold] = [here, score];
  }
  return { auroc: halfPairs / (2 * positives * negatives), ap: precisions / positives, f1, threshold, roc, pr };
}

/** How many of each outcome there are at a threshold, and the figures that follow; NaN where not defined. */
function outcomes(scores, labels, threshold) {
  const count = { tp: 0, fn: 0, fp: 0, tn: 0 };
  scores.forEach((score, place) => { count[outcome(score, labels[place], threshold)] += 1; });
  const { tp, fn, fp, tn } = count;
  return {
    ...count,
    sensitivity: tp / (tp + fn),
    specificity: tn / (tn + fp),
    precision: tp / (tp + fp),
    f1: tp + fn ? 2 * tp / (2 * tp + fp + fn) : NaN,
  };
}

/** tp, fn, fp or tn. */
function outcome(score, label, threshold) {
  const called = score >= threshold;
  return label ? (called ? "tp" : "fn") : (called ? "fp" : "tn");
}

/** How far a score lies on the wrong side of the threshold; negative on the right side. */
function errorOf(score, label, threshold) {
  return label ? threshold - score : score - threshold;
}

/** Shares of the scores in `bins` equal intervals from low to high. */
function histogram(scores, low, high, bins) {
  const shares = new Array(bins).fill(0);
  for (const score of scores) {
    const bin = Math.floor((score - low) / (high - low) * bins);
    shares[Math.min(bins - 1, Math.max(0, bin))] += 1 / scores.length;
  }
  return shares;
}
