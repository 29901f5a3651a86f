// The service, as the page uses it: one picture a request, a few at a time, again when it is busy.

let key = sessionStorage.getItem("mai-key") ?? "";

export function setKey(value) {
  key = value;
  if (value) sessionStorage.setItem("mai-key", value);
  else sessionStorage.removeItem("mai-key");
}

export function hasKey() {
  return key !== "";
}

/** Why something was not done: `code` is the service's word, `message` its sentence. */
export class Failure extends Error {
  constructor(code, message, status = 0, retry_s = null) {
    super(message);
    Object.assign(this, { code, status, retry_s });
  }
}

export async function limits() {
  return (await send("v1/limits")).json();
}

/** The case of a picture, judged or not: mai.case/1, or a bare record where nothing more could be had. */
export async function explain(file) {
  const answer = await send(`v1/explain?format=json&name=${encodeURIComponent(file.name)}`, file);
  return answer.json();
}

/** The report of a picture, as a page. */
export async function report(file) {
  return (await send(`v1/explain?format=html&name=${encodeURIComponent(file.name)}`, file)).blob();
}

async function send(path, body = null) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body) headers["Content-Type"] = "application/octet-stream";
  let answer;
  try {
    answer = await fetch(path, { method: body ? "POST" : "GET", headers, body, cache: "no-store" });
  } catch {
    throw new Failure("network", "");
  }
  if (answer.ok) return answer;
  let told = null;
  try {
    told = await answer.clone().json();
  } catch {
    throw new Failure("other", `${answer.status} ${answer.statusText}`, answer.status);
  }
  if (told.schema) return answer; // a record or a case that says why the picture was not judged
  const wait = Number(answer.headers.get("Retry-After"));
  throw new Failure(told.error ?? "other", told.message ?? "", answer.status, wait > 0 ? wait : null);
}
