// A text field that searches users or items while one types.

import { remember, request } from "./api.js";
import { debounced, fill, h, moved, unique } from "./dom.js";
import { cell, count, name, telling } from "./words.js";

const SHOWN = 12;

/** Make the field; `pick(row)` is called with what is chosen. `schema()` is the server's. */
export function combobox({ side, schema, pick, label, placeholder }) {
  const list = h("ul", {
    class: "options",
    role: "listbox",
    id: unique("options"),
    "aria-label": label,
  });
  const note = h("p", { class: "note", role: "status" });
  const popup = h("div", { class: "popup", hidden: true }, list, note);
  const input = h("input", {
    type: "search",
    role: "combobox",
    autocomplete: "off",
    spellcheck: "false",
    placeholder,
    "aria-label": label,
    "aria-controls": list.id,
    "aria-expanded": "false",
    "aria-autocomplete": "list",
  });
  let found = [];
  let place = -1;
  let asked = null;

  function show(is) {
    popup.hidden = !is;
    input.setAttribute("aria-expanded", String(is));
    if (!is) move(-1);
  }

  function move(to) {
    place = to;
    [...list.children].forEach((option, number) => {
      option.setAttribute("aria-selected", String(number === place));
    });
    const option = list.children[place];
    if (option) {
      input.setAttribute("aria-activedescendant", option.id);
      option.scrollIntoView({ block: "nearest" });
    } else input.removeAttribute("aria-activedescendant");
  }

  function choose(row) {
    asked?.abort();
    input.value = "";
    show(false);
    pick(row);
  }

  async function search() {
    asked?.abort();
    asked = new AbortController();
    const { signal } = asked;
    const text = input.value.trim();
    try {
      const parameters = new URLSearchParams({ q: text, limit: SHOWN });
      const answer = await request("GET", `v1/explorer/search/${side()}?${parameters}`, { signal });
      if (signal.aborted || document.activeElement !== input) return;
      found = answer.results;
      found.forEach((row) => remember(side(), row));
      fill(list, found.map(option));
      const more = answer.total - found.length;
      note.textContent = !found.length
        ? `No ${side()} matches “${text}”.`
        : more > 0
          ? `and ${count(more)} more`
          : "";
      note.className = "note";
      move(text && found.length ? 0 : -1);
    } catch (error) {
      if (error.name === "AbortError") return;
      found = [];
      fill(list);
      note.textContent = error.message;
      note.className = "note bad";
    }
    show(true);
  }

  function option(row) {
    const given = schema();
    const rest = telling(given[side()], 4).filter((column) => column !== given[side()].label);
    const detail = rest.map((column) => cell(row.columns[column])).join(" · ");
    const called = name(side(), row, given);
    return h(
      "li",
      { role: "option", id: unique("option"), onclick: () => choose(row) },
      h("span", { class: "name" }, called),
      h("span", { class: "soft" }, given[side()].label ? `${row.id} · ${detail}` : detail),
    );
  }

  const later = debounced(120, search);
  input.addEventListener("input", later);
  input.addEventListener("focus", search);
  input.addEventListener("blur", () => {
    asked?.abort();
    show(false);
  });
  popup.addEventListener("pointerdown", (event) => event.preventDefault()); // keeps the focus
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !popup.hidden && found[place]) {
      event.preventDefault();
      choose(found[place]);
    } else if (event.key === "Escape" && !popup.hidden) {
      event.stopPropagation();
      event.preventDefault();
      show(false);
    } else if (["ArrowDown", "ArrowUp"].includes(event.key)) {
      event.preventDefault();
      if (popup.hidden) search();
      else move(moved(event, place, found.length) ?? place);
    }
  });
  return h("div", { class: "combobox" }, input, popup);
}
