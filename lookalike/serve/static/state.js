// What is shown, and its URL: a link holds all of it, and the back button goes through it.

const FIELDS = {
  like: [], unlike: [], crop: "", where: "", weights: "", k: "48", min_score: "", group_by: "",
  per_group: "1", diversify: "", own: "", view: "", folder: "", seed: "0",
  threshold: "",
};
let listeners = [];
export let state = parse(location.search);

function parse(search) {
  const given = new URLSearchParams(search);
  const found = {};
  for (const [name, usual] of Object.entries(FIELDS)) {
    found[name] = Array.isArray(usual) ? given.getAll(name) : (given.get(name) ?? usual);
  }
  return found;
}

/** The link to a state that differs from this one in some fields. */
export function link(changes = {}) {
  const next = { ...state, ...changes };
  const pairs = new URLSearchParams();
  for (const [name, usual] of Object.entries(FIELDS)) {
    if (Array.isArray(usual)) next[name].forEach((one) => pairs.append(name, one));
    else if (next[name] !== usual) pairs.set(name, next[name]);
  }
  const text = pairs.toString();
  return text ? `?${text}` : "./";
}

/** Go to another state; `replace` leaves no step to go back to. */
export function go(changes, { replace = false } = {}) {
  const url = link(changes);
  state = { ...state, ...changes };
  history[replace ? "replaceState" : "pushState"](null, "", url);
  listeners.forEach((listener) => listener());
}

export function onChange(listener) {
  listeners.push(listener);
}

addEventListener("popstate", () => {
  state = parse(location.search);
  listeners.forEach((listener) => listener());
});

/** What a search by one picture begins with: its own query, with the options as they are. */
export const by = (one) => ({ like: [one], unlike: [], crop: "", view: "", folder: "", seed: "0" });

export const isUpload = (one) => one.length === 64;
