// The stock plot: a bar of available, reserved and missing pieces for each product; named products come first.

import { request } from "/static/api.js";
import { byId, element, setProblem, svgElement } from "/static/dom.js";
import { count } from "/static/format.js";

const LISTED = 20;
const SHOWN = 8;

const named = [];
let latest = 0;

/** Wires the field that names a product. */
export const wireStock = () =>
  byId("stock-controls").addEventListener("submit", (event) => {
    event.preventDefault();
    const sku = byId("stock-sku").value.trim();
    byId("stock-sku").value = "";
    if (sku) showProducts([sku]);
  });

/** Shows these products before all others from now on. */
export const showProducts = (skus) => {
  for (const sku of skus) {
    if (named.includes(sku)) named.splice(named.indexOf(sku), 1);
    named.unshift(sku);
  }
  named.splice(SHOWN);
  return loadStock();
};

/** Loads the stock and draws it. */
export const loadStock = async () => {
  const own = ++latest;
  try {
    const [listed, ...found] = await Promise.all([
      request(`/reports/stock?limit=${LISTED}`).then(({ document }) => document.data ?? []),
      ...named.map(productOf),
    ]);
    if (own !== latest) return; // a later load has started
    suggest(listed);
    const others = listed.filter((row) => !named.includes(row.sku));
    draw(found.filter(Boolean), others.slice(0, Math.max(SHOWN - named.length, 0)));
    const missing = named.filter((_, i) => !found[i]);
    for (const sku of missing) named.splice(named.indexOf(sku), 1);
    setProblem(byId("stock-problem"), missing.length ? `No product ${missing.join(", ")} in stock.` : "");
  } catch (problem) {
    setProblem(byId("stock-problem"), `${problem.title}. ${problem.detail}`);
  }
};

const productOf = async (sku) => {
  try {
    const { document } = await request(`/products/${encodeURIComponent(sku)}/inventory`);
    return (Array.isArray(document.data) ? document.data[0] : document.data) ?? null;
  } catch (problem) {
    if (problem.status === 404) return null;
    throw problem;
  }
};

const suggest = (listed) =>
  byId("products").replaceChildren(...listed.map(({ sku }) => element("option", { value: sku })));

const draw = (mine, others) => {
  const all = [...mine, ...others];
  const missing = ({ on_hand, reserved }) => Math.max(reserved - Math.max(on_hand, 0), 0);
  const longest = Math.max(1, ...all.map((row) => Math.max(row.on_hand, row.reserved)));
  const part = (pieces) => `${((Math.max(pieces, 0) / longest) * 100).toFixed(2)}%`;
  byId("stock-list").replaceChildren(
    ...all.map((row, i) => {
      const [onHand, kept] = [Math.max(row.on_hand, 0), Math.min(row.reserved, Math.max(row.on_hand, 0))];
      return element(
        "li",
        { class: i < mine.length ? "mine" : null },
        element("b", {}, row.sku),
        element("span", {}, `${count(row.on_hand)} on hand, ${count(row.reserved)} reserved`),
        element("strong", { class: row.available < 0 ? "missing" : null }, `${count(row.available)} available`),
        svgElement(
          "svg",
          { width: "100%", height: 8, "aria-hidden": "true" },
          svgElement("rect", { width: "100%", height: 8, rx: 2, class: "track" }),
          svgElement("rect", { width: part(onHand - kept), height: 8, rx: 2, class: "available" }),
          svgElement("rect", { x: part(onHand - kept), width: part(kept), height: 8, rx: 2, class: "reserved" }),
          svgElement("rect", { x: part(onHand), width: part(missing(row)), height: 8, rx: 2, class: "missing" }),
        ),
      );
    }),
  );
};
