// The revenue plot: a bar up for the payments of a period, a bar down for its refunds.

import { request } from "/static/api.js";
import { byId, element, setProblem, svgElement } from "/static/dom.js";
import { count, fromCents, money, period, plural, short, toCents } from "/static/format.js";

const MONTHS_SHOWN = 24;
const HEIGHT = 264;
const EDGE = { top: 10, right: 2, bottom: 34, left: 44 };
const LABEL = 32;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

let rows = null; // until the first answer
let chosen = null;

const iso = (moment) => moment.toISOString().slice(0, 10);
const by = () => byId("revenue-by").value;

/** Wires the controls, and redraws the plot when its width changes. */
export const wireRevenue = () => {
  const now = new Date();
  byId("revenue-from").value = iso(new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1 - MONTHS_SHOWN, 1)));
  byId("revenue-to").value = iso(now);
  byId("revenue-controls").addEventListener("change", () => {
    chosen = null;
    loadRevenue();
  });
  byId("revenue-controls").addEventListener("submit", (event) => event.preventDefault());
  new ResizeObserver(draw).observe(byId("revenue-plot"));
};

/** Loads the report and draws it. */
export const loadRevenue = async () => {
  const step = by();
  const range = { from: byId("revenue-from").value, to: byId("revenue-to").value };
  const given = Object.entries(range).filter(([, day]) => day); // an empty end is open
  try {
    const { document } = await request(`/reports/revenue?${new URLSearchParams([...given, ["by", step]])}`);
    if (step !== by()) return; // the user chose another step, which has its own request
    rows = document.data ?? [];
    suggestCurrencies();
    draw();
    setProblem(byId("revenue-problem"), "");
  } catch (problem) {
    setProblem(byId("revenue-problem"), `${problem.title}. ${problem.detail}`);
  }
};

const suggestCurrencies = () => {
  const select = byId("revenue-currency");
  const orders = new Map();
  for (const row of rows) orders.set(row.currency, (orders.get(row.currency) ?? 0) + row.orders_paid);
  const currencies = Array.from(orders.keys()).sort();
  if (currencies.join() === Array.from(select.options, (option) => option.value).join()) return;
  const most = currencies.reduce((best, one) => (orders.get(one) > (orders.get(best) ?? -1) ? one : best), "");
  const kept = currencies.includes(select.value) ? select.value : most;
  select.replaceChildren(...currencies.map((currency) => element("option", {}, currency)));
  select.value = kept;
};

const nextPeriod = (text) => {
  const day = new Date(`${text}T00:00:00Z`);
  if (by() === "month") day.setUTCMonth(day.getUTCMonth() + 1);
  else day.setUTCDate(day.getUTCDate() + (by() === "week" ? 7 : 1));
  return iso(day);
};

/** Returns the periods of the chosen currency without gaps: a period without payments has no row. */
const periods = () => {
  const mine = rows.filter((row) => row.currency === byId("revenue-currency").value);
  const known = new Map(mine.map((row) => [row.period, row]));
  const days = Array.from(known.keys()).sort();
  const [first, last] = [days.at(0), days.at(-1)];
  const all = [];
  for (let at = first; at && at <= last; at = nextPeriod(at)) {
    all.push(known.get(at) ?? { period: at, orders_paid: 0, revenue: "0", refunds: "0", net_revenue: "0" });
  }
  return all;
};

/** Returns a round step that divides a range into about three. */
const roundStep = (span) => {
  const rough = span / 3 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
};

