// A form for the features of a user or an item that nobody has seen.

import { lookup, remember } from "./api.js";
import { chips } from "./chips.js";
import { combobox } from "./combobox.js";
import { debounced, field, fill, h, unique } from "./dom.js";
import { encode, parseInteger } from "./json.js";
import { current, sides, update } from "./state.js";
import { cell, name } from "./words.js";

/** Make the form; what is typed is asked at once. */
export function describer(schema) {
  const side = () => sides(current().direction).source;
  const element = h("form", {
    class: "describe",
    "aria-label": "Features",
    onsubmit: (event) => event.preventDefault(),
  });
  let built = "";
  let written = "{}"; // the features as this form has last set them
  let controls = new Map();

  function set(name, value) {
    const features = { ...(current().features ?? {}) };
    const isEmpty = value === null || (Array.isArray(value) && !value.length);
    if (isEmpty) delete features[name];
    else features[name] = value;
    written = encode(features);
    update({ id: null, features, select: null });
  }

  function sync(state) {
    const here = side();
    const wanted = `${schema().version} ${here}`;
    if (wanted !== built) {
      built = wanted;
      written = "";
      controls = new Map(
        schema()
          [here].features.filter((feature) => feature.kind !== "vector") // nobody types these
          .map((feature) => [feature.name, control(feature)]),
      );
      fill(
        element,
        h("p", { class: "soft" }, `Nothing is required: what is empty is unknown.`),
        [...controls.values()].map((one) => one.element),
      );
    }
    const features = state.features ?? {};
    const isOthers = encode(features) !== written; // else it would take away what is being typed
    written = encode(features);
    for (const [name, one] of controls) {
      if (one.isList || isOthers) one.show(features[name] ?? null);
    }
  }

  function control(feature) {
    if (feature.kind === "history") return historyControl(feature);
    if (feature.kind === "weights") return weightsControl(feature);
    return feature.many ? listControl(feature) : valueControl(feature);
  }

  function valueControl(feature) {
    const { input, options } = textInput(feature);
    input.addEventListener(
      "input",
      debounced(250, () => {
        const value = input.value.trim() ? parse(feature, input.value) : null;
        const isWrong = value === null && input.value.trim() !== "";
        input.setCustomValidity(isWrong ? `Expected ${expected(feature)}` : "");
        input.setAttribute("aria-invalid", String(isWrong));
        if (!isWrong) set(feature.name, value);
      }),
    );
    const isId = feature.name === schema()[side()].id;
    const hint = isId ? "Of one that training knew; leave it empty for a new one." : range(feature);
    return {
      element: h("div", {}, field(feature.name, input, { hint }), options),
      show: (value) => {
        input.value = value === null ? "" : String(value);
        input.setAttribute("aria-invalid", "false");
      },
    };
  }

  function listControl(feature) {
    const { input, options } = textInput(feature, "Add, then Enter");
    const list = chips(feature.name, (value) =>
      set(
        feature.name,
        values().filter((one) => one !== value),
      ),
    );
    const values = () => current().features?.[feature.name] ?? [];
    const add = () => {
      const value = input.value.trim() ? parse(feature, input.value) : null;
      if (value === null) return;
      input.value = "";
      if (!values().includes(value)) set(feature.name, [...values(), value]);
    };
    input.addEventListener("change", add);
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      add();
    });
    input.addEventListener("input", () => {
      if (feature.examples.some((value) => String(value) === input.value)) add();
    });
    return {
      isList: true,
      element: h("div", {}, field(feature.name, input), options, list.element),
      show: (given) => list.show([given ?? []].flat().map((value) => [value, cell(value)])),
    };
  }

  function weightsControl(feature) {
    const input = h("input", { type: "text", placeholder: "1, 0.5", spellcheck: "false" });
    input.addEventListener(
      "input",
      debounced(250, () => {
        const numbers = input.value
          .split(",")
          .filter((text) => text.trim())
          .map(Number);
        const isWrong = numbers.some((number) => !Number.isFinite(number));
        input.setAttribute("aria-invalid", String(isWrong));
        if (!isWrong) set(feature.name, numbers);
      }),
    );
    return {
      element: field(feature.name, input, {
        hint: "Numbers with commas, in the order of what they weigh.",
      }),
      show: (value) => {
        input.value = [value ?? []].flat().join(", ");
      },
    };
  }

  function historyControl(feature) {
    const list = chips(feature.name, (id) =>
      set(
        feature.name,
        past().filter((one) => one !== id),
      ),
    );
    const past = () => [current().features?.[feature.name] ?? []].flat();
    const picker = combobox({
      side: () => "item",
      schema,
      label: `Add an item to the ${feature.name}`,
      placeholder: "Search an item to add",
      pick: (row) => {
        remember("item", row);
        if (!past().includes(row.id)) set(feature.name, [...past(), row.id]);
      },
    });
    const show = async (given) => {
      const ids = [given ?? []].flat();
      const write = (rows) =>
        list.show(
          ids.map((id) => {
            const row = rows.get(String(id));
            return [id, row ? name("item", row, schema()) : `Item ${id}`];
          }),
        );
      write(new Map());
      try {
        const rows = await lookup("item", ids);
        if (encode(past()) === encode(ids)) write(rows);
      } catch {
        // The ids are there already; the request for results says what is wrong.
      }
    };
    const title = h("span", { class: "label" }, feature.name);
    const hint = h("small", {}, "Items clicked, the latest last.");
    return {
      isList: true,
      element: h("div", { class: "field" }, title, picker, hint, list.element),
      show,
    };
  }

  return { element, sync };
}

/** A text field for a value of a column or feature, with its frequent values to choose from. */
export function textInput({ type, examples }, placeholder = "") {
  const id = unique("examples");
  const numeric = type === "integer" || type === "number";
  const input = h("input", {
    type: "text",
    inputmode: numeric ? "decimal" : "text",
    list: examples.length ? id : null,
    autocomplete: "off",
    spellcheck: "false",
    placeholder,
  });
  const sorted = numeric
    ? [...examples].sort((one, other) => Number(one) - Number(other))
    : examples;
  return {
    input,
    options: h(
      "datalist",
      { id },
      sorted.map((value) => h("option", { value: String(value) })),
    ),
  };
}

/** Read a typed value; null where it is none of the type. */
export function parse({ type }, text) {
  const plain = text.trim();
  if (type === "integer") return parseInteger(plain);
  if (type === "number")
    return plain !== "" && Number.isFinite(Number(plain)) ? Number(plain) : null;
  if (type === "boolean") return { true: true, false: false }[plain] ?? null;
  return text.trim();
}

/** What values a column or feature takes, in words. */
export function expected({ type }) {
  return { integer: "an integer", number: "a number", boolean: "true or false" }[type] ?? "text";
}

/** The least and the largest value, in words. */
export function range({ min, max }) {
  return min === null || max === null || min === undefined ? "" : `${cell(min)} to ${cell(max)}`;
}
