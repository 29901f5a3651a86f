// One picture of the list: preview, answer, score, how often such an answer errs, and what can be done with it.

import { el, mark, save, visible } from "./dom.js";
import { panel } from "./evidence.js";
import { report } from "./service.js";
import { bytes, has, score, sentence, share, t, threshold } from "./words.js";

const BY_SCORE = ["above_threshold", "below_threshold", "low_evidence", "low_quality", "detectors_disagree"];

/** The answer in words, or why there is none. */
export function verdict(entry) {
  if (entry.state === "waiting") return t("in_line");
  if (entry.state === "looking") return t("looking");
  if (entry.state === "failed") return t(has(`failed.${entry.failure.code}`) ? `failed.${entry.failure.code}` : "failed.other");
  const record = entry.found.record;
  if (record.label === null) return t(`status.${record.status}`);
  return t(`label.${record.label}`) + (record.edited ? ` (${t("edited")})` : "");
}

/** What an entry counts as: a label, `none` or `waiting`. */
export function kind(entry) {
  if (entry.state === "done") return entry.found.record.label ?? "none";
  return entry.state === "failed" ? "none" : "waiting";
}

/** Fill an entry's element anew. `act` has what its buttons do: again, remove, toggle. */
export function draw(entry, act) {
  const name = visible(entry.name);
  const label = kind(entry);
  const title = el("div", { class: "card-title" },
    el("h3", { class: "name", id: `name-${entry.id}` }, name),
    el("p", { class: `verdict ${label}` }, label === "waiting" ? el("span", { class: "spinner", "aria-hidden": "true" }) : mark(label),
      el("span", {}, capital(verdict(entry)))));
  const body = el("div", { class: "card-body" }, ...explained(entry));
  const buttons = el("div", { class: "buttons card-buttons" });
  const open = entry.is_open && entry.found?.record.label;
  if (entry.state === "done" && entry.found.record.label) {
    buttons.append(
      el("button", {
        type: "button", class: "why", "aria-expanded": String(Boolean(open)), "aria-controls": `panel-${entry.id}`,
        "aria-label": open ? null : t("why_name", { name }), onclick: () => act.toggle(entry),
      }, open ? t("less") : t("why")),
      el("button", { type: "button", disabled: !entry.file, title: t(entry.file ? "report_title" : "no_file"), onclick: (event) => save_report(entry, event.currentTarget, act) }, t("report")),
      el("button", { type: "button", title: t("case_title"), onclick: () => save(`${stem(entry)}.mai.json`, JSON.stringify(entry.found, null, 2), "application/json") }, t("case")));
  }
  if (entry.state === "failed" && entry.file) {
    buttons.append(el("button", { type: "button", onclick: () => act.again(entry) }, t("again")));
  }
  buttons.append(el("button", { type: "button", class: "quiet", "aria-label": t("remove_name", { name }), onclick: () => act.remove(entry) }, t("remove")));
  body.append(buttons);
  const thumb = el("div", { class: "thumb" });
  if (entry.thumb) thumb.append(el("img", { src: entry.thumb, alt: "" }));
  else thumb.append(el("span", { "aria-hidden": "true" }, entry.name.split(".").pop().slice(0, 5).toUpperCase()));
  const parts = [el("div", { class: "card-head" }, thumb, title, body, gauge(entry))];
  if (open) parts.push(el("div", { class: "panel", id: `panel-${entry.id}` }, panel(entry)));
  entry.node.className = `card ${label}`;
  entry.node.dataset.kind = label;
  entry.node.setAttribute("aria-labelledby", `name-${entry.id}`);
  entry.node.setAttribute("aria-busy", String(label === "waiting"));
  entry.node.replaceChildren(...parts);
}

/** Why, in sentences, with the score on its scale. */
function explained(entry) {
  if (entry.state === "failed") {
    const { code, message, bytes: n, most } = entry.failure;
    return [said(has(`message.${code}`) ? t(`message.${code}`, { bytes: bytes(n ?? 0), size: bytes(most ?? 0) }) : message)];
  }
  if (entry.state === "waiting" && entry.retry_s) return [el("p", { class: "soft" }, t("busy", { seconds: Math.round(entry.retry_s) }))];
  if (entry.state !== "done") return [];
  const { record, answer } = entry.found;
  if (record.label === null) return [said(record.message ?? "")];
  const rows = [said(answer.explanation)];
  if (record.edited && record.reason !== "declared_edit") rows.push(el("p", {}, t("also_edited")));
  if (record.posterior) {
    rows.push(el("p", {}, t("posterior", { share: share(record.posterior.prior), score: score(record.posterior.score) })));
  }
  return rows;
}

/** The score on its scale, how often such an answer errs, and that not all was checked. */
function gauge(entry) {
  if (entry.state !== "done" || entry.found.record.label === null) return null;
  const { record, operating_point: point, not_checked } = entry.found;
  const missing = t("unchecked_short", { n: not_checked.length });
  if (record.score === null) return el("div", { class: "gauge" }, el("p", { class: "soft small" }, missing));
  const aside = BY_SCORE.includes(record.reason) ? rate(record, point) : t("score_aside");
  return el("div", { class: "gauge" }, ...bar(record), el("p", { class: "soft small" }, `${aside} ${missing}`));
}

function said(english) {
  const { text, lang } = sentence(english);
  return el("p", { class: "why-words", lang: lang === document.documentElement.lang ? null : lang }, visible(text));
}

/** How often an answer like this errs. */
function rate(record, point) {
  const { fpr, fnr } = record.thresholds ?? {};
  if (!point || fpr === null || fpr === undefined) return t("rate_given");
  if (record.label === "synthetic") return t("rate_synthetic", { flag: share(fpr) });
  if (record.label === "authentic") return t("rate_authentic", { share: share(fnr) });
  return t("rate_none", { flag: share(fpr), miss: share(fnr) });
}

/** Where the score lies between 0 and 1, and where the thresholds do. */
function bar(record) {
  const point = record.thresholds;
  const shown = score(record.score);
  const words = point
    ? t("score_long", { score: shown, low: threshold(point.authentic), high: threshold(point.synthetic) })
    : t("score_plain", { score: shown });
  const x = 400 * record.score;
  const zones = point
    ? [el("rect", { class: "zone-authentic", x: 0, y: 12, width: 400 * point.authentic, height: 12, rx: 2 }),
       el("rect", { class: "zone-synthetic", x: 400 * point.synthetic, y: 12, width: 400 * (1 - point.synthetic), height: 12, rx: 2 })]
    : [];
  return [
    el("p", { class: "score" }, capital(t("score", { score: shown }))),
    el("svg", { class: "bar", viewBox: "0 0 400 28", role: "img", "aria-label": words },
      el("rect", { class: "zone-none", x: 0, y: 12, width: 400, height: 12, rx: 2 }), ...zones,
      el("path", { class: "needle", d: `M${x} 14 l-8 -12 h16 Z M${x - 1.5} 12 h3 v15 h-3 Z` })),
    el("p", { class: "ends", "aria-hidden": "true" }, el("span", {}, t("scale_low")), el("span", {}, t("scale_high"))),
  ];
}

async function save_report(entry, button, act) {
  button.disabled = true;
  try {
    save(`${stem(entry)}.mai.html`, await report(entry.file), "text/html");
  } catch (failure) {
    act.failed(failure);
  } finally {
    button.disabled = false;
  }
}

function stem(entry) {
  return entry.name.replace(/[^\p{L}\p{N}._ -]/gu, "_").slice(-100) || "picture";
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
