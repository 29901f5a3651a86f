// The page: pictures come in (dropped, pasted, chosen, photographed), wait their turn, and are shown as they are judged.

import { draw, kind, verdict } from "./card.js";
import { el, mark, save, visible } from "./dom.js";
import { explain, hasKey, limits, setKey } from "./service.js";
import { LANGUAGES, bytes, has, language, preferred, t, use } from "./words.js";

const THUMB_PX = 224;
const MAX_AT_ONCE = 4;
const MAX_TRIES = 40;
const MAX_KEPT = 100;
const KEPT = "mai-history";
const LABELS = ["synthetic", "authentic", "inconclusive", "none", "waiting"];

const $ = (id) => document.getElementById(id);
const entries = [];
let told = { max_bytes: 64 * 2 ** 20, n_workers: 1, version: "", needs_key: false };
let n_made = 0;
let n_at_work = 0;
let shown = "all";
let asking = null;

const act = {
  toggle(entry) {
    entry.is_open = !entry.is_open;
    draw(entry, act);
    entry.node.querySelector(".why")?.focus();
  },
  again(entry) {
    Object.assign(entry, { state: "waiting", failure: null, n_tries: 0 });
    draw(entry, act);
    entry.node.querySelector("button")?.focus();
    work();
  },
  remove(entry) {
    const at = entries.indexOf(entry);
    forget(entry);
    entries.splice(at, 1);
    changed();
    const next = entries[Math.min(at, entries.length - 1)];
    (next ? next.node.querySelector("button") : $("choose")).focus();
  },
  failed(failure) {
    notice(has(`message.${failure.code}`) ? t(`message.${failure.code}`) : failure.message);
  },
};

function forget(entry) {
  entry.is_gone = true;
  entry.node.remove();
  if (entry.url) URL.revokeObjectURL(entry.url);
}

/** Take files; newest first. */
function take(files) {
  const found = [...files].filter((file) => file instanceof File);
  if (!found.length) return;
  notice("");
  const added = found.map((file) => {
    const entry = {
      id: ++n_made, name: file.name || "picture", file, url: null, thumb: null, found: null, failure: null,
      state: "waiting", is_open: found.length === 1 && !entries.length, n_tries: 0, node: el("li"),
    };
    if (!file.size || file.size > told.max_bytes) {
      entry.state = "failed";
      entry.failure = { code: file.size ? "too_large_here" : "empty_here", message: "", bytes: file.size, most: told.max_bytes };
      entry.file = null;
    } else entry.url = URL.createObjectURL(file);
    draw(entry, act);
    return entry;
  });
  entries.unshift(...added);
  $("list").prepend(...added.map((entry) => entry.node));
  if (added.length > 1) say(t("added", { n: added.length }));
  changed();
  preview(added);
  work();
}

/** Small pictures of the large ones, one after another. */
async function preview(added) {
  for (const entry of added) {
    if (!entry.url) continue;
    try {
      const bitmap = await createImageBitmap(entry.file);
      const scale = Math.min(1, THUMB_PX / Math.max(bitmap.width, bitmap.height));
      const canvas = el("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
      const context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      bitmap.close();
      entry.thumb = canvas.toDataURL("image/jpeg", 0.8);
      const place = entry.node.querySelector(".thumb");
      place?.replaceChildren(el("img", { src: entry.thumb, alt: "" }));
    } catch {
      URL.revokeObjectURL(entry.url); // not a picture, or not of a format that this browser knows
      entry.url = null;
    }
  }
  keep();
}

/** Look at what waits, a few at a time. */
function work() {
  const most = Math.min(MAX_AT_ONCE, told.n_workers + 1);
  while (n_at_work < most) {
    const entry = entries.find((one) => one.state === "waiting" && one.file && !one.retry_s);
    if (!entry) return;
    n_at_work += 1;
    entry.state = "looking";
    draw(entry, act);
    look(entry).finally(() => {
      n_at_work -= 1;
      changed();
      work();
    });
  }
}

async function look(entry) {
  try {
    const found = await explain(entry.file);
    entry.found = found.record ? found : bare(found);
    entry.state = "done";
  } catch (failure) {
    if (failure.code === "no_key" && (await key())) {
      entry.state = "waiting";
    } else if (failure.retry_s && [429, 503].includes(failure.status) && entry.n_tries < MAX_TRIES) {
      entry.n_tries += 1;
      entry.state = "waiting";
      entry.retry_s = failure.retry_s * (0.75 + Math.random() / 2); // so that many pages do not come back at once
      setTimeout(() => { entry.retry_s = null; work(); }, entry.retry_s * 1000);
    } else {
      entry.state = "failed";
      entry.failure = { code: failure.code ?? "other", message: failure.message };
    }
  }
  if (entry.is_gone) return;
  draw(entry, act);
  if (["done", "failed"].includes(entry.state)) say(t("said", { name: visible(entry.name), verdict: verdict(entry) }));
}

/** A record without the rest of a case, in the form of one. */
function bare(record) {
  return { record, file: record.image ?? {}, answer: {}, not_checked: [], weights: [], heat_maps: [], operating_point: null };
}

/** The list has changed: counts, headings, what is kept. */
function changed() {
  $("results").hidden = !entries.length;
  const counts = { all: entries.length };
  for (const entry of entries) counts[kind(entry)] = (counts[kind(entry)] ?? 0) + 1;
  if (!counts[shown]) shown = "all";
  const names = ["all", ...LABELS.filter((name) => counts[name])];
  $("chips").replaceChildren(...names.map((name) => el("button", {
    type: "button", class: `chip ${name}`, "aria-pressed": String(shown === name), "data-show": name,
    onclick: () => { shown = name; changed(); $("chips").querySelector(`[data-show=${name}]`)?.focus(); },
  }, LABELS.includes(name) && name !== "waiting" ? mark(name) : "", `${chip(name)} `, el("strong", {}, counts[name]))));
  for (const entry of entries) entry.node.hidden = shown !== "all" && kind(entry) !== shown;
  const has_rows = entries.some((entry) => entry.state === "done");
  $("save-json").disabled = $("save-csv").disabled = !has_rows;
  keep();
}

function chip(name) {
  if (name === "all") return t("all");
  if (name === "none") return t("not_judged");
  return name === "waiting" ? t("waiting") : t(`label.${name}`);
}

/** Results of this tab survive a reload; pictures do not. */
function keep() {
  const kept = entries.filter((entry) => entry.state === "done").slice(0, MAX_KEPT);
  for (let n = kept.length; n >= 0; n = Math.floor(n / 2)) {
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(kept.slice(0, n).map(({ name, found, thumb }) => ({ name, found, thumb }))));
      return;
    } catch {
      if (n === 0) return; // no room at all: the list lives as long as the page does
    }
  }
}

