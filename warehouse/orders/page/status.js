// The status: the figures at the top, the table of generations, and the lag of the last two minutes.

import { request } from "/static/api.js";
import { byId, element, setText, svgElement } from "/static/dom.js";
import { NOTHING, ago, count, date, dateTime, plural, span, time } from "/static/format.js";

const EVERY_MS = 1000;
const WINDOW_MS = 120_000;
const OBJECTIVE = "refold-objective";

const samples = [];

/**
 * Polls the status once a second, and calls `onAdvance` when the position changes.
 *
 * It pauses while the page is hidden, and while the page asks for a token.
 */
export const pollStatus = (onAdvance) => {
  const objective = byId("objective");
  objective.value = localStorage.getItem(OBJECTIVE) ?? objective.value;
  objective.addEventListener("input", () => {
    localStorage.setItem(OBJECTIVE, objective.value);
    drawLag();
  });
  byId("objective-controls").addEventListener("submit", (event) => event.preventDefault());
  new ResizeObserver(drawLag).observe(byId("lag-plot"));

  let shown;
  const poll = async () => {
    if (!document.hidden && byId("token-panel").hidden) {
      try {
        const { document: status } = await request("/status");
        show(status);
        const position = status.read_models?.position;
        if (position !== shown) {
          shown = position;
          onAdvance();
        }
      } catch (problem) {
        showState("lost", problem.status === 0 ? "The server cannot be reached" : problem.title);
        if (problem.status === 0) shown = undefined;
      }
    }
    setTimeout(poll, EVERY_MS);
  };
  document.addEventListener("token-given", () => (shown = undefined));
  poll();
};

const showState = (state, text) => {
  byId("state").dataset.state = state;
  setText(byId("state"), text);
};

const show = ({ domain, log, read_models: models, generations = [] }) => {
  setText(byId("domain"), domain ?? "");
  if (domain) document.title = `refold · ${domain}`;
  const lag = models?.lag ?? {};
  setText(byId("lag-events"), lag.events === undefined ? NOTHING : plural(lag.events, "event"));
  setText(byId("lag-seconds"), lag.seconds === undefined || lag.seconds === null ? "" : `${span(lag.seconds)} behind`);
  byId("lag-seconds").classList.toggle("missed", lag.seconds > objectiveSeconds());
  setText(byId("position"), count(models?.position));
  setText(byId("log-position"), log ? `of ${count(log.position)} in the log` : "");
  setText(byId("updated-time"), time(models?.last_updated));
  setText(byId("updated-date"), models?.last_updated ? date(models.last_updated) : "");
  setText(byId("generation"), generations.length ? count(generations[0].number) : NOTHING);
  setText(
    byId("generation-note"),
    generations.length ? `published ${ago(generations[0].published_at)}` : "none published yet",
  );
  if (!models) showState("waiting", "Nothing is published yet");
  else if (lag.events > 0) showState("behind", models.source === "live" ? "Catching up" : "Behind the log");
  else showState("current", models.source === "live" ? "Current, live" : "Current");
  remember(lag.seconds ?? 0);
  showGenerations(generations);
};

const objectiveSeconds = () => Number(byId("objective").value) || 0;

let shownGenerations = "";

const showGenerations = (generations) => {
  const text = JSON.stringify(generations);
  if (text === shownGenerations) return;
  shownGenerations = text;
  const rows = generations.map(({ number, position, published_at: at, kind, rows: total }) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, count(number)),
      element("td", {}, count(position)),
      element("td", { class: "when" }, dateTime(at)),
      element("td", { class: "words" }, kind ?? NOTHING),
      element("td", {}, count(total)),
    ),
  );
  const none = element("tr", {}, element("td", { colspan: 5, class: "words" }, "No generation is published yet."));
  byId("generations").replaceChildren(...(rows.length ? rows : [none]));
};

const remember = (seconds) => {
  const now = Date.now();
  samples.push({ at: now, seconds });
  while (samples[0].at < now - WINDOW_MS) samples.shift();
  drawLag();
};

const drawLag = () => {
  const plot = byId("lag-plot");
  const objective = objectiveSeconds();
  const [width, height] = [plot.clientWidth, 84];
  if (!width || !samples.length) return;
  const highest = Math.max(...samples.map((sample) => sample.seconds));
  const top = Math.max(objective, highest) * 1.2 || 1;
  const y = (seconds) => height - 1.5 - (seconds / top) * (height - 4);
  const x = (at) => width - ((Date.now() - at) / WINDOW_MS) * width;
  const line = `M${samples.map(({ at, seconds }) => `${x(at).toFixed(1)},${y(seconds).toFixed(1)}`).join("L")}`;
  const label = `Lag: now ${span(samples.at(-1).seconds)}, at most ${span(highest)}`;
  plot.replaceChildren(
    svgElement(
      "svg",
      { width, height, role: "img", "aria-label": label },
      svgElement("path", { d: `M0,${height - 0.5}H${width}`, class: "axis" }),
      svgElement("path", { d: `M0,${y(objective)}H${width}`, class: "objective" }),
      svgElement("text", { x: 0, y: y(objective) - 5, class: "tick" }, span(objective)),
      svgElement("path", { d: line, class: highest > objective ? "lag missed" : "lag" }),
    ),
  );
  setText(byId("objective-readout"), `${highest > objective ? "Missed" : "Met"}: ${span(highest)} at worst`);
  byId("objective-readout").classList.toggle("missed", highest > objective);
};
