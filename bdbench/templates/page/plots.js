// Accuracy against ASR: an SVG per objective, drawn by Observable Plot.

const SERIES = 8;
const DASHES = [null, "7 3", "2 3", "9 3 2 3", "4 4", "12 3", "1 2", "6 2 1 2"];
const MARKS = { undefended: "star", blind: "circle", last: "square", "oracle 5 %": "diamond" };
const index = new Map();

function cardsOf(cards, defense, attack, objective) {
  if (!index.has(cards)) {
    const by = new Map();
    for (const card of cards) {
      const name = card.cell.slice(0, 3).join("/");
      by.set(name, [...(by.get(name) ?? []), card]);
    }
    index.set(cards, by);
  }
  return index.get(cards).get([attack, objective, defense].join("/")) ?? [];
}

// What was submitted beside the track's own methods meets only those.
const objectivesOf = (track, attack) => track.objectives.filter((objective) => (
  track.cards.some((card) => card.cell[0] === attack && card.cell[1] === objective)));

function model(card, i) {
  const [acc, asr, validation, order, step] = card.points.slice(5 * i, 5 * i + 5);
  return { acc: 100 * acc, asr: 100 * asr, validation: 100 * validation, order, step };
}

const modelsOf = (card) => Array.from({ length: card.points.length / 5 }, (_, i) => ({ ...model(card, i), i }));
const runName = (card, order) => (data.pool[card.runs].find(([at]) => at === order) ?? [])[1] || "the run";

function marksOf(card) {
  return card.rules.filter(([rule, i]) => rule in MARKS && i !== null).map(([rule, i]) => {
    const found = model(card, i);
    const told = `${card.cell[2]}, seed ${card.cell[3]}\n${rule}: ${data.pool[card.picked[i]][0]}\naccuracy ${found.acc.toFixed(1)}, ASR ${found.asr.toFixed(1)}`;
    return { ...found, rule, card, told };
  });
}

function frame(width, height, domains, marks, label) {
  const figure = Plot.plot({
    width, height, marginLeft: 44, marginBottom: 40, marginTop: 22, marginRight: 14, ariaLabel: label,
    x: { label: "Clean accuracy, % →", domain: domains.x, ticks: Math.max(3, Math.round(width / 90)), nice: true, clamp: true },
    y: { label: "↑ ASR, %", domain: [0, 100], ticks: 5 },
    symbol: { domain: Object.keys(MARKS), range: Object.values(MARKS) },
    marks: [
      Plot.gridX({ stroke: "var(--line)", strokeOpacity: 1 }), Plot.gridY({ stroke: "var(--line)", strokeOpacity: 1 }),
      Plot.ruleY([5], { stroke: "var(--quiet)", strokeDasharray: "2 3" }), ...marks,
    ],
  });
  figure.setAttribute("role", "img");
  return figure;
}

function pointers(points) {
  return Plot.tip(points, Plot.pointer({
    x: "acc", y: "asr", title: "told", fill: "var(--raised)", stroke: "var(--strong)", maxRadius: 24, anchor: "bottom-right",
  }));
}

function series(cards, at) {
  const colour = `var(--s${at % SERIES})`;
  const lines = cards.flatMap((card) => card.front.map((i) => ({ ...model(card, i), seed: card.cell[3] })));
  const marks = cards.flatMap(marksOf);
  return [
    Plot.line(lines, { x: "acc", y: "asr", z: "seed", stroke: colour, strokeWidth: 1.4, strokeOpacity: 0.75, strokeDasharray: DASHES[at % SERIES] }),
    Plot.dot(lines, { x: "acc", y: "asr", r: 1.6, fill: colour, fillOpacity: 0.7 }),
    Plot.dot(marks.filter((mark) => mark.rule === "undefended"), { x: "acc", y: "asr", symbol: "star", r: 5, fill: "var(--ink)" }),
    Plot.dot(marks.filter((mark) => mark.rule !== "undefended"), {
      x: "acc", y: "asr", symbol: "rule", r: (mark) => ({ blind: 5, last: 7, "oracle 5 %": 8.5 })[mark.rule],
      stroke: colour, strokeWidth: 1.6, fill: (mark) => (mark.rule === "blind" ? colour : "none"),
    }),
  ];
}

function glyph(kind, r) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", 20); svg.setAttribute("height", 20); svg.setAttribute("viewBox", "-10 -10 20 20");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const symbol = { star: d3.symbolStar, circle: d3.symbolCircle, square: d3.symbolSquare, diamond: d3.symbolDiamond }[kind];
  path.setAttribute("d", d3.symbol(symbol, r * r * Math.PI)());
  path.setAttribute("fill", kind === "star" || kind === "circle" ? "currentColor" : "none");
  path.setAttribute("stroke", "currentColor");
  svg.append(path);
  return svg;
}