const draw = () => {
  const plot = byId("revenue-plot");
  const width = plot.clientWidth;
  if (!width || !rows) return;
  const all = periods();
  if (!all.length) {
    plot.replaceChildren(element("p", { class: "empty" }, "No payments in this period."));
    byId("revenue-table").replaceChildren();
    readOut(all);
    return;
  }
  if (chosen !== null && chosen >= all.length) chosen = null;
  // Only lengths on the screen turn an amount into a float.
  const maxRevenue = Math.max(...all.map((row) => Number(row.revenue)));
  const maxRefunds = Math.max(...all.map((row) => Number(row.refunds)));
  const step = roundStep(maxRevenue + maxRefunds);
  const [top, bottom] = [Math.ceil(maxRevenue / step) * step || step, maxRefunds * 1.1];
  const inner = { width: width - EDGE.left - EDGE.right, height: HEIGHT - EDGE.top - EDGE.bottom };
  const y = (amount) => EDGE.top + ((top - amount) / (top + bottom)) * inner.height;
  const slot = inner.width / all.length;
  const x = (i) => EDGE.left + i * slot;
  const gap = slot > 4 ? Math.min(slot * 0.28, 12) : 0;

  const lines = [];
  for (let amount = 0; amount <= top; amount += step) {
    lines.push(svgElement("path", { d: `M${EDGE.left},${y(amount)}H${width}`, class: amount ? "grid" : "axis" }));
    lines.push(svgElement("text", { x: EDGE.left - 8, y: y(amount) + 4, class: "tick end" }, short(amount)));
  }
  const bars = all.map((row, i) => {
    const [paid, refunded] = [y(0) - y(Number(row.revenue)), y(-Number(row.refunds)) - y(0)];
    const box = { x: x(i) + gap / 2, width: Math.max(slot - gap, 0.75) };
    return svgElement(
      "g",
      { class: i === chosen ? "bar chosen" : "bar" },
      svgElement("rect", { x: x(i), y: EDGE.top, width: slot, height: inner.height, class: "catch" }),
      svgElement("rect", { ...box, y: y(0) - paid, height: paid, class: "revenue" }),
      svgElement("rect", { ...box, y: y(0) + 1, height: Math.max(refunded - 1, 0), class: "refunds" }),
    );
  });
  const svg = svgElement(
    "svg",
    {
      width,
      height: HEIGHT,
      tabindex: 0,
      role: "img",
      "aria-label": "Revenue by period; the arrow keys choose one",
      "aria-describedby": "revenue-readout",
    },
    ...lines,
    ...bars,
    ...ticks(all, x, slot, y(-bottom)),
  );
  svg.addEventListener("pointermove", (event) => {
    const i = Math.floor((event.clientX - svg.getBoundingClientRect().left - EDGE.left) / slot);
    choose(all, i >= 0 && i < all.length ? i : null, bars);
  });
  svg.addEventListener("pointerleave", () => choose(all, null, bars));
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    choose(all, Math.min(Math.max((chosen ?? (move > 0 ? -1 : all.length)) + move, 0), all.length - 1), bars);
  });
  svg.addEventListener("blur", () => choose(all, null, bars));
  const hadFocus = plot.contains(document.activeElement);
  plot.replaceChildren(svg);
  if (hadFocus) svg.focus({ preventScroll: true });
  readOut(all);
  fillTable(all);
};

/** Draws the names of months below the bars where there is room, and each year where it begins. */
const ticks = (all, x, slot, bottom) => {
  const isMonthly = by() === "month";
  const months = all
    .map(({ period: day }, i) => ({ name: day.slice(0, 7), at: isMonthly ? x(i) + slot / 2 : x(i) }))
    .filter((month, i, every) => i === 0 || every[i - 1].name !== month.name);
  if (months.length > 1 && months[1].at - months[0].at < LABEL && !isMonthly) months.shift(); // the rest of a month
  const marks = [];
  let [free, year] = [0, ""];
  for (const { name, at } of months) {
    if (at < free) continue;
    const [y, m] = name.split("-");
    const anchor = isMonthly ? "tick middle" : "tick";
    marks.push(svgElement("text", { x: at, y: bottom + 15, class: anchor }, MONTHS[m - 1]));
    if (y !== year) marks.push(svgElement("text", { x: at, y: bottom + 30, class: `${anchor} year` }, (year = y)));
    free = at + LABEL;
  }
  return marks;
};

const choose = (all, i, bars) => {
  if (i === chosen) return;
  chosen = i;
  bars.forEach((bar, at) => bar.setAttribute("class", at === i ? "bar chosen" : "bar"));
  readOut(all);
};

const readOut = (all) => {
  const currency = byId("revenue-currency").value;
  const one = chosen === null ? null : all[chosen];
  const sum = (name) => fromCents(all.reduce((total, row) => total + (toCents(row[name]) ?? 0n), 0n));
  const totals = one ?? {
    orders_paid: all.reduce((total, row) => total + row.orders_paid, 0),
    refunds: sum("refunds"),
    net_revenue: sum("net_revenue"),
  };
  const [first, last] = [all.at(0), all.at(-1)].map((row) => row && period(row.period, by()));
  const title = one ? period(one.period, by()) : `${first} to ${last?.replace("Week", "week")}`;
  const rest = `${title} · ${plural(totals.orders_paid, "order")} paid · ${money(totals.refunds)} refunded`;
  byId("revenue-readout").replaceChildren(
    element("b", {}, all.length ? `${money(totals.net_revenue, currency)} net` : "\u00a0"),
    element("span", {}, all.length ? rest : ""),
  );
};

const fillTable = (all) => {
  byId("revenue-table").replaceChildren(
    ...all.map((row) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, period(row.period, by())),
        element("td", {}, count(row.orders_paid)),
        element("td", {}, money(row.revenue)),
        element("td", {}, money(row.refunds)),
        element("td", {}, money(row.net_revenue)),
      ),
    ),
  );
};
