// One small table per attack: defenses down, objectives across, the figure in every cell.

function mapCell(track, row, attack, objective) {
  const group = row.groups.find((found) => found[0] === attack && found[1] === objective);
  const cards = cardsOf(track, row.name, attack, objective);
  if (group) {
    const told = `${row.name} against ${attack} on ${objective}: ASR ${percent(group[3][0])} per cent, ${group[7]} seeds`;
    return heat("button", group[3][0], {
      type: "button", "aria-label": told, title: told,
      onclick: () => go(track.name, "card", row.name, attack, objective, cards[0]?.cell[3] ?? ""),
    });
  }
  return el("span", { class: "none", text: cards.length ? "attack failed" : "no cards" });
}

function drawHeat() {
  const track = state.track;
  const rows = track.rows.defense.filter((row) => state.shown.includes(row.name))
    .sort((a, b) => state.shown.indexOf(a.name) - state.shown.indexOf(b.name));
  const controls = new Set(track.cards.filter((card) => card.status === "control").map((card) => card.cell[0]));
  fill($("maps"), track.attacks.filter((attack) => !controls.has(attack)).map((attack) => (
    el("table", {},
      el("caption", { text: attack }),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", { class: "visually-hidden", text: "defense" })),
        track.objectives.map((objective) => el("th", { scope: "col", text: objective })))),
      el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row", text: row.name }),
        track.objectives.map((objective) => el("td", {}, mapCell(track, row, attack, objective))))))))));
}
