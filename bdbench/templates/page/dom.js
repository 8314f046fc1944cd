// Elements, figures and addresses. Strings of others only ever become text or attributes of ours.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "onclick") node.addEventListener("click", value);
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

function fill(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

function percent(rate, places = 1) {
  const text = (100 * rate).toFixed(places);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

function range(low, high, clip = true) {
  if (low === null || high === null) return null;
  const [a, b] = clip ? [Math.max(low, 0), Math.min(high, 1)] : [low, high];
  return el("span", { class: "range", text: `[${percent(a)}, ${percent(b)}]` });
}

function heat(tag, rate, attributes = {}, ...children) {
  // At 0.69 of either theme's scale black and white can be read equally well.
  const node = el(tag, { class: "heat", "data-high": rate > 0.69, ...attributes }, percent(rate), ...children);
  node.style.setProperty("--t", Math.min(Math.max(rate, 0), 1));
  return node;
}

// Of how many of the track's seeds a group is the mean, where some are missing.
const partial = (track, group) => (group[7] < track.seeds.length ? ` (${group[7]}/${track.seeds.length})` : "");

const badge = (level) => el("span", { class: "badge", "data-level": level, text: level });

function options(select, values, all) {
  const items = values.map((value) => el("option", { value, text: value }));
  fill(select, all ? el("option", { value: "", text: all }) : null, ...items);
}

function facts(pairs) {
  return el("dl", { class: "facts" }, pairs.flatMap(([name, value]) => [
    el("dt", { text: name }), el("dd", {}, value instanceof Node ? value : String(value)),
  ]));
}

function grid(head, rows, { numbers = [], caption = null } = {}) {
  const right = (i) => (numbers.includes(i) ? "num" : null);
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption ?? head.join(", ") },
    el("table", {},
      el("thead", {}, el("tr", {}, head.map((name, i) => el("th", { scope: "col", class: right(i), text: name })))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, i) => (
        i === 0 ? el("th", { scope: "row" }, cell) : el("td", { class: right(i) }, cell))))))));
}

// Addresses: #/track/axis, #/track/axis/name, #/track/card/defense/attack/objective/seed.
const address = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;
const go = (...parts) => { location.hash = address(...parts); };

function where() {
  try {
    return location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return [];
  }
}

const AXES = ["defense", "attack", "objective"];
const PLURAL = { defense: "Defenses", attack: "Attacks", objective: "Objectives" };
const state = { track: data.tracks[0] ?? null, axis: "defense", shown: [], hidden: new Set() };