function stroke(at) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", 30); svg.setAttribute("height", 10); svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", "M1 5H29");
  path.setAttribute("stroke-width", "2.4");
  path.style.stroke = `var(--s${at % SERIES})`;
  if (DASHES[at % SERIES]) path.setAttribute("stroke-dasharray", DASHES[at % SERIES]);
  svg.append(path);
  return svg;
}

function drawLegend(names) {
  const toggle = (name) => { state.hidden.has(name) ? state.hidden.delete(name) : state.hidden.add(name); drawPlots(name); };
  const more = state.shown.length - names.length;
  fill($("legend"),
    names.map((name, at) => el("button", {
      type: "button", "aria-pressed": String(!state.hidden.has(name)), "data-series": name, onclick: () => toggle(name),
    }, stroke(at), name)),
    more > 0 ? el("span", { class: "mark", text: `and ${more} more rows; filter the table to choose` }) : null,
    Object.entries({ undefended: ["star", 5], blind: ["circle", 4.5], last: ["square", 5], "oracle 5 %": ["diamond", 5] })
      .map(([rule, [kind, r]]) => el("span", { class: "mark" }, glyph(kind, r), rule)));
}

function drawPlots(focus) {
  const track = state.track;
  const names = state.shown.slice(0, SERIES);
  const attack = $("plot-attack").value;
  const seed = $("plot-seed").value;
  drawLegend(names);
  if (focus) $("legend").querySelector(`[data-series="${CSS.escape(focus)}"]`)?.focus();
  const objectives = objectivesOf(track, attack);
  const of = (name, objective) => cardsOf(track.cards, name, attack, objective).filter((card) => !seed || String(card.cell[3]) === seed);
  const all = objectives.flatMap((objective) => names.flatMap((name) => of(name, objective)));
  const xs = all.flatMap((card) => [...card.front, ...card.rules.flatMap(([rule, i]) => (rule in MARKS && i !== null ? [i] : []))].map((i) => model(card, i).acc));
  $("plots").hidden = !all.length;
  if (!all.length) return;
  const domains = { x: d3.extent(xs) };
  const width = Math.min(528, Math.max(280, $("figures").clientWidth / ($("figures").clientWidth > 880 ? 2 : 1) - 16));
  fill($("figures"), objectives.map((objective) => {
    const shown = names.map((name, at) => [state.hidden.has(name) ? [] : of(name, objective), at]);
    const points = shown.flatMap(([cards]) => cards.flatMap(marksOf));
    const label = `Clean accuracy against ASR on ${objective}, attack ${attack}; the same figures are in the tables`;
    const figure = frame(width, 340, domains, [...shown.flatMap(([cards, at]) => series(cards, at)), pointers(points)], label);
    figure.addEventListener("click", () => { if (figure.value) openCard(figure.value.card); });
    return el("figure", {}, el("figcaption", { text: objective }), figure);
  }));
}

function cardPlot(card, width) {
  const models = modelsOf(card);
  const start = models[0];
  const orders = [...new Set(models.slice(1).map((found) => found.order))].sort((a, b) => a - b);
  const runs = orders.map((order) => models.slice(1).filter((found) => found.order === order));
  const first = runs.flatMap((run) => [{ ...start, order: run[0].order }, run[0]]);
  const told = models.map((found) => ({ ...found, told: `${found.step ? `${runName(card, found.order)}, epoch ${found.step}` : "starting model"}\naccuracy ${found.acc.toFixed(1)}, ASR ${found.asr.toFixed(1)}` }));
  const shade = (order) => 0.35 + 0.65 * (orders.length > 1 ? orders.indexOf(order) / (orders.length - 1) : 1);
  const label = `Every model of the trajectory, clean accuracy against ASR`;
  return frame(width, 300, { x: d3.extent(models, (found) => found.acc) }, [
    Plot.line(first, { x: "acc", y: "asr", z: "order", stroke: "var(--s0)", strokeOpacity: 0.6, strokeWidth: 1, strokeDasharray: "1 3" }),
    Plot.line(runs.flat(), { x: "acc", y: "asr", z: "order", stroke: "var(--s0)", strokeOpacity: (found) => shade(found.order), strokeWidth: 1.4 }),
    Plot.dot(models.slice(1), { x: "acc", y: "asr", r: 2.2, fill: "var(--s0)", fillOpacity: (found) => shade(found.order) }),
    ...series([card], 1).slice(2), pointers(told),
  ], label);
}
