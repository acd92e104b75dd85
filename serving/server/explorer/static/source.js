// The source: a user or an item that is known, or one that is described.

import { lookup, request } from "./api.js";
import { combobox } from "./combobox.js";
import { describer } from "./describe.js";
import { button, fill, h } from "./dom.js";
import { encode } from "./json.js";
import { current, sides, update } from "./state.js";
import { capital, cell, count, name } from "./words.js";

const LONGEST_HISTORY = 200;

/** Make the panel. */
export function sourcePanel(schema) {
  const side = () => sides(current().direction).source;
  let tab = current().features === null ? "known" : "new";
  let shown = null; // what the card shows
  const heading = h("h2", {});
  const tabs = {
    known: button("Known", () => open("known"), { class: "tab" }),
    new: button("New", () => open("new"), { class: "tab" }),
  };
  const card = h("div", { class: "card", hidden: true });
  const search = h("div", {});
  const known = h("div", {}, search, card);
  const describe = describer(schema);
  const element = h(
    "section",
    { class: "panel", "aria-label": "Source" },
    h(
      "div",
      { class: "split" },
      heading,
      h("div", { class: "tabs", role: "group" }, tabs.known, tabs.new),
    ),
    known,
    describe.element,
  );
  let searched = null;

  function open(chosen) {
    tab = chosen;
    if (chosen === "new" && current().features === null) {
      update({ id: null, features: {}, select: null }, { push: true });
    }
    sync(current());
    if (chosen === "known") search.querySelector("input").focus();
  }

  function sync(state) {
    const here = side();
    if (state.id !== null) tab = "known";
    else if (state.features !== null && shown?.features !== encode(state.features)) tab = "new";
    shown = { features: state.features === null ? null : encode(state.features) };
    heading.textContent = capital(here);
    for (const [label, one] of Object.entries(tabs)) {
      one.setAttribute("aria-pressed", String(label === tab));
    }
    known.hidden = tab !== "known";
    describe.element.hidden = tab !== "new";
    if (searched !== here) {
      searched = here;
      const given = schema()[here];
      const placeholder = given.label
        ? `Search by ${given.label} or id`
        : `Search by ${given.id} or text`;
      fill(search, combobox({ side, schema, pick, label: `Search ${here}s`, placeholder }));
    }
    describe.sync(state);
    showCard(state, here);
  }

  function pick(row) {
    update({ id: row.id, features: null, select: null }, { push: true });
  }

  let cardOf = "";
  async function showCard(state, here) {
    const wanted = state.id === null ? "" : `${schema().version} ${here} ${state.id}`;
    if (wanted === cardOf) return;
    cardOf = wanted;
    card.hidden = !wanted;
    if (!wanted) return;
    fill(card, h("p", { class: "soft" }, "…"));
    try {
      const row = (await lookup(here, [state.id])).get(String(state.id));
      if (wanted !== cardOf) return;
      if (row === null) fill(card, h("p", { class: "bad" }, `There is no ${here} ${state.id}.`));
      else fill(card, ...cardParts(here, row));
    } catch (error) {
      if (wanted === cardOf) fill(card, h("p", { class: "bad" }, error.message));
    }
  }

  function cardParts(here, row) {
    const given = schema()[here];
    const columns = given.columns.filter((column) => column.name !== given.label);
    const facts = h(
      "dl",
      { class: "facts" },
      columns.map((column) => [
        h("dt", {}, column.name),
        h("dd", {}, cell(row.columns[column.name])),
      ]),
    );
    return [
      h("h3", {}, name(here, row, schema())),
      given.label ? h("p", { class: "soft" }, `${given.id} ${row.id}`) : null,
      facts,
      here === "user" ? pastItems(row) : null,
      button(`Edit as a new ${here}`, () => edit(here, row), { class: "quiet" }),
    ];
  }

  function pastItems(row) {
    const body = h("div", {}, h("p", { class: "soft" }, "…"));
    const details = h("details", {}, h("summary", {}, "History"), body);
    details.addEventListener("toggle", async () => {
      if (!details.open || details.dataset.loaded) return;
      details.dataset.loaded = "yes";
      try {
        const past = await history(row.id);
        details.firstChild.textContent = `History: ${count(past.total)} items`;
        fill(
          body,
          past.items.length
            ? h(
                "ol",
                { class: "past" },
                past.items.map((item) =>
                  h(
                    "li",
                    {},
                    button(name("item", item, schema()), () => similar(item), { class: "link" }),
                  ),
                ),
              )
            : h("p", { class: "soft" }, "None in training."),
        );
      } catch (error) {
        fill(body, h("p", { class: "bad" }, error.message));
      }
    });
    return details;
  }

  function similar(item) {
    update({ direction: "i2i", id: item.id, features: null, select: null }, { push: true });
  }

  function history(id, name) {
    const of = name === undefined ? "" : `&name=${encodeURIComponent(name)}`;
    const path = `v1/explorer/history/${encodeURIComponent(id)}`;
    return request("GET", `${path}?limit=${LONGEST_HISTORY}${of}`);
  }

  async function edit(here, row) {
    const features = {};
    try {
      for (const feature of schema()[here].features) {
        if (feature.name === schema()[here].id) continue; // the new one is another
        let value = row.columns[feature.name] ?? null;
        if (feature.kind === "history") {
          value = (await history(row.id, feature.name)).items.map((item) => item.id);
        }
        if (value !== null && (!Array.isArray(value) || value.length))
          features[feature.name] = value;
      }
    } catch (error) {
      fill(card, h("p", { class: "bad", role: "alert" }, error.message));
      return;
    }
    update({ id: null, features, select: null }, { push: true });
  }

  return { element, sync };
}
