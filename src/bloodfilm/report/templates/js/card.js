// The card of one cell: crop, context, class, attributes, issues, where the model looked.

let returnTo = null;

function showCard() {
  const card = $("card"), at = cellOf.get(state.cell);
  const open = at !== undefined && place === "cells";
  document.body.classList.toggle("card-open", open);
  if (!open) {
    if (!card.hidden && place === "cells") returnTo = current;
    card.hidden = true;
    return;
  }
  const cell = data.cells[at];
  card.hidden = false;
  card.replaceChildren(...contents(cell));
  card.scrollTop = 0;
}

function contents(cell) {
  const name = nameOf(cell);
  const head = make("div", "card-head");
  const title = make("h3", "", "");
  title.id = "card-title";
  title.append(name.title + " ", make("b", "", cell[P].toFixed(2)));
  head.append(title, buttons(cell));
  const path = name.path.slice(1, -1).map((i) => data.names[i].title);
  if (!name.leaf) path.push("not named more closely");
  const parts = [head, make("p", "path", path.join(" › ")), pictures(cell)];
  if (cell[ISSUES].length) parts.push(issuesOf(cell));
  parts.push(section("Likeliest classes", classes(cell)));
  const first = data.attributes.map((a, i) => i).filter((i) => data.attributes[i].first);
  const rest = data.attributes.map((a, i) => i).filter((i) => !data.attributes[i].first);
  parts.push(section("Attributes", attributes(cell, first)));
  if (rest.length) {
    const more = make("details");
    more.append(make("summary", "", many(rest.length, "further attribute")), attributes(cell, rest));
    parts.push(more);
  }
  parts.push(section("Where the model looked", looked(cell)), facts(cell));
  return parts;
}

function section(title, content) {
  const box = make("section", "part");
  box.append(make("h4", "", title), content);
  return box;
}

function buttons(cell) {
  const row = make("span", "buttons");
  for (const [text, label, act] of [
    ["←", "Previous cell", () => stepCell(-1)],
    ["→", "Next cell", () => stepCell(1)],
    ["×", "Close", closeCard],
  ]) {
    const button = make("button", "", text);
    button.type = "button";
    button.setAttribute("aria-label", label);
    button.title = label;
    button.addEventListener("click", act);
    row.append(button);
  }
  return row;
}

function pictures(cell) {
  const row = make("div", "pair");
  const picture = pictureOf(cell);
  if (!picture) {
    row.append(make("p", "missing", "No picture: " + (fieldOf(cell).missing || "it did not fit into this file")));
    return row;
  }
  const crop = draw("svg", { viewBox: `0 0 ${data.side} ${data.side}`, role: "img", "aria-label": `The cell, ${data.window.toFixed(1)} µm across` });
  crop.append(draw("image", { href: picture, width: data.side, height: data.side }));
  crop.append(...cell[OUTLINES].map((flat, i) => draw("path", { d: `M${flat.join(" ")}Z`, class: i ? "outline nucleus" : "outline" })));
  const bar = (data.side * 5) / data.window;
  crop.append(
    draw("path", { d: `M6 ${data.side - 8}h${bar}`, class: "bar-under" }),
    draw("path", { d: `M6 ${data.side - 8}h${bar}`, class: "bar-over" })
  );
  const label = draw("text", { x: 6, y: data.side - 12, "font-size": 9 });
  label.textContent = "5 µm";
  crop.append(label);
  const context = contextOf(cell);
  row.append(crop, ...(context ? [context] : []));
  return row;
}

// The cell in its field: three windows wide.
function contextOf(cell) {
  const field = fieldOf(cell), [x, y, w, h] = cell[BOX];
  const path = `${field.picture}/field.jpg`, picture = pictureAt(path);
  if (!picture) return null;
  const fx = field.shown[0] / field.size[0], fy = field.shown[1] / field.size[1];
  const side = (3 * data.window) / (field.um[0] / fx);
  const middle = [(x + w / 2) * fx, (y + h / 2) * fy];
  const link = make("a", "context");
  link.href = address("fields", { field: String(cell[FIELD]), cell: cell[ID] });
  link.setAttribute("aria-label", `Show the cell in field ${cell[FIELD]}`);
  const svg = draw("svg", { viewBox: `${middle[0] - side / 2} ${middle[1] - side / 2} ${side} ${side}`, "aria-hidden": "true" });
  svg.append(
    draw("image", { href: picture, width: field.shown[0], height: field.shown[1] }),
    draw("rect", { x: x * fx, y: y * fy, width: w * fx, height: h * fy, class: "mark" })
  );
  link.append(svg);
  return link;
}

function issuesOf(cell) {
  const list = make("ul", "issues");
  for (const i of cell[ISSUES]) {
    const item = make("li", "", data.issues[i].title);
    item.title = data.issues[i].meaning;
    list.append(item);
  }
  return list;
}

