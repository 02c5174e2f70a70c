// The card of the order placed last: at once as this page expects it, then as the read model has it.

import { pause, request } from "/static/api.js";
import { byId, element, setText } from "/static/dom.js";
import { NOTHING, count, fromCents, moment, money, span, toCents } from "/static/format.js";

const LEAST_PAUSE_MS = 250;
const PATIENCE_MS = 10_000;

let watching = new AbortController();

/** Shows an order that the log has, while more of it may be under way. */
export const showAccepted = (order) => {
  watching.abort();
  draw(order, { state: "processing", row: expected(order), note: "" });
};

/** Waits for the order's position, and shows the order as the read model has it; false if another order came first. */
export const showOrder = async (order) => {
  watching.abort();
  const mine = (watching = new AbortController());
  const path = `/orders/${encodeURIComponent(order.id)}?min_position=${order.position}&wait=2s`;
  let note = "";
  while (!mine.signal.aborted) {
    draw(order, { state: "processing", row: expected(order), note });
    const asked = performance.now();
    try {
      const { status, document } = await request(path, { signal: mine.signal });
      if (status === 200) {
        const row = Array.isArray(document.data) ? document.data[0] : document.data;
        draw(order, { state: "current", row, at: document.position, after: performance.now() - order.answeredAt });
        return true;
      }
      note = lateness(order, document.position);
    } catch (problem) {
      if (mine.signal.aborted) return false;
      note = `${problem.title}. ${problem.detail} Asking again.`;
      await pause(1000);
    }
    await pause(Math.max(0, LEAST_PAUSE_MS - (performance.now() - asked)));
  }
  return false;
};

const lateness = (order, position) =>
  performance.now() - order.answeredAt < PATIENCE_MS
    ? ""
    : `The read models stand at ${count(position)}. If that does not move, nothing follows the log here: ` +
      "start the server with --stream.";

/** What the order will be when the read model is there, from the commands that were accepted. */
const expected = ({ id, customer, currency, steps }) => {
  const items = steps.filter((step) => step.name === "AddItem").map((step) => step.body);
  const paid = steps.find((step) => step.name === "PayOrder")?.body.amount;
  const cents = items.reduce((sum, item) => sum + BigInt(item.quantity) * (toCents(item.unit_price) ?? 0n), 0n);
  return {
    order_id: id,
    customer_id: customer,
    currency,
    status: paid ? "paid" : "placed",
    item_count: items.length ? items.reduce((sum, item) => sum + item.quantity, 0) : null,
    amount: items.length ? fromCents(cents) : null,
    paid,
  };
};

const draw = (order, { state, row, note, at, after }) => {
  const card = byId("order-card");
  card.dataset.state = state;
  card.replaceChildren(
    element(
      "p",
      { class: "order-head" },
      element("b", {}, order.id),
      element("span", { class: `chip ${state}` }, state),
      element("span", { class: "at" }, `position ${count(order.position)}`),
    ),
    facts(row ?? {}),
    journey(order, state, after),
    element(
      "p",
      { class: "aside" },
      ...(state === "current"
        ? [`As the read model has it, at position ${count(at)}. Any client reads it at `, link(order.id), "."]
        : [note || "As this page expects it; the read model is not there yet."]),
    ),
  );
  setText(byId("order-announcement"), `${order.id}: ${state}, position ${count(order.position)}`);
};

const link = (id) => {
  const path = `/orders/${encodeURIComponent(id)}`;
  return element("a", { href: path }, path);
};

const facts = (row) => {
  const told = [
    ["Status", row.status ?? NOTHING],
    ["Customer", row.customer_id ?? NOTHING],
    ["Pieces", count(row.item_count)],
    ["Amount", money(row.amount, row.currency)],
    ["Paid", money(row.paid, row.currency)],
    ["Placed", moment(row.placed_at)],
  ];
  return element(
    "dl",
    { class: "facts" },
    ...told.map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))),
  );
};

const journey = ({ steps, position }, state, after) => {
  const lines = steps.map(({ name, body, position: at, repeated, milliseconds }) =>
    element(
      "li",
      { class: "done" },
      element("b", {}, name),
      name === "AddItem" ? ` ${count(body.quantity)} × ${body.sku} at ${money(body.unit_price)}` : null,
      element("span", {}, `at ${count(at)} · ${repeated ? "done before" : span(milliseconds / 1000)}`),
    ),
  );
  const shown = () => [element("b", {}, "Shown"), element("span", {}, `${span(after / 1000)} after the answer`)];
  const last =
    state === "current"
      ? element("li", { class: "done" }, ...shown())
      : element("li", { class: "waiting" }, `Waiting until position ${count(position)} is shown`);
  return element("ol", { class: "journey" }, ...lines, last);
};
