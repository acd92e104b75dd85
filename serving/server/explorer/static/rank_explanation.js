// Why the ranker gives an item its score: fields and pairs of fields that sum to it.

import { request } from "./api.js";
import { fill, h } from "./dom.js";
import { bar } from "./explanation.js";
import { source } from "./state.js";
import { score } from "./words.js";

const FIRST = 12; // parts that are shown

const ALONE = { bias: "what all scores share", network: "the network" };

/** Make the section; it is there only where a version has a ranker, of items for users. */
export function rankExplanation(schema) {
  const body = h("div", { "aria-live": "polite" });
  const element = h(
    "section",
    { class: "why", "aria-label": "Explanation of the ranker", hidden: true },
    h("h3", {}, "Why it is ranked so"),
    body,
  );
  let asked = null;

  async function show(state) {
    asked?.abort();
    element.hidden = !schema().ranker || state.direction !== "u2i";
    if (element.hidden) return;
    asked = new AbortController();
    const { signal } = asked;
    const asking = { ...source(state), item: state.select, limit: FIRST };
    try {
      const answer = await request("POST", "v1/explain/rank", { body: asking, signal });
      if (!signal.aborted) draw(answer);
    } catch (error) {
      if (error.name !== "AbortError") fill(body, h("p", { class: "note bad" }, error.message));
    }
  }

  function draw({ score: total, parts, rest }) {
    const widest = Math.max(...parts.map((part) => Math.abs(part.value)), Math.abs(rest));
    const others = [h("span", { class: "soft" }, "all others together")];
    fill(
      body,
      h(
        "p",
        { class: "total" },
        h("strong", {}, score(total)),
        h("span", { class: "soft" }, " in all"),
      ),
      h(
        "ul",
        { class: "bars" },
        parts.map((part) => bar(part, widest, words(part))),
        rest === 0 ? null : bar({ value: rest }, widest, others),
      ),
    );
  }

  return { element, show };
}

function words({ fields, kind, attention }) {
  const named = fields.length ? fields.join(" × ") : ALONE[kind];
  const share = attention === null ? "" : ` ${(100 * attention).toFixed(0)}% of the attention`;
  return [h("span", { class: "term" }, named), h("span", { class: "kind" }, share)];
}