function classes(cell) {
  const list = make("ul", "bars"), likeliest = cell[LIKELIEST];
  for (let i = 0; i < likeliest.length; i += 2) {
    list.append(barOf(data.names[likeliest[i]].title, likeliest[i + 1]));
  }
  if (!likeliest.length) list.append(make("li", "", "no probabilities were recorded"));
  return list;
}

function barOf(text, percent, strong) {
  const item = make("li", strong ? "strong" : "");
  item.style.setProperty("--p", `${percent}%`);
  item.append(make("span", "", text), make("span", "", (percent / 100).toFixed(2)));
  return item;
}

function attributes(cell, which) {
  const list = make("dl", "attrs");
  for (const i of which) {
    const attribute = data.attributes[i], answer = cell[ATTRS][i];
    const value = make("dd");
    if (!attribute.trained) value.append(make("span", "unsure", "not trained"));
    else if (!answer) value.append(make("span", "unsure", "not given"));
    else {
      const bars = make("ul", "bars");
      attribute.values.forEach((text, v) => bars.append(barOf(text, answer[v + 1], v === answer[0])));
      if (answer[0] === NOT_SURE) value.append(make("span", "unsure", "not sure"));
      value.append(bars);
    }
    list.append(make("dt", "", attribute.title), value);
  }
  return list;
}

function looked(cell) {
  const map = data.maps[cell[ID]], box = make("div");
  const picture = pictureOf(cell);
  if (!map || !picture) {
    box.append(make("p", "note", "Not computed for this cell. “bloodfilm report RESULTS --explain 50” computes it for the 50 cells most in doubt."));
    return box;
  }
  const side = Math.round(Math.sqrt(map.length)), step = data.side / side;
  const most = Math.max(...map.map(Math.abs), 10);
  const svg = draw("svg", { viewBox: `0 0 ${data.side} ${data.side}`, class: "heat", role: "img", "aria-label": "Occlusion map" });
  svg.append(draw("image", { href: picture, width: data.side, height: data.side }));
  map.forEach((fall, i) => {
    const square = draw("rect", { x: (i % side) * step, y: Math.floor(i / side) * step, width: step, height: step, fill: fall > 0 ? "#d55e00" : "#0072b2", "fill-opacity": (0.65 * Math.abs(fall)) / most });
    const told = draw("title", {});
    told.textContent = `${fall > 0 ? "−" : "+"}${Math.abs(fall)} percentage points`;
    square.append(told);
    svg.append(square);
  });
  const strongest = Math.max(...map);
  box.append(svg, make("p", "note", `Occlusion map: each place was painted in the colour of the background and the cell named again. Orange: the probability of “${nameOf(cell).title}” falls without it, by ${Math.max(strongest, 0)} percentage points at most; blue: it rises. It shows what the name depends on, not why.`));
  return box;
}

function facts(cell) {
  const [, , w, h] = cell[BOX], where = make("p", "where");
  const said = [];
  if (cell[UM] !== null) said.push(`${cell[UM].toFixed(1)} µm across`);
  said.push(`box ${Math.round(w)} × ${Math.round(h)} px`, `detected ${cell[FOUND].toFixed(2)}`);
  if (cell[NUCLEATED] !== null) said.push(`nucleated cell ${cell[NUCLEATED].toFixed(2)}`);
  if (cell[STAIN] !== null) said.push(`stain contrast ${cell[STAIN].toFixed(2)}`);
  const [across, long, wide, nucleus, circular, lobes] = cell[MEASURES];
  if (across !== undefined) {
    said.push(`by its outline ${across.toFixed(1)} µm across, ${long.toFixed(1)} × ${wide.toFixed(1)} µm`);
    said.push(`nucleus ${nucleus} % of its area`, `circularity ${circular.toFixed(2)}`);
    if (lobes) said.push(many(lobes, "lobe"));
  }
  if (cell[COUNTED] !== 1) said.push(STATUS[cell[COUNTED]]);
  const link = make("a", "", `field ${cell[FIELD]}, ${fieldOf(cell).name}`);
  link.href = address("fields", { field: String(cell[FIELD]), cell: cell[ID] });
  where.append(said.join(" · "), make("br"), link, make("br"), make("code", "", cell[ID]));
  return where;
}

function stepCell(by) {
  const at = shown.findIndex((cell) => cell[ID] === state.cell);
  const to = at + by;
  if (at < 0 || to < 0 || to >= shown.length) return;
  const inCard = $("card").contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
  go("cells", { cell: shown[to][ID] }, true);
  reveal(to);
  if (inCard) {
    const again = $("card").querySelector(`[aria-label="${inCard}"]`);
    if (again) again.focus({ preventScroll: true });
  }
}

function closeCard() {
  go("cells", { cell: "" });
}

function cardKeys(event) {
  if (event.key === "Escape") closeCard();
  else if (event.key === "ArrowRight") stepCell(1);
  else if (event.key === "ArrowLeft") stepCell(-1);
  else return;
  event.preventDefault();
}
