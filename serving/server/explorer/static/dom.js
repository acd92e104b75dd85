// Elements, made of text and never of markup.

/** Make an element. `on…` are listeners, `value` and the like properties, the rest attributes. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined),
  );
  return element;
}

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "open", "textContent"]);

/** Replace what is in an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null));
}

let count = 0;

/** An id that no other element has. */
export function unique(stem) {
  count += 1;
  return `${stem}-${count}`;
}

/** A button. */
export function button(text, onclick, props = {}) {
  return h("button", { type: "button", onclick, ...props }, text);
}

/** A label above its control. */
export function field(label, control, { hint, wide } = {}) {
  control.id ||= unique("field");
  const parts = [h("label", { for: control.id }, label), control];
  if (hint) {
    const text = h("small", { id: unique("hint") }, hint);
    control.setAttribute("aria-describedby", text.id);
    parts.push(text);
  }
  return h("div", { class: wide ? "field wide" : "field" }, parts);
}

/** Call a function once nothing has called this for a while. */
export function debounced(delay, call) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...given), delay);
  };
}

/** The arrow keys' way through n places; null where a key is none of theirs. */
export function moved(event, place, n) {
  if (event.altKey || event.ctrlKey || event.metaKey || !n) return null;
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
  if (event.key === "Home") return 0;
  if (event.key === "End") return n - 1;
  if (!(event.key in steps)) return null;
  if (place < 0) return steps[event.key] > 0 ? 0 : n - 1;
  return Math.min(n - 1, Math.max(0, place + steps[event.key]));
}
