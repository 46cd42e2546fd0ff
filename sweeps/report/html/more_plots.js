// Safety against skill with its Pareto front, and small multiples: one small figure for each condition, all on one scale.

class Front {
  // settings: () => [{trial, label, skill, skillError, safety, safetyError, front}].
  constructor(svg, page, settings) { Object.assign(this, { svg, page, settings }); }

  draw() {
    const width = this.svg.parentNode.clientWidth - 24;
    if (width < 50) return;
    const height = Math.round(Math.min(Math.max(width * 0.58, 230), 320)), left = 44, right = width - 16, top = 12, bottom = height - 40;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren();
    const shown = this.settings();
    const domain = (value, error) => yDomain(shown.flatMap((s) => [s[value] - 2 * (s[error] ?? 0), s[value] + 2 * (s[error] ?? 0)]));
    const [x0, x1] = domain("skill", "skillError"), [y0, y1] = domain("safety", "safetyError");
    const cut = (v, low, high) => Math.min(Math.max(v, low), high);
    const x = (v) => left + ((cut(v, x0, x1) - x0) / (x1 - x0)) * (right - left), y = (v) => bottom - ((cut(v, y0, y1) - y0) / (y1 - y0)) * (bottom - top);
    for (const v of niceTicks(x0, x1)) el(this.svg, "text", { x: x(v), y: bottom + 17, "text-anchor": "middle" }, String(+v.toPrecision(4)));
    grid(this.svg, y0, y1, y, left, right);
    el(this.svg, "line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom });
    const focus = this.page.focus();
    for (const s of shown) {
      const on = focus && s.trials.includes(focus.id), colour = this.page.colour(this.page.trials().find((t) => t.id === s.trial));
      const g = el(this.svg, "g", { class: `setting${s.front ? " front" : ""}${on ? " on" : ""}`, style: `--k:${colour}` });
      if (s.skillError) el(g, "line", { class: "bar", x1: x(s.skill - 2 * s.skillError), x2: x(s.skill + 2 * s.skillError), y1: y(s.safety), y2: y(s.safety) });
      if (s.safetyError) el(g, "line", { class: "bar", x1: x(s.skill), x2: x(s.skill), y1: y(s.safety - 2 * s.safetyError), y2: y(s.safety + 2 * s.safetyError) });
      el(g, "circle", { class: "spot", cx: x(s.skill), cy: y(s.safety), r: on ? 7 : 5 });
      el(g, "title", {}, `${s.label}: ${withError(s.skill, s.skillError)} and ${withError(s.safety, s.safetyError)}${s.front ? ", on the front" : ""}`);
      g.addEventListener("click", () => this.page.picked(s.trial));
    }
  }
}

const SMALL_HEIGHT = 130;

class Multiples {
  // One canvas for each level of the axis that colours the lines.
  constructor(box, page, axis, metric) { Object.assign(this, { box, page, axis, metric }); }

  draw() {
    const axis = this.axis(), metric = this.metric();
    this.box.replaceChildren();
    this.box.parentNode.hidden = !axis || axis.levels.length < 2;
    if (this.box.parentNode.hidden) return;
    const shown = this.page.visible().filter((t) => t.curves[metric]);
    const bases = Object.values(this.page.bases).map((b) => b[metric]?.[0]).filter((v) => v !== undefined);
    const values = [...shown.flatMap((t) => t.curves[metric].value), ...bases];
    if (!values.length) return;
    const [low, high] = yDomain(values), last = Math.max(1, ...shown.map((t) => t.curves[metric].step.at(-1)));
    const first = Math.max(1, Math.min(...shown.map((t) => t.curves[metric].step[0])));
    axis.levels.forEach((level, i) => {
      const trials = shown.filter((t) => t.levels[axis.name] === i), figure = document.createElement("div"), canvas = document.createElement("canvas");
      const head = node(figure, "h3", `${axis.name} ${level}`), done = trials.map((t) => t.curves[metric].value.at(-1));
      const range = done.length ? `, ends at ${digits(Math.min(...done))} to ${digits(Math.max(...done))}` : "";
      node(head, "small", ` ${trials.length} ${trials.length === 1 ? "trial" : "trials"}${range}`);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${metric} of ${trials.length} trials with ${axis.name} ${level}${range}`);
      figure.append(canvas);
      this.box.append(figure);
      this.paint(canvas, trials, metric, low, high, first, last);
    });
  }

  paint(canvas, trials, metric, low, high, first, last) {
    const width = canvas.clientWidth || 240, ratio = devicePixelRatio || 1, ink = canvas.getContext("2d");
    [canvas.width, canvas.height] = [width * ratio, SMALL_HEIGHT * ratio];
    ink.scale(ratio, ratio);
    const log = this.page.scale() === "log", left = 30, right = width - 6, top = 8, bottom = SMALL_HEIGHT - 18;
    const x = (step) => left + (log ? Math.log1p(step / first) / Math.log1p(last / first) : step / last) * (right - left);
    const y = (v) => bottom - ((v - low) / (high - low)) * (bottom - top);
    ink.font = "11px system-ui, sans-serif";
    ink.fillStyle = cssColour("var(--soft)");
    ink.textAlign = "right";
    for (const v of [low, high]) ink.fillText(digits(v), left - 4, y(v) + 4);
    ink.fillText(last.toLocaleString("en"), right, bottom + 14);
    ink.strokeStyle = cssColour("var(--line)");
    ink.strokeRect(left, top, right - left, bottom - top);
    ink.setLineDash([4, 3]);
    ink.strokeStyle = cssColour("var(--soft)");
    for (const model of new Set(trials.map((t) => t.model))) {
      const base = this.page.bases[model]?.[metric];
      if (!base) continue;
      ink.beginPath();
      ink.moveTo(left, y(base[0]));
      ink.lineTo(right, y(base[0]));
      ink.stroke();
    }
    ink.setLineDash([]);
    const focus = this.page.focus();
    for (const trial of [...trials].sort((a, b) => (a === focus) - (b === focus))) {
      const curve = trial.curves[metric], base = this.page.bases[trial.model]?.[metric];
      ink.strokeStyle = cssColour(this.page.colour(trial));
      ink.globalAlpha = trial === focus ? 1 : trials.length > 40 ? 0.35 : 0.75;
      ink.lineWidth = trial === focus ? 2.6 : 1.2;
      ink.beginPath();
      if (base) ink.moveTo(x(0), y(base[0]));
      curve.step.forEach((step, i) => ink.lineTo(x(step), y(curve.value[i])));
      ink.stroke();
    }
    ink.globalAlpha = 1;
  }
}
