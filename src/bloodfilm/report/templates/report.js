"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  // A cell: [field, place, box, confidence, name, probability, others, attributes, issues, um, stain].
  const FIELD = 0, PLACE = 1, BOX = 2, NAME = 4, P = 5, OTHERS = 6, ATTRS = 7, ISSUES = 8, UM = 9, STAIN = 10;
  const PAGE = 60;
  let crops = null, shown = data.cells, page = 0, waiting = true;

  const el = (tag, cls, text) => {
    const made = document.createElement(tag);
    if (cls) made.className = cls;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const idOf = (cell) => `${cell[FIELD]}-${cell[PLACE]}`;
  const under = (cell, name) => data.names[cell[NAME]].path.includes(name);
  const number = (n) => n.toLocaleString("en");
  const many = (n, one) => `${number(n)} ${one}${n === 1 ? "" : "s"}`;

  function picture(cell) {
    const name = data.names[cell[NAME]];
    const pic = el("div", "pic" + (name.leaf ? "" : " dashed"));
    pic.style.setProperty("--c", name.colour);
    const text = crops[idOf(cell)];
    if (text) {
      const img = el("img");
      img.alt = "";
      img.src = "data:image/webp;base64," + text;
      pic.append(img);
    } else pic.append("no picture");
    return pic;
  }

  function attributes(cell) {
    const list = el("ul", "attrs");
    data.attributes.forEach((attribute, i) => {
      const answer = cell[ATTRS][i];
      const item = el("li");
      if (!attribute.trained) item.className = "untrained";
      else if (!answer || !answer[2]) item.className = "unsure";
      let text = answer ? "" : "not given";
      if (!attribute.trained) text = "not trained";
      else if (answer) {
        const value = attribute.values[answer[0]] || "?";
        text = answer[2] ? value : `not sure (${value})`;
      }
      item.append(el("span", "what", attribute.title), " ", el("span", "chip", text), " ");
      item.append(el("span", "p", attribute.trained && answer ? answer[1].toFixed(2) : ""));
      list.append(item);
    });
    return list;
  }

  function card(cell) {
    const name = data.names[cell[NAME]];
    const box = el("article", "cell");
    box.id = "cell-" + idOf(cell);
    box.tabIndex = -1;
    const head = el("div");
    const title = el("h4");
    title.append(el("b", "", cell[P].toFixed(2)), name.name);
    head.append(title);
    const path = name.path.slice(name.path.length > 3 ? 2 : 1, -1).map((i) => data.names[i].name);
    if (!name.leaf) path.push("not named more closely");
    head.append(el("p", "path", path.join(" › ")));
    const rest = el("ul", "alts");
    rest.setAttribute("aria-label", "Likeliest classes");
    for (const [other, p] of cell[OTHERS]) {
      const item = el("li");
      item.style.setProperty("--p", (100 * p).toFixed(0) + "%");
      item.append(el("span", "", data.names[other].name), el("span", "", p.toFixed(2)));
      rest.append(item);
    }
    box.append(picture(cell), head, rest, attributes(cell));
    if (cell[ISSUES].length) {
      const list = el("ul", "issues");
      for (const issue of cell[ISSUES]) list.append(el("li", "", data.issues[issue]));
      box.append(list);
    }
    const where = el("p", "where");
    const [, , w, h] = cell[BOX];
    where.append(
      (cell[UM] === null ? "" : `${cell[UM].toFixed(1)} µm across, `) +
        `box ${Math.round(w)} × ${Math.round(h)} px, detected ${cell[3].toFixed(2)}, ` +
        (cell[STAIN] === null ? "" : `stain contrast ${cell[STAIN].toFixed(2)}, `)
    );
    const target = $("field-" + cell[FIELD]) ? "#field-" : "#row-";
    const link = el("a");
    link.href = target + cell[FIELD];
    link.title = data.fields[cell[FIELD] - 1];
    link.textContent = "field\u00a0" + cell[FIELD];
    link.addEventListener("click", () => light("box-" + idOf(cell), true));
    where.append(link);
    box.append(where);
    return box;
  }

  const least = (a, b) => a[P] - b[P];
  const size = (cell) => (cell[UM] === null ? 0 : cell[UM]);
  const orders = {
    class: (a, b) => a[NAME] - b[NAME] || least(a, b),
    unsure: least,
    sure: (a, b) => b[P] - a[P],
    large: (a, b) => size(b) - size(a),
    small: (a, b) => size(a) - size(b),
    place: () => 0,
  };

  function matches(cell) {
    const cls = $("f-class").value, issue = $("f-issue").value, attr = $("f-attr").value;
    const text = $("f-field").value.trim().toLowerCase();
    if (cls === "u" ? data.names[cell[NAME]].leaf : cls !== "" && !under(cell, +cls)) return false;
    if (issue === "any" && !cell[ISSUES].length) return false;
    if (issue === "none" && cell[ISSUES].length) return false;
    if (issue !== "" && issue !== "any" && issue !== "none" && !cell[ISSUES].includes(+issue)) return false;
    if (attr !== "") {
      const [which, value] = attr.split(":").map(Number);
      const answer = cell[ATTRS][which];
      const sure = answer && answer[2];
      if (value < 0 ? sure : !sure || answer[0] !== value) return false;
    }
    return !text || data.fields[cell[FIELD] - 1].toLowerCase().includes(text);
  }

  function refresh() {
    shown = data.cells.filter(matches);
    shown.sort(orders[$("f-sort").value]);
    page = 0;
    show();
  }

  function show() {
    crops = crops || JSON.parse($("crops").textContent);
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const some = shown.slice(page * PAGE, page * PAGE + PAGE);
    const parts = document.createDocumentFragment();
    let last = -1;
    for (const cell of some) {
      if ($("f-sort").value === "class" && cell[NAME] !== last) {
        last = cell[NAME];
        const all = shown.filter((c) => c[NAME] === last).length;
        const name = data.names[last];
        const head = el("h3", "", `${name.name}${name.leaf ? "" : ", undecided"} `);
        head.append(el("small", "", many(all, "cell")));
        parts.append(head);
      }
      parts.append(card(cell));
    }
    $("gallery").replaceChildren(parts);
    const from = page * PAGE + 1;
    $("shown").textContent = shown.length
      ? `Cells ${number(from)} to ${number(from + some.length - 1)} of ${number(shown.length)}` +
        (shown.length < data.cells.length ? ` (${number(data.cells.length)} without filters)` : "")
      : data.cells.length ? "No cell fits these filters." : "No nucleated cell was found.";
    $("pager").hidden = pages < 2;
    $("pageno").textContent = `page ${page + 1} of ${pages}`;
    $("prev").disabled = page === 0;
    $("next").disabled = page === pages - 1;
  }

  function light(id, wait) {
    for (const old of document.querySelectorAll(".lit")) old.classList.remove("lit");
    const target = $(id);
    if (!target) return;
    target.classList.add("lit");
    if (!wait) {
      target.scrollIntoView({ block: "center" });
      target.focus({ preventScroll: true });
    }
  }

  // Cards are made after the page is up: opening a large report stays quick.
  function begin() {
    if (!waiting) return;
    waiting = false;
    refresh();
  }

  function follow() {
    const id = location.hash.slice(1);
    if (!id.startsWith("cell-")) return;
    const wanted = data.cells.find((c) => "cell-" + idOf(c) === id);
    if (!wanted) return;
    begin();
    if (!shown.includes(wanted)) {
      clear();
      refresh();
    }
    page = Math.floor(shown.indexOf(wanted) / PAGE);
    show();
    light(id, false);
  }

  function option(select, value, text) {
    const made = el("option", "", text);
    made.value = value;
    select.append(made);
  }

  function fillFilters() {
    const undecided = data.cells.filter((c) => !data.names[c[NAME]].leaf).length;
    if (undecided) option($("f-class"), "u", `undecided (${number(undecided)})`);
    data.names.forEach((name, i) => {
      const count = data.cells.filter((c) => under(c, i)).length;
      const indent = "\u00a0\u00a0".repeat(Math.max(0, name.path.length - 2));
      if (count && name.path.length > 1) option($("f-class"), i, `${indent}${name.name} (${number(count)})`);
    });
    const marked = data.cells.filter((c) => c[ISSUES].length).length;
    if (marked) option($("f-issue"), "any", `any issue (${number(marked)})`);
    option($("f-issue"), "none", `no issue (${number(data.cells.length - marked)})`);
    data.issues.forEach((title, i) => option($("f-issue"), i, title));
    data.attributes.forEach((attribute, i) => {
      if (!attribute.trained) return;
      const group = el("optgroup");
      group.label = attribute.title;
      attribute.values.forEach((value, v) => option(group, `${i}:${v}`, value));
      option(group, `${i}:-1`, "not sure");
      $("f-attr").append(group);
    });
  }

  function clear() {
    for (const id of ["f-class", "f-issue", "f-attr", "f-field"]) $(id).value = "";
  }

  function choose(link) {
    begin();
    clear();
    if (link.dataset.class) $("f-class").value = link.dataset.class;
    if (link.dataset.issue) $("f-issue").value = data.issues.indexOf(link.dataset.issue);
    refresh();
  }

  function turn(by) {
    page += by;
    show();
    $("cells").scrollIntoView();
    $("shown").focus({ preventScroll: true });
  }

  // One stop of the tab key per field; arrow keys go from box to box.
  function arrows(svg) {
    const boxes = [...svg.querySelectorAll("a")];
    boxes.forEach((box, i) => box.setAttribute("tabindex", i ? "-1" : "0"));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const at = boxes.indexOf(document.activeElement);
      if (!step || at < 0) return;
      event.preventDefault();
      const to = boxes[(at + step + boxes.length) % boxes.length];
      boxes.forEach((box) => box.setAttribute("tabindex", box === to ? "0" : "-1"));
      to.focus();
    });
  }

  function theme() {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  }

  $("theme").hidden = false;
  $("theme").addEventListener("click", theme);
  $("filters").hidden = !data.cells.length;
  fillFilters();
  $("filters").addEventListener("input", refresh);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("f-clear").addEventListener("click", () => {
    clear();
    refresh();
  });
  $("shown").tabIndex = -1;
  $("prev").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  if ($("layers")) {
    $("layers").hidden = false;
    const layer = (id, cls, on) => $(id).addEventListener("change", () =>
      $("fields").classList.toggle(cls, $(id).checked === on));
    layer("t-boxes", "boxes-off", false);
    layer("t-names", "names-off", false);
    layer("t-others", "others-on", true);
  }
  document.querySelectorAll("figure svg").forEach(arrows);
  document.querySelectorAll("a[data-class],a[data-issue]").forEach((link) =>
    link.addEventListener("click", () => choose(link)));
  addEventListener("hashchange", follow);
  // A click on the box whose cell is already named in the address must work too.
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest('a[href^="#cell-"]');
    if (link && link.getAttribute("href") === location.hash) follow();
  });

  addEventListener("load", () => setTimeout(begin, 50));
  addEventListener("beforeprint", begin);
  follow();

  if ("IntersectionObserver" in window) {
    const links = new Map([...document.querySelectorAll(".bar a")].map((a) => [a.hash.slice(1), a]));
    const watch = new IntersectionObserver((seen) => {
      for (const s of seen) {
        if (!s.isIntersecting) continue;
        links.forEach((a) => a.removeAttribute("aria-current"));
        links.get(s.target.id).setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-20% 0px -75% 0px" });
    links.forEach((a, id) => watch.observe($(id)));
  }
})();
