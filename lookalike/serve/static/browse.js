// Looking around without a query: at random, by folder, copies, near-copies, what is like nothing else.

import { get, getNow } from "./api.js";
import { $, clean, count, h, plural } from "./dom.js";
import { go, link, state } from "./state.js";

const VIEWS = {
  random: "Random", folders: "Folders", copies: "Copies", near: "Near-copies", outliers: "Outliers",
};
const PAGE = 60;
const GROUPS = 20;
const NONE = { like: [], unlike: [], crop: "", folder: "", weights: "" };
const newSeed = () => String(1 + Math.floor(Math.random() * 2 ** 30));

export const viewOf = () => state.view || (state.like.length ? "" : "random");

/** Links to the views. */
export function drawViews() {
  const now = viewOf();
  $("views").replaceChildren(...Object.entries(VIEWS).map(([view, label]) => {
    const changes = { ...NONE, view };
    return h("a", {
      href: link(changes), "aria-current": now === view ? "page" : null,
      onclick: (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        go(view === "random" || view === "outliers" ? { ...changes, seed: newSeed() } : changes);
      },
    }, label);
  }));
}

/** Rows of the view, from a place on: {images or groups of them, total, next, words}. */
export async function listed(view, offset = 0) {
  const k = PAGE;
  const { where, seed, folder } = state;
  if (view === "copies") {
    const found = await getNow("duplicates", { k, offset, where });
    return { ...found, words: `${plural(found.total, "picture")} with copies under other names` };
  }
  if (view === "near") {
    const found = await getNow("near-copies", { k: GROUPS, offset, where, threshold: state.threshold });
    const { looked, of, nearest, threshold, metric, total } = found;
    const filtered = where ? " that pass the filter" : "";
    const sample = looked < of ? `${count(looked)} of ${count(of)} pictures${filtered}, drawn at random` : `all ${plural(of, "picture")}${filtered}`;
    const edge = metric === "l2" ? `a distance up to ${threshold}` : `a score from ${threshold}`;
    return { ...found, words: `${plural(total, "group")} of near-copies: linked by ${edge}, of ${sample}, each beside its ${nearest} nearest` };
  }
  if (view === "outliers") {
    const found = await getNow("outliers", { k, seed, where });
    return { ...found, words: `Least like any other, of a sample of ${count(found.total)}` };
  }
  if (view === "folders") {
    const found = await getNow("browse", { k, offset, where, folder, order: "stored" });
    return { ...found, words: `${plural(found.total, "picture")} here and below` };
  }
  const found = await getNow("browse", { k, seed, where });
  return { ...found, words: `Some of ${plural(found.total, "picture")}, at random` };
}

/** The folders of one level, and the way back. */
export async function drawFolders(visible) {
  const place = $("folders");
  place.hidden = !visible;
  if (!visible) return;
  const found = await get("folders", { under: state.folder });
  const { top } = found;
  const to = (folder, label) => h("a", {
    href: link({ folder }),
    onclick: (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      go({ folder });
    },
  }, label);
  const below = found.folder.startsWith(`${top}/`) ? found.folder.slice(top.length + 1).split("/") : [];
  const steps = below.map((name, depth) => to(`${top}/${below.slice(0, depth + 1).join("/")}`, clean(name)));
  place.replaceChildren(
    h("nav", { class: "path", "aria-label": "Folder" }, to("", clean(top) || "all"),
      steps.flatMap((step) => [" / ", step])),
    h("ul", {}, found.folders.map((one) =>
      h("li", {}, to(one.folder, clean(one.name)), " ", h("span", { class: "dim" }, count(one.count))))),
    ...(found.more ? [h("p", { class: "dim" }, `and ${plural(found.more, "folder")} more`)] : []));
}

/** By which score pictures are near-copies. */
export function drawNear(visible, metric) {
  const place = $("near");
  place.hidden = !visible;
  if (!visible) return;
  const least = metric === "l2" ? "Distance up to" : "Score from";
  const field = h("input", {
    type: "number", step: "any", name: "threshold", value: state.threshold,
    placeholder: metric === "cosine" || metric === "jaccard" ? "0.97" : "",
  });
  place.onsubmit = (event) => {
    event.preventDefault();
    go({ threshold: field.value });
  };
  place.replaceChildren(h("label", {}, least, " ", field), h("button", {}, "Look"),
    h("p", { class: "dim" }, "All of a large store, and which to keep: ", h("code", {}, "lookalike duplicates")));
}
