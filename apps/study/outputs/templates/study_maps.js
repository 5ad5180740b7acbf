/* The images on which the methods err most and least, and every method's map of them. */

const kept = JSON.parse(byId("maps").textContent);

function startMaps() {
  if (!kept.objects) return;
  const names = Object.keys(kept.objects);
  options(byId("maps-object"), names);
  byId("maps-object").addEventListener("change", (event) => showMaps(names[event.target.value]));
  showMaps(names[0]);
}

function showMaps(name) {
  const { seed, worst, best } = kept.objects[name];
  const left = kept.left ? ` To keep this file under 30 MB, ${kept.left} objects are left out.` : "";
  byId("maps-words").textContent = `${data.blocks[kept.block].title}, seed ${seed}, last epoch. An error is how far a score lies on the wrong `
    + `side of its method's threshold; images come first that most methods have among their largest (smallest). Maps have one colour scale, 0 to 1.${left}`;
  const parts = [["Largest errors", worst], ["Smallest errors", best]].filter(([, images]) => images.length);
  byId("maps-tables").replaceChildren(...parts.flatMap(([words, images], place) => [
    element("h3", { id: `maps-${place}` }, words),
    element("div", { class: "wide", role: "region", tabindex: "0", "aria-labelledby": `maps-${place}` }, mapTable(images)),
  ]));
}

function mapTable(images) {
  const { methods } = data.blocks[kept.block];
  const present = methods.filter((method) => images.some((image) => image.methods[method]));
  const head = element("tr", {}, element("th", { scope: "col" }, "image"));
  for (const method of present) head.append(named("th", method, { scope: "col" }));
  const body = element("tbody");
  for (const image of images) {
    const row = element("tr", {}, pictureCell(image));
    for (const method of present) row.append(mapCell(image.methods[method], method, image.name));
    body.append(row);
  }
  return element("table", { class: "map-table" }, element("thead", {}, head), body);
}

function pictureCell({ name, label, image }) {
  const cell = element("th", { scope: "row" }, element("img", { src: `data:image/${image}`, alt: "" }));
  cell.append(named("span", name, { class: "under" }), element("span", { class: "under" }, label ? "labelled abnormal" : "labelled normal"));
  return cell;
}

function mapCell(found, method, name) {
  const cell = element("td");
  if (!found) return element("td", {}, element("span", { class: "no-map" }, "no score"));
  if (found.map) cell.append(element("img", { src: `data:image/${found.map}`, alt: `map of ${method} of ${name}` }));
  else cell.append(element("span", { class: "no-map" }, "not among the maps that this run kept"));
  const wrong = found.error > 0;
  cell.append(element("span", { class: wrong ? "under wrong" : "under" }, `score ${found.score.toFixed(3)}, ${wrong ? "wrong" : "right"} by ${Math.abs(found.error).toFixed(3)}`));
  return cell;
}
