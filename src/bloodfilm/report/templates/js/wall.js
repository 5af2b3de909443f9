// The wall: thumbnails in rows, of which only those near the window are in the page.

const GAP = 4, HEAD = 38, BEYOND = 600;
let shown = [], rows = [], height = 0, current = -1, made = new Map(), last = "", width = 0;

function layOut() {
  const wall = $("wall"), tile = Number(state.size);
  width = wall.clientWidth;
  const columns = Math.max(1, Math.floor((width + GAP) / (tile + GAP)));
  rows = [];
  height = 0;
  const grouped = state.sort === "class" && !state.flag;
  for (let at = 0; at < shown.length; ) {
    let end = shown.length;
    if (grouped) {
      const name = shown[at][NAME], likely = shown[at][LIKELY];
      for (end = at; end < shown.length && shown[end][NAME] === name && shown[end][LIKELY] === likely; ) end++;
      rows.push({ y: height, high: HEAD, head: name, likely, count: end - at });
      height += HEAD;
    }
    for (; at < end; at += columns) {
      rows.push({ y: height, high: tile + GAP, from: at, to: Math.min(at + columns, end) });
      height += tile + GAP;
    }
  }
  wall.style.height = `${height}px`;
  wall.style.setProperty("--tile", `${tile}px`);
  made.forEach((row) => row.remove());
  made = new Map();
  fill();
}

function layOutIfWider() {
  if ($("wall").clientWidth !== width) layOut();
}

// The rows whose place is near the window.
function fill() {
  const top = -$("wall").getBoundingClientRect().top;
  const from = firstBelow(top - BEYOND), below = top + innerHeight + BEYOND;
  const wanted = new Set();
  for (let i = from; i < rows.length && rows[i].y < below; i++) wanted.add(i);
  const kept = rows.findIndex((row) => row.from <= current && current < row.to);
  if (kept >= 0 && made.has(kept) && made.get(kept).contains(document.activeElement)) wanted.add(kept);
  for (const [i, row] of made) {
    if (!wanted.has(i)) {
      row.remove();
      made.delete(i);
    }
  }
  let before = null;
  for (const i of [...wanted].sort((a, b) => a - b)) {
    if (!made.has(i)) {
      const row = rows[i].head === undefined ? rowOf(rows[i]) : headOf(rows[i]);
      row.style.top = `${rows[i].y}px`;
      made.set(i, row);
      if (before) before.after(row);
      else $("wall").prepend(row);
    }
    before = made.get(i);
  }
}

function firstBelow(y) {
  let low = 0, high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].y + rows[middle].high < y) low = middle + 1;
    else high = middle;
  }
  return low;
}

function headOf(row) {
  const name = data.names[row.head];
  const head = make("h3", "row head");
  const likely = row.likely < 0 ? "" : `, likeliest ${data.names[row.likely].title}`;
  head.append(name.title + (name.leaf || name.blast ? "" : ", not named more closely") + likely + " ", make("small", "", many(row.count, "cell")));
  return head;
}

function rowOf(row) {
  const made = make("div", "row");
  for (let at = row.from; at < row.to; at++) made.append(tileOf(at));
  return made;
}

function tileOf(at) {
  const cell = shown[at], name = nameOf(cell);
  const tile = make("a", "tile");
  tile.href = address("cells", { cell: cell[ID] });
  tile.dataset.at = at;
  tile.tabIndex = at === Math.max(current, 0) ? 0 : -1;
  tile.style.setProperty("--c", name.colour);
  tile.classList.toggle("dashed", !name.leaf);
  tile.classList.toggle("flagged", cell[ISSUES].length > 0);
  tile.classList.toggle("here", cell[ID] === state.cell);
  tile.setAttribute("aria-label", describe(cell));
  tile.title = describe(cell);
  const picture = pictureOf(cell);
  if (picture) {
    const img = make("img");
    img.alt = "";
    img.decoding = "async";
    img.src = picture;
    tile.append(img);
  } else tile.append(make("span", "", "no picture"));
  return tile;
}

function describe(cell) {
  const issues = cell[ISSUES].map((i) => data.issues[i].title);
  const likely = cell[LIKELY] < 0 ? [] : [`likeliest ${data.names[cell[LIKELY]].title}`];
  return [`${nameOf(cell).title} ${cell[P].toFixed(2)}`, ...likely, `field ${cell[FIELD]}`, ...issues].join(", ");
}

// Every filter but the open cell: the wall is laid out anew when it changes.
function showWall() {
  const now = address("cells", { cell: "" });
  if (now !== last) {
    last = now;
    shown = chosen();
    current = Math.min(Math.max(current, 0), shown.length - 1);
    layOut();
  }
  const opened = shown.findIndex((cell) => cell[ID] === state.cell);
  if (opened >= 0) current = opened;
  for (const tile of $("wall").querySelectorAll(".tile")) {
    const at = Number(tile.dataset.at);
    tile.classList.toggle("here", shown[at] && shown[at][ID] === state.cell);
    tile.href = address("cells", { cell: shown[at][ID] });
    tile.tabIndex = at === current ? 0 : -1;
  }
  const every = data.cells.filter((cell) => cell[COUNTED] !== OTHER_VIEW).length;
  $("shown").textContent = shown.length
    ? many(shown.length, "cell") + (shown.length < every ? ` of ${number(every)}` : "")
    : every ? "No cell fits these filters." : "No nucleated cell was found.";
}

// Brings a cell's row into the window; returns its tile.
function reveal(at) {
  const i = rows.findIndex((row) => row.from <= at && at < row.to);
  if (i < 0) return null;
  const top = $("wall").getBoundingClientRect().top + rows[i].y, bar = 120;
  if (top < bar || top + rows[i].high > innerHeight) scrollBy(0, top - (bar + innerHeight) / 3);
  fill();
  return $("wall").querySelector(`[data-at="${at}"]`);
}

function focusOn(at) {
  const old = $("wall").querySelector('[tabindex="0"]');
  current = at;
  const tile = reveal(at);
  if (!tile) return;
  if (old) old.tabIndex = -1;
  tile.tabIndex = 0;
  tile.focus({ preventScroll: true });
}

function wallKeys(event) {
  const at = Number(event.target.dataset && event.target.dataset.at);
  if (Number.isNaN(at) || event.altKey || event.ctrlKey || event.metaKey) return;
  const columns = Math.max(1, Math.floor(($("wall").clientWidth + GAP) / (Number(state.size) + GAP)));
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns,
    PageDown: 6 * columns, PageUp: -6 * columns }[event.key];
  const to = event.key === "Home" ? 0 : event.key === "End" ? shown.length - 1 : at + step;
  if (!Number.isFinite(to)) return;
  event.preventDefault();
  const wanted = Math.min(Math.max(to, 0), shown.length - 1);
  if (state.cell) go("cells", { cell: shown[wanted][ID] }, true);
  focusOn(wanted);
}
