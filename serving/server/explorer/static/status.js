// What stands in for results: nothing asked yet, on its way, nothing found, or an error.

import { button, h } from "./dom.js";

/** Words in place of results. */
export function blank(title, text, ...more) {
  return h("div", { class: "blank" }, h("h3", {}, title), h("p", {}, text), ...more);
}

/** Grey rows while an answer is on its way. */
export function waiting(text, n = 8) {
  const rows = Array.from({ length: n }, () => h("div", { class: "ghost" }));
  return h(
    "div",
    { class: "waiting", role: "status" },
    h("p", {}, text),
    h("div", { "aria-hidden": "true" }, rows),
  );
}

/** The server's own words about what went wrong, and a way to try again. */
export function failure(error, retry) {
  const title = { 404: "Not found", 429: "The server is busy", 503: "No version is loaded" }[
    error.status
  ];
  return h(
    "div",
    { class: "blank failed", role: "alert" },
    h("h3", {}, title ?? "That did not work"),
    h("p", {}, error.message),
    button("Try again", retry),
  );
}
