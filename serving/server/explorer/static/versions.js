// The published versions: their figures, and the report of one.

import { button, fill, h } from "./dom.js";
import { update } from "./state.js";
import { blank } from "./status.js";
import { figure } from "./words.js";

const PREFERRED = ["recall@20", "ndcg@20", "hit_rate@20", "mrr@20", "coverage@20", "popularity@20"];
const SEGMENTS = "all";

/** Make the panel. */
export function versionsPanel({ schema, versions }) {
  const segment = h("select", { "aria-label": "Users" });
  const table = h("table", {});
  const title = h("h2", {});
  const link = h("a", { target: "_blank", rel: "noopener" }, "Open in a tab of its own");
  const frame = h("iframe", { sandbox: "", title: "Report" });
  const report = h(
    "section",
    { class: "report", "aria-label": "Report" },
    h("header", { class: "split" }, title, link),
    frame,
  );
  const instead = h("div", {});
  const scroll = h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "Figures of versions" },
    table,
  );
  const element = h(
    "section",
    { class: "versions", "aria-label": "Versions" },
    h("header", { class: "split" }, h("h2", {}, "Versions"), segment),
    scroll,
    instead,
    report,
  );
  let chosenSegment = SEGMENTS;
  let listed = "";
  let framed = "";

  segment.addEventListener("change", () => {
    chosenSegment = segment.value;
    draw(versions());
  });

  function sync(state) {
    const known = versions();
    const wanted = JSON.stringify([known, schema().version, state.version]);
    if (wanted === listed) return;
    listed = wanted;
    const segments = [...new Set(known.flatMap((one) => Object.keys(one.figures)))];
    fill(
      segment,
      segments.map((name) =>
        h("option", { value: name }, name === "all" ? "all users" : name.replaceAll("_", " ")),
      ),
    );
    segment.hidden = !segments.length;
    if (segments.includes(chosenSegment)) segment.value = chosenSegment;
    else chosenSegment = segments[0] ?? SEGMENTS;
    const chosen =
      known.find((one) => one.version === state.version) ??
      known.find((one) => one.is_current) ??
      known[0];
    draw(known, chosen);
    showReport(chosen);
  }

  function draw(known, chosen = known.find((one) => String(one.version) === framed)) {
    const names = figuresOf(known);
    const best = Object.fromEntries(
      names.map((name) => [name, Math.max(...known.map((one) => value(one, name) ?? -Infinity))]),
    );
    fill(
      table,
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          [
            "version",
            "published",
            "mined with",
            "index",
            ...names.map((name) => name.replaceAll("_", " ")),
          ].map((text, place) =>
            h("th", { scope: "col", class: place > 3 ? "number" : null }, text),
          ),
        ),
      ),
      h(
        "tbody",
        {},
        known.map((one) =>
          h(
            "tr",
            { "aria-current": one === chosen ? "true" : null },
            h(
              "th",
              { scope: "row" },
              button(
                `Version ${one.version}`,
                () => update({ version: one.version }, { push: true }),
                { class: "link", "aria-pressed": String(one === chosen) },
              ),
              one.is_current ? h("span", { class: "badge" }, "answers") : null,
            ),
            one.readable
              ? [
                  h("td", {}, one.created.slice(0, 16).replace("T", " ")),
                  h("td", {}, one.mined_with === null ? "–" : `version ${one.mined_with}`),
                  h("td", {}, one.index),
                  names.map((name) =>
                    h(
                      "td",
                      { class: isBest(one, name, best) ? "number best" : "number" },
                      figure(value(one, name)),
                    ),
                  ),
                ]
              : h(
                  "td",
                  { colspan: 3 + names.length, class: "bad" },
                  "Its manifest cannot be read.",
                ),
          ),
        ),
      ),
    );
  }

  const value = (one, name) => one.figures[chosenSegment]?.[name];
  const isBest = (one, name, best) =>
    versions().length > 1 && !name.startsWith("popularity") && value(one, name) === best[name];

  function figuresOf(known) {
    const given = known.flatMap((one) => Object.keys(one.figures[chosenSegment] ?? {}));
    const found = [...new Set(given)].filter((name) => name !== "users");
    const preferred = PREFERRED.filter((name) => found.includes(name));
    return preferred.length ? preferred : found.slice(0, 6);
  }

  function showReport(chosen) {
    const has = chosen?.has_report ?? false;
    report.hidden = !has;
    fill(
      instead,
      has || !chosen
        ? null
        : blank("No report", `Version ${chosen.version} was published without one.`),
    );
    if (!has || framed === String(chosen.version)) return;
    framed = String(chosen.version);
    const path = `v1/explorer/versions/${chosen.version}/report`;
    title.textContent = `Report of version ${chosen.version}`;
    frame.setAttribute("src", path);
    link.setAttribute("href", path);
  }

  return { element, sync };
}
