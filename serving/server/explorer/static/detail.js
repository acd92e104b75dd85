// What is known of the chosen target, why it was found, and where to go from it.

import { lookup } from "./api.js";
import { button, debounced, fill, h } from "./dom.js";
import { encode } from "./json.js";
import { current, query, sides, source, update } from "./state.js";
import { cell, name } from "./words.js";
import { explanation } from "./explanation.js";
import { rankExplanation } from "./rank_explanation.js";

/** Make the panel; `closed()` is called when it is left on a narrow window. */
export function detailPanel({ schema, closed }) {
  const title = h("h2", { tabindex: -1 });
  const close = button("Close", leave, { class: "close" });
  const facts = h("dl", { class: "facts" });
  const actions = h("div", { class: "actions" });
  const why = explanation(schema);
  const whyRank = rankExplanation(schema);
  const problem = h("p", { class: "bad", role: "alert", hidden: true });
  const empty = h(
    "p",
    { class: "hint" },
    "Choose a result to see what it is and why it was found.",
  );
  const body = h(
    "div",
    { hidden: true },
    h("header", { class: "split" }, title, close),
    problem,
    facts,
    actions,
    why.element,
    whyRank.element,
  );
  const element = h("aside", { class: "detail", "aria-label": "Chosen result" }, empty, body);
  let shown = "";

  function sync(state) {
    const isShown = state.select !== null && source(state) !== null;
    body.hidden = !isShown;
    empty.hidden = isShown;
    element.classList.toggle("chosen", isShown);
    const wanted = isShown
      ? encode([schema().version, state.direction, state.select, query(state)])
      : "";
    if (wanted === shown) return;
    shown = wanted;
    if (!isShown) return;
    fill(actions, actionsOf(sides(state.direction).target, state.select)); // at once: they act on it
    later(state, wanted);
  }

  const later = debounced(90, async (state, wanted) => {
    if (wanted !== shown) return;
    const side = sides(state.direction).target;
    why.show(state);
    whyRank.show(state);
    try {
      const row = (await lookup(side, [state.select])).get(String(state.select));
      if (wanted !== shown) return;
      problem.hidden = row !== null;
      problem.textContent = row ? "" : `The version that answers has no ${side} ${state.select}.`;
      title.textContent = row ? name(side, row, schema()) : String(state.select);
      fill(facts, row ? factsOf(side, row) : []);
    } catch (error) {
      if (wanted !== shown) return;
      problem.hidden = false;
      problem.textContent = error.message;
    }
  });

  function factsOf(side, row) {
    const given = schema()[side];
    const columns = given.columns.filter((column) => column.name !== given.label);
    return [
      [given.id, row.id],
      ...columns.map((column) => [column.name, row.columns[column.name]]),
    ].flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, cell(value))]);
  }

  function actionsOf(side, id) {
    const go = (text, direction) =>
      button(text, () =>
        update(
          { direction, id, features: null, select: null, exclude: [], where: null },
          { push: true },
        ),
      );
    const buttons =
      side === "item"
        ? [go("Similar items", "i2i"), go("Users for it", "i2u")]
        : [go("Items for them", "u2i"), go("Similar users", "u2u")];
    const history = schema().user.features.find((feature) => feature.kind === "history");
    if (side === "item" && history)
      buttons.push(button(historyText(), () => addTo(history.name, id)));
    buttons.push(
      button("Exclude", () => {
        update({ exclude: [...current().exclude, id], select: null });
        closed();
      }),
    );
    return buttons;
  }

  const describesUser = () => current().direction[0] === "u" && current().features !== null;
  const historyText = () => (describesUser() ? "Add to the history" : "New user who liked it");

  function addTo(feature, id) {
    const features = describesUser() ? current().features : {};
    const past = [features[feature] ?? []].flat();
    if (past.includes(id)) return;
    const direction = describesUser() ? current().direction : "u2i";
    const kept = describesUser() ? {} : { exclude: [], where: null };
    update(
      {
        ...kept,
        direction,
        id: null,
        features: { ...features, [feature]: [...past, id] },
        select: null,
      },
      { push: true },
    );
  }

  function leave() {
    element.classList.remove("open");
    closed();
  }

  element.addEventListener("keydown", (event) => {
    if (event.key === "Escape") leave();
  });

  return {
    element,
    sync,
    /** Go there: on a narrow window it covers the list. */
    open() {
      element.classList.add("open");
      title.focus({ preventScroll: true });
    },
    shut: () => element.classList.remove("open"),
  };
}
