// All of one trial: its curves with the phases that the stop rule saw, every verdict, settings, attempts, costs, data, notes.

// A figure of one trial alone, with its phases shaded.
class TrialPanel extends Panel {
  runs() {
    super.runs();
    this.group.replaceChildren(); // the trial itself is drawn by the focus
  }

  // The phase stands at the top of its stretch where there is room for the word.
  phases(g, trial) {
    const { top, bottom } = this.box;
    for (const [phase, begin, end] of phasesOf(trial, trial.curves[this.metric].step.at(-1))) {
      const from = this.x(Math.min(begin, this.last)), width = Math.max(this.x(Math.min(end, this.last)) - from, 1);
      const area = el(g, "rect", { class: `phase area ${phase}`, x: from, width, y: top, height: bottom - top });
      el(area, "title", {}, `${phase} from step ${begin} to ${end}`);
      if (width > 8 + phase.length * 6) el(g, "text", { class: "halo", x: from + 4, y: top + 10 }, phase);
    }
  }
}

class TrialView {
  // section: the element of the section. page: as of a figure. data: () => the page's numbers.
  constructor(section, page, data) {
    Object.assign(this, { section, page, data, box: section.querySelector(".panels") });
    this.alone = section.querySelector("#trial-alone");
    this.alone.addEventListener("click", () => this.isolate(!document.body.classList.contains("alone")));
  }

  // Hides all of the page but this trial and its replies, or shows it again.
  isolate(on) {
    this.start(on);
    this.page.resized();
  }

  start(on) {
    document.body.classList.toggle("alone", on);
    this.alone.setAttribute("aria-pressed", String(on));
  }

  draw() {
    const trial = this.page.pinned();
    this.section.hidden = !trial;
    if (!trial) {
      if (document.body.classList.contains("alone")) this.isolate(false);
      return;
    }
    this.words(trial);
    this.figures(trial);
  }

  figures(trial) {
    const page = { ...this.page, visible: () => [trial], focus: () => trial, hover() {}, pin() {} };
    const shown = [...this.data().panels, "train/loss"].filter((m) => trial.curves[m]);
    this.box.replaceChildren();
    const panels = shown.map((metric) => {
      const figure = node(this.box, "figure", undefined, "panel");
      const caption = node(figure, "figcaption");
      node(caption, "h3", metric);
      node(caption, "span", undefined, "reading");
      const plot = node(figure, "div", undefined, "plot");
      node(plot, "canvas");
      el(plot, "svg", { role: "img" });
      return new TrialPanel(figure, metric, page);
    });
    for (const panel of panels) panel.draw(); // when all stand in their places
  }

  words(trial) {
    const data = this.data(), find = (id) => this.section.querySelector(`#trial-${id}`), list = (id, texts) => {
      find(id).replaceChildren();
      for (const text of texts) node(find(id), "li", text);
      find(id).parentNode.hidden = !texts.length;
    };
    find("title").textContent = trial.label;
    find("about").textContent = `${trial.id}, ${trial.state}${trial.reason ? `: ${trial.reason}` : ""}${trial.tags.length ? `; tags: ${trial.tags.join(", ")}` : ""}`;
    const setting = data.settings.find((s) => s.trials.includes(trial.id));
    const shared = setting?.shares ? [`Its best checkpoint is that of ${setting.shares} too, and is ranked there.`] : [];
    const rank = setting?.rank ? [`Its setting has rank ${setting.rank}.`] : shared;
    const told = (setting?.verdicts ?? []).map(([kind, sentence, settle]) => `${kind}: ${sentence}${settle ? ` Would settle it: ${settle}.` : ""}`);
    list("verdicts", [...rank, ...told, ...trial.paired.map((sentence) => `${sentence}.`)]);
    list("decisions", trial.decisions.map(([step, action, phase, reason]) => `step ${step ?? "–"}, ${phase}: ${action}. ${reason}`));
    list("notes", data.notes.filter(([id]) => id === trial.id).map(([, text, who, when]) => `${text} (${who}, ${when})`));
    facts(find("config"), Object.entries(trial.config));
    facts(find("facts"), trial.facts);
    facts(find("data"), data.tiers.filter((t) => t.tier === trial.config.data && t.model === trial.model).flatMap((t) => t.facts));
    if (find("replies")) find("replies").hidden = !data.replies?.kept[trial.id];
  }
}

function facts(box, pairs) {
  box.replaceChildren();
  for (const [name, text] of pairs) {
    node(box, "dt", name);
    node(box, "dd", text);
  }
  box.parentNode.hidden = !pairs.length;
}
