// Wires the page: the standing drives it, and whenever the position moves, the plots follow.

import { keepToken, pause, request } from "/static/api.js";
import { byId, setText } from "/static/dom.js";
import { wireOrderForm } from "/static/order-form.js";
import { loadRevenue, wireRevenue } from "/static/revenue.js";
import { followStanding } from "/static/standing.js";
import { loadStock, showArticles, wireStock } from "/static/stock.js";

const LEAST_PAUSE_MS = 2000;

const isThere = (name) => !byId(`${name}-title`).parentElement.hidden;

let [resting, due] = [false, false];

/** Leaves out what this server does not do: another domain's has no orders, and one with --no-commands takes none. */
const adapt = async () => {
  const api = await request("/openapi.json").catch(() => null);
  if (!api) return; // all of it stays
  for (const section of document.querySelectorAll("[data-needs]")) {
    section.hidden = !(section.dataset.needs in api.document.paths);
  }
};

/** Loads the plots, at most once in a while, however fast the log grows. */
const reload = async () => {
  due = true;
  if (resting) return;
  [resting, due] = [true, false];
  await Promise.all([isThere("revenue") && loadRevenue(), isThere("stock") && loadStock()]);
  await pause(LEAST_PAUSE_MS);
  resting = false;
  if (due) reload();
};

const wireToken = () => {
  document.addEventListener("token-wanted", ({ detail }) => {
    byId("token-panel").hidden = false;
    setText(byId("state"), "Waiting for a token");
    if (detail.refused) setText(byId("token-note"), "The token that was given is not accepted here.");
  });
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    keepToken(byId("token").value.trim());
    byId("token").value = "";
    byId("token-panel").hidden = true;
    document.dispatchEvent(new CustomEvent("token-given"));
  });
};

wireToken();
wireRevenue();
wireStock();
wireOrderForm(showArticles);
document.addEventListener("token-given", adapt);
await adapt();
followStanding(reload);
