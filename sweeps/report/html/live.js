// The list of sweeps: lines change as they are pushed; the order, the filter and the words stay.

const $ = (id) => document.getElementById(id);
const body = $("sweeps").tBodies[0], heads = [...$("sweeps").tHead.rows[0].cells];
const fields = { words: $("search"), open: $("open") };
let column = 3, down = true;

function line(sweep) {
  let row = [...body.rows].find((r) => r.dataset.id === sweep.id);
  if (!row) {
    row = body.insertRow();
    row.dataset.id = sweep.id;
    const head = document.createElement("th"), link = document.createElement("a"), json = document.createElement("a"), small = document.createElement("small");
    head.scope = "row";
    [link.href, link.textContent, json.href, json.textContent] = [sweep.href, sweep.id, `${sweep.href}.json`, "JSON"];
    small.append(json);
    head.append(link, " ", small);
    row.append(head);
    for (let i = 0; i < 4; i++) row.insertCell();
    row.cells[4].className = "reason";
    row.cells[4].append(document.createElement("div"));
  }
  const tags = [...row.cells[0].querySelectorAll(".tag")];
  if (tags.map((tag) => tag.textContent).join(" ") !== sweep.tags.join(" ")) {
    for (const tag of tags) tag.remove();
    for (const text of sweep.tags) {
      const tag = document.createElement("span");
      [tag.className, tag.textContent] = ["tag", text];
      row.cells[0].append(" ", tag);
    }
  }
  [sweep.progress, sweep.begun, sweep.since, sweep.headline].forEach((text, i) => {
    const place = row.cells[i + 1].firstElementChild ?? row.cells[i + 1];
    if (place.textContent !== text) place.textContent = text;
  });
}

let waiting = 0;
function later() { // many lines come at once: the table is put in order after them
  if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; show(); });
}

function show() {
  const key = (row) => row.cells[column].textContent, rows = [...body.rows];
  const order = [...rows].sort((a, b) => (key(a) === "") - (key(b) === "") || (down ? -1 : 1) * key(a).localeCompare(key(b), "en", { numeric: true }));
  if (order.some((row, i) => row !== rows[i])) body.append(...order);
  const words = fields.words.value.trim().toLowerCase();
  for (const row of rows) {
    const fits = !words || row.textContent.toLowerCase().includes(words);
    row.hidden = !fits || (fields.open.checked && row.cells[1].textContent === "ended");
  }
  const shown = rows.filter((row) => !row.hidden).length;
  $("count").textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
  $("many").textContent = `${rows.length} sweep${rows.length === 1 ? "" : "s"}`;
  $("none").hidden = rows.length > 0;
}

function address() {
  const said = new URLSearchParams();
  if (fields.words.value) said.set("find", fields.words.value);
  if (fields.open.checked) said.set("open", "1");
  if (column !== 3 || !down) said.set("sort", `${column}${down ? "d" : "a"}`);
  history.replaceState(null, "", said.size ? `#${said}` : location.pathname);
}

heads.forEach((th, i) => th.querySelector("button")?.addEventListener("click", () => {
  [column, down] = [i, i === column ? !down : i > 1];
  order();
  address();
}));
function order() {
  heads.forEach((h) => h.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  show();
}
for (const field of Object.values(fields)) field.addEventListener("input", () => { show(); address(); });
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  fields.words.focus();
  event.preventDefault();
});

const said = new URLSearchParams(location.hash.slice(1)), [, at, way] = /^([0-3])([ad])$/.exec(said.get("sort") ?? "") ?? [];
fields.words.value = said.get("find") ?? "";
fields.open.checked = said.has("open");
if (at) [column, down] = [Number(at), way === "d"];
order();

const source = new EventSource("/events");
source.addEventListener("sweep", (event) => { line(JSON.parse(event.data)); later(); });
source.addEventListener("all", (event) => {
  const there = new Set(JSON.parse(event.data));
  for (const row of [...body.rows]) if (!there.has(row.dataset.id)) row.remove();
  later();
});
source.addEventListener("open", () => { $("live-state").textContent = ""; });
source.addEventListener("error", () => { $("live-state").textContent = "no connection to dipsweep serve; the list stands still"; });
