// The page: which trials are shown, which one is in focus, how they are coloured; table, legend and figures follow.

const showAll = () => document.body.classList.add("drawn");
for (const trouble of ["error", "unhandledrejection"]) addEventListener(trouble, showAll);

async function numbers(element) {
  if (element.type === "application/json") return JSON.parse(element.textContent);
  const packed = Uint8Array.from(atob(element.textContent), (c) => c.charCodeAt(0));
  return JSON.parse(await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text());
}
let data = await numbers(document.getElementById("data"));
const $ = (id) => document.getElementById(id);
let byId = new Map(data.trials.map((t) => [t.id, t]));
let rows = [...document.querySelectorAll("#trials tbody tr")];
const state = { pinned: byId.get(data.featured) ?? null, hovered: null, hidden: new Set(), words: "" };
const page = {
  get bases() { return data.bases; },
  visible: () => data.trials.filter((t) => t.shown),
  focus: () => state.hovered ?? state.pinned,
  scale: () => $("scale").value,
  colour: (trial) => levelColour(trial),
  hover(trial, lines, event) {
    tip(trial && lines, event);
    if (trial !== state.hovered) { state.hovered = trial; refocus(); }
  },
  pin() {
    state.pinned = state.hovered === state.pinned ? null : state.hovered;
    refocus();
  },
  pick(trial) {
    state.pinned = trial;
    state.hovered = null;
    refocus();
  },
  trials: () => data.trials,
  picked: (id) => page.pick(byId.get(id)),
  pinned: () => state.pinned,
  resized: () => redraw(),
  address: () => address(),
};
const parameter = () => data.parameters.find((p) => p.name === $("across").value);
const view = new TrialView($("trial-section"), page, () => data);
const plots = [
  view,
  new Scatter($("scatter"), page, () => $("upwards").value, parameter),
  ...($("front") ? [new Front($("front"), page, () => data.front)] : []),
  new Multiples($("small"), page, () => axis(), () => $("upwards").value),
  new Parallel($("parallel"), page, () => data.parameters, () => $("upwards").value),
];
// Figures further down are drawn when they come near: a thousand trials are tens of thousands of elements.
const near = new Set();
const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    for (const plot of plots.filter((one) => one.home === entry.target)) {
      near[entry.isIntersecting ? "add" : "delete"](plot);
      if (entry.isIntersecting) plot.draw();
    }
  }
}, { rootMargin: "600px" });
for (const plot of plots) {
  plot.home = (plot.svg ?? plot.box).closest("section");
  watch.observe(plot.home);
}
addEventListener("beforeprint", () => { for (const plot of plots) plot.draw(); });
const panels = [...document.querySelectorAll("figure.panel")].map((figure) => new Panel(figure, figure.dataset.metric, page));

const replies = data.replies && new Replies($("reply-section"), data.replies, page);

const axis = () => data.axes.find((a) => a.name === $("colour").value);
const scaled = (a) => a.levels.length > 4 && a.levels.every((v) => typeof v === "number");

function colourOf(a, i) {
  if (scaled(a)) return `color-mix(in oklab, var(--ramp-a), var(--ramp-b) ${Math.round((100 * i) / Math.max(a.levels.length - 1, 1))}%)`;
  return `var(--c${i % 8})`;
}

function levelColour(trial) {
  const a = axis();
  return a && trial.levels[a.name] >= 0 ? colourOf(a, trial.levels[a.name]) : a ? "var(--c7)" : "var(--c0)";
}

function legend() {
  state.hidden.clear();
  const box = $("legend"), a = axis();
  box.replaceChildren();
  if (!a) return;
  a.levels.forEach((level, i) => {
    const button = document.createElement("button"), swatch = document.createElement("i");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.style.setProperty("--k", colourOf(a, i));
    button.append(swatch, String(level));
    button.addEventListener("click", () => {
      const hide = !state.hidden.has(i);
      state.hidden[hide ? "add" : "delete"](i);
      button.setAttribute("aria-pressed", String(!hide));
      filter();
    });
    box.append(button);
  });
}

function filter() {
  const a = axis();
  for (const t of data.trials) {
    const level = a ? t.levels[a.name] : -1;
    t.shown = !state.hidden.has(level) && (!state.words || t.search.includes(state.words));
  }
  for (const row of rows) row.hidden = !byId.get(row.dataset.trial).shown;
  const shown = page.visible().length;
  $("count").textContent = shown === data.trials.length ? `${shown} trials` : `${shown} of ${data.trials.length} trials`;
  redraw();
}

function redraw() {
  for (const panel of panels) panel.draw();
  refocus();
}

function refocus() {
  for (const panel of panels) if (panel.layer) panel.highlight();
  const focus = page.focus();
  for (const row of rows) row.classList.toggle("on", row.dataset.trial === focus?.id);
  if (state.hovered !== null) return;
  details(focus);
  if (focus) replies?.follow(focus.id);
  if (parameter()) $("scatter-title").textContent = `${$("upwards").value} against ${parameter().name}`;
  for (const plot of plots) if (near.has(plot) || plot.home.hidden) plot.draw();
  address();
}

