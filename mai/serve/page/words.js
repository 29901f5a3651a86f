// Texts of one language, from i18n/<language>.json, and numbers as people read them.

export const LANGUAGES = ["en", "de"];

let texts = {};
let code = "en";

/** Load a language; the page's own by default, else what the browser asks for. */
export async function use(language) {
  code = LANGUAGES.includes(language) ? language : "en";
  const answer = await fetch(`static/i18n/${code}.json`);
  texts = await answer.json();
  document.documentElement.lang = code;
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of document.querySelectorAll("[data-t-aria-label]")) {
    node.setAttribute("aria-label", t(node.dataset.tAriaLabel));
  }
  document.title = `MAI: ${t("title")}`;
}

export function preferred() {
  const kept = sessionStorage.getItem("mai-language");
  return kept ?? navigator.languages.map((name) => name.slice(0, 2)).find((name) => LANGUAGES.includes(name)) ?? "en";
}

export function language() {
  return code;
}

export function has(key) {
  return key in texts;
}

/** A text, with {names} filled in. */
export function t(key, values = {}) {
  return (texts[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

/** A sentence of the service in this language, if there is one, and the language that it is in. */
export function sentence(english) {
  const found = code === "en" ? english : texts.sentences?.[english];
  return { text: found ?? english, lang: found === undefined ? "en" : code };
}

const number = (value, options) => new Intl.NumberFormat(code, options).format(value);

/** Two decimals, and never a certainty that rounding made. */
export function score(value) {
  if (value === null) return "-";
  const two = { minimumFractionDigits: 2, maximumFractionDigits: 2 };
  if (value < 0.01) return `<${number(0.01, two)}`;
  if (value > 0.99) return `>${number(0.99, two)}`;
  return number(value, two);
}

export function threshold(value) {
  return number(value, { maximumSignificantDigits: 3 });
}

export function percent(value) {
  return number(value, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
}

/** A rate as people count: 0.01 is `1 in 100`. */
export function share(rate) {
  for (const base of [100, 1000, 10000]) {
    const n = rate * base;
    if (Math.abs(n - Math.round(n)) < 1e-9 && Math.round(n) >= 1) {
      return t("one_in", { n: number(Math.round(n)), base: number(base) });
    }
  }
  return percent(rate);
}

export function bytes(n) {
  const unit = 2 ** 20;
  if (n < unit) return t("kilobytes", { n: number(Math.max(1, Math.round(n / 1024))) });
  return t("megabytes", { n: number(n / unit, { maximumFractionDigits: n < 10 * unit ? 1 : 0 }) });
}

export function integer(n) {
  return number(n);
}

export function date(text) {
  return new Intl.DateTimeFormat(code, { dateStyle: "medium", timeStyle: "medium" }).format(new Date(text));
}
