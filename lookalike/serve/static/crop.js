// A rectangle on the query: dragged, or given in numbers; in shares of the picture's sides.

import { h } from "./dom.js";

const LEAST = 0.02; // of a side; less is a click, which takes the rectangle away

const clamp = (value) => Math.min(1, Math.max(0, value));

export function parseCrop(text) {
  const sides = text.split(",").map(Number);
  return sides.length === 4 && sides.every(Number.isFinite) ? sides : null;
}

/** A picture on which to mark a part; `set` is told the part as a text, "" for the whole. */
export function cropStage(source, name, crop, set) {
  const mark = h("div", { class: "mark", hidden: true });
  const image = h("img", { src: source, alt: `The query: ${name}`, draggable: false });
  const stage = h("div", { class: "stage" }, image, mark);
  const sides = parseCrop(crop);
  if (sides) draw(...sides);

  function draw(x, y, width, height) {
    mark.hidden = false;
    Object.entries({ left: x, top: y, width, height }).forEach(([key, share]) => {
      mark.style[key] = `${share * 100}%`;
    });
  }

  let start = null;
  let last = null;
  const at = (event) => {
    const box = image.getBoundingClientRect();
    return [clamp((event.clientX - box.left) / box.width), clamp((event.clientY - box.top) / box.height)];
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    start = at(event);
    last = null;
    stage.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    if (!start) return;
    const [x, y] = at(event);
    last = [Math.min(x, start[0]), Math.min(y, start[1]), Math.abs(x - start[0]), Math.abs(y - start[1])];
    draw(...last);
  });
  const end = () => {
    if (!start) return;
    start = null;
    const marked = last && last[2] >= LEAST && last[3] >= LEAST;
    set(marked ? asText(last) : "");
  };
  stage.addEventListener("pointerup", end);
  stage.addEventListener("pointercancel", end);
  return h("figure", { class: "large" }, stage, numbers(sides, set));
}

// What is rounded must not leave the picture.
function asText([x, y, width, height]) {
  const down = (value) => Math.floor(value * 1e4) / 1e4;
  const [left, top] = [down(x), down(y)];
  return [left, top, down(Math.min(width, 1 - left)), down(Math.min(height, 1 - top))].join(",");
}

/** The same for those who do not drag. */
function numbers(sides, set) {
  const labels = ["left", "top", "width", "height"];
  const usual = [0, 0, 100, 100];
  const inputs = labels.map((label, place) =>
    h("label", {}, `${label} %`, h("input", {
      type: "number", min: place < 2 ? 0 : 2, max: 100, step: "any",
      value: sides ? Math.round(sides[place] * 1000) / 10 : usual[place],
    })));
  const apply = () => {
    const given = inputs.map((one) => clamp(one.querySelector("input").value / 100));
    const whole = given[0] === 0 && given[1] === 0 && given[2] === 1 && given[3] === 1;
    set(whole ? "" : asText(given));
  };
  return h("figcaption", {},
    sides
      ? h("button", { type: "button", class: "link", onclick: () => set("") }, "Search by the whole picture")
      : h("span", { class: "dim" }, "Drag a rectangle to search by that part."),
    h("details", { id: "numbers" }, h("summary", {}, "Part in numbers"),
      h("form", { class: "numbers", onsubmit: (event) => { event.preventDefault(); apply(); } },
        inputs, h("button", {}, "Search by this part"))));
}
