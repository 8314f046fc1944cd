// The ranking: TanStack Table sorts, filters and pages; the rows are a plain table.

const PAGE = 25;
let table = null;

const missing = (value) => (value === null ? undefined : value);

function column(id, header, get, cell, more = {}) {
  return { id, header, accessorFn: get, cell, sortUndefined: "last", enableColumnFilter: false, ...more };
}

function group(row) {
  return row.worst === null ? null : row.groups[row.worst];
}

function columns(track, axis) {
  const asr = (value) => (value === undefined ? "–" : heat("span", value));
  const number = (value) => (value === undefined ? "–" : percent(value));
  const list = [
    column("rank", "Rank", (row) => missing(row.rank), rank, { number: true }),
    column("name", axis[0].toUpperCase() + axis.slice(1), (row) => row.name, name, { sortingFn: "alphanumeric" }),
    column("level", "Level", (row) => row.level, null, { enableColumnFilter: true, filterFn: "equalsString" }),
    column("worst", axis === "defense" ? "Worst-cell ASR" : "Best defense leaves", (row) => group(row)?.[3][0], worst, { number: true }),
  ];
  if (axis !== "objective") {
    for (const objective of track.objectives) {
      // A name may be one that every object has.
      const found = (row) => (Object.hasOwn(row.parts, objective) ? row.parts[objective] : null);
      const part = (i) => (row) => missing(found(row)?.[i] ?? null);
      list.push({ id: `of-${objective}`, header: objective, columns: [
        column(`${objective}-asr`, axis === "defense" ? "worst ASR" : "least ASR", part(0), (row) => asr(part(0)(row)), { number: true }),
        column(`${objective}-loss`, "loss", part(1), (row) => number(part(1)(row)), { number: true }),
        column(`${objective}-oracle`, "oracle", part(2), (row) => oracle(found(row)), { number: true }),
      ] });
    }
  }
  list.push(
    column("loss", "Accuracy loss", (row) => row.loss[0], (row) => percent(row.loss[0]), { number: true }),
    column("failed", "Failed", (row) => row.failed, (row) => `${row.failed}/${row.cells}`, { number: true }),
  );
  return list;
}

function rank(row) {
  if (row.rank === null) return "–";
  if (row.apart !== false) return String(row.rank);
  return [String(row.rank), el("span", { title: "not distinguishable from the best", "aria-label": ", not distinguishable from the best", text: " ≈" })];
}

function name(row) {
  return [
    el("a", { class: "link", href: address(state.track.name, state.axis, row.name), text: row.name }),
    el("span", { class: "sub" }, badge(row.level), row.unranked ? `, not ranked: ${row.unranked}` : ""),
  ];
}

function worst(row) {
  const found = group(row);
  if (!found) return "–";
  return [heat("span", found[3][0]), range(found[3][1], found[3][2]), el("span", { class: "sub", text: `${found[0]} / ${found[1]}${partial(state.track, found)}` })];
}

function oracle(part) {
  if (!part) return "–";
  return [part[2] === null ? "–" : percent(part[2]), el("span", { class: "range", text: `${part[3]}/${part[4]}` })];
}

function rowMatches(row, _, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const entry = state.track.entries[row.original.entry];
  const told = [row.original.name, entry?.summary, ...(entry?.authors ?? [])].join(" ").toLowerCase();
  return words.every((word) => told.includes(word));
}

