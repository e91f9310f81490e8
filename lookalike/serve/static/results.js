// The grid: pictures with scores, their copies folded beneath, and what can be done with each.

import { download, get, thumbnail } from "./api.js";
import { $, clean, count, facts, h, nameOf, plural, show } from "./dom.js";
import { remember } from "./query.js";
import { by, go, link, state } from "./state.js";

const SHARES = ["cosine", "jaccard"]; // whose scores fill a bar from 0 to 1
const BASE = ["rank", "uri", "score", "id", "duplicates"];

/** Add rows to the grid, after emptying it unless they go on. */
export function drawRows(rows, { metric, unlike, append = false }) {
  const cards = rows.map((row) => card(row, metric, unlike));
  put(cards, append);
  return cards;
}

/** The same of groups of rows, each below its own heading. */
export function drawGroups(groups, { metric, unlike, append = false }) {
  const cards = [];
  put(groups.flatMap(({ count: many, images }) => {
    const own = images.map((row) => card(row, metric, unlike));
    cards.push(...own);
    const more = many > images.length ? `, ${count(many - images.length)} of them not shown` : "";
    return [h("li", { class: "group" }, h("h2", {}, `${plural(many, "picture")}${more}`)), ...own];
  }), append);
  return cards;
}

function put(items, append) {
  if (append) $("grid").append(...items);
  else $("grid").replaceChildren(...items);
}

function card(row, metric, unlike) {
  const { id, uri, score, rank, duplicates } = row;
  const one = String(id);
  remember(one, uri);
  const name = nameOf(uri);
  const scored = score !== undefined;
  const told = scored ? `, score ${score.toFixed(4)}` : "";
  const chosen = state.like.includes(one) ? "like" : state.unlike.includes(one) ? "unlike" : "";
  const picture = h("img", { src: thumbnail(one), alt: "", loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => picture.replaceWith(h("span", { class: "none" }, name)));
  const search = h("a", {
    class: "thumb", href: link(by(one)), "aria-label": `Search by ${name}${told}`, title: clean(uri),
    onclick: (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
      event.preventDefault();
      go(by(one));
    },
  }, picture);
  const line = h("div", { class: "line" },
    rank ? h("span", { class: "rank" }, String(rank)) : null,
    scored ? h("span", { class: "score" }, score.toFixed(4)) : null,
    h("span", { class: "name", title: clean(uri) }, name));
  const bar = scored && SHARES.includes(metric)
    ? h("div", { class: "meter" }, h("div", {})) : null;
  if (bar) bar.firstChild.style.width = `${Math.min(1, Math.max(0, score)) * 100}%`;
  const toggle = (field, other, sign, words) => h("button", {
    type: "button", "aria-pressed": String(chosen === field), "aria-label": `${words} ${name}`,
    title: words, "data-key": sign,
    onclick: () => {
      const on = state[field].includes(one);
      go({
        [field]: on ? state[field].filter((x) => x !== one) : [...state[field], one],
        [other]: state[other].filter((x) => x !== one), crop: "", view: "", folder: "",
      });
    },
  }, sign);
  const actions = h("div", { class: "actions" },
    toggle("like", "unlike", "+", "More like"),
    unlike && state.like.length ? toggle("unlike", "like", "−", "Less like") : null,
    h("a", { href: `api/image/${one}/original`, target: "_blank", rel: "noopener", title: "Open the file", "aria-label": `Open the file of ${name}`, "data-key": "o" }, "↗"),
    h("button", { type: "button", title: "Details", "aria-label": `Details of ${name}`, "data-key": "i", onclick: () => details(row) }, "i"));
  const copies = duplicates.length
    ? h("details", { class: "copies" }, h("summary", {}, plural(duplicates.length, "copy", "copies")),
      h("ul", {}, duplicates.map((copy) => h("li", { title: clean(copy) }, clean(copy)))))
    : null;
  return h("li", { class: `card ${chosen}` }, search, bar, line, actions, copies);
}

async function details(row) {
  const { id, uri, score } = row;
  const own = Object.entries(row).filter(([name]) => !BASE.includes(name));
  const picture = h("img", { class: "preview", src: thumbnail(String(id), 1024), alt: nameOf(uri) });
  picture.addEventListener("error", () => picture.remove());
  const known = [["name", uri], ["score", score], ["id", id], ...own];
  show(nameOf(uri), picture, facts(known));
  try {
    const { width, height, format, bytes } = await get(`image/${id}`);
    const size = width ? [["size", `${width} × ${height}`], ["format", format], ["bytes", bytes]] : [];
    const copies = row.duplicates.map((copy) => ["copy", copy]);
    show(nameOf(uri), picture, facts([...known, ...size, ...copies]));
  } catch {
    // what the answer said is shown already
  }
}

/** Buttons that keep the answer as a file. */
export function drawDownloads(visible, onProblem) {
  const save = async (format) => {
    try {
      const url = URL.createObjectURL(await download(state, format));
      h("a", { href: url, download: `lookalike.${format}` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      onProblem(error.message);
    }
  };
  $("downloads").replaceChildren(...(visible ? ["jsonl", "csv", "parquet"] : []).map((format) =>
    h("button", { type: "button", class: "quiet", title: `Download as ${format}`, onclick: () => save(format) }, `↓ ${format}`)));
}

/** The card in the row below (1) or above (-1) that is nearest to this one's column. */
function inNextRow(cards, here, way) {
  const beyond = cards.filter((one) => way * (one.offsetTop - here.offsetTop) > 0);
  const row = Math.min(...beyond.map((one) => way * one.offsetTop));
  const away = (one) => Math.abs(one.offsetLeft - here.offsetLeft);
  return beyond.filter((one) => way * one.offsetTop === row).sort((a, b) => away(a) - away(b))[0];
}

/** Arrows go through the pictures, letters do what the buttons do. */
export function gridKeys() {
  $("grid").addEventListener("keydown", (event) => {
    const here = event.target.closest(".card");
    if (!here || event.metaKey || event.ctrlKey || event.altKey) return;
    const beside = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const below = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (beside || below) {
      const cards = [...$("grid").querySelectorAll(".card")];
      const next = beside ? cards[cards.indexOf(here) + beside] : inNextRow(cards, here, below);
      if (next) {
        next.querySelector(".thumb").focus();
        event.preventDefault();
      }
      return;
    }
    const key = event.key === "-" ? "−" : event.key;
    const button = here.querySelector(`[data-key="${CSS.escape(key)}"]`);
    if (button) {
      button.click();
      event.preventDefault();
    }
  });
}
