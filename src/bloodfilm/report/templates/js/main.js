// Controls, the address, printing.

const STATUS = ["not counted", "counted", "beside the count", "another view of a cell"];
const FILTERS = ["class", "issue", "attr", "q", "sort", "size"];

function option(select, value, text) {
  const made = make("option", "", text);
  made.value = value;
  select.append(made);
}

function fillFilters() {
  const counts = new Map(), once = data.cells.filter((cell) => cell[COUNTED] !== OTHER_VIEW);
  for (const cell of once) for (const i of nameOf(cell).path) counts.set(i, (counts.get(i) || 0) + 1);
  data.names.forEach((name, i) => {
    const count = counts.get(i);
    const indent = "\u00a0\u00a0".repeat(Math.max(0, name.path.length - 2));
    if (count && (name.path.length > 1 || !name.leaf)) option($("f-class"), name.name, `${indent}${name.title} (${number(count)})`);
  });
  const marked = once.filter((cell) => cell[ISSUES].length).length;
  if (marked) option($("f-issue"), "any", `any issue (${number(marked)})`);
  option($("f-issue"), "none", `no issue (${number(once.length - marked)})`);
  data.issues.forEach((issue) => option($("f-issue"), issue.code, issue.title));
  data.attributes.forEach((attribute) => {
    if (!attribute.trained) return;
    const group = make("optgroup");
    group.label = attribute.title;
    attribute.values.forEach((value) => option(group, `${attribute.name}:${value}`, value));
    option(group, `${attribute.name}:?`, "not sure");
    $("f-attr").append(group);
  });
}

// A filter that has no control of its own is shown as a chip that removes it.
function showOnly() {
  const said = {
    only: { undecided: "undecided", blast: "blasts", "maybe-blast": "undecided, may be blasts", unplaced: "neither white cell nor erythroblast" }[state.only] || state.only.replace(/^stopped:/, "named exactly "),
    field: state.field && `field ${state.field}`,
    counted: state.counted && STATUS[state.counted],
    likely: state.likely && `undecided, likeliest ${state.likely}`,
    flag: state.flag && `behind “${state.flag.replaceAll("-", " ")}”`,
  };
  const chips = Object.entries(said).filter(([key]) => state[key]).map(([key, text]) => {
    const chip = make("button", "chip", `${text} ×`);
    chip.type = "button";
    chip.setAttribute("aria-label", `Remove the filter: ${text}`);
    chip.addEventListener("click", () => go("cells", { [key]: "", cell: "" }));
    return chip;
  });
  $("only").replaceChildren(...chips);
  $("only").hidden = !chips.length;
}

function showControls() {
  for (const key of FILTERS) {
    const control = $("f-" + key);
    if (control !== document.activeElement || control.tagName === "SELECT") control.value = state[key];
    if (control.tagName === "SELECT" && control.selectedIndex < 0) {
      option(control, state[key], state[key]);
      control.value = state[key];
    }
  }
  showOnly();
}

// Shows what the address says; `moved`: the reader went there, so the page goes along.
function follow(moved) {
  const before = place;
  const ours = readAddress();
  if (!ours) {
    showCard();
    return;
  }
  if (place === "cells") {
    showControls();
    showWall();
    showCard();
    const at = shown.findIndex((cell) => cell[ID] === state.cell);
    if (moved && (before !== "cells" || !state.cell) && returnTo === null) $("cells").scrollIntoView();
    if (moved && at >= 0) {
      reveal(at);
      $("card").focus({ preventScroll: true });
    }
    if (returnTo !== null) focusOn(returnTo);
    returnTo = null;
  } else {
    showCard();
    showField();
    if (moved) {
      lookAtCell();
      $("fields").scrollIntoView();
      $("v-title").focus({ preventScroll: true });
    }
  }
}

// The contact sheet is printed, not shown: its pictures are fetched when the page has time.
function fetchSheet() {
  for (const img of document.querySelectorAll(".sheet img")) img.loading = "eager";
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
}

function soon(act) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      act();
    });
  };
}

function begin() {
  document.documentElement.classList.add("js");
  for (const img of document.querySelectorAll("img[data-picture]")) {
    const picture = pictureAt(img.dataset.picture);
    if (picture) img.src = picture;
  }
  $("theme").hidden = false;
  $("theme").addEventListener("click", theme);
  $("filters").hidden = !data.cells.length;
  fillFilters();
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const key of FILTERS) {
    $("f-" + key).addEventListener("input", (event) =>
      go("cells", { [key]: event.target.value, cell: "" }, key === "q" || key === "size"));
  }
  $("f-clear").addEventListener("click", () => go("cells", { ...NOTHING, size: state.size }));
  $("wall").addEventListener("keydown", wallKeys);
  $("card").addEventListener("keydown", cardKeys);
  if (data.fields.length) {
    $("v-prev").addEventListener("click", () => go("fields", { field: String(mapped - 1), cell: "" }));
    $("v-next").addEventListener("click", () => go("fields", { field: String(mapped + 1), cell: "" }));
    $("v-in").addEventListener("click", () => zoom(0.7));
    $("v-out").addEventListener("click", () => zoom(1.4));
    $("v-all").addEventListener("click", () => look({ x: 0, y: 0, w: data.fields[mapped - 1].shown[0] }));
    const layer = (id, cls, on) => $(id).addEventListener("change", () =>
      $("fields").classList.toggle(cls, $(id).checked === on));
    layer("t-boxes", "boxes-off", false);
    layer("t-names", "names-off", false);
    layer("t-others", "others-on", true);
    $("v-picture").addEventListener("click", (event) => {
      if (dragged) event.preventDefault();
    });
    showField();
  }
  addEventListener("load", () => setTimeout(fetchSheet, 500));
  addEventListener("beforeprint", fetchSheet);
  addEventListener("hashchange", () => follow(true));
  addEventListener("scroll", soon(fill), { passive: true });
  new ResizeObserver(soon(layOutIfWider)).observe($("wall"));
  // A link to the address that is shown already must lead there, too.
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest('a[href^="#"]');
    if (link && link.getAttribute("href") === location.hash) follow(true);
  });
  if (readAddress()) follow(true);
  else {
    showControls();
    showWall();
  }
  watchSections();
}

function watchSections() {
  const links = new Map([...document.querySelectorAll('.bar a[href^="#"]')].map((a) => [a.hash.slice(1), a]));
  const watch = new IntersectionObserver((seen) => {
    for (const s of seen) {
      if (!s.isIntersecting) continue;
      links.forEach((a) => a.removeAttribute("aria-current"));
      links.get(s.target.id).setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  links.forEach((a, id) => watch.observe($(id)));
}

begin();
