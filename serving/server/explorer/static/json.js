// JSON whose integers keep their value: those beyond 2^53 are read as BigInt, and written again.

const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const LONG = /^-?\d{16,}$/;
const MARK = "\u0001";

/** Read JSON text. */
export function decode(text) {
  const marked = text.replace(TOKEN, (token) => (LONG.test(token) ? `"\\u0001${token}"` : token));
  return JSON.parse(marked, (_, value) => {
    if (typeof value !== "string" || !value.startsWith(MARK) || !LONG.test(value.slice(1))) {
      return value;
    }
    return BigInt(value.slice(1));
  });
}

/** Write a value as JSON text; members that are undefined are left out. */
export function encode(value) {
  if (typeof value === "bigint") return value.toString();
  if (Array.isArray(value)) return `[${value.map((one) => encode(one ?? null)).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const members = Object.entries(value).filter(([, one]) => one !== undefined);
    return `{${members.map(([key, one]) => `${JSON.stringify(key)}:${encode(one)}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

/** Read a typed integer; null where the text is none. */
export function parseInteger(text) {
  if (!/^-?\d+$/.test(text.trim())) return null;
  const number = Number(text);
  return Number.isSafeInteger(number) ? number : BigInt(text.trim());
}
