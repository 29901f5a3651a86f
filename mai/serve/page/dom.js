// Elements made of text and attributes only: nothing that a file or a server says is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "rect", "circle", "g", "defs", "linearGradient", "stop", "text", "line"]);

/** An element. Attributes: `on...` listens, true is a bare attribute, false and null are left out. */
export function el(tag, attributes = {}, ...children) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

// Control characters, direction marks and the like, written out: the same as mai/report/escape.py does.
const UNSAFE = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** Text of others, made visible where it would turn the text around it. */
export function visible(text) {
  return String(text).replace(UNSAFE, (char) => `\\u${char.codePointAt(0).toString(16).padStart(4, "0")}`);
}

const MARKS = {
  synthetic: ["path", { d: "M8 1 15.5 15H.5Z" }],
  authentic: ["circle", { cx: 8, cy: 8, r: 7 }],
  inconclusive: ["path", { d: "M8 .5 15.5 8 8 15.5 .5 8Z" }],
  none: ["path", { d: "M2 4 4 2l4 4 4-4 2 2-4 4 4 4-2 2-4-4-4 4-2-2 4-4Z" }],
};

/** The shape of an answer, beside its colour: triangle, circle, diamond, cross. */
export function mark(label) {
  const [tag, attributes] = MARKS[label] ?? MARKS.none;
  return el("svg", { viewBox: "0 0 16 16", fill: "currentColor", "aria-hidden": "true", class: "mark" }, el(tag, attributes));
}

/** Hand a text or a blob to the browser as a file. */
export function save(name, content, type) {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
