// A builder of filters on the target's columns. What it cannot draw is edited as JSON.

import { expected, parse, range, textInput } from "./describe.js";
import { button, debounced, fill, h } from "./dom.js";
import { decode, encode } from "./json.js";
import { current, sides, update } from "./state.js";

const TESTS = {
  is: "is",
  isNot: "is not",
  in: "is one of",
  gte: "at least",
  lte: "at most",
  between: "between",
};

/** Make the builder. */
export function filterBuilder(schema) {
  let drafts = []; // conditions as { column, test, text, second }, whole or not
  let joined = "and";
  let asJson = false;
  let written = "null"; // the filter as this builder has last set it
  let columnsOf = "";
  const rows = h("div", { class: "conditions" });
  const problem = h("p", { class: "bad", role: "alert", hidden: true });
  const text = h("textarea", { rows: 5, spellcheck: "false", "aria-label": "Filter as JSON" });
  const how = h(
    "select",
    { "aria-label": "How conditions are joined" },
    h("option", { value: "and" }, "all of these match"),
    h("option", { value: "or" }, "any of these matches"),
  );
  const add = button(
    "Add a condition",
    () => {
      drafts.push({
        column: columns()[0].name,
        test: tests(columns()[0])[0],
        text: "",
        second: "",
      });
      draw();
      rows.lastElementChild?.querySelector("select").focus();
    },
    { class: "quiet" },
  );
  const toggle = button(
    "Edit as JSON",
    () => {
      asJson = !asJson;
      written = "";
      sync(current());
    },
    { class: "quiet" },
  );
  const element = h(
    "div",
    { class: "filter" },
    how,
    rows,
    text,
    problem,
    h("div", { class: "actions" }, add, toggle),
  );

  const columns = () =>
    schema()[sides(current().direction).target].columns.filter((one) => one.type !== "other");

  function write(where) {
    written = encode(where);
    update({ where, select: null });
  }

  function emit() {
    const whole = drafts
      .map((draft) => toFilter(draft, find(draft.column)))
      .filter((one) => one !== null);
    if (!whole.length) write(null);
    else write(whole.length === 1 ? whole[0] : { [joined]: whole });
  }

  const find = (name) => columns().find((column) => column.name === name);

  function sync(state) {
    const { target } = sides(state.direction);
    if (columnsOf === target && encode(state.where) === written) return;
    columnsOf = target;
    written = encode(state.where);
    const read = fromFilter(state.where, find);
    if (read === null) asJson = true;
    else ({ drafts, joined } = read);
    text.value = state.where === null ? "" : encode(state.where);
    problem.hidden = true;
    draw();
  }

  function draw() {
    const drawable = asJson === false;
    rows.hidden = add.hidden = !drawable;
    how.hidden = !drawable || drafts.length < 2;
    how.value = joined;
    add.disabled = !columns().length;
    text.hidden = drawable;
    toggle.textContent = drawable ? "Edit as JSON" : "Edit as conditions";
    toggle.disabled = !drawable && fromFilter(current().where, find) === null;
    fill(rows, drafts.map(row));
  }

  function row(draft) {
    const column = find(draft.column);
    const which = h(
      "select",
      { "aria-label": "Column" },
      columns().map((one) => h("option", { value: one.name }, one.name)),
    );
    which.value = draft.column;
    const test = h(
      "select",
      { "aria-label": "Test" },
      tests(column).map((one) => h("option", { value: one }, word(one, column))),
    );
    test.value = draft.test;
    const later = debounced(250, emit);
    const value = (key, label) => {
      const { input, options } = textInput(column, draft.test === "in" ? "a, b, c" : range(column));
      input.value = draft[key];
      input.setAttribute("aria-label", label);
      input.addEventListener("input", () => {
        draft[key] = input.value;
        const isWrong =
          input.value.trim() !== "" && draft.test !== "in" && parse(column, input.value) === null;
        input.setAttribute("aria-invalid", String(isWrong));
        input.title = isWrong ? `Expected ${expected(column)}` : "";
        later();
      });
      return [input, options];
    };
    which.addEventListener("change", () => {
      Object.assign(draft, {
        column: which.value,
        test: tests(find(which.value))[0],
        text: "",
        second: "",
      });
      draw();
      emit();
    });
    test.addEventListener("change", () => {
      draft.test = test.value;
      draw();
      emit();
    });
    const remove = button(
      "×",
      () => {
        drafts = drafts.filter((one) => one !== draft);
        draw();
        emit();
        add.focus();
      },
      { "aria-label": "Remove the condition", class: "icon" },
    );
    const second = draft.test === "between" ? value("second", "Largest value") : [];
    return h(
      "div",
      { class: "condition", role: "group", "aria-label": `Condition on ${draft.column}` },
      which,
      test,
      remove,
      h("div", { class: "values" }, ...value("text", "Value"), ...second),
    );
  }

  how.addEventListener("change", () => {
    joined = how.value;
    emit();
  });
  text.addEventListener(
    "input",
    debounced(400, () => {
      try {
        const where = text.value.trim() ? decode(text.value) : null;
        if (where !== null && (typeof where !== "object" || Array.isArray(where)))
          throw new SyntaxError("Expected an object");
        problem.hidden = true;
        write(where);
        toggle.disabled = fromFilter(where, find) === null;
      } catch (error) {
        problem.textContent = `This is no JSON: ${error.message}`;
        problem.hidden = false;
      }
    }),
  );
  return { element, sync };
}

