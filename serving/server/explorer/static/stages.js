// The items of one user in recall's order and in the ranker's, side by side.

import { request } from "./api.js";
import { debounced, fill, h } from "./dom.js";
import { encode } from "./json.js";
import { ranked, twoListings } from "./listing.js";
import { current, query, source, update } from "./state.js";
import { blank, failure, waiting } from "./status.js";
import { count, telling } from "./words.js";

/** Make the panel. */
export function stagesPanel({ schema, open, say, answered, examples }) {
  const select = (id) => update({ select: id });
  const pair = twoListings(["By recall", "By the ranker"], { select, open });
  const { lists, heads } = pair;
  const instead = h("div", {});
  const element = h(
    "section",
    { class: "results compare", "aria-label": "Two stages" },
    h("header", {}, h("h2", {}, "Recall and ranking")),
    pair.element,
    instead,
  );
  let asked = null;
  let shownFor = "";

  function sync(state, { again = false } = {}) {
    const isAsked = state.direction === "u2i" && schema().ranker && source(state) !== null;
    const body = isAsked ? query(state, telling(schema().item)) : null;
    const wanted = `${state.direction} ${encode(body)} ${schema().version}`;
    if (wanted === shownFor && !again) {
      lists.forEach((list) => list.mark(state.select));
      return;
    }
    shownFor = wanted;
    asked?.abort();
    if (body === null) put(nothingAsked(state));
    else ask(body);
  }

  const ask = debounced(60, async ({ min_score: least, ...body }) => {
    asked?.abort();
    asked = new AbortController();
    const { signal } = asked;
    const timer = setTimeout(() => put(waiting("Recalling and ranking…")), 150);
    try {
      const [first, second] = await Promise.all([
        request("POST", "v1/retrieve/u2i", { body: { ...body, min_score: least }, signal }),
        request("POST", "v1/recommend", { body, signal }),
      ]);
      if (!signal.aborted) show(first, second);
    } catch (error) {
      if (error.name !== "AbortError") put(failure(error, () => sync(current(), { again: true })));
    } finally {
      clearTimeout(timer);
    }
  });

  function show(first, second) {
    const ranks = new Map(second.results.map((one, place) => [String(one.id), place + 1]));
    const row = ranked(schema(), "item");
    heads[1].textContent = `By the ranker (${second.ranker})`;
    draw(lists[0], first.results, (one, rank) => row(one, rank, becomes(ranks.get(String(one.id)))));
    draw(lists[1], second.results, (one, rank) => row(one, rank, moved(one.recall_rank, rank)));
    const kept = first.results.filter((one) => ranks.has(String(one.id))).length;
    say(`${count(kept)} of ${count(first.results.length)} are in both lists`);
    put(null);
    answered(second.version);
  }

  function draw(list, results, row) {
    const places = new Map(results.map((one, place) => [one, place + 1]));
    list.show(results, (one) => row(one, places.get(one)), current().select);
  }

  function nothingAsked(state) {
    if (!schema().ranker)
      return blank("This version has no ranker", "The command fm-recall rank adds one.");
    if (state.direction !== "u2i")
      return blank("The ranker orders items for users", "Choose “Items for a user”.");
    return blank("Choose a user", "Both stages will be shown for the same.", examples("user"));
  }

  function put(what) {
    pair.element.hidden = what !== null;
    fill(instead, what);
  }

  return { element, sync };
}

/** The rank that the second stage gives to a row of the first. */
function becomes(rank) {
  if (rank === undefined)
    return h("span", { class: "change gone", title: "not among the ranker's results" }, "out");
  return h("span", { class: "change same", title: `rank ${rank} by the ranker` }, `#${rank}`);
}

/** How far the second stage has moved a row. */
function moved(before, rank) {
  const title = `rank ${before} by recall`;
  if (before === rank) return h("span", { class: "change same", title }, "=");
  const up = before > rank;
  const text = `${up ? "▲" : "▼"}${Math.abs(before - rank)}`;
  return h("span", { class: `change ${up ? "up" : "down"}`, title }, text);
}
