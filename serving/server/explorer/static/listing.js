// A list of ranked rows that is walked with the arrow keys; long ones are drawn piece by piece.

import { fill, h, moved, unique } from "./dom.js";
import { cell, count, name, score, telling } from "./words.js";

const PIECE = 100; // rows drawn at once

/** Make the list; `select(id)` is called as one moves, `open()` on Enter or a click. */
export function listing({ label, select, open }) {
  const element = h("ol", { class: "listing", role: "listbox", tabindex: 0, "aria-label": label });
  let results = [];
  let make = null;
  let options = [];
  let drawing = 0;

  /** Draw rows; `row(result)` makes the parts of one. */
  function show(given, row, chosen) {
    cancelAnimationFrame(drawing);
    results = given;
    make = row;
    options = [];
    fill(element);
    element.scrollTop = 0;
    draw(PIECE);
    mark(chosen);
  }

  function draw(upTo) {
    const fragment = document.createDocumentFragment();
    for (const result of results.slice(options.length, upTo)) {
      const option = h(
        "li",
        { role: "option", id: unique("result"), "aria-selected": "false", "data-id": result.id },
        make(result),
      );
      option.setAttribute("aria-posinset", options.length + 1);
      option.setAttribute("aria-setsize", results.length);
      options.push(option);
      fragment.append(option);
    }
    element.append(fragment);
    if (options.length < results.length)
      drawing = requestAnimationFrame(() => draw(options.length + PIECE));
  }

  /** Show which row is chosen. */
  function mark(id) {
    const place = results.findIndex((result) => String(result.id) === String(id));
    if (place >= options.length) draw(place + 1);
    element.querySelector('[aria-selected="true"]')?.setAttribute("aria-selected", "false");
    const option = id === null ? null : options[place];
    if (!option) {
      element.removeAttribute("aria-activedescendant");
      return;
    }
    option.setAttribute("aria-selected", "true");
    element.setAttribute("aria-activedescendant", option.id);
    option.scrollIntoView({ block: "nearest" });
  }

  element.addEventListener("click", (event) => {
    const place = options.indexOf(event.target.closest("li"));
    if (place < 0) return;
    select(results[place].id);
    open?.();
  });
  element.addEventListener("keydown", (event) => {
    const chosen = options.findIndex((option) => option.getAttribute("aria-selected") === "true");
    const place = moved(event, chosen, results.length);
    if (place !== null) {
      event.preventDefault();
      select(results[place].id);
    } else if (event.key === "Enter" && chosen >= 0) {
      event.preventDefault();
      open?.();
    }
  });
  return { element, show, mark };
}

/** The parts of a row: its rank, its name, its columns, its score, and maybe how it has moved. */
export function ranked(schema, side, { span = null } = {}) {
  const given = schema[side];
  const columns = telling(given).filter((column) => column !== given.label);
  return (result, rank, extra = null) => {
    const facts = columns
      .filter((column) => ![null, undefined].includes(result.columns[column]))
      .map((column) =>
        h(
          "span",
          { class: "fact" },
          h("span", { class: "key" }, column),
          cell(result.columns[column]),
        ),
      );
    const meter = span === null ? null : bar(result.score, span);
    return [
      h("span", { class: "rank" }, count(rank)),
      h(
        "span",
        { class: "what" },
        h("span", { class: "name" }, name(side, result, schema)),
        h(
          "span",
          { class: "facts" },
          given.label ? h("span", { class: "fact id" }, String(result.id)) : null,
          facts,
        ),
      ),
      extra,
      h("span", { class: "score" }, score(result.score), meter),
    ];
  };
}

function bar(value, { low, high }) {
  const inner = h("span", {});
  const from = Math.min(0, low);
  const share = high > from ? (value - from) / (high - from) : 1;
  inner.style.setProperty("width", `${Math.max(3, 100 * share).toFixed(1)}%`);
  return h("span", { class: "meter", "aria-hidden": "true" }, inner);
}

/** Make two lists side by side; `heads` are what stands above them, at first their labels. */
export function twoListings(labels, { select, open }) {
  const lists = labels.map((label) => listing({ label, select, open }));
  const heads = labels.map((label) => h("h3", {}, label));
  const columns = lists.map((list, number) => h("div", {}, heads[number], list.element));
  return { lists, heads, element: h("div", { class: "sides" }, columns) };
}
