// The replies behind the scores: the base model's beside those of one checkpoint, item by item.

const PAGE_OF = 12; // items shown at once

const SHOWS = {
  "": "all", right: "right", wrong: "wrong", refused: "refused", complied: "complied",
  lost: "right before, not now", gained: "right now, not before", "cut off": "cut off",
};

function node(parent, name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  parent.append(made);
  return made;
}

// A text that scrolls takes the focus, so that keys can scroll it.
function said(parent, text) {
  const box = node(parent, "pre", text, "said");
  if (box.scrollHeight > box.clientHeight) box.tabIndex = 0;
}

class Replies {
  // section: the element of the section. data: {kept, held, fetch, base}. page: {trials(), pick(trial), address()}.
  constructor(section, data, page) {
    Object.assign(this, { section, data, page, trial: "", shown: PAGE_OF, asked: 0, found: { replies: [], base: [], of: 0 } });
    const find = (name) => section.querySelector(`#reply-${name}`);
    this.fields = { trial: find("trial"), step: find("step"), role: find("role"), show: find("show"), words: find("words") };
    this.list = find("list");
    this.count = find("count");
    this.more = find("more");
    this.fields.show.replaceChildren(...Object.entries(SHOWS).map(([value, text]) => new Option(text, value)));
    this.fields.trial.addEventListener("change", () => { this.follow(this.fields.trial.value); page.picked(this.fields.trial.value); });
    for (const name of ["step", "role", "show"]) this.fields[name].addEventListener("change", () => { this.load(); page.address(); });
    this.fields.words.addEventListener("input", () => { this.shown = PAGE_OF; this.draw(); page.address(); });
    this.more.addEventListener("click", () => { this.shown += PAGE_OF; this.draw(); });
    this.names();
  }

  // The trials that kept any, in the order of the page.
  names() {
    const known = this.page.trials().filter((t) => this.data.kept[t.id]);
    this.fields.trial.replaceChildren(...known.map((t) => new Option(t.label, t.id)));
  }

  // More were kept meanwhile.
  update(data) {
    this.data = data;
    this.names();
    const trial = this.trial;
    this.trial = "";
    this.follow(data.kept[trial] ? trial : this.fields.trial.options[0]?.value);
  }

  // Shows the replies of a trial, at the step that is picked where it has them, else at its last.
  follow(id) {
    if (id === this.trial || !this.data.kept[id]) return;
    this.trial = id;
    this.fields.trial.value = id;
    const held = this.data.held[id] ?? {}, steps = this.data.kept[id].map(String), before = this.fields.step.value;
    this.fields.step.replaceChildren(...steps.map((s) => {
      const option = new Option(Number(s).toLocaleString("en"), s);
      option.disabled = !this.data.fetch && !held[s];
      return option;
    }));
    const there = steps.filter((s) => this.data.fetch || held[s]);
    this.fields.step.value = there.includes(before) ? before : there.at(-1) ?? "";
    this.load();
  }

  // What was picked, for the page's address, and back.
  said(params) {
    const { step, role, show, words } = this.fields;
    const last = step.options.length && [...step.options].filter((o) => !o.disabled).at(-1)?.value;
    if (step.value && step.value !== last) params.set("step", step.value);
    for (const [name, field] of Object.entries({ role, show, words })) if (field.value) params.set(`reply-${name}`, field.value);
  }

  recall(params, trial) {
    const { step, role, show, words } = this.fields;
    if (params.get("reply-role")) role.add(new Option(params.get("reply-role")));
    role.value = params.get("reply-role") ?? "";
    show.value = params.get("reply-show") ?? "";
    words.value = params.get("reply-words") ?? "";
    if (params.get("step")) step.add(new Option(params.get("step")));
    step.value = params.get("step") ?? "";
    this.follow(this.data.kept[trial] ? trial : this.fields.trial.options[0]?.value);
  }