function recall() {
  let kept = [];
  try {
    kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
  } catch {
    sessionStorage.removeItem(KEPT);
  }
  for (const { name, found, thumb } of kept) {
    const entry = { id: ++n_made, name, file: null, url: null, thumb, found, failure: null, state: "done", is_open: false, n_tries: 0, node: el("li") };
    draw(entry, act);
    entries.push(entry);
    $("list").append(entry.node);
  }
}

let saying = 0;

function say(text) {
  clearTimeout(saying);
  saying = setTimeout(() => { $("say").textContent = text; }, 50);
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

/** Ask for a key; true when one was given. Pictures that ask at the same time ask once. */
function key() {
  asking ??= new Promise((resolve) => {
    $("key-error").textContent = hasKey() ? t("key_wrong") : "";
    setKey("");
    $("key-field").value = "";
    $("key").showModal();
    $("key").onclose = () => {
      asking = null;
      const given = $("key").returnValue === "use" ? $("key-field").value.trim() : "";
      if (given) setKey(given);
      resolve(Boolean(given));
    };
  });
  return asking;
}

/** Files of a drop, folders included. */
async function dropped(transfer) {
  const roots = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!roots.some((root) => root.isDirectory)) return [...transfer.files];
  const files = [];
  const walk = async (root) => {
    if (root.isFile) files.push(await new Promise((resolve, reject) => { root.file(resolve, reject); }));
    else {
      const reader = root.createReader();
      for (;;) {
        const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
        if (!some.length) break;
        for (const one of some) await walk(one);
      }
    }
  };
  for (const root of roots) await walk(root);
  return files.filter((file) => !file.name.startsWith("."));
}

function listen() {
  $("choose").addEventListener("click", () => $("files").click());
  $("photograph").addEventListener("click", () => $("camera").click());
  $("photograph").hidden = !matchMedia("(pointer: coarse)").matches;
  for (const input of [$("files"), $("camera")]) {
    input.addEventListener("change", () => { take(input.files); input.value = ""; });
  }
  let depth = 0;
  const hover = (is_over) => {
    $("drop").classList.toggle("over", is_over);
    $("drop").querySelector(".drop-words").textContent = t(is_over ? "drop_now" : "drop");
  };
  addEventListener("dragenter", (event) => { event.preventDefault(); depth += 1; hover(true); });
  addEventListener("dragleave", () => { depth -= 1; if (depth <= 0) { depth = 0; hover(false); } });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    hover(false);
    take(await dropped(event.dataTransfer));
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) take(event.clipboardData.files);
  });
  $("save-json").addEventListener("click", () => {
    const rows = entries.filter((entry) => entry.state === "done").map((entry) => JSON.stringify(entry.found.record));
    save("mai.jsonl", `${rows.join("\n")}\n`, "application/x-ndjson");
  });
  $("save-csv").addEventListener("click", () => save("mai.csv", csv(), "text/csv"));
  $("clear").addEventListener("click", () => {
    entries.splice(0).forEach(forget);
    changed();
    $("choose").focus();
  });
  $("key").querySelector("form").addEventListener("submit", () => { $("key").returnValue = "use"; });
  $("key-cancel").addEventListener("click", () => $("key").close(""));
  $("language").append(...LANGUAGES.map((code) => el("option", { value: code, lang: code }, { en: "English", de: "Deutsch" }[code])));
  $("language").addEventListener("change", () => {
    sessionStorage.setItem("mai-language", $("language").value);
    speak($("language").value);
  });
}

/** The main columns of `mai scan --csv`; a cell that a spreadsheet would run gets an apostrophe. */
function csv() {
  const columns = ["path", "status", "label", "edited", "score", "reason", "sha256", "message"];
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : visible(value);
    const safe = /^[=+\-@\t\r\n]/.test(text) && typeof value === "string" ? `'${text}` : text;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const rows = entries.filter((entry) => entry.state === "done").map(({ found: { record } }) =>
    columns.map((name) => cell(name === "sha256" ? record.image?.sha256 : record[name])).join(","));
  return `${[columns.join(","), ...rows].join("\n")}\n`;
}

/** Everything in another language. */
async function speak(code) {
  await use(code);
  $("language").value = language();
  $("limits").textContent = t("limits", { size: bytes(told.max_bytes) });
  $("version").textContent = told.version ? t("version", { version: told.version }) : "";
  for (const entry of entries) draw(entry, act);
  changed();
}

listen();
await use(preferred());
recall();
try {
  told = await limits();
} catch (failure) {
  act.failed(failure);
}
await speak(language());
document.documentElement.dataset.ready = "true";