function makeTable() {
  const track = state.track;
  const { createTable, getCoreRowModel, getFilteredRowModel, getPaginationRowModel, getSortedRowModel } = TableCore;
  table = createTable({
    data: track.rows[state.axis], columns: columns(track, state.axis), state: {}, renderFallbackValue: null,
    getCoreRowModel: getCoreRowModel(), getSortedRowModel: getSortedRowModel(),
    getFilteredRowModel: getFilteredRowModel(), getPaginationRowModel: getPaginationRowModel(),
    globalFilterFn: rowMatches, getColumnCanGlobalFilter: (at) => at.id === "name", enableSortingRemoval: false,
    sortDescFirst: false, autoResetPageIndex: false, onStateChange: () => {},
  });
  let now = { ...table.initialState, pagination: { pageIndex: 0, pageSize: PAGE }, sorting: [{ id: "rank", desc: false }], columnVisibility: { level: false } };
  const apply = () => table.setOptions((old) => ({ ...old, state: now }));
  table.setOptions((old) => ({
    ...old, state: now,
    onStateChange: (change) => { now = typeof change === "function" ? change(now) : change; apply(); drawTable(); },
  }));
  $("filter").value = "";
  options($("level"), [...new Set(track.rows[state.axis].map((row) => row.level))].sort(), "all");
  drawTable();
}

function head(header) {
  const { column: at } = header;
  if (header.isPlaceholder) return el("th", { class: "blank", colspan: header.colSpan });
  if (at.columns.length) return el("th", { class: "group", scope: "colgroup", colspan: header.colSpan, text: at.columnDef.header });
  const sorted = at.getIsSorted();
  const order = { asc: "ascending", desc: "descending" }[sorted] ?? "none";
  return el("th", { scope: "col", "aria-sort": order, class: [at.columnDef.number ? "num" : "", at.id === "name" ? "name" : ""].join(" ").trim() || null },
    el("button", {
      type: "button", class: "sort", "data-column": at.id,
      onclick: () => { at.toggleSorting(); $("table").querySelector(`[data-column="${CSS.escape(at.id)}"]`)?.focus(); },
    }, at.columnDef.header, el("span", { class: "arrow", "aria-hidden": "true", text: { asc: "↑", desc: "↓" }[sorted] ?? "↕" })));
}

function line(row) {
  return el("tr", { class: row.original.unranked ? "out" : null }, row.getVisibleCells().map(({ column: at }) => (
    el(at.id === "name" ? "th" : "td", { scope: at.id === "name" ? "row" : null, class: at.id === "name" ? "name" : at.columnDef.number ? "num" : null },
      at.columnDef.cell(row.original)))));
}

function drawTable() {
  const rows = table.getRowModel().rows;
  const matching = table.getFilteredRowModel().rows.length;
  fill($("table"), el("table", { class: "ranking" },
    el("caption", { class: "visually-hidden", text: `${PLURAL[state.axis]} of the track ${state.track.name}; a button in a head sorts by its column` }),
    el("thead", {}, table.getHeaderGroups().map((heads) => el("tr", {}, heads.headers.map(head)))),
    el("tbody", {}, rows.map(line))));
  $("status").textContent = `${matching} of ${table.options.data.length} rows match`;
  drawPager(matching);
  state.shown = state.axis === "defense" ? rows.map((row) => row.original.name) : state.shown;
  if (state.axis === "defense") drawLater();
}

// The table answers at once; figures of the same rows follow in the next frame.
let waiting = 0;

function drawLater() {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => { drawPlots(); drawHeat(); });
}

function drawPager(matching) {
  const { pageIndex } = table.getState().pagination;
  const pages = Math.max(1, Math.ceil(matching / PAGE));
  const turn = (to, text) => el("button", {
    type: "button", class: "plain", disabled: to < 0 || to >= pages, text, onclick: () => { table.setPageIndex(to); refocus(text); },
  });
  const refocus = (text) => {
    const buttons = [...$("pager").children].filter((button) => button.disabled === false);
    (buttons.find((button) => button.textContent === text) ?? buttons[0])?.focus();
  };
  const first = matching ? pageIndex * PAGE + 1 : 0;
  const told = `${first}–${Math.min((pageIndex + 1) * PAGE, matching)} of ${matching}`;
  $("pager").hidden = pages === 1 && matching > 0;
  fill($("pager"), matching ? [turn(pageIndex - 1, "Previous"), turn(pageIndex + 1, "Next"), told] : "No row matches the filter.");
}
