// Conditions over the columns: made of a column, an operator of its type and a value, or written.

import { get } from "./api.js";
import { h } from "./dom.js";
import { go, state } from "./state.js";

const ORDERED = ["=", "!=", "<", "<=", ">", ">="];
const EMPTY = ["is empty", "is not empty"];
const OPERATORS = {
  text: ["=", "!=", "contains", "begins with", ...EMPTY],
  boolean: ["is true", "is false", ...EMPTY],
  number: [...ORDERED, ...EMPTY], time: [...ORDERED, ...EMPTY], clock: [...ORDERED, ...EMPTY],
  duration: [...ORDERED, ...EMPTY], bytes: ["=", "!=", ...EMPTY], other: EMPTY,
};
const INPUTS = { number: "number", duration: "number", time: "text" };
const HINTS = { time: "2024-12-31", clock: "23:59", duration: "seconds", bytes: "hexadecimal" };

const quoted = (text) => `'${text.replaceAll("'", "''")}'`;
const column = (name) => (/^[A-Za-z_]\w*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`);
const pattern = (text) => text.replace(/[\\%_]/g, "\\$&");

function condition({ name, type }, operator, value) {
  const left = column(name);
  switch (operator) {
    case "is empty": return `${left} is null`;
    case "is not empty": return `${left} is not null`;
    case "is true": return `${left} = true`;
    case "is false": return `${left} = false`;
    case "contains": return `${left} like ${quoted(`%${pattern(value)}%`)}`;
    case "begins with": return `${left} like ${quoted(`${pattern(value)}%`)}`;
    default:
      return `${left} ${operator} ${type === "number" || type === "duration" ? Number(value) : quoted(value)}`;
  }
}

/** The part of the query panel about conditions. */
export function filters(columns) {
  const written = h("input", {
    id: "where", type: "text", value: state.where, spellcheck: false, autocomplete: "off",
    placeholder: "width > 500 and uri like '%/2024/%'",
  });
  const set = (where) => go({ where: where.trim() });
  const names = h("select", { id: "column" }, columns.map((one) => h("option", { value: one.name }, one.name)));
  const operators = h("select", { "aria-label": "Operator" });
  const value = h("input", { "aria-label": "Value", list: "values", autocomplete: "off" });
  const known = h("datalist", { id: "values" });
  const chosen = () => columns.find((one) => one.name === names.value);

  async function typed() {
    const { name, type } = chosen();
    operators.replaceChildren(...OPERATORS[type].map((one) => h("option", {}, one)));
    value.type = INPUTS[type] ?? "text";
    value.step = "any";
    value.placeholder = HINTS[type] ?? "";
    value.value = "";
    unary();
    known.replaceChildren();
    try {
      const found = await get("values", { column: name });
      if (chosen().name !== name) return;
      known.replaceChildren(...found.values.map((one) => h("option", { value: String(one.value) }, `${one.value} (${one.count})`)));
      if (found.least !== undefined) value.placeholder = `${found.least} to ${found.greatest}`;
    } catch {
      // a column's values are a help, and the condition works without
    }
  }
  const unary = () => { value.hidden = operators.value.startsWith("is "); };
  names.addEventListener("change", typed);
  operators.addEventListener("change", unary);
  const add = (event) => {
    event.preventDefault();
    if (!value.hidden && value.value === "") return value.focus();
    const one = condition(chosen(), operators.value, value.value);
    const before = written.value.trim();
    const wrapped = / or /i.test(before) ? `(${before})` : before;
    set(before ? `${wrapped} and ${one}` : one);
  };
  typed();
  return h("details", { id: "filter", class: "panel", open: Boolean(state.where) },
    h("summary", {}, "Filter", state.where ? h("span", { class: "badge" }, "on") : null),
    h("form", { class: "row", onsubmit: add },
      h("label", { class: "hidden", htmlFor: "column" }, "Column"), names, operators, value, known,
      h("button", {}, "Add")),
    h("form", { onsubmit: (event) => { event.preventDefault(); set(written.value); } },
      h("label", { htmlFor: "where" }, "Condition (as --where)"), written,
      h("div", { class: "row" }, h("button", {}, "Apply"),
        state.where ? h("button", { type: "button", class: "link", onclick: () => set("") }, "No filter") : null)));
}
