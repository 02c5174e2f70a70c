// The form that places an order: PlaceOrder, an AddItem for each item, and an optional PayOrder, each with its own key.
//
// An accepted command is not sent again. After a rejection the user corrects and sends the rest; after a lost response
// the form sends the same keys again, so that no command is carried out twice.

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

/** Wires the form; calls `onProducts` with the products of each order that the read model shows. */
export const wireOrderForm = (onProducts) => {
  byId("add-row").addEventListener("click", () => fieldOf(addRow(), "sku").focus());
  byId("pay").addEventListener("change", () => (byId("method").disabled = !byId("pay").checked));
  byId("order-form").addEventListener("input", showTotal);
  byId("start-over").addEventListener("click", startOver);
  byId("order-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    byId("order-form").ariaBusy = busy = true; // the button stays enabled: a disabled one loses the focus
    try {
      await place(onProducts);
    } finally {
      byId("order-form").ariaBusy = busy = false;
    }
  });
  startOver();
};

const startOver = () => {
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

/** Disables the fields of accepted commands. */
const lock = () => {
  for (const id of Object.values(inputs)) byId(id).disabled = Boolean(order?.version);
  for (const row of rows()) for (const input of row.querySelectorAll("input, button")) input.disabled = isDone(row);
  byId("start-over").hidden = !order?.version;
  setText(byId("submit"), order?.version ? "Continue this order" : "Place the order");
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

/** Sends the commands that are not accepted yet, in order, and shows the result. */
const place = async (onProducts) => {
  if (!order?.version && order?.id !== value("order-id")) {
    const [correlationId, paymentId] = [uuid(), uuid()];
    order = { id: value("order-id"), correlationId, paymentId, keys: new Map(), done: new Set(), steps: [] };
  }
  byId("order-problem").replaceChildren();
  const sent = order;
  try {
    for (const step of stepsOf(sent)) {
      await send(sent, step);
    }
    startOver();
  } catch (problem) {
    if (problem.status === 409) sent.version = problem.rest.actual_version ?? sent.version;
    showProblem(problem);
  } finally {
    lock();
    if (sent.version) settle(sent, onProducts);
  }
};

/** Shows the order and its products when the read model has them: a new product is not found earlier. */
const settle = async (sent, onProducts) => {
  const products = sent.steps.filter((step) => step.name === "AddItem").map((step) => step.body.sku);
  if ((await showOrder(sent)) && products.length) onProducts(products);
};

const isFilled = (row, name) => Boolean(fieldOf(row, name).value.trim());

const stepsOf = (sent) => {
  const items = rows().filter((row) => !isDone(row) && (isFilled(row, "sku") || isFilled(row, "unit_price")));
  if (!items.every((row) => isFilled(row, "sku"))) {
    const [title, detail] = ["An item has no product", "Enter a product, or remove the item."];
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
    // Text that is not a number is sent unchanged: the server reports it.
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

/** Sends one command; a changed body gets a new key, an unchanged body keeps its key. */
const send = async (sent, { name, body, part }) => {
  const text = JSON.stringify(body);
  if (sent.keys.get(part)?.text !== text) sent.keys.set(part, { text, key: uuid() });
  const started = performance.now();
  const response = await command(name, body, {
    key: sent.keys.get(part).key,
    correlationId: sent.correlationId,
    expectedVersion: part === "placed" ? undefined : sent.version,
  });
  sent.done.add(part);
  sent.version = response.stream_version;
  sent.position = Math.max(sent.position ?? 0, response.position);
  sent.answeredAt = performance.now();
  const { position, repeated } = response;
  sent.steps.push({ name, body, position, repeated, milliseconds: sent.answeredAt - started });
  showAccepted(sent);
  await pause(0); // draws the card before the next command is sent
};

const showProblem = (problem) => {
  const advice = problem.isUncertain
    ? "The command may have been carried out. You can send it again: with the same key it is carried out once."
    : problem.status === 409
      ? "Somebody else, or a command whose response was lost, changed this order. Send it again to continue from there."
      : "";
  byId("order-problem").replaceChildren(
    element(
      "div",
      { class: "problem" },
      element("p", {}, element("b", {}, problem.title), problem.code ? element("code", {}, problem.code) : null),
      problem.detail ? element("p", {}, problem.detail) : null,
      advice ? element("p", { class: "aside" }, advice) : null,
    ),
  );
};
