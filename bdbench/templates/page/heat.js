// One small table per attack: defenses down, objectives across, the figure in every cell.

function mapCell(track, row, attack, objective) {
  const group = [...row.groups, ...row.further].find((found) => found[0] === attack && found[1] === objective);
  const cards = cardsOf(track.cards, row.name, attack, objective);
  if (!cards.length) return el("span", { class: "none", text: "no cards" });
  const seeds = group ? partial(track, group) : "";
  const told = `${row.name} against ${attack} on ${objective}: ${group ? `ASR ${percent(group[3][0])} per cent, ${group[7]} of ${track.seeds.length} seeds` : "attack failed"}`;
  const attributes = { type: "button", "aria-label": told, title: told, onclick: () => openCard(cards[0]) };
  return group ? heat("button", group[3][0], attributes, seeds) : el("button", { class: "none", text: "attack failed", ...attributes });
}

function drawHeat() {
  const track = state.track;
  const rows = track.rows.defense.filter((row) => state.shown.includes(row.name))
    .sort((a, b) => state.shown.indexOf(a.name) - state.shown.indexOf(b.name));
  const controls = new Set(track.cards.filter((card) => card.status === "control").map((card) => card.cell[0]));
  fill($("maps"), track.attacks.filter((attack) => !controls.has(attack)).map((attack) => {
    const objectives = objectivesOf(track, attack);
    return el("table", {},
      el("caption", { text: attack }),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", { class: "visually-hidden", text: "defense" })),
        objectives.map((objective) => el("th", { scope: "col", text: objective })))),
      el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row", text: row.name }),
        objectives.map((objective) => el("td", {}, mapCell(track, row, attack, objective)))))));
  }));
}
