// What a file says about itself, as a list that people can read: Content Credentials first, then metadata.

import { has, t } from "./words.js";

const MAX_FACTS = 80;
const MAX_CHARS = 2000;
const MAX_DEPTH = 6;

// Facts that the answer and the layers tell already, or that only programs need.
const TOLD = new Set(["declares", "state", "reason", "strength", "edited", "generator", "statements", "origin", "source_type",
  "signer", "signer_state", "claim_generator", "actions", "n_actions", "ingredients", "n_ingredients", "trust_list",
  "declared_by", "is_cut", "invalid", "remote_url", "low_quality"]);

/** Rows of name and value for the records of all that reads a file. */
export function spoken(record) {
  return record.evidence
    .filter((one) => ["c2pa", "metadata"].includes(one.detector) && one.status === "ok")
    .flatMap((one) => (one.detector === "c2pa" ? credentials(one.details) : metadata(one.details)));
}

function credentials(details) {
  const rows = [];
  const add = (key, value) => { if (value) rows.push([t(key), value]); };
  const signer = details.signer ?? {};
  const names = [...new Set([signer.organization, signer.name].filter(Boolean))].join(", ");
  const state = has(`finding.${details.signer_state}`) ? t(`finding.${details.signer_state}`) : "";
  add("says.signer", [names, state].filter(Boolean).join(", "));
  add("says.signed_at", signer.time);
  add("says.origin", has(`origin.${details.origin}`) ? t(`origin.${details.origin}`) : details.origin);
  add("says.program", scalar(details.claim_generator ?? ""));
  add("says.steps", (details.actions ?? []).map(step).join("\n"));
  add("says.parts", (details.ingredients ?? []).map((one) => [one.title, one.relationship].filter(Boolean).join(", ")).join("\n"));
  add("says.remote", details.remote_url);
  add("says.problems", (details.invalid ?? []).map((one) => `${one.what}: ${one.explanation || one.code}`).join("\n"));
  return [...rows, ...rest(details)];
}

function step(action) {
  const name = String(action.action ?? "").replace(/^c2pa\./, "").replaceAll("_", " ");
  return [name, action.software, action.when].filter(Boolean).join(", ");
}

function metadata(details) {
  const rows = (details.statements ?? []).map((one) => {
    const what = has(`finding.${one.declares}`) ? t(`finding.${one.declares}`) : one.declares;
    return [one.title, `${what} (${one.field})`];
  });
  return [...rows, ...rest(details)];
}

function rest(details) {
  return facts(Object.fromEntries(Object.entries(details).filter(([key]) => !TOLD.has(key))));
}

/** Flat name and value of a tree of JSON values; what says nothing is left out. */
export function facts(details) {
  const rows = [];
  walk("", details, 0, rows);
  if (rows.length <= MAX_FACTS) return rows;
  return [...rows.slice(0, MAX_FACTS), ["...", t("more_facts", { n: MAX_FACTS })]];
}

function walk(name, value, depth, rows) {
  if (value === null || value === undefined || value === "" || rows.length > MAX_FACTS) return;
  if (depth >= MAX_DEPTH) rows.push([name, "..."]);
  else if (Array.isArray(value)) {
    if (value.every((one) => one === null || typeof one !== "object")) {
      if (value.length) rows.push([name, cut(value.slice(0, 800).map(scalar).join(", "))]);
    } else value.forEach((one, at) => walk(value.length > 1 ? `${name} ${at + 1}` : name, one, depth + 1, rows));
  } else if (typeof value === "object") {
    for (const [key, inner] of Object.entries(value)) {
      const said = has(`fact.${key}`) ? t(`fact.${key}`) : key.replaceAll("_", " ");
      walk(name ? `${name} › ${said}` : said, inner, depth + 1, rows);
    }
  } else rows.push([name, cut(scalar(value))]);
}

function scalar(value) {
  if (typeof value === "boolean") return t(value ? "yes" : "no");
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : String(value);
}

function cut(text) {
  return text.length <= MAX_CHARS ? text : `${text.slice(0, MAX_CHARS)} ...`;
}
