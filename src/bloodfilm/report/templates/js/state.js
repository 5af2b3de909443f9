// The data of the page, and what is shown of it: the address holds every filter, so that a link,
// the back button and a reload lead to the same cells.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const embedded = JSON.parse($("pictures").textContent);
const FIELD = 0, PLACE = 1, ID = 2, BOX = 3, FOUND = 4, NAME = 5, P = 6, LIKELIEST = 7, ATTRS = 8,
  ISSUES = 9, UM = 10, STAIN = 11, NUCLEATED = 12, ODD = 13, COUNTED = 14, MEASURES = 15, OUTLINES = 16, LIKELY = 17;
const NOT_SURE = -1, OTHER_VIEW = 3;
const cellOf = new Map(data.cells.map((cell, at) => [cell[ID], at]));

const NOTHING = { class: "", only: "", issue: "", attr: "", field: "", q: "", counted: "", flag: "", likely: "",
  sort: "class", size: "84", cell: "" };
let place = "", state = { ...NOTHING };

function readAddress() {
  const [where, query = ""] = location.hash.slice(1).split("?");
  place = where;
  if (where !== "cells" && where !== "fields") return false;
  const given = new URLSearchParams(query);
  const kept = { ...NOTHING, size: state.size };
  for (const key of Object.keys(NOTHING)) if (given.has(key)) kept[key] = given.get(key);
  state = kept;
  return true;
}

function address(where, changes) {
  const wanted = { ...state, ...changes };
  const parts = Object.entries(wanted).filter(([key, value]) => value !== NOTHING[key] && key in NOTHING);
  const query = parts.map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&");
  return `#${where}${query ? "?" + query : ""}`;
}

// A new entry of the history, or a change of the present one.
function go(where, changes, instead = false) {
  const wanted = address(where, changes);
  if (instead) {
    history.replaceState(null, "", wanted);
    follow(false);
  } else if (wanted === location.hash) follow(true);
  else location.hash = wanted;
}

const make = (tag, cls, text) => {
  const made = document.createElement(tag);
  if (cls) made.className = cls;
  if (text !== undefined) made.textContent = text;
  return made;
};
const draw = (tag, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
const number = (n) => n.toLocaleString("en");
const many = (n, one) => `${number(n)} ${one}${n === 1 ? "" : "s"}`;
const nameOf = (cell) => data.names[cell[NAME]];
const fieldOf = (cell) => data.fields[cell[FIELD] - 1];

function pictureAt(path) {
  if (data.pictures) return `${data.pictures}/${path}`;
  return embedded[path] ? "data:image/jpeg;base64," + embedded[path] : "";
}
function pictureOf(cell) {
  const folder = fieldOf(cell).picture;
  return folder ? pictureAt(`${folder}/${cell[PLACE]}.jpg`) : "";
}

// ---- which cells, in which order -----------------------------------------------------------

function fits(cell) {
  const name = nameOf(cell), issues = cell[ISSUES];
  if (state.class) {
    if (!name.path.some((i) => data.names[i].name === state.class)) return false;
  }
  if (state.only) {
    const [what, exact] = [state.only.split(":")[0], state.only.slice(state.only.indexOf(":") + 1)];
    if (what === "undecided" && !name.undecided) return false;
    if (what === "blast" && !name.blast) return false;
    if (what === "maybe-blast" && !name.above) return false;
    if (what === "unplaced" && name.path.length > 2) return false;
    if (what === "stopped" && name.name !== exact) return false;
  }
  if (state.likely && (cell[LIKELY] < 0 || data.names[cell[LIKELY]].name !== state.likely)) return false;
  if (state.issue === "any" && !issues.length) return false;
  if (state.issue === "none" && issues.length) return false;
  if (state.issue && state.issue !== "any" && state.issue !== "none") {
    if (!issues.some((i) => data.issues[i].code === state.issue)) return false;
  }
  if (state.attr && !hasValue(cell, state.attr)) return false;
  if (state.field && cell[FIELD] !== Number(state.field)) return false;
  if (state.counted && cell[COUNTED] !== Number(state.counted)) return false;
  if (cell[COUNTED] === OTHER_VIEW && !state.counted && !state.field) return false;
  return !state.q || fieldOf(cell).name.toLowerCase().includes(state.q.trim().toLowerCase());
}

function hasValue(cell, wanted) {
  const at = data.attributes.findIndex((a) => wanted.startsWith(a.name + ":"));
  if (at < 0) return false;
  const answer = cell[ATTRS][at], value = wanted.slice(data.attributes[at].name.length + 1);
  if (!answer) return false;
  return value === "?" ? answer[0] === NOT_SURE : data.attributes[at].values[answer[0]] === value;
}

const leastSure = (a, b) => a[P] - b[P];
const ORDERS = {
  class: (a, b) => a[NAME] - b[NAME] || a[LIKELY] - b[LIKELY] || leastSure(a, b),
  odd: (a, b) => b[ODD] - a[ODD] || leastSure(a, b),
  unsure: leastSure,
  sure: (a, b) => b[P] - a[P],
  large: (a, b) => (b[UM] || 0) - (a[UM] || 0),
  small: (a, b) => (a[UM] || 1e9) - (b[UM] || 1e9),
  place: () => 0,
};

function chosen() {
  const cells = state.flag
    ? (data.flags[state.flag] || []).map((at) => data.cells[at]).filter(fits)
    : data.cells.filter(fits);
  return cells.slice().sort(ORDERS[state.sort] || ORDERS.class);
}