function tests({ type, many }) {
  if (type === "boolean") return ["is"];
  return type === "text" || many
    ? ["is", "isNot", "in"]
    : ["gte", "lte", "between", "is", "isNot", "in"];
}

function word(test, { many }) {
  return many ? { is: "has", isNot: "has not", in: "has one of" }[test] : TESTS[test];
}

/** The filter that a condition stands for; null while it is not whole. */
function toFilter({ column, test, text, second }, known) {
  if (test === "in") {
    const values = text
      .split(",")
      .filter((one) => one.trim())
      .map((one) => parse(known, one));
    return values.length && !values.includes(null) ? { column, in: values } : null;
  }
  const value = text.trim() ? parse(known, text) : null;
  if (value === null) return null;
  if (test === "is") return { column, equals: value };
  if (test === "isNot") return { not: { column, equals: value } };
  if (test !== "between") return { column, range: { [test]: value } };
  const last = second.trim() ? parse(known, second) : null;
  return last === null ? null : { column, range: { gte: value, lte: last } };
}

/** The conditions that a filter is drawn as; null where it is more than such. */
function fromFilter(where, find) {
  if (where === null) return { drafts: [], joined: "and" };
  const joined = "or" in where ? "or" : "and";
  const list = "and" in where || "or" in where ? where[joined] : [where];
  if (!Array.isArray(list)) return null;
  const drafts = list.map((one) => toDraft(one, find));
  return drafts.includes(null) ? null : { drafts, joined };
}

function toDraft(one, find) {
  const isNot = typeof one === "object" && one !== null && "not" in one;
  const plain = isNot ? one.not : one;
  const column = find(plain?.column);
  if (!column) return null;
  const draft = (test, text, second = "") =>
    tests(column).includes(test)
      ? { column: column.name, test, text: String(text), second: String(second) }
      : null;
  if ("equals" in plain) return draft(isNot ? "isNot" : "is", plain.equals);
  if (isNot) return null;
  if (Array.isArray(plain.in)) {
    return plain.in.some((value) => String(value).includes(","))
      ? null
      : draft("in", plain.in.join(", "));
  }
  const { gte, lte, ...others } = plain.range ?? { gt: 0 };
  if (Object.keys(others).length) return null;
  if (gte !== undefined && lte !== undefined) return draft("between", gte, lte);
  return gte === undefined ? draft("lte", lte) : draft("gte", gte);
}