function tip(lines, event) {
  const box = $("tip");
  box.hidden = !lines;
  if (!lines) return;
  const bold = document.createElement("b");
  bold.textContent = lines[0];
  box.replaceChildren(bold, ...lines.slice(1).flatMap((line) => [document.createElement("br"), line]));
  const { width, height } = box.getBoundingClientRect();
  box.style.left = `${Math.max(6, Math.min(event.clientX + 16, innerWidth - width - 8))}px`;
  box.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 12 : event.clientY + 18}px`;
}

// The numbers behind the figures, for the pinned trial.
function details(trial) {
  $("picked").hidden = !trial;
  if (!trial) return;
  $("picked-title").textContent = trial.label;
  $("picked-state").textContent = `${trial.id}, ${trial.state}${trial.reason ? `: ${trial.reason}` : ""}`;
  scores(trial);
}

function addRow(section, name, texts) {
  const row = section.insertRow();
  for (const text of texts) {
    const cell = document.createElement(name);
    cell.className = "num";
    cell.textContent = text;
    row.append(cell);
  }
}

function scores(trial) {
  const metrics = data.panels.filter((m) => trial.curves[m]), base = data.bases[trial.model];
  const steps = [...new Set(metrics.flatMap((m) => trial.curves[m].step))].sort((a, b) => a - b);
  const head = $("picked-scores").tHead, body = $("picked-scores").tBodies[0];
  head.replaceChildren();
  body.replaceChildren();
  addRow(head, "th", ["step", ...metrics]);
  if (base) addRow(body, "td", ["0 (base)", ...metrics.map((m) => (base[m] ? withError(base[m][0], base[m][1]) : "–"))]);
  for (const step of steps) {
    addRow(body, "td", [step.toLocaleString("en"), ...metrics.map((m) => {
      const curve = trial.curves[m], i = curve.step.indexOf(step);
      return i < 0 ? "–" : withError(curve.value[i], curve.se?.[i]);
    })]);
  }
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((th, column) => th.querySelector("button")?.addEventListener("click", () => {
    const down = th.getAttribute("aria-sort") === "ascending" || (!th.hasAttribute("aria-sort") && th.dataset.first === "down");
    sort(table, column, down);
    address();
  }));
}

function sort(table, column, down) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((h) => h.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
  const order = (a, b) => {
    if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === ""); // unknown last, both ways
    const [x, y] = [Number(key(a)), Number(key(b))];
    const way = Number.isNaN(x) || Number.isNaN(y) ? key(a).localeCompare(key(b)) : x - y;
    return down ? -way : way;
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
}

// The column that the trials are sorted by and the way, such as `4d`; empty in the order of the page.
function sorted() {
  const at = [...$("trials").tHead.rows[0].cells].findIndex((h) => h.hasAttribute("aria-sort"));
  return at < 0 ? "" : `${at}${$("trials").tHead.rows[0].cells[at].getAttribute("aria-sort")[0]}`;
}

function sortAgain(said) {
  const [, column, way] = /^(\d+)([ad])$/.exec(said ?? "") ?? [];
  if (column < $("trials").tHead.rows[0].cells.length) sort($("trials"), Number(column), way === "d");
}

$("trials").addEventListener("click", (event) => {
  const button = event.target.closest(".pick"), link = event.target.closest(".permalink");
  if (button) page.pick(byId.get(button.dataset.trial));
  if (link) { page.pick(byId.get(link.closest("tr").dataset.trial)); arrive(event, "trial-section"); }
});
for (const [link, section] of [["picked-more", "trial-section"], ["trial-replies", "reply-section"]]) {
  $(link)?.addEventListener("click", (event) => arrive(event, section));
}
// Goes to a section without a change of the address, which says what is picked.
function arrive(event, section) {
  event?.preventDefault();
  $(section).focus({ preventScroll: true });
  $(section).scrollIntoView();
  // What stands above has its height only once it was near: go there again when it is drawn.
  requestAnimationFrame(() => requestAnimationFrame(() => $(section).scrollIntoView()));
}
for (const [name, trial] of [["pointerover", (row) => byId.get(row.dataset.trial)], ["pointerout", () => null]]) {
  $("trials").tBodies[0].addEventListener(name, (event) => {
    const row = event.target.closest("tr");
    if (row && !row.contains(event.relatedTarget)) page.hover(trial(row), null);
  });
}
$("colour").addEventListener("change", () => { legend(); filter(); });
$("scale").addEventListener("change", redraw);
$("search").addEventListener("input", (event) => { state.words = event.target.value.trim().toLowerCase(); filter(); });
const free = $("free-metric");
free?.addEventListener("change", () => {
  const panel = panels.find((p) => p.figure.contains(free));
  panel.metric = free.value;
  panel.draw();
  address();
});
if (document.querySelector("#trials")) sortable($("trials"));

// Everything that was picked stands in the page's address: a link shows the same, and a reload comes back as it was left.
const kept = ["colour", "scale", "search", "free-metric", "across", "upwards"];
function address() {
  const said = new URLSearchParams();
  for (const id of kept) {
    const field = $(id);
    if (field && field.value !== field.dataset.first) said.set(id, field.value);
  }
  if (state.pinned?.id !== (byId.get(data.featured)?.id)) said.set("trial", state.pinned?.id ?? "");
  if (sorted()) said.set("sort", sorted());
  if (document.body.classList.contains("alone")) said.set("only", "trial");
  replies?.said(said);
  if (state.hidden.size) said.set("hidden", [...state.hidden].join(","));
  history.replaceState(null, "", said.size ? `#${said}` : location.pathname + location.search);
}
function recall() {
  const said = new URLSearchParams(location.hash.slice(1));
  for (const id of kept) {
    const field = $(id), value = said.get(id);
    if (!field) continue;
    field.dataset.first = field.value;
    if (value != null && (field.type === "search" || [...field.options].some((o) => o.value === value))) field.value = value;
  }
  if (said.has("trial")) state.pinned = byId.get(said.get("trial")) ?? null;
  view.start(said.get("only") === "trial" && state.pinned !== null);
  sortAgain(said.get("sort"));
  replies?.recall(said, state.pinned?.id);
  state.words = $("search").value.trim().toLowerCase();
  legend();
  for (const i of (said.get("hidden") ?? "").split(",").filter(Boolean).map(Number)) {
    const chip = $("legend").children[i];
    if (chip) { state.hidden.add(i); chip.setAttribute("aria-pressed", "false"); }
  }
  if (free) panels.find((p) => p.figure.contains(free)).metric = free.value;
}

