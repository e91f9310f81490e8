// Weights of a hybrid's features, and the other ways to ask.

import { h } from "./dom.js";
import { go, state } from "./state.js";

/** A slider for each feature; the answer follows as it is moved. */
export function weights(stats) {
  if (!stats.weights) return null;
  const total = stats.features.reduce((sum, one) => sum + one.weight, 0);
  const given = Object.fromEntries(state.weights.split(",").filter(Boolean).map((pair) => pair.split("=")));
  const usual = (one) => one.weight / total;
  const sliders = stats.features.map((one) => {
    const value = Number(given[one.name] ?? usual(one));
    const told = h("output", {}, value.toFixed(2));
    const input = h("input", {
      type: "range", min: 0, max: 1, step: 0.01, value, name: one.name, title: one.handle,
    });
    return { input, told, row: h("label", { class: "slider" }, h("span", {}, one.name), input, told) };
  });
  const read = () => sliders.map(({ input }) => `${input.name}=${input.value}`).join(",");
  const reset = h("button", { type: "button", class: "link", hidden: !state.weights, onclick: () => go({ weights: "" }) }, "As in the store");
  let waiting = null;
  let moving = false; // one step back is before the slider was moved
  const apply = () => {
    clearTimeout(waiting);
    go({ weights: read() }, { replace: moving });
    moving = true;
  };
  sliders.forEach(({ input, told }) => {
    input.addEventListener("input", () => {
      told.textContent = Number(input.value).toFixed(2);
      reset.hidden = false;
      clearTimeout(waiting);
      waiting = setTimeout(apply, 150);
    });
    input.addEventListener("change", () => {
      apply();
      moving = false;
    });
  });
  const wide = matchMedia("(min-width: 60rem)").matches;
  return h("details", { id: "weights", class: "panel", open: wide || state.weights !== "" },
    h("summary", {}, "Weights of the features"), sliders.map(({ row }) => row), reset);
}

function number(label, field, properties) {
  const input = h("input", { type: "number", value: state[field], ...properties });
  input.addEventListener("change", () => go({ [field]: input.value || (field === "k" ? "48" : "") }));
  return h("label", {}, h("span", {}, label), input);
}

/** How many, which at all, and in which order. */
export function options(stats) {
  const groups = h("select", {}, h("option", { value: "" }, "no groups"),
    stats.columns.filter((one) => one.type !== "other").map((one) => h("option", { value: one.name }, one.name)));
  groups.value = state.group_by;
  groups.addEventListener("change", () => go({ group_by: groups.value }));
  const diverse = h("input", { type: "checkbox", checked: state.diversify !== "" });
  diverse.addEventListener("change", () => go({ diversify: diverse.checked ? "0.5" : "" }));
  const own = h("input", { type: "checkbox", checked: state.own !== "" });
  own.addEventListener("change", () => go({ own: own.checked ? "1" : "" }));
  const least = stats.metric === "l2" ? "Largest distance" : "Least score";
  const touched = ["min_score", "group_by", "diversify", "own"].some((name) => state[name]) || state.k !== "48";
  return h("details", { id: "options", class: "panel", open: touched },
    h("summary", {}, "Options"),
    h("div", { class: "options" },
      number("How many", "k", { min: 1, max: stats.limits.k }),
      number(least, "min_score", { step: "any" }),
      h("label", {}, h("span", {}, "Best of each"), groups),
      state.group_by ? number("How many of each", "per_group", { min: 1, max: stats.limits.k }) : null,
      h("label", { class: "check" }, diverse, h("span", {}, "Unlike one another")),
      state.diversify ? number("Near (1) or diverse (0)", "diversify", { min: 0, max: 1, step: 0.1 }) : null,
      h("label", { class: "check" }, own, h("span", {}, "The query's own picture too"))));
}
