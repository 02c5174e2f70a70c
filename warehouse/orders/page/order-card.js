// The card of the last order: first the expected result, then the row of the read model.

import { pause, request } from "/static/api.js";
import { byId, element, setText } from "/static/dom.js";
import { NOTHING, count, dateTime, fromCents, money, span, toCents } from "/static/format.js";

const MIN_PAUSE_MS = 250;
const EXPECTED_MS = 10_000; // a stream that runs shows an order long before

let current = new AbortController();

/** Shows an order that is in the log; further commands may follow. */
export const showAccepted = (order) => {
  current.abort();
  draw(order, { state: "processing", row: expected(order), note: "" });
};

/** Waits for the order's position and shows the row of the read model; returns false if another order replaced it. */
export const showOrder = async (order) => {
  current.abort();
  const own = (current = new AbortController());
  const path = `/orders/${encodeURIComponent(order.id)}?min_position=${order.position}&wait=2s`;
  let note = "";
  while (!own.signal.aborted) {
    draw(order, { state: "processing", row: expected(order), note });
    const started = performance.now();
    try {
      const { status, document } = await request(path, { signal: own.signal });
      if (status === 200) {
        const row = Array.isArray(document.data) ? document.data[0] : document.data;
        draw(order, { state: "current", row, at: document.position, after: performance.now() - order.answeredAt });
        return true;
      }
      note = delayNote(order, document.position);
    } catch (problem) {
      if (own.signal.aborted) return false;
      note = `${problem.title}. ${problem.detail} Retrying.`;
      await pause(1000);
    }
    await pause(Math.max(0, MIN_PAUSE_MS - (performance.now() - started)));
  }
  return false;
};

const delayNote = (order, position) =>
  performance.now() - order.answeredAt < EXPECTED_MS
    ? ""
    : `The read models are at position ${count(position)}. If it does not advance, no stream follows the log: ` +
      "start the server with --stream.";

/** Returns the row that the read model will show, from the accepted commands. */
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
    timeline(order, state, after),
    element(
      "p",
      { class: "aside" },
      ...(state === "current"
        ? [`From the read model, at position ${count(at)}. Any client can read it at `, link(order.id), "."]
        : [note || "Expected result: the read model has not reached this position yet."]),
    ),
  );
  setText(byId("order-announcement"), `${order.id}: ${state}, position ${count(order.position)}`);
};

const link = (id) => {
  const path = `/orders/${encodeURIComponent(id)}`;
  return element("a", { href: path }, path);
};

const facts = (row) => {
  const fields = [
    ["Status", row.status ?? NOTHING],
    ["Customer", row.customer_id ?? NOTHING],
    ["Quantity", count(row.item_count)],
    ["Amount", money(row.amount, row.currency)],
    ["Paid", money(row.paid, row.currency)],
    ["Placed", dateTime(row.placed_at)],
  ];
  return element(
    "dl",
    { class: "facts" },
    ...fields.map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))),
  );
};

const timeline = ({ steps, position }, state, after) => {
  const lines = steps.map(({ name, body, position: at, repeated, milliseconds }) =>
    element(
      "li",
      { class: "done" },
      element("b", {}, name),
      name === "AddItem" ? ` ${count(body.quantity)} × ${body.sku} at ${money(body.unit_price)}` : null,
      element("span", {}, `at ${count(at)} · ${repeated ? "already done" : span(milliseconds / 1000)}`),
    ),
  );
  const shown = () => [element("b", {}, "Shown"), element("span", {}, `${span(after / 1000)} after the response`)];
  const last =
    state === "current"
      ? element("li", { class: "done" }, ...shown())
      : element("li", { class: "waiting" }, `Waiting for position ${count(position)}`);
  return element("ol", { class: "journey" }, ...lines, last);
};
