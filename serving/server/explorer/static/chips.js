// A list of short values, each with a button that takes it out.

import { button, fill, h } from "./dom.js";

/** Make the list; `remove(value)` is called with what is taken out. */
export function chips(label, remove) {
  const list = h("ul", { class: "chips", "aria-label": label });
  return {
    element: list,
    /** Show values as `[value, text]`. */
    show(values) {
      list.hidden = !values.length;
      fill(
        list,
        values.map(([value, text]) =>
          h(
            "li",
            { title: text },
            h("span", {}, text),
            button("×", () => remove(value), { "aria-label": `Remove ${text}` }),
          ),
        ),
      );
    },
  };
}
