// A page that a server keeps up to date: new rows are drawn at once, the rest of the page follows with the next summary.

class Updates {
  // page: {data(), dirty(metrics, trial), take(document)}.
  constructor(address, page) {
    this.page = page;
    this.source = new EventSource(address);
    this.source.addEventListener("rows", (event) => this.rows(JSON.parse(event.data)));
    this.source.addEventListener("summary", (event) => {
      if (!JSON.parse(event.data).open) { // it has ended: nothing more will come
        this.source.close();
        this.say("");
      }
      this.summary();
    });
    this.source.addEventListener("driver", (event) => this.say(JSON.parse(event.data)));
    this.source.addEventListener("trouble", (event) => this.say(JSON.parse(event.data)));
    this.source.addEventListener("open", () => this.say(""));
    this.source.addEventListener("error", () => this.say("no connection to dipsweep serve; the page stands still"));
  }

  say(text) {
    const box = document.getElementById("live-state");
    if (box.textContent !== text) box.textContent = text;
  }

  // Puts new scores on their curves. A trial that the page does not know yet comes with the next summary.
  rows(changes) {
    const drawn = new Map();
    for (const change of changes) {
      const trial = this.page.trial(change.trial);
      if (!trial) continue;
      if (change.state) { trial.state = change.state; this.page.state(trial); }
      for (const [metric, value] of Object.entries(change.values ?? {})) {
        if (addPoint(trial, metric, change.step, value, change.se[metric], change.n[metric])) drawn.set(`${trial.id}\n${metric}`, [trial, metric]);
      }
    }
    for (const [trial, metric] of drawn.values()) this.page.grown(trial, metric);
  }

  async summary() {
    if (this.busy) { this.again = true; return; }
    this.busy = true;
    try {
      const answer = await fetch(location.pathname, { cache: "no-store" });
      if (answer.ok) await this.page.take(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } finally {
      this.busy = false;
    }
    if (this.again) { this.again = false; this.summary(); }
  }
}

// One point of a curve, in order of the step; a later row of the same step replaces it. False where nothing changed.
function addPoint(trial, metric, step, value, error, items) {
  const curve = (trial.curves[metric] ??= { step: [], value: [] });
  let at = curve.step.length;
  while (at > 0 && curve.step[at - 1] > step) at--;
  const same = at > 0 && curve.step[at - 1] === step;
  if (same && curve.value[at - 1] === value) return false;
  const place = same ? at - 1 : at, drop = same ? 1 : 0, before = curve.step.length;
  if (typeof curve.n === "number") curve.n = Array(before).fill(curve.n);
  if (error != null) curve.se ??= Array(before).fill(null);
  if (items != null) curve.n ??= Array(before).fill(null);
  curve.step.splice(place, drop, step);
  curve.value.splice(place, drop, value);
  curve.se?.splice(place, drop, error ?? null);
  curve.n?.splice(place, drop, items ?? null);
  return true;
}

// Puts the parts of a fresh page in place of the old ones; what was opened or scrolled stays so.
function replaceParts(fresh) {
  for (const old of document.querySelectorAll("[data-live]")) {
    const part = fresh.querySelector(`[data-live="${old.dataset.live}"]`);
    if (!part || part.innerHTML === old.innerHTML) continue;
    const name = (element) => element.querySelector("summary")?.textContent.replace(/[\d,]+/g, "") ?? "";
    const open = new Set([...old.querySelectorAll("details[open]")].map(name));
    const scrolled = [...old.querySelectorAll(".scroll")].map((s) => [s.scrollLeft, s.scrollTop]);
    const active = old.contains(document.activeElement) ? [...old.querySelectorAll("a, button, summary, [tabindex]")].indexOf(document.activeElement) : -1;
    old.replaceChildren(...[...part.childNodes].map((child) => document.adoptNode(child)));
    for (const details of old.querySelectorAll("details")) details.open = open.has(name(details));
    [...old.querySelectorAll(".scroll")].forEach((s, i) => { if (scrolled[i]) [s.scrollLeft, s.scrollTop] = scrolled[i]; });
    if (active >= 0) old.querySelectorAll("a, button, summary, [tabindex]")[active]?.focus({ preventScroll: true });
  }
}
