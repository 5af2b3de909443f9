// The map of one field: its picture with the cells on it, to zoom and to move.

let view = null, mapped = 0, grip = null, dragged = false;

function showField() {
  if (!data.fields.length) return;
  const wanted = Math.min(Math.max(Number(state.field) || mapped || 1, 1), data.fields.length);
  const same = wanted === mapped;
  mapped = wanted;
  const field = data.fields[wanted - 1];
  $("viewer").hidden = false;
  $("v-title").replaceChildren(make("small", "", `Field ${wanted} of ${data.fields.length}`), " ", make("bdi", "file", field.name));
  $("v-prev").disabled = wanted === 1;
  $("v-next").disabled = wanted === data.fields.length;
  if (!same || !$("v-picture").firstChild) drawField(wanted, field);
  const notes = [field.view, ...field.issues];
  if (!field.counted) notes.unshift("Its cells are not counted.");
  $("v-note").textContent = notes.join(" ");
  for (const mark of $("v-picture").querySelectorAll("a")) {
    mark.classList.toggle("here", mark.dataset.cell === state.cell);
  }
}

function drawField(wanted, field) {
  const [width, height] = field.shown;
  view = { x: 0, y: 0, w: width, h: height };
  const picture = field.picture && pictureAt(`${field.picture}/field.jpg`);
  if (!picture) {
    $("v-picture").replaceChildren(make("p", "missing", "No picture: " + (field.missing || "it did not fit into this file")));
    return;
  }
  const svg = draw("svg", { id: "v-map", viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `Field ${wanted} with its cells` });
  svg.append(draw("image", { href: picture, width, height }));
  const fx = width / field.size[0], fy = height / field.size[1];
  if (field.others) svg.append(draw("path", { d: field.others, class: "others", transform: `scale(${fx} ${fy})` }));
  const font = width / 85;
  let first = true;
  for (const cell of data.cells) {
    if (cell[FIELD] !== wanted) continue;
    svg.append(markOf(cell, fx, fy, font, width, first));
    first = false;
  }
  $("v-picture").replaceChildren(svg);
  svg.addEventListener("pointerdown", take);
  svg.addEventListener("pointermove", drag);
  svg.addEventListener("pointerup", release);
  svg.addEventListener("pointercancel", release);
  svg.addEventListener("wheel", wheel, { passive: false });
  svg.addEventListener("keydown", mapKeys);
}

function markOf(cell, fx, fy, font, width, first) {
  const name = nameOf(cell), [x, y, w, h] = cell[BOX];
  const left = x * fx, top = y * fy, atRight = left > 0.75 * width, above = top > 1.4 * font;
  const link = draw("a", { href: address("cells", { cell: cell[ID], field: "" }), "aria-label": describe(cell), tabindex: first ? 0 : -1, "data-cell": cell[ID] });
  const box = { x: left, y: top, width: w * fx, height: h * fy };
  const text = draw("text", { x: atRight ? left + w * fx : left, y: above ? top - 0.35 * font : top + h * fy + 1.05 * font, "font-size": font, "text-anchor": atRight ? "end" : "start" });
  text.textContent = name.title;
  const title = draw("title", {});
  title.textContent = describe(cell);
  link.append(title, draw("rect", { ...box, class: "under" }), draw("rect", { ...box, class: name.leaf ? "line" : "line dashed", stroke: name.colour }), text);
  return link;
}

function look(next) {
  const [width, height] = data.fields[mapped - 1].shown;
  const w = Math.min(Math.max(next.w, width / 12), width), h = (w * height) / width;
  view = { w, h, x: Math.min(Math.max(next.x, 0), width - w), y: Math.min(Math.max(next.y, 0), height - h) };
  const map = $("v-map");
  if (map) map.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
}

function zoom(factor, at) {
  if (!view) return;
  const [px, py] = at || [0.5, 0.5];
  const w = view.w * factor, h = view.h * factor;
  look({ w, x: view.x + px * (view.w - w), y: view.y + py * (view.h - h) });
}

function within(event) {
  const box = $("v-map").getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

// The wheel zooms only with a key held, so that the page can be scrolled over the map.
function wheel(event) {
  if (!event.ctrlKey && !event.metaKey && !event.shiftKey) return;
  event.preventDefault();
  zoom(event.deltaY + event.deltaX > 0 ? 1.25 : 0.8, within(event));
}

function take(event) {
  if (event.button === 0) grip = { at: within(event), view: { ...view }, moved: false };
}

function release() {
  dragged = grip !== null && grip.moved;
  grip = null;
}

function drag(event) {
  if (!grip) return;
  const [px, py] = within(event);
  const dx = px - grip.at[0], dy = py - grip.at[1];
  if (Math.abs(dx) + Math.abs(dy) > 0.01) grip.moved = true;
  if (grip.moved) look({ ...grip.view, x: grip.view.x - dx * grip.view.w, y: grip.view.y - dy * grip.view.h });
}

// One stop of the tab key for the map; arrow keys go from cell to cell.
function mapKeys(event) {
  const marks = [...$("v-map").querySelectorAll("a")];
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const at = marks.indexOf(document.activeElement);
  if (!step || at < 0) return;
  event.preventDefault();
  const to = marks[(at + step + marks.length) % marks.length];
  marks.forEach((mark) => mark.setAttribute("tabindex", mark === to ? "0" : "-1"));
  to.focus();
}

// On the cell that the address names.
function lookAtCell() {
  const at = cellOf.get(state.cell);
  if (at === undefined || data.cells[at][FIELD] !== mapped) return;
  const field = data.fields[mapped - 1], [x, y, w, h] = data.cells[at][BOX];
  const fx = field.shown[0] / field.size[0], fy = field.shown[1] / field.size[1];
  const wide = Math.max(field.shown[0] / 3, 4 * w * fx);
  look({ w: wide, x: (x + w / 2) * fx - wide / 2, y: (y + h / 2) * fy - (wide * field.shown[1]) / field.shown[0] / 2 });
}