// n and p walk through the trials in the order of the table, / finds, Escape lets go.
addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") && event.key !== "Escape") return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const shown = [...document.querySelectorAll("#trials tbody tr")].filter((row) => !row.hidden).map((row) => byId.get(row.dataset.trial));
  const at = shown.indexOf(state.pinned), way = { n: 1, p: -1 }[event.key];
  if (way && shown.length) page.pick(shown[(at + way + shown.length) % shown.length] ?? shown[0]);
  else if (event.key === "/") { $("search").focus(); event.preventDefault(); }
  else if (event.key === "Escape") page.pick(null);
});

$("across").replaceChildren(...data.parameters.map((p) => new Option(p.name)));
$("parameter-section").hidden = !data.parameters.length;
if (data.panels.includes(data.objective)) $("upwards").value = data.objective;
for (const id of ["across", "upwards"]) $(id).addEventListener("change", refocus);

let drawnAt = 0;
new ResizeObserver(() => { if (innerWidth !== drawnAt) { drawnAt = innerWidth; redraw(); } }).observe(document.body);
recall();
filter();
showAll();
if (new URLSearchParams(location.hash.slice(1)).get("trial") && performance.getEntriesByType("navigation")[0]?.type !== "reload") arrive(null, "trial-section");
addEventListener("hashchange", () => { recall(); filter(); if (state.pinned) arrive(null, "trial-section"); });

// What changes while a sweep runs.
const shape = (d) => JSON.stringify([d.panels, d.axes, d.parameters.map((p) => [p.name, p.numeric, p.levels])]);
const live = {
  trial: (id) => byId.get(id),

  state(trial) {
    const cell = rows.find((r) => r.dataset.trial === trial.id)?.querySelector(".state");
    if (!cell) return;
    cell.textContent = trial.state;
    cell.className = `state ${trial.state}`;
  },

  grown(trial, metric) {
    for (const panel of panels) if (panel.metric === metric && trial.shown) panel.grow(trial);
    const column = 4 + data.panels.indexOf(metric), row = rows.find((r) => r.dataset.trial === trial.id), curve = trial.curves[metric];
    if (row && column >= 4) {
      const text = withError(curve.value.at(-1), curve.se?.at(-1)), cell = row.cells[column];
      cell.dataset.sort = curve.value.at(-1);
      if (cell.firstChild) cell.firstChild.textContent = text; else cell.textContent = text;
      row.cells[3].dataset.sort = curve.step.at(-1);
      row.cells[3].firstChild.textContent = curve.step.at(-1).toLocaleString("en");
    }
    if (trial === state.pinned) {
      details(trial);
      if (near.has(view)) view.draw();
    }
  },

  // The page as it is now: its tables in place of the old ones, and its numbers; new figures or axes need a new page.
  async take(fresh) {
    const found = fresh.getElementById("data");
    if (!found) { location.reload(); return; }
    const next = await numbers(found), order = sorted();
    if (shape(next) !== shape(data)) { location.reload(); return; }
    replaceParts(fresh);
    const pinned = state.pinned?.id;
    data = next;
    byId = new Map(data.trials.map((t) => [t.id, t]));
    rows = [...document.querySelectorAll("#trials tbody tr")];
    state.pinned = byId.get(pinned) ?? null;
    state.hovered = null;
    sortAgain(order);
    if (replies && data.replies) replies.update(data.replies);
    filter();
  },
};
if (data.events) new Updates(data.events, live);
