// What lies behind an answer: the picture with its heat map, each layer, what the file says, what was not checked.

import { el, visible } from "./dom.js";
import { heatMap } from "./heat.js";
import { facts, spoken } from "./says.js";
import { bytes, date, has, integer, percent, score, sentence, t } from "./words.js";

let n_sliders = 0;

/** All of it, for one entry of the list. */
export function panel(entry) {
  const found = entry.found;
  return [
    el("div", { class: "columns" },
      el("div", {}, picture(entry), errors(found), facts_of_file(entry)),
      el("div", {}, layers(found.record), says(found.record), unchecked(found))),
  ];
}

function part(title, ...children) {
  return el("section", { class: "part" }, el("h4", {}, title), ...children);
}

function told(tag, attributes, english) {
  const { text, lang } = sentence(english);
  return el(tag, { ...attributes, lang: lang === document.documentElement.lang ? null : lang }, visible(text));
}

function picture(entry) {
  const found = entry.found;
  const heat = heatMap(found);
  if (!entry.url) {
    const why = entry.file ? t("no_picture") : t("gone_picture");
    return part(t("picture"), el("p", { class: "soft" }, why));
  }
  const image = el("img", { src: entry.url, alt: t("picture_alt", { name: visible(entry.name) }) });
  const stack = el("div", { class: "stack" }, image);
  image.addEventListener("error", () => stack.replaceWith(el("p", { class: "soft" }, t("no_picture"))));
  if (!heat) return part(t("picture"), el("figure", {}, stack, el("figcaption", {}, t("no_heat"))));
  heat.setAttribute("aria-hidden", "true");
  stack.append(heat);
  const id = `heat-${++n_sliders}`;
  const slider = el("input", { type: "range", id, min: 0, max: 100, value: 55, "aria-description": t("heat_opacity") });
  const show = () => { heat.style.opacity = slider.value / 100; };
  slider.addEventListener("input", show);
  show();
  return part(t("heat"),
    el("figure", {}, stack,
      el("div", { class: "control" }, el("label", { for: id }, t("heat_map")), slider),
      el("div", { class: "legend", "aria-hidden": "true" }),
      el("div", { class: "ends" }, el("span", {}, t("heat_low")), el("span", {}, t("heat_even")), el("span", {}, t("heat_high"))),
      el("figcaption", {}, t("heat_words"))));
}

function layers(record) {
  return part(t("layers"), record.evidence.map(layer));
}

function layer(evidence) {
  const rows = facts(evidence.details);
  if (evidence.weights) rows.push([t("weights"), evidence.weights]);
  if (evidence.logit !== null) rows.push(["logit", evidence.logit.toPrecision(4)]);
  const looks = has(`looks.${evidence.detector}`) ? t("looks_at", { what: t(`looks.${evidence.detector}`) }) : "";
  const telling = evidence.status === "ok" && (evidence.score !== null || evidence.details.declares);
  return el("div", { class: telling ? "layer telling" : "layer" },
    el("div", { class: "layer-head" }, el("h5", {}, title(evidence.detector)), el("span", { class: "finding" }, finding(evidence))),
    el("p", { class: "soft small" }, looks),
    told("p", {}, evidence.note),
    rows.length && evidence.status !== "absent"
      ? el("details", {}, el("summary", {}, t("details", { n: rows.length })), list(rows))
      : null);
}

export function title(detector) {
  return has(`layer.${detector}`) ? t(`layer.${detector}`) : detector;
}

/** What a layer found, in a few words; the same as mai/report/layers.py says. */
function finding(evidence) {
  if (evidence.status !== "ok") return t(`finding.${evidence.status}`);
  const details = evidence.details;
  if (evidence.score !== null) {
    return t(details.low_quality === true ? "finding.weak" : "finding.score", { score: score(evidence.score) });
  }
  if (["invalid", "remote_only"].includes(details.state)) return t(`finding.${details.state}`);
  if (!has(`finding.${details.declares}`)) return t("finding.undecided");
  const signer = ["trusted", "valid_untrusted"].includes(details.state) ? `, ${t(`finding.${details.state}`)}` : "";
  return t(`finding.${details.declares}`) + signer;
}

/** Provenance and metadata as a list that can be read. */
function says(record) {
  const rows = spoken(record);
  return part(t("says"), rows.length ? list(rows) : el("p", { class: "soft" }, t("says_nothing")));
}

function unchecked(found) {
  return part(t("unchecked"), el("ul", {}, found.not_checked.map((english) => told("li", {}, english))));
}

function errors(found) {
  const point = found.operating_point;
  if (!point?.false_positive) return null;
  const row = (name, rate) => [name, t("errors_row", {
    n_errors: integer(rate.n_errors), n: integer(rate.n), low: percent(rate.interval_95[0]), high: percent(rate.interval_95[1]),
  })];
  const rows = [row(t("errors_flagged"), point.false_positive), row(t("errors_missed"), point.false_negative)];
  if (point.missed) rows.push(row(t("errors_not_flagged"), point.missed));
  return part(t("errors"),
    list(rows),
    el("p", { class: "soft small" }, t("measured_on", { data: visible(point.calibration_data) })));
}

function facts_of_file(entry) {
  const { file, date: judged } = entry.found;
  if (!file.sha256) return null;
  const size = t("size_value", { width: integer(file.width), height: integer(file.height), bytes: bytes(file.bytes ?? 0) });
  return part(t("file"),
    list([[t("format"), file.format], [t("size"), size], [t("sha"), file.sha256], [t("date"), date(judged)]]));
}

function list(rows) {
  return el("dl", { class: "facts" }, rows.flatMap(([name, value]) => [el("dt", {}, visible(name)), el("dd", {}, visible(value))]));
}
