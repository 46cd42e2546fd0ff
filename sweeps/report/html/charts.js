// One figure: every trial's curve on one metric, its base line, and the trial in focus with its errors and its dip.

const NS = "http://www.w3.org/2000/svg";

function el(parent, name, attributes = {}, text) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function digits(value) {
  const size = Math.abs(value);
  const places = size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.095 || size === 0 ? 2 : size >= 0.0095 ? 3 : 4;
  return value.toFixed(places);
}

function withError(value, error) {
  return error == null ? digits(value) : `${digits(value)} ± ${digits(error)}`;
}

function niceStep(span, count) {
  const raw = span / count, power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 5, 10].find((m) => m * power >= raw);
}

// Round values from low to high.
function niceTicks(low, high) {
  const step = niceStep(high - low, 5), ticks = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + 1e-9; v += step) ticks.push(v);
  return ticks;
}

// A line and a number at each round value of a figure's upward axis.
function grid(svg, low, high, y, left, right) {
  for (const v of niceTicks(low, high)) {
    el(svg, "line", { class: "grid", x1: left, x2: right, y1: y(v), y2: y(v) });
    el(svg, "text", { x: left - 7, y: y(v) + 4, "text-anchor": "end" }, String(+v.toPrecision(4)));
  }
}

function yDomain(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const share = low >= 0 && high <= 1;
  if (share && high - low > 0.4) return [0, 1];
  const pad = (high - low || Math.abs(high) || 1) * 0.08;
  [low, high] = [low - pad, high + pad];
  return share ? [Math.max(low, 0), Math.min(high, 1)] : [low, high];
}

const MANY = 40; // trials from which lines are painted on a canvas: a thousand paths take seconds, a thousand lines do not

const resolved = new Map();
function cssColour(colour) {
  if (!resolved.has(colour)) {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = colour;
    resolved.set(colour, getComputedStyle(probe).color);
    probe.remove();
  }
  return resolved.get(colour);
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => resolved.clear());

// The phases that the stop rule saw a trial in, [phase, first step, last step]: it speaks when a phase begins.
function phasesOf(trial, last) {
  const found = [];
  for (const [step, , phase] of trial.decisions) {
    if (step == null) continue;
    if (found.length) found.at(-1)[2] = Math.max(step, found.at(-1)[1]);
    if (found.at(-1)?.[0] === phase) found.at(-1)[2] = last;
    else found.push([phase, step, last]);
  }
  return found.filter(([phase, begin, end]) => phase && phase !== "unknown" && end >= begin);
}

