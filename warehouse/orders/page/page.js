// Wires the page: it polls the status, and reloads the plots when the position advances.

import { keepToken, pause, request } from "/static/api.js";
import { byId, setText } from "/static/dom.js";
import { wireOrderForm } from "/static/order-form.js";
import { loadRevenue, wireRevenue } from "/static/revenue.js";
import { pollStatus } from "/static/status.js";
import { loadStock, showProducts, wireStock } from "/static/stock.js";

const MIN_PAUSE_MS = 2000;

const isShown = (name) => !byId(`${name}-title`).parentElement.hidden;

let [paused, due] = [false, false];

/** Hides what this server does not offer: a server with --no-commands takes no orders. */
const adapt = async () => {
  const api = await request("/openapi.json").catch(() => null);
  if (!api) return; // show everything
  for (const section of document.querySelectorAll("[data-needs]")) {
    section.hidden = !(section.dataset.needs in api.document.paths);
  }
};

/** Loads the plots, at most once per pause, however fast the log grows. */
const reload = async () => {
  due = true;
  if (paused) return;
  [paused, due] = [true, false];
  await Promise.all([isShown("revenue") && loadRevenue(), isShown("stock") && loadStock()]);
  await pause(MIN_PAUSE_MS);
  paused = false;
  if (due) reload();
};

const wireToken = () => {
  document.addEventListener("token-needed", ({ detail }) => {
    byId("token-panel").hidden = false;
    setText(byId("state"), "Waiting for a token");
    if (detail.rejected) setText(byId("token-note"), "The server did not accept this token.");
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
wireOrderForm(showProducts);
document.addEventListener("token-given", adapt);
await adapt();
pollStatus(reload);
