// The answer to the question that the panels ask.

import { lookup, request } from "./api.js";
import { button, debounced, fill, h } from "./dom.js";
import { encode } from "./json.js";
import { listing, ranked } from "./listing.js";
import { current, query, sides, source, update } from "./state.js";
import { blank, failure, waiting } from "./status.js";
import { called, count, DIRECTIONS, found, telling } from "./words.js";

const SLOW = 150; // ms after which an answer is shown to be on its way

/** Make the panel; `open` shows the details, `say` speaks, `answered(version)` is told who did. */
export function resultsPanel({ schema, open, say, answered, examples }) {
  const title = h("h2", {});
  const about = h("p", { class: "soft" });
  const copy = button("Copy as curl", copyRequest, { class: "quiet" });
  const list = listing({ label: "Results", select: (id) => update({ select: id }), open });
  const instead = h("div", {});
  const element = h(
    "section",
    { class: "results", "aria-label": "Results" },
    h("header", { class: "split" }, h("div", {}, title, about), copy),
    list.element,
    instead,
  );
  let asked = null;
  let shownFor = "";
  let results = [];

  function sync(state, { again = false } = {}) {
    const body = source(state) === null ? null : query(state, columns(state));
    const wanted = `${state.direction} ${encode(body)} ${schema().version}`;
    if (wanted === shownFor && !again) {
      list.mark(state.select);
      return;
    }
    shownFor = wanted;
    asked?.abort();
    if (body === null) nothingAsked(state);
    else ask(state, body);
  }

  const columns = ({ direction }) => telling(schema()[sides(direction).target]);

  async function run(state, body) {
    asked?.abort();
    asked = new AbortController();
    const { signal } = asked;
    const timer = setTimeout(() => put(waiting("Searching…")), SLOW);
    const began = performance.now();
    try {
      const answer = await request("POST", `v1/retrieve/${state.direction}`, { body, signal });
      const ms = performance.now() - began;
      const heading = await titleOf(state);
      if (!signal.aborted) show(state, answer, { ms, heading });
    } catch (error) {
      if (error.name === "AbortError") return;
      headline("No answer", "");
      copy.hidden = true;
      results = [];
      put(failure(error, () => sync(current(), { again: true })));
    } finally {
      clearTimeout(timer);
    }
  }
  const ask = debounced(60, run);

  /** The title: with the name of the source, where it is known. */
  async function titleOf(state) {
    const side = sides(state.direction).source;
    if (state.id === null) return found(state.direction, `a new ${side}`);
    const row = await lookup(side, [state.id]).then(
      (rows) => rows.get(String(state.id)),
      () => null,
    );
    return found(
      state.direction,
      row === null ? `${side} ${state.id}` : called(side, row, schema()),
    );
  }

  function show(state, answer, { ms, heading }) {
    results = answer.results;
    const { target } = sides(state.direction);
    const n = results.length;
    const text = `${count(n)} ${target}${n === 1 ? "" : "s"}`;
    headline(heading, `${text} · version ${answer.version} · ${ms.toFixed(0)} ms`);
    copy.hidden = false;
    say(`${text} found`);
    if (n) {
      put(null);
      const row = ranked(schema(), target, {
        span: { low: results[n - 1].score, high: results[0].score },
      });
      const ranks = new Map(results.map((result, place) => [result, place + 1]));
      list.show(results, (result) => row(result, ranks.get(result)), current().select);
    } else {
      put(blank(`No ${target}s match`, why(state)));
    }
    answered(answer.version);
  }

  function why(state) {
    if (state.where !== null)
      return "The filter may be too narrow; widen it, or take a condition out.";
    if (state.min_score !== null) return "No score reaches the minimum; lower it.";
    return "Everything is excluded.";
  }

  function nothingAsked(state) {
    headline(DIRECTIONS[state.direction], "");
    copy.hidden = true;
    results = [];
    const side = sides(state.direction).source;
    const article = side === "user" ? "a user" : "an item";
    put(
      blank(
        `Choose ${article}`,
        `Search ${article} that the model knows, or describe a new one by features${side === "user" ? " and a few items" : ""}.`,
        examples(side),
      ),
    );
  }

  function headline(text, more) {
    title.textContent = text;
    about.textContent = more;
  }

  function put(what) {
    list.element.hidden = what !== null;
    fill(instead, what);
  }

  async function copyRequest() {
    const state = current();
    const body = encode(query(state, columns(state)));
    const url = new URL(`v1/retrieve/${state.direction}`, document.baseURI);
    const quoted = body.replaceAll("'", "'\\''");
    const text = `curl ${url} -H 'Content-Type: application/json' -d '${quoted}'`;
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "The browser does not let pages copy here";
    }
    setTimeout(() => {
      copy.textContent = "Copy as curl";
    }, 1500);
  }

  return { element, sync, focus: () => list.element.focus() };
}
