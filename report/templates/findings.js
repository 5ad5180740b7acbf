/* What an image's regions are, in words. Texts come from prompt files and go into the page as text only. */

/** Fill `node` with the regions of the image at `place`; hidden where there are none to speak of. */
function tellFindings(node, place) {
  const found = data.findings[place];
  const missing = !found && data.regions_sought && state.threshold !== null && data.scores[place] >= state.threshold;
  node.hidden = !found && !missing;
  node.replaceChildren();
  if (missing) {
    const why = element("p", { class: "hint" });
    why.textContent = "No region is shown: none of the map reaches the pixel threshold, or the page had no room left. The score is of the image as a whole.";
    return node.append(why);
  }
  if (!found) return;
  const list = element("ol", {});
  list.append(...found.regions.map(regionItem));
  const note = element("p", { class: "hint" });
  const more = found.more ? `${found.more.toLocaleString("en")} more in scores.csv. ` : "";
  note.textContent = more + data.no_diagnosis;
  node.replaceChildren(list, note);
}

function regionItem(region) {
  const item = element("li", {});
  item.textContent = region.words;
  if (region.resembles.length) {
    const like = element("span", { class: "like" });
    like.textContent = `resembles: ${region.resembles.join(", ")}`;
    item.append(like);
  }
  return item;
}
