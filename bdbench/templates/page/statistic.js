// The statistic that a track declares: its intervals, and the cards that it is made from.

function statisticPlot(told, width) {
  const rows = told.means.map(([name, value, low, high], i) => ({ name: i < told.means.length - 1 ? name : "difference", value: 100 * value, low: 100 * low, high: 100 * high }));
  const seeds = told.seeds.filter(([, , value]) => value !== null).map(([name, seed, value, failed]) => ({ name, seed, value: 100 * value, failed }));
  const ends = d3.extent([0, ...rows.flatMap((row) => [row.low, row.high]), ...seeds.map((found) => found.value)]);
  const figure = Plot.plot({
    width, height: 56 + 44 * rows.length, marginLeft: 104, marginRight: 14, marginTop: 8, marginBottom: 42,
    ariaLabel: "The ASR removed beyond the baseline, with 95 % intervals; the same figures are in the table below",
    x: { label: "points of ASR →", domain: ends, nice: true, ticks: Math.max(4, Math.round(width / 90)) },
    y: { label: null, domain: rows.map((row) => row.name), tickSize: 0, tickFormat: (name) => (name.length > 15 ? `${name.slice(0, 14)}…` : name) },
    marks: [
      Plot.gridX({ stroke: "var(--line)", strokeOpacity: 1 }), Plot.ruleX([0], { stroke: "var(--ink)" }),
      Plot.ruleY(rows, { x1: "low", x2: "high", y: "name", stroke: "var(--s0)", strokeWidth: 2 }),
      Plot.dot(seeds, { x: "value", y: "name", r: 3, dy: 10, stroke: "var(--quiet)", fill: (found) => (found.failed ? "none" : "var(--quiet)") }),
      Plot.dot(rows, { x: "value", y: "name", r: 5, fill: "var(--s0)" }),
    ],
  });
  figure.setAttribute("role", "img");
  return figure;
}

function drawStatistic() {
  const { track } = state;
  const told = track.statistic;
  $("statistic").hidden = !told;
  $("claim").hidden = !told?.claim;
  if (!told) return;
  $("claim").firstChild.textContent = told.claim;
  $("statistic-note").textContent = told.text;
  const measured = told.means.length > 0;
  const width = Math.min(760, Math.max(280, $("statistic").clientWidth));
  const link = (defense, objective, seed) => cardsOf(track.evidence, defense, told.attack, objective)
    .filter((card) => card.cell[3] === seed)
    .map((card) => el("a", { href: address(track.name, "card", defense, told.attack, objective, seed), text: defense }));
  fill($("statistic-body"), measured ? [
    el("figure", {}, statisticPlot(told, width), el("figcaption", { class: "note", text: `Right of zero ${told.defense} removes more than ${told.baseline}, left of it less. Below each interval: its seeds, a ring where the undefended attack missed the gate.` })),
    grid(["objective", "ASR removed [95 %]"], told.means.map(([name, value, low, high]) => [name, [percent(value), range(low, high, false)]]), { numbers: [1], caption: "Declared statistic" }),
  ] : null,
  track.evidence.length ? el("details", {}, el("summary", { text: `By seed, with all ${track.evidence.length} cards` }),
    grid(["objective", "seed", "ASR removed", "cards", ""], told.seeds.map(([objective, seed, value, failed]) => [
      objective, String(seed), value === null ? "–" : percent(value),
      el("div", { class: "seeds tight" }, link(told.baseline, objective, seed), link(told.defense, objective, seed)),
      failed ? "attack failed, counted all the same" : "",
    ]), { numbers: [2], caption: "The declared statistic by seed" })) : null);
}
