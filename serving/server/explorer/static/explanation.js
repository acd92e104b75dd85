// Why a target has its score: the terms that sum to it, as diverging bars.

import { lookup, request } from "./api.js";
import { button, fill, h } from "./dom.js";
import { source } from "./state.js";
import { count, name, score, signed } from "./words.js";

const LIMIT = 200; // parts that are asked for
const FIRST = 12; // parts shown before one asks for more

const KINDS = {
  first_order: "item alone",
  item_pair: "within the item",
  user_item: "user with item",
  shared: "in both",
  similar: "across both",
};

/** Make the section. */
export function explanation(schema) {
  const body = h("div", { "aria-live": "polite" });
  const element = h(
    "section",
    { class: "why", "aria-label": "Explanation" },
    h("h3", {}, "Why this score"),
    body,
  );
  let asked = null;
  let by = "fields";
  let all = false;

  async function show(state) {
    asked?.abort();
    asked = new AbortController();
    const { signal } = asked;
    all = false;
    const target = { id: state.select };
    const asking = { direction: state.direction, source: source(state), target, limit: LIMIT };
    element.setAttribute("aria-busy", "true");
    try {
      const answer = await request("POST", "v1/explain", { body: asking, signal });
      const names = await namesIn(answer, signal);
      if (!signal.aborted) draw(answer, names);
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(body, h("p", { class: "note bad" }, isAbsent(error) ? ABSENT : error.message));
    } finally {
      if (asked.signal === signal) element.setAttribute("aria-busy", "false");
    }
  }

  /** The names of the ids among the features. */
  async function namesIn(answer, signal) {
    const sides = { user: new Set(), item: new Set() };
    for (const part of answer.parts) {
      for (const end of [part.source, part.target, part.other]) {
        if (end && end.label !== null && end.label !== undefined) sides[sideOf(end)].add(end.label);
      }
    }
    const found = {};
    for (const [side, ids] of Object.entries(sides)) {
      found[side] = ids.size ? await lookup(side, [...ids], { signal }) : new Map();
    }
    return found;
  }

  const sideOf = ({ field }) => (field === schema().user.id ? "user" : "item");

  function draw(answer, names) {
    const toggle = (key, text) =>
      button(
        text,
        () => {
          by = key;
          all = false;
          draw(answer, names);
          body.querySelector('[aria-pressed="true"]').focus();
        },
        { class: "tab", "aria-pressed": String(by === key) },
      );
    const parts = by === "fields" ? answer.fields : answer.parts;
    const widest = Math.max(...parts.map((part) => Math.abs(part.value)), Number.MIN_VALUE);
    const shown = all ? parts : parts.slice(0, FIRST);
    const rest =
      parts.slice(shown.length).reduce((sum, part) => sum + part.value, 0) +
      (by === "parts" ? answer.rest : 0);
    const hidden = parts.length - shown.length;
    const rows = shown.map((part) =>
      bar(part, widest, by === "fields" ? fieldWords(part) : partWords(part, names)),
    );
    fill(
      body,
      h(
        "div",
        { class: "split" },
        h(
          "p",
          { class: "total" },
          h("strong", {}, score(answer.score)),
          h("span", { class: "soft" }, " in all"),
        ),
        h(
          "div",
          { class: "tabs", role: "group", "aria-label": "Group by" },
          toggle("fields", "By field"),
          toggle("parts", "By part"),
        ),
      ),
      h(
        "ul",
        { class: "bars" },
        rows,
        rest !== 0
          ? bar({ value: rest }, Math.max(widest, Math.abs(rest)), [
              h("span", { class: "soft" }, "all others together"),
            ])
          : null,
      ),
      hidden > 0
        ? button(
            `Show ${count(hidden)} more`,
            () => {
              all = true;
              draw(answer, names);
            },
            { class: "quiet" },
          )
        : null,
    );
  }

  function partWords(part, names) {
    const end = (given) => {
      const known =
        given.label === null || given.label === undefined
          ? null
          : names[sideOf(given)]?.get(String(given.label));
      const text = known ? name(sideOf(given), known, schema()) : given.token;
      return h(
        "span",
        { class: "term" },
        h("span", { class: "soft" }, `${given.field} `),
        String(text),
      );
    };
    return joined(endsOf(part).map(end), part.kind);
  }

  return { element, show };
}

function fieldWords(part) {
  return joined(
    endsOf(part).map((field) => h("span", { class: "term" }, field)),
    part.kind,
  );
}

/** What a part is of; what both sides share is named once. */
function endsOf({ kind, source: from, target, other }) {
  return kind === "shared" ? [target] : [from, target, other].filter(Boolean);
}

function joined(terms, kind) {
  const parts = terms.flatMap((term, place) =>
    place ? [h("span", { class: "soft" }, " × "), term] : [term],
  );
  return [...parts, " ", h("span", { class: "kind" }, KINDS[kind] ?? kind)];
}

/** One bar, from the middle to the right where it adds and to the left where it takes away. */
export function bar({ value }, widest, words) {
  const fillOf = h("span", { class: value >= 0 ? "plus" : "minus" });
  fillOf.style.setProperty("width", `${(50 * Math.min(1, Math.abs(value) / widest)).toFixed(2)}%`);
  return h(
    "li",
    {},
    h("span", { class: "words" }, words),
    h("span", { class: "track", "aria-hidden": "true" }, fillOf),
    h("span", { class: "value" }, signed(value)),
  );
}

const ABSENT =
  "This server does not explain scores: it has no /v1/explain. A newer fm-recall does.";

function isAbsent({ status, message }) {
  return status === 404 && message.includes("/v1/explain");
}
