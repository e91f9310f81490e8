// Requests to the API; what is refused becomes an Error with the server's reason.

import { isUpload } from "./state.js";

let busy = null; // the request whose answer the grid waits for

async function answered(url, options) {
  let found;
  try {
    found = await fetch(url, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer");
  }
  if (found.ok) return found;
  const told = await found.json().catch(() => ({}));
  throw new Error(told.error ?? `the server answers ${found.status}`);
}

export async function get(path, parameters = {}, options = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null);
  const query = new URLSearchParams(given).toString();
  return (await answered(`api/${path}${query ? `?${query}` : ""}`, options)).json();
}

/** The same, for the grid: one that is asked later ends it. */
export function getNow(path, parameters) {
  return get(path, parameters, { signal: newest() });
}

function newest() {
  busy?.abort();
  busy = new AbortController();
  return busy.signal;
}

function asked(state) {
  const ids = state.like.filter((one) => !isUpload(one));
  const pictures = state.like.filter(isUpload);
  const fields = {
    id: ids, picture: pictures, unlike: state.unlike, k: state.k, where: state.where,
    crop: state.crop, weights: state.weights, min_score: state.min_score,
    group_by: state.group_by, per_group: state.group_by ? state.per_group : "",
    diversify: state.diversify, exclude_self: state.own ? "false" : "true",
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value.length));
}

function post(state, more, signal) {
  const body = JSON.stringify({ ...asked(state), ...more });
  return answered("api/search", {
    method: "POST", body, headers: { "Content-Type": "application/json" }, signal,
  });
}

export async function search(state) {
  return (await post(state, {}, newest())).json();
}

export async function download(state, format) {
  return (await post(state, { format })).blob();
}

/** Send pictures, which the server keeps; gives the names by which to ask for them. */
export async function upload(files) {
  const form = new FormData();
  files.forEach((file) => form.append("image", file));
  form.append("k", "1");
  const found = await answered("api/search", { method: "POST", body: form });
  return (await found.json()).query.picture;
}

export function thumbnail(one, side = 192) {
  return `api/${isUpload(one) ? "picture" : "image"}/${one}/thumbnail?side=${side}`;
}