  async load() {
    const { step, role, show } = this.fields, asked = ++this.asked;
    this.shown = PAGE_OF;
    const base = this.data.base + (this.page.trials().find((t) => t.id === this.trial)?.model ?? "");
    if (this.data.fetch) {
      const said = new URLSearchParams({ base, role: role.value, show: ["lost", "gained"].includes(show.value) ? "" : show.value });
      this.count.textContent = "reading …";
      try {
        const answer = await fetch(`${this.data.fetch}/${encodeURIComponent(this.trial)}/${step.value}.json?${said}`);
        if (!answer.ok) throw new Error(await answer.text());
        const found = await answer.json();
        if (asked !== this.asked) return; // another was picked meanwhile
        this.found = found;
      } catch (error) {
        if (asked !== this.asked) return;
        this.found = { replies: [], base: [], of: 0, trouble: error.message };
      }
    } else {
      const replies = this.data.held[this.trial]?.[step.value] ?? [];
      this.found = { replies, base: this.data.held[base]?.["0"] ?? [], of: replies.length };
    }
    const roles = [...new Set(this.found.replies.map((r) => r.role))], before = role.value;
    if (!this.data.fetch || !before) role.replaceChildren(new Option("all", ""), ...roles.map((r) => new Option(r)));
    role.value = [...role.options].some((o) => o.value === before) ? before : "";
    this.draw();
  }

  draw() {
    const key = (r) => [r.role, r.task, r.item, r.sample ?? 0].join("\n"), words = this.fields.words.value.trim().toLowerCase();
    const bases = new Map(this.found.base.map((r) => [key(r), r])), { role, show } = this.fields;
    const right = (r) => r?.words[0] === "right";
    const fits = (r, base) =>
      (!role.value || r.role === role.value) &&
      (!words || `${r.task} ${r.prompt} ${r.thought ?? ""} ${r.answer ?? ""}`.toLowerCase().includes(words)) &&
      ({ "": true, lost: right(base) && !right(r), gained: base && !right(base) && right(r) }[show.value] ?? r.words.includes(show.value));
    const pairs = this.found.replies.map((r) => [r, bases.get(key(r))]).filter(([r, base]) => fits(r, base));
    this.list.replaceChildren();
    for (const [reply, base] of pairs.slice(0, this.shown)) this.card(reply, base);
    this.more.hidden = pairs.length <= this.shown;
    const cut = this.found.of > this.found.replies.length ? ` of the first ${this.found.replies.length} of ${this.found.of} kept` : "";
    this.count.textContent = this.found.trouble ?? `${pairs.length} ${pairs.length === 1 ? "reply" : "replies"}${cut}`;
  }

  card(reply, base) {
    const card = node(this.list, "li", undefined, "reply");
    node(card, "h3", `${reply.role} · ${reply.task} · item ${reply.item + 1}${reply.sample ? `, sample ${reply.sample + 1}` : ""}`);
    said(card, reply.prompt);
    const pair = node(card, "div", undefined, "pair");
    this.side(pair, "base", base);
    this.side(pair, `step ${Number(this.fields.step.value).toLocaleString("en")}`, reply);
  }

  side(pair, name, reply) {
    const box = node(pair, "div", undefined, "side"), head = node(box, "p", `${name} `, "soft");
    if (!reply) {
      node(head, "span", "not kept");
      return;
    }
    for (const word of reply.words) node(head, "span", word, `chip ${word.replace(" ", "-")}`);
    const scores = Object.entries(reply.scores).map(([metric, v]) => `${metric} ${digits(v)}`).join(", ");
    const missing = reply.shortened ? `, ${reply.shortened.toLocaleString("en")} characters left out` : "";
    node(head, "small", `${scores}${scores ? ", " : ""}${reply.tokens} tokens${missing}`);
    if (reply.thought) {
      const thought = node(box, "details");
      node(thought, "summary", "Thought");
      node(thought, "pre", reply.thought, "said").tabIndex = 0;
    }
    if (reply.answer == null) node(box, "p", "No answer: the thought never ended.", "soft");
    else said(box, reply.answer === "" ? "(empty)" : reply.answer);
  }
}
