// The query: pictures that are dropped, pasted, uploaded or chosen, to be like and to be unlike.

import { get, thumbnail, upload } from "./api.js";
import { cropStage } from "./crop.js";
import { $, clean, h, nameOf } from "./dom.js";
import { filters } from "./filters.js";
import { options, weights } from "./options.js";
import { by, go, isUpload, state } from "./state.js";

const names = new Map(); // of rows and of pictures that were uploaded, as far as they are known
let say = () => {};
let drawn = ""; // the state that the panel shows, but for the weights

export function remember(one, uri) {
  names.set(String(one), uri);
}

const nameFor = (one) => {
  const known = names.get(one);
  return known ? nameOf(known) : isUpload(one) ? "uploaded picture" : `picture ${one}`;
};

/** Draw the panel for the state as it is. */
export function drawQuery(stats) {
  const { like, unlike, crop } = state;
  const { weights: _, ...others } = state;
  const shown = JSON.stringify(others);
  // A slider that is being moved stays: only the weights are others.
  if (shown === drawn && document.activeElement?.type === "range") return;
  drawn = shown;
  const alone = like.length === 1;
  const panel = $("query");
  const had = document.activeElement?.id;
  const opened = new Map([...panel.querySelectorAll("details[id]")].map((one) => [one.id, one.open]));
  panel.replaceChildren(...[
    stats.pictures ? picker() : null,
    alone && stats.pictures
      ? cropStage(thumbnail(like[0], 1024), nameFor(like[0]), crop, (part) => go({ crop: part }))
      : null,
    alone && !stats.pictures ? chips("Like this", "like", like) : null,
    alone ? caption(like[0]) : null,
    like.length > 1 ? chips("Like these", "like", like) : null,
    unlike.length ? chips("Unlike these", "unlike", unlike) : null,
    like.length ? weights(stats) : null,
    filters(stats.columns),
    like.length ? options(stats) : null,
  ].filter(Boolean));
  opened.forEach((open, id) => { if ($(id)) $(id).open = open; }); // as they were left
  if (had) $(had)?.focus();
}

function caption(one) {
  const line = h("p", { class: "caption" }, nameFor(one));
  if (!isUpload(one)) {
    line.append(" ", h("a", { href: `api/image/${one}/original`, target: "_blank", rel: "noopener" }, "open the file"));
    if (!names.has(one)) {
      get(`image/${one}`).then((found) => {
        remember(one, found.uri);
        line.firstChild.textContent = nameOf(found.uri);
        line.title = clean(found.uri);
      }, () => {}); // the search says what is wrong
    } else line.title = clean(names.get(one));
  }
  return line;
}

function chips(title, field, list) {
  const remove = (one) => go({ [field]: list.filter((other) => other !== one), crop: "" });
  return h("div", { class: "chips" }, h("h2", {}, title), h("ul", {}, list.map((one) =>
    h("li", {}, small(one),
      h("button", { type: "button", "aria-label": `Remove ${nameFor(one)}`, title: "Remove", onclick: () => remove(one) }, "✕")))));
}

function small(one) {
  const picture = h("img", { src: thumbnail(one), alt: nameFor(one) });
  picture.addEventListener("error", () => picture.replaceWith(h("span", { class: "none" }, nameFor(one))));
  return picture;
}

// --- pictures that come in ----------------------------------------------------------------------

function picker() {
  const input = h("input", { id: "file", type: "file", accept: "image/*,.heic,.avif", multiple: true, class: "hidden" });
  input.addEventListener("change", () => take([...input.files]));
  return h("div", { class: "drop" }, input,
    h("label", { htmlFor: "file", class: "button" }, "Upload a picture"),
    h("span", { class: "dim" }, "or drop or paste one here"));
}

async function take(files) {
  const pictures = files.filter((file) => file.type.startsWith("image/") || /\.\w+$/.test(file.name));
  if (!pictures.length) return;
  const { limits } = current;
  const size = pictures.reduce((sum, file) => sum + file.size, 0);
  if (pictures.length > limits.pictures) return say(`${limits.pictures} pictures at most are one query`);
  if (size > limits.upload_bytes - 4096) return say(`pictures of ${limits.upload_bytes >> 20} MiB together are taken, these have ${Math.ceil(size / 2 ** 20)}`);
  document.body.classList.add("busy");
  try {
    const found = await upload(pictures);
    found.forEach((one, place) => remember(one, pictures[place]?.name ?? ""));
    go({ ...by(found[0]), like: found });
  } catch (error) {
    say(error.message);
  } finally {
    document.body.classList.remove("busy");
  }
}

let current = null;

/** Listen for what is dropped and pasted, anywhere on the page. */
export function takePictures(stats, onProblem) {
  say = onProblem;
  current = stats;
  if (!stats.pictures) return;
  addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) {
      event.preventDefault();
      take([...event.clipboardData.files]);
    }
  });
  addEventListener("dragover", (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  addEventListener("drop", (event) => {
    document.body.classList.remove("dragging");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take([...event.dataTransfer.files]);
  });
}
