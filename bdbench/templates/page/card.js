// The dialog: a submission with its groups, or a card with everything it rests on.

const openCard = (card) => go(state.track.name, "card", card.cell[2], card.cell[0], card.cell[1], card.cell[3]);

function source(track, entry) {
  if (!entry) return [];
  const file = `${track.name}/${entry.folder}/${entry.name}.json`;
  const link = el("a", { href: file, text: file });
  if (entry.folder === "evidence") return [["evidence of the declared statistic", link]];
  const word = entry.word
    ? `${entry.level} by ${entry.word.by} on ${entry.word.on}: ${entry.word.cells} cells, largest difference ${percent(entry.word.difference, 2)} points`
    : "claimed, not verified yet";
  return [
    ["submission", link], ["sha256", el("span", { class: "mono", text: entry.sha256 })],
    ["level", word],
  ];
}

function seedLinks(track, cards, current) {
  return cards.map((card) => el("button", {
    type: "button", "aria-pressed": current ? String(card === current) : null, onclick: () => openCard(card),
    text: card.status === "ok" ? String(card.cell[3]) : `${card.cell[3]} (${card.status === "control" ? "control" : "attack failed"})`,
  }));
}

function entrySheet(track, axis, row) {
  const entry = track.entries[row.entry];
  const others = AXES_ORDER.filter((name) => name !== axis);
  const cell = (found) => {
    const at = { [axis]: row.name, [others[0]]: found[0], [others[1]]: found[1] };
    return cardsOf(track.cards, at.defense, at.attack, at.objective);
  };
  const rest = others[0] === "attack" ? track.attacks : track.objectives;
  const further = others[1] === "objective" ? track.objectives : [...new Set(track.cards.map((card) => card.cell[2]))];
  const uncounted = rest.flatMap((first) => further.map((second) => [first, second]))
    .filter(([first, second]) => ![...row.groups, ...row.further].some((found) => found[0] === first && found[1] === second))
    .map((found) => [found, cell(found)]).filter(([, cards]) => cards.length);
  const counted = (title, groups) => [
    el("h4", { text: title }),
    grid([others[0], others[1], "undefended", "ASR, blind", "loss", "oracle loss", "cleaned", "cards by seed"], groups.map((found) => [
      found[0], found[1], percent(found[2]), [heat("span", found[3][0], {}, partial(track, found)), range(found[3][1], found[3][2])], percent(found[4]),
      found[5] === null ? "–" : percent(found[5]), `${found[6]}/${found[7]}`, el("div", { class: "seeds tight" }, seedLinks(track, cell(found), null)),
    ]), { numbers: [2, 3, 4, 5, 6], caption: title }),
  ];
  return [
    el("h2", { id: "dialog-name", text: row.name }),
    el("p", { class: "quiet", text: entry ? entry.summary : `A built-in ${axis}, measured by the submissions of the track.` }),
    facts([
      ["rank", row.unranked ? `none: ${row.unranked}` : `${row.rank}${row.apart === false ? " ≈ not distinguishable from the best" : ""}`],
      ...(entry ? [["authors", entry.authors.join(", ")]] : []),
      ...(entry?.url.startsWith("https://") ? [["method", el("a", { href: entry.url, rel: "noopener noreferrer nofollow", text: entry.url })]] : []),
      ...source(track, entry),
    ]),
    ...counted("Cells that count", row.groups),
    ...(row.further.length ? counted("Cells beyond the track, not ranked", row.further) : []),
    ...(uncounted.length ? [el("h4", { text: "Cells that do not" }),
      grid([others[0], others[1], "cards by seed"], uncounted.map(([found, cards]) => [
        ...found, el("div", { class: "seeds tight" }, seedLinks(track, cards, null))]), { caption: "Cells that do not count" })] : []),
  ];
}

const AXES_ORDER = ["attack", "objective", "defense"];

function score(found) {
  if (!found) return "–";
  return [percent(found[0]), range(found[1], found[2], false), el("span", { class: "sub", text: found[3] })];
}

const HEADLINE = new Map(Object.entries({
  clean_top1: "clean accuracy", asr_top1: "ASR", base_rate: "base rate", lift: "lift", triggered_top1: "accuracy, triggered",
}));

function selected(card) {
  const names = data.pool[card.metrics];
  const picked = (i) => data.pool[card.picked[i]];
  const figures = (i, wanted) => names.flatMap((metric, at) => (wanted(metric) ? [i === null ? "–" : score(picked(i)[at + 1])] : []));
  const main = names.filter((metric) => HEADLINE.has(metric));
  const further = names.filter((metric) => !HEADLINE.has(metric));
  return [
    grid(["model", "which", ...main.map((metric) => HEADLINE.get(metric))], card.rules.map(([rule, i]) => [
      rule, i === null ? "none qualifies" : picked(i)[0], ...figures(i, (metric) => HEADLINE.has(metric)),
    ]), { numbers: main.map((_, at) => at + 2), caption: "Selected models, in per cent" }),
    further.length ? [el("h4", { text: "Further metrics" }),
      grid(["metric", ...card.rules.map(([rule]) => rule)], further.map((metric) => [
        metric, ...card.rules.map(([, i]) => figures(i, (name) => name === metric)[0]),
      ]), { numbers: card.rules.map((_, at) => at + 1), caption: "Further metrics of the selected models, in per cent" })] : null,
  ];
}

