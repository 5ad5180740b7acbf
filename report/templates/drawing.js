/* What all pages build with: elements, shapes of an SVG, an area to draw in. */
"use strict";

const MARGIN = { left: 46, right: 14, top: 12, bottom: 30 }; // report.css lays the slider out by left and right

const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** An SVG element with attributes, the text or the children put into it. */
function shape(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.map(String));
  return node;
}

/** An empty drawing area: sizes, and functions from [0, 1] to pixels. */
function area(svg, height, margin = MARGIN) {
  const width = Math.max(160, svg.clientWidth);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.replaceChildren();
  const inner = { width: width - margin.left - margin.right, height: height - margin.top - margin.bottom };
  return {
    width, height,
    x: (share) => margin.left + share * inner.width,
    y: (share) => margin.top + (1 - share) * inner.height,
  };
}

function path(points, { x, y }, name) {
  const d = points.map(([a, b], place) => `${place ? "L" : "M"}${x(a).toFixed(2)} ${y(b).toFixed(2)}`).join("");
  return shape("path", { d, class: name });
}
