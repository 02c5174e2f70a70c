// The form that places an order: a PlaceOrder, an AddItem for each item, a PayOrder if wished, each under its own key.
//
// What was accepted is not sent again: after a refusal the rest can be corrected and sent, and after a lost answer the
// same keys go out again, so that nothing is done twice.

import { Problem, command, pause, uuid } from "/static/api.js";
import { byId, element, setText } from "/static/dom.js";
import { fromCents, toCents } from "/static/format.js";
import { showAccepted, showOrder } from "/static/order-card.js";

let order;
let busy = false;

const inputs = { order_id: "order-id", customer_id: "customer-id", currency: "currency" };
const value = (id) => byId(id).value.trim();
const rows = () => Array.from(byId("items").children);
const fieldOf = (row, name) => row.querySelector(`[data-field="${name}"]`);

/** Wires the form, and calls `onArticles` with the articles of each order that the read model shows. */
export const wireOrderForm = (onArticles) => {
  byId("add-row").addEventListener("click", () => fieldOf(addRow(), "sku").focus());
  byId("pay").addEventListener("change", () => (byId("method").disabled = !byId("pay").checked));
  byId("order-form").addEventListener("input", showTotal);
  byId("start-anew").addEventListener("click", startAnew);
  byId("order-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    byId("order-form").ariaBusy = busy = true; // the button stays enabled, since one that is disabled loses the focus
    try {
      await place(onArticles);
    } finally {
      byId("order-form").ariaBusy = busy = false;
    }
  });
  startAnew();
};

const startAnew = () => {
  order = null;
  byId("order-id").value = `order-${uuid().slice(0, 8)}`;
  byId("pay").checked = false;
  byId("method").disabled = true;
  byId("items").replaceChildren();
  byId("order-problem").replaceChildren();
  addRow();
  lock();
};

const addRow = () => {
  const row = byId("item-row").content.firstElementChild.cloneNode(true);
  row.querySelector("[data-remove]").addEventListener("click", () => {
    row.remove();
    if (!rows().length) addRow();
    showTotal();
    byId("add-row").focus();
  });
  byId("items").append(row);
  showTotal();
  return row;
};

/** Puts out of reach what is done already. */
const lock = () => {
  for (const id of Object.values(inputs)) byId(id).disabled = Boolean(order?.version);
  for (const row of rows()) for (const input of row.querySelectorAll("input, button")) input.disabled = isDone(row);
  byId("start-anew").hidden = !order?.version;
  setText(byId("submit"), order?.version ? "Go on with this order" : "Place the order");
};

const isDone = (row) => Boolean(order?.done.has(row));

const totalOf = (some) =>
  some.reduce((sum, row) => {
    const price = toCents(fieldOf(row, "unit_price").value);
    const pieces = /^\d+$/.test(fieldOf(row, "quantity").value.trim()) ? BigInt(fieldOf(row, "quantity").value) : null;
    return sum === null || price === null || pieces === null ? null : sum + price * pieces;
  }, 0n);

const showTotal = () => {
  const total = totalOf(rows());
  setText(byId("total"), total === null ? "the total" : `${fromCents(total)} ${value("currency")}`);
};

/** Sends whatever of the order was not accepted yet, in order, and shows what became of it. */
const place = async (onArticles) => {
  if (!order?.version && order?.id !== value("order-id")) {
    const [correlationId, paymentId] = [uuid(), uuid()];
    order = { id: value("order-id"), correlationId, paymentId, keys: new Map(), done: new Set(), steps: [] };
  }
  byId("order-problem").replaceChildren();
  const sent = order;
  try {
    for (const step of stepsOf(sent)) {
      await take(sent, step);
    }
    startAnew();
  } catch (problem) {
    if (problem.status === 409) sent.version = problem.rest.actual_version ?? sent.version;
    tell(problem);
  } finally {
    lock();
    if (sent.version) settle(sent, onArticles);
  }
};

/** Shows the order when the read model has it, and its articles only then: before, a new one would not be found. */
const settle = async (sent, onArticles) => {
  const articles = sent.steps.filter((step) => step.name === "AddItem").map((step) => step.body.sku);
  if ((await showOrder(sent)) && articles.length) onArticles(articles);
};

const isFilled = (row, name) => Boolean(fieldOf(row, name).value.trim());

const stepsOf = (sent) => {
  const items = rows().filter((row) => !isDone(row) && (isFilled(row, "sku") || isFilled(row, "unit_price")));
  if (!items.every((row) => isFilled(row, "sku"))) {
    const [title, detail] = ["An item has no article", "Name its article, or remove the item."];
    throw new Problem({ status: 400, title, detail });
  }
  const steps = [];
  if (!sent.done.has("placed")) {
    const body = Object.fromEntries(Object.entries(inputs).map(([name, id]) => [name, value(id)]));
    Object.assign(sent, { customer: body.customer_id, currency: body.currency });
    steps.push({ name: "PlaceOrder", body, part: "placed" });
  }
  for (const row of items) {
    const [sku, quantity, price] = ["sku", "quantity", "unit_price"].map((name) => fieldOf(row, name).value.trim());
    // What is no number goes out as it is: to say so is the server's part.
    const pieces = /^-?\d+$/.test(quantity) ? Number(quantity) : quantity;
    const body = { order_id: sent.id, sku, quantity: pieces, unit_price: price };
    steps.push({ name: "AddItem", body, part: row });
  }
  if (byId("pay").checked && !sent.done.has("paid")) {
    const total = totalOf([...rows().filter(isDone), ...items]);
    const amount = total === null ? "" : fromCents(total);
    const body = { order_id: sent.id, payment_id: sent.paymentId, amount, method: byId("method").value };
    steps.push({ name: "PayOrder", body, part: "paid" });
  }
  return steps;
};

/** Sends one command; a body that changed gets another key, the same body the same key again. */
const take = async (sent, { name, body, part }) => {
  const text = JSON.stringify(body);
  if (sent.keys.get(part)?.text !== text) sent.keys.set(part, { text, key: uuid() });
  const began = performance.now();
  const answer = await command(name, body, {
    key: sent.keys.get(part).key,
    correlationId: sent.correlationId,
    expectedVersion: part === "placed" ? undefined : sent.version,
  });
  sent.done.add(part);
  sent.version = answer.stream_version;
  sent.position = Math.max(sent.position ?? 0, answer.position);
  sent.answeredAt = performance.now();
  const { position, repeated } = answer;
  sent.steps.push({ name, body, position, repeated, milliseconds: sent.answeredAt - began });
  showAccepted(sent);
  await pause(0); // lets the card be drawn before the next command goes out
};

const tell = (problem) => {
  const words = problem.isUncertain
    ? "Whether it was done is not known. Sending it again is safe: the same key goes with it, and it is done once."
    : problem.status === 409
      ? "Somebody else, or a command whose answer got lost, changed this order. Sending it again goes on from there."
      : "";
  byId("order-problem").replaceChildren(
    element(
      "div",
      { class: "problem" },
      element("p", {}, element("b", {}, problem.title), problem.code ? element("code", {}, problem.code) : null),
      problem.detail ? element("p", {}, problem.detail) : null,
      words ? element("p", { class: "aside" }, words) : null,
    ),
  );
};