class Panel {
  // figure: element with .reading and svg. metric: its name. model: {trials, bases, colour(trial), focus(), scale(), on(event)}.
  constructor(figure, metric, page) {
    Object.assign(this, { figure, metric, page, svg: figure.querySelector("svg"), reading: figure.querySelector(".reading") });
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => page.hover(null));
    this.svg.addEventListener("click", (event) => { this.point(event); page.pin(); });
  }

  trials() {
    return this.page.visible().filter((t) => t.curves[this.metric]);
  }

  draw() {
    const width = this.figure.clientWidth - 24;
    if (width < 50) return;
    const height = Math.round(Math.min(Math.max(width * 0.58, 210), 300));
    const margin = 12 + Math.min(Math.max(0, ...this.bases().map((b) => this.baseName(b).length)) * 6.4, width * 0.3);
    this.box = { left: 40, right: width - margin, top: 12, bottom: height - 34, width, height };
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren();
    this.scales();
    this.axes();
    this.baseLines();
    this.runs();
    this.layer = el(this.svg, "g");
    this.highlight();
  }

  bases() {
    const models = new Set(this.page.visible().map((t) => t.model));
    return Object.entries(this.page.bases).filter(([m, b]) => models.has(m) && b[this.metric]).map(([m, b]) => [m, ...b[this.metric]]);
  }

  scales() {
    const curves = this.trials().map((t) => t.curves[this.metric]);
    let last = 1, first = Infinity;
    for (const c of curves) for (const s of c.step) if (s > 0) [first, last] = [Math.min(first, s), Math.max(last, s)];
    first = Math.min(first, last);
    const log = this.page.scale() === "log";
    const place = (step) => (log ? Math.log1p(step / first) / Math.log1p(last / first) : step / last);
    const { left, right, top, bottom } = this.box;
    this.x = (step) => left + place(step) * (right - left);
    const [low, high] = yDomain([...curves.flatMap((c) => c.value), ...this.bases().map((b) => b[1]), ...(curves.length ? [] : [0, 1])]);
    this.y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
    Object.assign(this, { low, high, first, last, log });
  }

  axes() {
    const { left, right, bottom, height } = this.box;
    grid(this.svg, this.low, this.high, this.y, left, right);
    el(this.svg, "line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom });
    let edge = -Infinity;
    for (const tick of this.ticks()) {
      const x = this.x(tick), half = 4 + String(tick).length * 3.6;
      if (x - half < edge || x + half > right + 12) continue;
      edge = x + half;
      el(this.svg, "line", { class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 4 });
      el(this.svg, "text", { x, y: bottom + 17, "text-anchor": "middle" }, tick.toLocaleString("en"));
    }
    el(this.svg, "text", { x: right, y: height - 2, "text-anchor": "end" }, "optimizer step" + (this.log ? " (log)" : ""));
  }

  ticks() {
    if (!this.log) {
      const step = niceStep(this.last, 5);
      return Array.from({ length: Math.floor(this.last / step + 1e-9) + 1 }, (_, i) => i * step).filter(Number.isInteger);
    }
    const ticks = [0];
    for (let p = 1; p <= this.last; p *= 10) for (const m of [1, 2, 5]) if (m * p >= this.first && m * p <= this.last) ticks.push(m * p);
    return ticks;
  }

  baseName([model, value]) {
    return `${new Set(this.page.visible().map((t) => t.model)).size > 1 ? model : "base"} ${digits(value)}`;
  }

  baseLines() {
    const { left, right } = this.box;
    let free = -Infinity; // labels stand in the right margin, pushed down where two would touch
    for (const base of this.bases().sort((a, b) => b[1] - a[1])) {
      const [model, value, error] = base, y = this.y(value);
      if (error) {
        const high = this.y(Math.min(value + 2 * error, this.high)), low = this.y(Math.max(value - 2 * error, this.low));
        el(this.svg, "rect", { class: "baseband", x: left, width: right - left, y: high, height: Math.max(low - high, 0) });
      }
      el(this.svg, "line", { class: "base", x1: left, x2: right, y1: y, y2: y });
      free = Math.max(y + 4, free + 13);
      const text = el(this.svg, "text", { x: right + 8, y: free }, this.baseName(base));
      el(text, "title", {}, model);
    }
  }

  runs() {
    const group = el(this.svg, "g", { class: "runs" });
    this.group = group;
    const trials = this.trials();
    this.points = [];
    group.style.setProperty("--dim", trials.length > 12 ? 0.25 : 0.45);
    this.paint(trials.length > MANY ? trials : []);
    for (const trial of trials) {
      if (trials.length <= MANY) {
        const run = el(group, "g", { style: `--k:${this.page.colour(trial)}`, "data-trial": trial.id });
        el(run, "path", { class: "run", d: this.path(trial), "stroke-width": 1.6, opacity: 0.9 });
        if (trials.length <= 12) this.errorBars(run, trial);
        this.ending(run, trial, 4);
      }
      trial.curves[this.metric].step.forEach((s, i) => this.points.push([this.x(s), this.y(trial.curves[this.metric].value[i]), trial, i]));
    }
  }

  // One more score of one trial: its last stretch alone is painted where the figure stays as it is, else all is drawn anew.
  grow(trial) {
    const curve = trial.curves[this.metric], i = curve.step.length - 1, step = curve.step[i], value = curve.value[i];
    const fits = this.box && step <= this.last && step >= this.first && value >= this.low && value <= this.high;
    if (!fits || this.trials().length <= MANY || trial === this.page.focus()) { this.draw(); return; }
    const ink = this.svg.parentNode.querySelector("canvas").getContext("2d"), base = this.page.bases[trial.model]?.[this.metric];
    const from = i ? [curve.step[i - 1], curve.value[i - 1]] : base ? [0, base[0]] : [step, value];
    ink.strokeStyle = cssColour(this.page.colour(trial));
    ink.beginPath();
    ink.moveTo(this.x(from[0]), this.y(from[1]));
    ink.lineTo(this.x(step), this.y(value));
    ink.stroke();
    this.points.push([this.x(step), this.y(value), trial, i]);
  }

  // Lines and endings of many trials, on the canvas behind the axes.
  paint(trials) {
    const canvas = this.svg.parentNode.querySelector("canvas"), ratio = devicePixelRatio || 1;
    canvas.width = this.box.width * ratio;
    canvas.height = this.box.height * ratio;
    canvas.dataset.runs = trials.length;
    const ink = canvas.getContext("2d");
    ink.scale(ratio, ratio);
    const hair = trials.length > 200; // lines of one pixel take half the time of wider ones
    ink.lineWidth = hair ? 1 / ratio : 1.1;
    ink.lineJoin = hair ? "bevel" : "round";
    ink.globalAlpha = trials.length > 200 ? 0.35 : 0.55;
    for (const trial of trials) {
      const curve = trial.curves[this.metric], base = this.page.bases[trial.model]?.[this.metric], n = curve.step.length;
      ink.strokeStyle = cssColour(this.page.colour(trial));
      ink.beginPath();
      if (base) ink.moveTo(this.x(0), this.y(base[0]));
      for (let i = 0; i < n; i++) ink.lineTo(this.x(curve.step[i]), this.y(curve.value[i]));
      if (trial.state === "pruned" || trial.state === "failed") {
        const x = this.x(curve.step[n - 1]), y = this.y(curve.value[n - 1]);
        ink.moveTo(x - 2.6, y - 2.6); ink.lineTo(x + 2.6, y + 2.6); ink.moveTo(x - 2.6, y + 2.6); ink.lineTo(x + 2.6, y - 2.6);
      }
      ink.stroke();
    }
  }

  // The curve with the base model's score in front of it.
  coordinates(trial) {
    const curve = trial.curves[this.metric], base = this.page.bases[trial.model]?.[this.metric];
    const own = curve.step.map((s, i) => [s, curve.value[i], curve.se?.[i]]);
    return base ? [[0, base[0], base[1]], ...own] : own;
  }

  path(trial) {
    return "M" + this.coordinates(trial).map(([s, v]) => `${this.x(s).toFixed(1)},${this.y(v).toFixed(1)}`).join("L");
  }

  errorBars(run, trial) {
    for (const [step, value, error] of this.coordinates(trial).filter((c) => c[0] > 0)) {
      const x = this.x(step);
      if (error) el(run, "line", { class: "bar", x1: x, x2: x, y1: this.y(Math.min(value + 2 * error, this.high)), y2: this.y(Math.max(value - 2 * error, this.low)) });
      el(run, "circle", { class: "dot", cx: x, cy: this.y(value), r: 1.8 });
    }
  }

  // How a run ended: a cross when pruned or failed, a ring when paused or running, a dot when complete.
  ending(run, trial, r) {
    const curve = trial.curves[this.metric], i = curve.step.length - 1;
    const x = this.x(curve.step[i]), y = this.y(curve.value[i]);
    if (trial.state === "pruned" || trial.state === "failed") el(run, "path", { class: "end", d: `M${x - r},${y - r}l${2 * r},${2 * r}M${x - r},${y + r}l${2 * r},${-2 * r}` });
    else if (trial.state === "completed") el(run, "circle", { class: "dot", cx: x, cy: y, r: r * 0.8 });
    else el(run, "circle", { class: "end", cx: x, cy: y, r });
  }

  highlight() {
    const trial = this.page.focus();
    const known = trial && trial.curves[this.metric] && this.page.visible().includes(trial);
    this.group.classList.toggle("dim", Boolean(known));
    this.svg.parentNode.querySelector("canvas").classList.toggle("dim", Boolean(known));
    this.layer.replaceChildren();
    this.reading.textContent = known ? trial.readings[this.metric] ?? "" : trial ? `${trial.label}: not scored here` : "";
    this.svg.setAttribute("aria-label", `${this.metric} by optimizer step, ${this.trials().length} trials. ${this.reading.textContent}`);
    if (known) this.focusRun(trial);
  }

  focusRun(trial) {
    const g = el(this.layer, "g", { style: `--k:${this.page.colour(trial)}` });
    const points = this.coordinates(trial), shape = trial.shapes[this.metric];
    const line = (list) => list.map(([s, v]) => `${this.x(s).toFixed(1)},${this.y(v).toFixed(1)}`).join("L");
    const cut = (v) => Math.min(Math.max(v, this.low), this.high);
    const edge = (side) => points.map(([s, v, e]) => [s, cut(v + side * 2 * (e ?? 0))]);
    el(g, "path", { class: "band", d: `M${line(edge(1))}L${line(edge(-1).reverse())}Z` });
    if (shape?.fell_at != null) this.shadeDip(g, trial, points, shape);
    this.phases(g, trial);
    el(g, "path", { class: "run", d: `M${line(points)}`, "stroke-width": 2.8 });
    for (const [s, v] of points.slice(1)) el(g, "circle", { class: "dot", cx: this.x(s), cy: this.y(v), r: 2.6 });
    this.ending(g, trial, 5);
    if (shape?.fell_at != null) this.markDip(g, points, shape);
  }

  // What phase the stop rule saw the trial in, as a strip along the axis.
  phases(g, trial) {
    const { bottom } = this.box;
    for (const [phase, begin, end] of phasesOf(trial, trial.curves[this.metric].step.at(-1))) {
      const from = this.x(begin), to = this.x(end);
      const strip = el(g, "rect", { class: `phase ${phase}`, x: from, width: Math.max(to - from, 1), y: bottom - 5, height: 5 });
      el(strip, "title", {}, `${phase} from step ${begin} to ${end}`);
    }
  }

  // From the last step before the fall to the first one back: the area between curve and base.
  shadeDip(g, trial, points, shape) {
    const base = this.page.bases[trial.model][this.metric][0];
    const end = shape.recovered_at ?? Infinity;
    const start = Math.max(...points.filter(([s]) => s < shape.fell_at).map(([s]) => s));
    const inside = points.filter(([s]) => s >= start && s <= end);
    const below = inside.map(([s, v]) => `${this.x(s).toFixed(1)},${this.y(shape.sign > 0 ? Math.min(v, base) : Math.max(v, base)).toFixed(1)}`);
    const back = `${this.x(inside.at(-1)[0]).toFixed(1)},${this.y(base).toFixed(1)}L${this.x(inside[0][0]).toFixed(1)},${this.y(base).toFixed(1)}`;
    el(g, "path", { class: "dip", d: `M${below.join("L")}L${back}Z` });
  }

  // The low stands under its point and the return right of it, where the curve has passed; above, where less is better.
  markDip(g, points, shape) {
    const { left, right, bottom } = this.box, down = shape.sign > 0;
    const low = points.find(([s]) => s === shape.low), back = points.find(([s]) => s === shape.recovered_at);
    if (low) {
      const x = Math.min(Math.max(this.x(low[0]), left + 34), right - 34), y = this.y(low[1]);
      el(g, "text", { class: "mark halo", x, y: down && y + 20 < bottom - 2 ? y + 20 : y - 11, "text-anchor": "middle" }, `low ${digits(low[1])}`);
    }
    if (back && this.x(back[0]) - this.x(low[0]) > 30) {
      const x = Math.min(this.x(back[0]) + 9, right - 44), y = this.y(back[1]);
      el(g, "circle", { class: "end", cx: this.x(back[0]), cy: y, r: 6 });
      el(g, "text", { class: "mark halo", x, y: down ? y + 22 : y - 14 }, `back at ${back[0]}`);
    }
  }

  point(event) {
    const frame = this.svg.getBoundingClientRect(), k = this.box.width / frame.width;
    const x = (event.clientX - frame.left) * k, y = (event.clientY - frame.top) * k;
    let best = null, nearest = 26 ** 2;
    for (const p of this.points) {
      const d = (p[0] - x) ** 2 + (p[1] - y) ** 2;
      if (d < nearest) [best, nearest] = [p, d];
    }
    this.page.hover(best && best[2], best && this.tip(best[2], best[3]), event);
  }

  tip(trial, i) {
    const c = trial.curves[this.metric];
    const n = typeof c.n === "number" ? c.n : c.n?.[i], items = n == null ? "" : `, n = ${n}`;
    return [trial.label, `step ${c.step[i]}: ${withError(c.value[i], c.se?.[i])}${items}`, trial.state + (trial.reason ? `: ${trial.reason}` : "")];
  }
}
