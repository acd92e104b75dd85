// Two versions' answers to one question, side by side.

import { patient } from "./api.js";
import { debounced, field, fill, h } from "./dom.js";
import { encode } from "./json.js";
import { ranked, twoListings } from "./listing.js";
import { current, query, sides, source, update } from "./state.js";
import { blank, failure, waiting } from "./status.js";
import { count, telling } from "./words.js";

/** Make the panel. `versions()` are those that are published. */
export function comparePanel({ schema, versions, open, say, answered, examples }) {
  const other = h("select", {});
  const figures = h("dl", { class: "figures", "aria-label": "What changed" });
  const select = (id) => update({ select: id });
  const pair = twoListings(["The version that answers", "The other version"], { select, open });
  const { lists, heads } = pair;
  const instead = h("div", {});
  const element = h(
    "section",
    { class: "results compare", "aria-label": "Comparison" },
    h("header", { class: "split" }, h("h2", {}, "Compare versions"), field("Compare with", other)),
    figures,
    pair.element,
    instead,
  );
  let asked = null;
  let shownFor = "";

  other.addEventListener("change", () => update({ other: Number(other.value) }));

  function sync(state, { again = false } = {}) {
    const others = versions().filter((one) => one.version !== schema().version && one.readable);
    fill(
      other,
      others.map((one) =>
        h(
          "option",
          { value: one.version },
          `version ${one.version}, ${one.created.slice(0, 16).replace("T", " ")}`,
        ),
      ),
    );
    other.disabled = !others.length;
    const chosen = others.some((one) => one.version === state.other)
      ? state.other
      : (others[0]?.version ?? null);
    if (chosen !== null) other.value = chosen;
    const names = telling(schema()[sides(state.direction).target]);
    const body =
      source(state) === null || chosen === null
        ? null
        : { ...query(state, names), direction: state.direction, other: chosen };
    const wanted = `${encode(body)} ${schema().version} ${others.length}`;
    if (wanted === shownFor && !again) {
      lists.forEach((list) => list.mark(state.select));
      return;
    }
    shownFor = wanted;
    asked?.abort();
    if (chosen === null) {
      put(
        blank(
          "There is one version only",
          "Once another is published, what has changed for a user is seen here.",
        ),
      );
    } else if (body === null) {
      const side = sides(state.direction).source;
      put(
        blank(
          `Choose ${side === "user" ? "a user" : "an item"}`,
          "Both versions will be asked for the same.",
          examples(side),
        ),
      );
    } else ask(body);
  }

  const ask = debounced(60, async (body) => {
    asked?.abort();
    asked = new AbortController();
    const { signal } = asked;
    const timer = setTimeout(() => put(waiting(`Opening version ${body.other}…`)), 150);
    try {
      const answer = await patient("POST", "v1/explorer/compare", { body, signal });
      if (!signal.aborted) show(answer);
    } catch (error) {
      if (error.name !== "AbortError") put(failure(error, () => sync(current(), { again: true })));
    } finally {
      clearTimeout(timer);
    }
  });

  function show(answer) {
    const { target } = sides(answer.direction);
    const both = answer.results.length - answer.new.length;
    const deltas = answer.results
      .filter((one) => one.other_rank !== null && !answer.new.some((id) => id === one.id))
      .map((one) => Math.abs(one.other_rank - one.rank));
    const mean = deltas.length ? deltas.reduce((sum, delta) => sum + delta, 0) / deltas.length : 0;
    fill(
      figures,
      [
        ["in both lists", `${count(both)} of ${count(answer.results.length)}`],
        ["moved", count(answer.moved.length)],
        ["new", count(answer.new.length)],
        ["gone", count(answer.gone.length)],
        ["mean change of rank", mean.toFixed(1)],
      ].map(([key, value]) => h("div", {}, h("dt", {}, key), h("dd", {}, value))),
    );
    heads[0].textContent = `Version ${answer.version}, which answers`;
    heads[1].textContent = `Version ${answer.other}`;
    const row = ranked(schema(), target);
    lists[0].show(
      answer.results,
      (one) => row(one, one.rank, change(one, answer, "new")),
      current().select,
    );
    lists[1].show(
      answer.other_results,
      (one) => row(one, one.rank, change(one, answer, "gone")),
      current().select,
    );
    say(
      `${both} of ${answer.results.length} in both lists, ${answer.new.length} new, ${answer.gone.length} gone`,
    );
    put(null);
    answered(answer.version);
  }

  /** How a row of one list has moved against the other. */
  function change({ id, rank, other_rank: before }, { reach, ...answer }, absent) {
    if (answer[absent].some((one) => one === id)) {
      const where =
        before === null
          ? `not among the first ${reach} of the other version`
          : `rank ${before} of the other version`;
      return h(
        "span",
        { class: `change ${absent}`, title: where },
        absent === "new" ? "new" : "gone",
        h("small", {}, before === null ? ` >${reach}` : ` #${before}`),
      );
    }
    const up = absent === "new" ? before - rank : rank - before;
    if (absent === "gone")
      return h(
        "span",
        { class: "change same", title: `rank ${before} of the version that answers` },
        `#${before}`,
      );
    if (!up) return h("span", { class: "change same", title: "the same rank" }, "=");
    const text = `${up > 0 ? "▲" : "▼"}${Math.abs(up)}`;
    return h(
      "span",
      { class: `change ${up > 0 ? "up" : "down"}`, title: `from rank ${before}` },
      text,
    );
  }

  function put(what) {
    pair.element.hidden = figures.hidden = what !== null;
    fill(instead, what);
  }

  return { element, sync };
}
