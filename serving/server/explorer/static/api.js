// Requests to the server. Paths are relative to the page, so that a proxy may put it anywhere.

import { decode, encode } from "./json.js";

const OPENING = 120_000; // ms that a version may take to be opened

export class ApiError extends Error {
  constructor(message, { status, code }) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Send a request and read the answer; throws ApiError with the server's own message. */
export async function request(method, path, { body, signal } = {}) {
  let response;
  let text;
  try {
    response = await fetch(new URL(path, document.baseURI), {
      method,
      signal,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : encode(body),
    });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is it still running?", { status: 0 });
  }
  const content = read(text);
  if (response.ok && content !== undefined) return content;
  const { code, message } = content?.error ?? {};
  throw new ApiError(message ?? `The server answered ${response.status}.`, {
    status: response.status,
    code,
  });
}

/** As `request`, asking again while the server is busy opening a version. */
export async function patient(method, path, options) {
  const until = Date.now() + OPENING;
  for (;;) {
    try {
      return await request(method, path, options);
    } catch (error) {
      if (error.status !== 503 || Date.now() > until) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000));
      options.signal?.throwIfAborted();
    }
  }
}

const rows = new Map();

/** What is known of users or items, by id as text; asks only for what has not been asked before. */
export async function lookup(side, ids, { signal } = {}) {
  const missing = ids.filter((id) => !rows.has(key(side, id))).slice(0, 1000);
  if (missing.length) {
    const path = `v1/explorer/lookup/${side}`;
    const answer = await request("POST", path, { body: { ids: missing }, signal });
    for (const id of missing) rows.set(key(side, id), null);
    answer.results.forEach((row) => remember(side, row));
  }
  return new Map(ids.map((id) => [String(id), rows.get(key(side, id)) ?? null]));
}

/** Keep a row that has come with another answer. */
export function remember(side, row) {
  rows.set(key(side, row.id), row);
}

/** Forget what is known: another version answers. */
export function forget() {
  rows.clear();
}

function key(side, id) {
  return `${side} ${id}`;
}

function read(text) {
  try {
    return decode(text);
  } catch {
    return undefined;
  }
}
