// The page: what the URL says is asked of the API, and drawn.

import { get, search } from "./api.js";
import { drawFolders, drawNear, drawViews, listed, viewOf } from "./browse.js";
import { $, clean, count, facts, h, plural, show } from "./dom.js";
import { drawQuery, takePictures } from "./query.js";
import { drawDownloads, drawGroups, drawRows, gridKeys } from "./results.js";
import { go, onChange, state } from "./state.js";

let stats = null;
let turn = 0;

function problem(words) {
  $("error").textContent = words ? clean(words) : "";
  $("error").hidden = !words;
}

async function draw() {
  const mine = ++turn;
  const view = viewOf();
  problem("");
  drawViews();
  drawQuery(stats);
  drawDownloads(!view, problem);
  $("more").hidden = true;
  $("grid").setAttribute("aria-busy", "true");
  try {
    drawNear(view === "near", stats.metric);
    const folders = drawFolders(view === "folders");
    const found = view ? await listed(view) : await search(state);
    await folders;
    if (mine !== turn) return;
    if (view) drawListing(view, found);
    else drawAnswer(found);
    document.title = view ? `${view} · lookalike` : "neighbours · lookalike";
    if (found.snapshot !== stats.snapshot) await refresh();
  } catch (error) {
    if (error.name === "AbortError" || mine !== turn) return;
    $("grid").replaceChildren();
    $("status").textContent = "No answer";
    problem(error.message);
  } finally {
    if (mine === turn) $("grid").removeAttribute("aria-busy");
  }
}

function drawAnswer(found) {
  const rows = found.neighbours;
  drawRows(rows, stats);
  const many = plural(rows.length, "neighbour");
  const more = found.complete ? "" : " (others may fulfil what was asked)";
  $("status").textContent = `${many}, exact scores by ${found.metric.replace("_", " ")}${more} · snapshot ${found.snapshot}`;
}

function drawListing(view, found) {
  drawListed(found, stats);
  $("status").textContent = found.groups || found.images.length ? found.words : "No picture";
  follow(view, found.next);
}

const drawListed = (found, how) => (found.groups ? drawGroups(found.groups, how) : drawRows(found.images, how));

function follow(view, next) {
  $("more").hidden = next === null;
  $("more").firstElementChild.onclick = async () => {
    try {
      const found = await listed(view, next);
      const [first] = drawListed(found, { ...stats, append: true });
      first?.querySelector(".thumb").focus();
      follow(view, found.next);
    } catch (error) {
      if (error.name !== "AbortError") problem(error.message);
    }
  };
}

// --- the store ----------------------------------------------------------------------------------

async function refresh() {
  stats = await get("stats");
  const name = stats.store.replace(/[/]+$/, "").split("/").pop();
  $("store").textContent = `${clean(name)} · ${plural(stats.images, "picture")}`;
  $("certificate").textContent = stats.certificate.line;
}

function about() {
  const features = stats.features.map((one) => `${one.name}: ${one.handle}, weight ${one.weight}, ${one.dim} components`);
  show("This store", facts([
    ["store", stats.store], ["snapshot", stats.snapshot], ["published", stats.created],
    ["pictures", count(stats.images)], ["metric", stats.metric], ["components", stats.dim],
    ["index", Object.entries(stats.index).map(([name, value]) => `${name} ${value}`).join(", ")],
    ["certificate", stats.certificate.line], ["features", features.join("; ") || "vectors made elsewhere"],
    ...Object.entries(stats.counts).filter(([, value]) => typeof value === "number"),
    ["problem", stats.problem], ["API", h("a", { href: "api/openapi.json" }, "described as OpenAPI")],
  ]));
}

function help() {
  const keys = [
    ["arrows", "go through the pictures"], ["Enter", "search by a picture"],
    ["+ −", "more like, less like the picture"], ["o", "open its file"], ["i", "its details"],
    ["u", "upload a picture"], ["/", "write a condition"], ["r", "pictures at random"], ["?", "this help"],
  ];
  show("Help",
    h("p", {}, "Search by any picture: click it, or drop, paste or upload one. Drag a rectangle on the query to search by that part. “+” and “−” make a query of several pictures. The address of the page is a link to what you see."),
    h("h3", {}, "Keys"), facts(keys.map(([key, words]) => [key, words])));
}

function keys(event) {
  if (event.metaKey || event.ctrlKey || event.altKey || $("dialog").open) return;
  if (event.target.closest("input, select, textarea, [contenteditable]")) return;
  const action = {
    "?": help,
    u: () => $("file")?.click(),
    r: () => $("views").firstElementChild.click(),
    "/": () => {
      const field = $("where");
      field.closest("details").open = true;
      field.focus();
    },
  }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

async function begin() {
  $("about").addEventListener("click", about);
  $("help").addEventListener("click", help);
  $("home").addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    location.assign("./");
  });
  addEventListener("keydown", keys);
  gridKeys();
  try {
    await refresh();
  } catch (error) {
    $("status").textContent = "No answer";
    problem(error.message);
    return;
  }
  takePictures(stats, problem);
  onChange(draw);
  if (viewOf() === "random" && state.seed === "0") go({ seed: String(1 + Math.floor(Math.random() * 2 ** 30)) }, { replace: true });
  else draw();
}

begin();
