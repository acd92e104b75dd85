// The explorer: panels that write the state, and panels that show what it asks for.

import { forget, patient, remember, request } from "./api.js";
import { comparePanel } from "./compare.js";
import { detailPanel } from "./detail.js";
import { button, fill, h } from "./dom.js";
import { optionsPanel } from "./options.js";
import { resultsPanel } from "./results.js";
import { sourcePanel } from "./source.js";
import { stagesPanel } from "./stages.js";
import { current, listen, sides, update, VIEWS } from "./state.js";
import { failure, waiting } from "./status.js";
import { DIRECTIONS, name } from "./words.js";
import { versionsPanel } from "./versions.js";

const main = document.querySelector("main");
const live = document.querySelector("#live");
const tabs = [...document.querySelectorAll("nav a[data-view]")];
let schema = null;
let published = [];
let panels = null;
let isReloading = false;

function say(text) {
  live.textContent = text;
}

async function load() {
  const [described, versions] = await Promise.all([
    patient("GET", "v1/explorer/schema"),
    patient("GET", "v1/explorer/versions"),
  ]);
  if (schema !== null && schema.version !== described.version) forget();
  schema = described;
  published = versions.versions;
  document.querySelector("#model").textContent = schema.name;
  tabs.find((tab) => tab.dataset.view === "stages").hidden = !schema.ranker;
  document.querySelector("#version").textContent = `version ${schema.version}`;
}

/** Another version may answer from now on. */
async function answered(version) {
  if (version === schema.version || isReloading) return;
  isReloading = true;
  try {
    await load();
    say(`Version ${schema.version} answers now`);
    render(current());
  } catch {
    // The next answer will tell again.
  } finally {
    isReloading = false;
  }
}

function build() {
  const given = () => schema;
  const versions = () => published;
  const detail = detailPanel({ schema: given, closed: () => results.focus() });
  const shared = { schema: given, say, answered, examples, open: () => detail.open() };
  const results = resultsPanel(shared);
  const compare = comparePanel({ ...shared, versions });
  const stages = stagesPanel(shared);
  const source = sourcePanel(given);
  const options = optionsPanel(given);
  const directions = directionPanel();
  const ask = h("div", { class: "ask" }, directions.element, source.element, options.element);
  const work = h(
    "div",
    { class: "work" },
    ask,
    results.element,
    stages.element,
    compare.element,
    detail.element,
  );
  const list = versionsPanel({ schema: given, versions });
  fill(main, work, list.element);
  panels = { work, ask, results, stages, compare, detail, source, options, directions, list };
}

function render(state) {
  for (const tab of tabs) {
    const isHere = tab.dataset.view === state.view;
    if (isHere) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  document.title = `${DIRECTIONS[state.direction]} · fm-recall`;
  if (panels === null) return;
  const isVersions = state.view === "versions";
  panels.work.hidden = isVersions;
  panels.list.element.hidden = !isVersions;
  if (isVersions) {
    document.title = "Versions · fm-recall";
    panels.list.sync(state);
    return;
  }
  const views = { explore: panels.results, stages: panels.stages, compare: panels.compare };
  panels.work.classList.toggle("comparing", state.view !== "explore");
  for (const [view, panel] of Object.entries(views)) panel.element.hidden = view !== state.view;
  panels.directions.sync(state);
  panels.source.sync(state);
  panels.options.sync(state);
  views[state.view].sync(state);
  panels.detail.sync(state);
  if (state.select === null) panels.detail.shut();
}

function directionPanel() {
  const group = h("fieldset", { class: "directions" }, h("legend", {}, "Find"));
  const radios = Object.entries(DIRECTIONS).map(([direction, text]) => {
    const radio = h("input", { type: "radio", name: "direction", value: direction, id: direction });
    radio.addEventListener("change", () => choose(direction));
    group.append(
      h("label", { for: direction }, radio, h("span", {}, text), h("code", {}, direction)),
    );
    return radio;
  });
  function choose(direction) {
    const before = sides(current().direction);
    const after = sides(direction);
    const changes = { direction, select: null };
    if (before.source !== after.source) Object.assign(changes, { id: null, features: null });
    if (before.target !== after.target) Object.assign(changes, { exclude: [], where: null });
    update(changes, { push: true });
  }
  return {
    element: group,
    sync(state) {
      for (const radio of radios) radio.checked = radio.value === state.direction;
    },
  };
}

/** Buttons for the first few of a side, to begin with. */
function examples(side) {
  const list = h("div", { class: "actions" });
  request("GET", `v1/explorer/search/${side}?limit=3`).then(
    ({ results }) =>
      fill(
        list,
        results.map((row) => {
          remember(side, row);
          const pick = () => update({ id: row.id, features: null, select: null }, { push: true });
          return button(name(side, row, schema), pick);
        }),
      ),
    () => {}, // the search says what is wrong once it is used
  );
  return list;
}

async function start() {
  render(current());
  fill(main, waiting("Loading…"));
  try {
    await load();
  } catch (error) {
    fill(main, failure(error, start));
    return;
  }
  build();
  render(current());
}

for (const tab of tabs) {
  tab.addEventListener("click", (event) => {
    event.preventDefault();
    if (VIEWS.includes(tab.dataset.view)) update({ view: tab.dataset.view }, { push: true });
  });
}
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash is the state
  main.focus();
});
listen(render);
start();
