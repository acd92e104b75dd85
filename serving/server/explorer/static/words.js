// How things are called and written.

export const DIRECTIONS = {
  u2i: "Items for a user",
  i2i: "Items like an item",
  u2u: "Users like a user",
  i2u: "Users for an item",
};

/** What a direction finds, for a source that has a name. */
export function found(direction, called) {
  return DIRECTIONS[direction].replace(/an? (user|item)$/, called);
}

/** Write a score, with as many digits as tell neighbours apart. */
export function score(value) {
  return minus(value.toFixed(4));
}

/** Write a part of a score with its sign. */
export function signed(value) {
  const text = Math.abs(value) >= 0.00005 ? value.toFixed(4) : value.toExponential(1);
  return value >= 0 ? `+${text}` : minus(text);
}

/** Write a figure of an evaluation. */
export function figure(value) {
  if (value === null || value === undefined) return "–";
  return value < 1
    ? minus(value.toFixed(4))
    : value.toLocaleString("en", { maximumFractionDigits: 1 });
}

/** Write a count. */
export function count(n) {
  return n.toLocaleString("en");
}

/** Write a value of a table. */
export function cell(value) {
  if (value === null || value === undefined) return "–";
  if (Array.isArray(value)) return value.map(cell).join(", ") || "–";
  if (typeof value === "number" && !Number.isInteger(value))
    return minus(String(Number(value.toPrecision(6))));
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** What a row is called: its label where its side has one, or its id. */
export function name(side, row, schema) {
  const label = row.columns?.[schema[side].label];
  return label ? String(label) : `${side === "user" ? "User" : "Item"} ${row.id}`;
}

/** The columns that tell most of a row in a line: its label first, no weights or vectors. */
export function telling({ label, columns, features }, n = 5) {
  const numbers = features
    .filter((feature) => ["vector", "weights"].includes(feature.kind))
    .map((feature) => feature.name);
  const names = columns
    .map((column) => column.name)
    .filter((one) => one !== label && !numbers.includes(one));
  return [...(label ? [label] : []), ...names].slice(0, n);
}

/** The same within a sentence. */
export function called(side, row, schema) {
  return row.columns?.[schema[side].label] ? name(side, row, schema) : `${side} ${row.id}`;
}

/** Start a word with a capital. */
export function capital(word) {
  return word[0].toUpperCase() + word.slice(1);
}

function minus(text) {
  return text.replace("-", "\u2212");
}
