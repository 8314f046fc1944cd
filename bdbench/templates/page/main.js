// The track on show, the theme, and what happens when.

function showTrack(track) {
  state.track = track;
  state.hidden.clear();
  const measured = track.cards.length > 0;
  $("track-name").textContent = track.name;
  $("track-summary").textContent = track.summary;
  $("track-facts").textContent = track.facts;
  $("empty").hidden = measured;
  $("ranking").hidden = $("heat").hidden = $("plots").hidden = !measured;
  for (const button of $("tracks").children) button.setAttribute("aria-pressed", String(button.dataset.name === track.name));
  const worked = track.attacks.filter((attack) => track.cards.some((card) => card.cell[0] === attack && card.status !== "control"));
  options($("plot-attack"), worked.length ? worked : track.attacks);
  options($("plot-seed"), track.seeds.map(String), "all");
  state.shown = track.rows.defense.slice(0, PAGE).map((row) => row.name);
  showAxis("defense");
  drawStatistic();
  drawReported(track);
}

function showAxis(axis) {
  state.axis = axis;
  for (const button of $("axes").children) button.setAttribute("aria-pressed", String(button.dataset.axis === axis));
  $("ranking-note").textContent = {
    defense: "Lower is better: the highest ASR that the blind selection leaves over all attacks and objectives. Per objective: the worst ASR, the mean loss of accuracy, and the loss if the trigger could be read (oracle, ASR ≤ 5 %), with the cells where a model qualifies.",
    attack: "Higher is stronger: the lowest ASR that any defense on any objective leaves of the attack.",
    objective: "Lower is easier to clean: of the attack of which the best defense leaves most, what it leaves.",
  }[axis];
  if (state.track.cards.length) makeTable();
}

function drawReported(track) {
  fill($("reported"), track.reported.map((found) => el("div", { class: "block" },
    el("h3", { text: found.title }), el("p", { class: "note", text: found.note }),
    grid(found.head, found.rows, { numbers: found.right, caption: found.title }))));
}

function theme() {
  const names = ["system", "light", "dark"];
  let now = "system";
  try { now = localStorage.getItem("bdbench-theme") ?? now; } catch { /* some browsers keep nothing for files */ }
  const apply = () => {
    if (now === "system") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = now;
    $("theme").textContent = { system: "◐ System", light: "○ Light", dark: "● Dark" }[now];
    $("theme").setAttribute("aria-label", `Colours: ${now}; press to change`);
  };
  $("theme").addEventListener("click", () => {
    now = names[(names.indexOf(now) + 1) % names.length];
    try { localStorage.setItem("bdbench-theme", now); } catch { /* as above */ }
    apply();
  });
  if (!names.includes(now)) now = "system";
  apply();
}

function start() {
  theme();
  if (!state.track) { $("empty").hidden = false; $("ranking").hidden = $("heat").hidden = $("plots").hidden = true; return; }
  fill($("tracks"), data.tracks.map((track) => el("button", {
    type: "button", "data-name": track.name, text: track.name, onclick: () => go(track.name, "defense"),
  })));
  fill($("axes"), AXES.map((axis) => el("button", {
    type: "button", "data-axis": axis, text: PLURAL[axis], onclick: () => go(state.track.name, axis),
  })));
  let typing = 0;
  $("filter").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => { table.setGlobalFilter($("filter").value); table.setPageIndex(0); }, 80);
  });
  $("level").addEventListener("change", () => {
    table.getColumn("level").setFilterValue($("level").value || undefined);
    table.setPageIndex(0);
  });
  $("plot-attack").addEventListener("change", () => drawPlots());
  $("plot-seed").addEventListener("change", () => drawPlots());
  $("close").addEventListener("click", () => $("dialog").close());
  $("dialog").addEventListener("close", () => { if (where().length > 2) go(state.track.name, state.axis); });
  $("dialog").addEventListener("click", (event) => { if (event.target === $("dialog")) $("dialog").close(); });
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); $("ranking").focus(); });
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawStatistic(); if (state.track.cards.length) drawPlots(); } });
  addEventListener("hashchange", route);
  showTrack(data.tracks.find((track) => track.cards.length) ?? data.tracks[0]);
  route();
}

start();