function trajectory(card) {
  const models = modelsOf(card);
  const notes = (i) => [...card.rules.filter(([, at]) => at === i).map(([rule]) => rule), ...(card.front.includes(i) ? ["frontier"] : [])].join(", ");
  return el("details", {}, el("summary", { text: `Trajectory as a table, ${models.length} models` }),
    grid(["run", "epoch", "clean accuracy", "ASR", "validation", "picked by"], models.map((found) => [
      found.step ? runName(card, found.order) : "starting model", String(found.step),
      ...[found.acc, found.asr, found.validation].map((value) => percent(value / 100)), notes(found.i),
    ]), { numbers: [1, 2, 3, 4], caption: "Trajectory, in per cent" }));
}

function cardSheet(track, card, cards) {
  const [attack, objective, defense, seed] = card.cell;
  const about = data.pool[card.about];
  const entry = track.entries[card.entry];
  const plot = el("figure");
  const status = { ok: "The attack worked", attack_failed: "Attack failed, shown and not ranked", control: "Control, nothing to remove" }[card.status];
  const pooled = (at) => data.pool[at];
  const stages = card.stages.map(pooled);
  const parameters = about.parameters.flatMap(pooled);
  const parts = [
    el("h2", { id: "dialog-name", text: `${defense} against ${attack} on ${objective}` }),
    el("p", { class: "quiet", text: `Recipe ${about.recipe[0]}: ${about.recipe[1]}` }),
    el("div", { class: "seeds", role: "group", "aria-label": "Seed" }, "seed", seedLinks(track, cards, card)),
    el("p", { class: "quiet", text: `${status}: ${data.pool[card.reason]}.` }),
    ...selected(card),
    el("h4", { text: "Trajectory: every model, a line per run" }), plot, trajectory(card),
    el("details", { open: true }, el("summary", { text: "Provenance" }),
      facts([...source(track, entry), ...pooled(about.components), ...pooled(about.metrics), ...pooled(about.versions), ...data.pool[card.seeds].map(([name, value]) => [`seed of ${name}`, value]),
        ...pooled(about.threads).map(([name, value]) => [`threads of ${name}`, value])])),
    el("details", { open: true }, el("summary", { text: "Data and poison" }), facts([...pooled(about.poison), ...pooled(about.data)])),
    el("details", {}, el("summary", { text: `Parameters, ${parameters.length}` }),
      grid(["of", "parameter", "value", ""], parameters.map(([owner, name, value, changed]) => [
        owner, name, el("span", { class: "mono", text: value }), changed ? "overridden" : ""]))),
    el("details", {}, el("summary", { text: `Keys and checksums, ${stages.length} stages` }),
      grid(["stage", "of", "key", "file", "sha256"], stages.flatMap(([stage, label, key, files]) => files.map(([file, sha]) => [
        stage, label, ...[key, file, sha].map((text) => el("span", { class: "mono", text }))])))),
    el("details", {}, el("summary", { text: "Cost" }),
      grid(["stage", "seconds", "samples"], card.cost, { numbers: [1, 2] })),
  ];
  return [parts, () => fill(plot, cardPlot(card, Math.min(760, Math.max(280, $("sheet").clientWidth))))];
}

function route() {
  const [name, what, ...rest] = where();
  const track = data.tracks.find((found) => found.name === name);
  if (track && track !== state.track) showTrack(track);
  let parts = null;
  let after = () => {};
  if (track && what === "card") {
    for (const all of [track.cards, track.evidence]) {
      const cards = cardsOf(all, rest[0], rest[1], rest[2]);
      const card = cards.find((found) => String(found.cell[3]) === rest[3]);
      if (card) [parts, after] = cardSheet(track, card, cards);
    }
  } else if (track && AXES.includes(what)) {
    if (what !== state.axis) showAxis(what);
    const row = track.rows[what].find((found) => found.name === rest[0]);
    if (row) parts = entrySheet(track, what, row);
  }
  const dialog = $("dialog");
  if (!parts) { if (dialog.open) dialog.close(); return; }
  const turned = $("sheet").contains(document.activeElement);
  fill($("sheet"), ...parts);
  if (!dialog.open) dialog.showModal();
  // What was pressed is gone with the sheet before: the keyboard goes on from the seed now shown.
  if (turned) ($("sheet").querySelector('[aria-pressed="true"]') ?? $("close")).focus();
  dialog.scrollTop = 0;
  after();
}
