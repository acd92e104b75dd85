// What is shown, kept in the URL's hash so that a view can be shared.

import { decode, encode } from "./json.js";

export const VIEWS = ["explore", "stages", "compare", "versions"];

const START = Object.freeze({
  view: "explore",
  direction: "u2i",
  id: null, // of a known source
  features: null, // of one that is described
  k: 20,
  exclude_seen: true,
  min_score: null,
  exclude: [],
  where: null,
  select: null, // the id of the chosen target
  other: null, // the version to compare with
  version: null, // whose report is shown
});

const isId = (value) => ["string", "number", "bigint"].includes(typeof value);
const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isCount = (value) => Number.isInteger(value) && value > 0;
const CHECKS = {
  direction: (value) => /^[ui]2[ui]$/.test(value),
  id: isId,
  features: isRecord,
  k: isCount,
  exclude_seen: (value) => typeof value === "boolean",
  min_score: (value) => typeof value === "number",
  exclude: (value) => Array.isArray(value) && value.every(isId),
  where: isRecord,
  select: isId,
  other: isCount,
  version: isCount,
};

let state = read(location.hash);
const listeners = [];

/** The state; never changed in place. */
export function current() {
  return state;
}

/** Call a function after each change. */
export function listen(listener) {
  listeners.push(listener);
}

/** Change some of the state; `push` makes it a step that the browser's Back undoes. */
export function update(changes, { push = false } = {}) {
  const next = { ...state, ...changes };
  const hash = write(next);
  if (hash === write(state)) return;
  state = next;
  if (push) history.pushState(null, "", hash);
  else history.replaceState(null, "", hash);
  listeners.forEach((listener) => listener(state));
}

/** Whether a direction is from users, or to users. */
export function sides(direction) {
  const names = { u: "user", i: "item" };
  return { source: names[direction[0]], target: names[direction[2]] };
}

/** The source as a request has it; null where none is chosen. */
export function source({ id, features }) {
  if (id !== null) return { id };
  return features === null ? null : { features };
}

/** The retrieval request of the state. */
export function query(chosen, columns) {
  return {
    ...source(chosen),
    k: chosen.k,
    exclude: chosen.exclude.length ? chosen.exclude : undefined,
    exclude_seen: (chosen.exclude_seen && canHaveSeen(chosen.direction)) || undefined,
    where: chosen.where ?? undefined,
    min_score: chosen.min_score ?? undefined,
    columns,
  };
}

/** Whether a source and a target of a direction can have seen each other. */
export function canHaveSeen(direction) {
  return direction[0] !== direction[2];
}

function write(chosen) {
  const { view, ...rest } = chosen;
  const given = Object.entries(rest).filter(
    ([name, value]) => encode(value) !== encode(START[name]),
  );
  const text = given.map(([name, value]) => {
    const plain = name === "direction" ? value : encode(value);
    return `${name}=${encodeURIComponent(plain)}`;
  });
  return `#${view}${text.length ? `?${text.join("&")}` : ""}`;
}

/** Read a hash; what it has that cannot be used is passed over. */
function read(hash) {
  const [view, text = ""] = hash.replace(/^#/, "").split(/\?(.*)/s);
  const found = { ...START };
  if (VIEWS.includes(view)) found.view = view;
  for (const [name, raw] of new URLSearchParams(text)) {
    if (!(name in CHECKS)) continue;
    let value = raw;
    try {
      value = name === "direction" ? raw : decode(raw);
    } catch {
      continue;
    }
    if (CHECKS[name](value)) found[name] = value;
  }
  if (found.id !== null) found.features = null;
  return found;
}

window.addEventListener("popstate", () => {
  state = read(location.hash);
  listeners.forEach((listener) => listener(state));
});
