// Which targets are wanted: how many, which not, and by which filter.

import { lookup } from "./api.js";
import { chips } from "./chips.js";
import { combobox } from "./combobox.js";
import { debounced, field, fill, h } from "./dom.js";
import { filterBuilder } from "./filter.js";
import { encode } from "./json.js";
import { canHaveSeen, current, sides, update } from "./state.js";
import { name } from "./words.js";

/** Make the panel. */
export function optionsPanel(schema) {
  const target = () => sides(current().direction).target;
  const k = h("input", { type: "number", min: 1, step: 1, inputmode: "numeric" });
  const least = h("input", {
    type: "text",
    inputmode: "decimal",
    placeholder: "none",
    spellcheck: "false",
  });
  const seen = h("input", { type: "checkbox", id: "exclude-seen" });
  const seenLabel = h(
    "label",
    { class: "check", for: seen.id },
    seen,
    h("span", {}, "Exclude seen"),
  );
  const excluded = chips("Excluded", (id) =>
    exclude(current().exclude.filter((one) => one !== id)),
  );
  const picker = h("div", {});
  const filter = filterBuilder(schema);
  const filterTitle = h("summary", {}, "Filter");
  const isWide = window.matchMedia("(min-width: 761px)").matches;
  const element = h(
    "details",
    { class: "panel options-panel", open: isWide },
    h("summary", {}, "Options"),
    h("div", { class: "pair" }, field("Results", k), field("Minimum score", least)),
    seenLabel,
    h(
      "div",
      { class: "field" },
      h("span", { class: "label" }, "Exclude"),
      picker,
      excluded.element,
    ),
    h("details", { class: "fold", open: current().where !== null }, filterTitle, filter.element),
  );
  let pickerOf = "";

  function exclude(ids) {
    update({ exclude: ids, select: null });
  }

  k.addEventListener(
    "input",
    debounced(250, () => {
      const n = Number(k.value);
      const isRight = Number.isInteger(n) && n >= 1 && n <= schema().max_k;
      k.setAttribute("aria-invalid", String(!isRight));
      k.title = isRight ? "" : `1 to ${schema().max_k}`;
      if (isRight) update({ k: n });
    }),
  );
  least.addEventListener(
    "input",
    debounced(250, () => {
      const isEmpty = least.value.trim() === "";
      const isRight = isEmpty || Number.isFinite(Number(least.value));
      least.setAttribute("aria-invalid", String(!isRight));
      if (isRight) update({ min_score: isEmpty ? null : Number(least.value), select: null });
    }),
  );
  seen.addEventListener("change", () => update({ exclude_seen: seen.checked, select: null }));

  async function showExcluded(state, side) {
    const write = (rows) =>
      excluded.show(
        state.exclude.map((id) => {
          const row = rows.get(String(id));
          return [id, row ? name(side, row, schema()) : String(id)];
        }),
      );
    write(new Map());
    if (!state.exclude.length) return;
    try {
      const rows = await lookup(side, state.exclude);
      if (encode(current().exclude) === encode(state.exclude)) write(rows);
    } catch {
      // The ids are there already; the request for results says what is wrong.
    }
  }

  function sync(state) {
    const side = target();
    k.max = schema().max_k;
    if (document.activeElement !== k) k.value = state.k;
    if (document.activeElement !== least) least.value = state.min_score ?? "";
    seen.checked = state.exclude_seen;
    seenLabel.hidden = !canHaveSeen(state.direction);
    filterTitle.textContent = state.where === null ? "Filter" : "Filter (on)";
    if (pickerOf !== side) {
      pickerOf = side;
      const pick = (row) => exclude([...new Set([...current().exclude, row.id])]);
      const label = `Exclude ${side === "user" ? "a user" : "an item"}`;
      fill(
        picker,
        combobox({ side: target, schema, pick, label, placeholder: `Search ${side}s to exclude` }),
      );
    }
    showExcluded(state, side);
    filter.sync(state);
  }

  return { element, sync };
}
