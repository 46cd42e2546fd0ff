// Scores against the settings: one setting across, or all that differ side by side (parallel coordinates).

function lastScore(trial, metric) {
  return trial.curves[metric]?.value.at(-1);
}

// What places a trial on a setting's axis, from 0 to 1; undefined when the trial has no such setting.
function placeOn(parameter) {
  if (!parameter.numeric) {
    const last = Math.max(parameter.levels.length - 1, 1);
    return (trial) => { const i = parameter.levels.indexOf(trial.config[parameter.name]); return i < 0 ? undefined : i / last; };
  }
  const scale = parameter.log ? Math.log : (v) => v;
  const low = scale(parameter.low), span = scale(parameter.high) - low || 1;
  return (trial) => { const v = trial.values[parameter.name]; return v === undefined ? undefined : (scale(v) - low) / span; };
}

// Ticks of an axis: [place, text].
function ticksOn(parameter, count = 5) {
  if (!parameter.numeric) return parameter.levels.map((level, i) => [i / Math.max(parameter.levels.length - 1, 1), level]);
  const { low, high } = parameter;
  const at = (i) => (parameter.log ? low * (high / low) ** (i / (count - 1)) : low + ((high - low) * i) / (count - 1));
  return Array.from({ length: count }, (_, i) => [i / (count - 1), Number(at(i).toPrecision(2)).toString()]);
}

class Scatter {
  constructor(svg, page, metric, parameter) { Object.assign(this, { svg, page, metric, parameter }); }

  draw() {
    const width = this.svg.parentNode.clientWidth - 24, parameter = this.parameter(), metric = this.metric();
    if (width < 50 || !parameter) return;
    const height = Math.round(Math.min(Math.max(width * 0.58, 210), 300)), place = placeOn(parameter);
    const left = 44, right = width - 26, top = 12, bottom = height - 40;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren();
    const shown = this.page.visible().filter((t) => lastScore(t, metric) !== undefined && place(t) !== undefined);
    const [low, high] = yDomain([...shown.map((t) => lastScore(t, metric)), ...(shown.length ? [] : [0, 1])]);
    const y = (v) => bottom - ((v - low) / (high - low)) * (bottom - top), x = (p) => left + p * (right - left);
    grid(this.svg, low, high, y, left, right);
    el(this.svg, "line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom });
    let edge = -Infinity;
    for (const [p, text] of ticksOn(parameter)) {
      const half = 3 + text.length * 3.2, at = Math.min(Math.max(x(p), half), width - half);
      if (at - half < edge) continue;
      edge = at + half;
      el(this.svg, "text", { x: at, y: bottom + 17, "text-anchor": "middle" }, text);
    }
    el(this.svg, "text", { x: right, y: height - 4, "text-anchor": "end" }, parameter.name + (parameter.log ? " (log)" : ""));
    const focus = this.page.focus();
    for (const trial of shown) {
      const spot = el(this.svg, "circle", {
        class: `spot${trial.state === "completed" ? "" : " out"}${trial === focus ? " on" : ""}`, r: trial === focus ? 6 : 4,
        cx: x(place(trial)), cy: y(lastScore(trial, metric)), style: `--k:${this.page.colour(trial)}`, "data-trial": trial.id,
      });
      el(spot, "title", {}, `${trial.label}: ${digits(lastScore(trial, metric))}`);
      spot.addEventListener("click", () => this.page.pick(trial));
    }
  }
}

class Parallel {
  constructor(svg, page, parameters, metric) { Object.assign(this, { svg, page, parameters, metric }); }

  draw() {
    const width = this.svg.parentNode.clientWidth - 24, metric = this.metric();
    if (width < 50) return;
    const height = 300, top = 34, bottom = height - 14;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren();
    const shown = this.page.visible().filter((t) => lastScore(t, metric) !== undefined);
    const values = shown.map((t) => lastScore(t, metric)), [low, high] = yDomain(values.length ? values : [0, 1]);
    const score = { name: metric, place: (t) => (lastScore(t, metric) - low) / (high - low), ticks: [[0, digits(low)], [1, digits(high)]] };
    const most = Math.max(2, Math.floor(width / 80));
    const axes = [...this.parameters().slice(0, most - 1).map((p) => ({ name: p.name, place: placeOn(p), ticks: ticksOn(p, 3) })), score];
    const x = (i) => 40 + (i * (width - 80)) / Math.max(axes.length - 1, 1), y = (p) => bottom - p * (bottom - top);
    const focus = this.page.focus();
    for (const trial of [...shown].sort((a, b) => (a === focus) - (b === focus))) {
      const points = axes.map((axis, i) => [x(i), axis.place(trial)]).filter(([, p]) => p !== undefined);
      const line = el(this.svg, "path", {
        class: `line${trial === focus ? " on" : ""}`, style: `--k:${this.page.colour(trial)}`, "data-trial": trial.id,
        d: "M" + points.map(([at, p]) => `${at.toFixed(1)},${y(p).toFixed(1)}`).join("L"),
      });
      el(line, "title", {}, `${trial.label}: ${digits(lastScore(trial, metric))}`);
      line.addEventListener("click", () => this.page.pick(trial));
    }
    axes.forEach((axis, i) => {
      el(this.svg, "line", { class: "axis", x1: x(i), x2: x(i), y1: top, y2: bottom });
      el(this.svg, "text", { class: "name", x: x(i), y: i % 2 ? 26 : 12, "text-anchor": "middle" }, axis.name);
      for (const [p, text] of axis.ticks) {
        const end = i === axes.length - 1;
        el(this.svg, "text", { class: "halo", x: x(i) + (end ? -5 : 5), y: y(p) + 4, "text-anchor": end ? "end" : "start" }, text);
      }
    });
  }
}
