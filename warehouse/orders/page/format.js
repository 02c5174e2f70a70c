// Formats numbers, money and times. Decimals arrive as strings and stay exact: no float holds an amount.

const integer = new Intl.NumberFormat("en");
const cents = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const utcDay = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const utcMonth = new Intl.DateTimeFormat("en-GB", { month: "long", year: "numeric", timeZone: "UTC" });

export const NOTHING = "–";
const unless = (missing, value, write) => ([null, undefined, ""].includes(value) ? missing : write(value));

export const count = (value) => unless(NOTHING, value, (v) => integer.format(v));
export const money = (text, currency = "") => unless(NOTHING, text, (v) => `${cents.format(v)} ${currency}`.trim());
export const short = (value) => compact.format(value);
export const time = (text) => unless(NOTHING, text, (v) => clock.format(new Date(v)));
export const date = (text) => unless(NOTHING, text, (v) => day.format(new Date(v)));
export const dateTime = (text) => unless(NOTHING, text, (v) => `${date(v)}, ${time(v)}`);
export const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** Formats a duration in the largest unit that fits: "80 ms", "2.4 s", "3 min", "5 h", "12 days". */
export const span = (seconds) => {
  if (seconds === null || seconds === undefined) return NOTHING;
  if (seconds === 0) return "0 s";
  if (seconds < 1) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 60) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 2 * 86400) return `${Math.floor(seconds / 3600)} h`;
  return plural(Math.floor(seconds / 86400), "day");
};

/** Formats the time since a moment; clocks differ, so a moment in the future counts as now. */
export const ago = (text) => {
  const seconds = Math.max(0, (Date.now() - Date.parse(text)) / 1000);
  return `${seconds < 60 ? `${Math.floor(seconds)} s` : span(seconds)} ago`;
};

/** Formats a period of the revenue report, given its first day. */
export const period = (text, by) => {
  const first = new Date(`${text}T00:00:00Z`);
  if (by === "month") return utcMonth.format(first);
  return by === "week" ? `Week of ${utcDay.format(first)}` : utcDay.format(first);
};

/** Parses an amount with at most two decimal places into cents; returns null if it is not one. */
export const toCents = (text) => {
  const match = /^(-?)(\d+)(?:\.(\d{1,2}))?$/.exec(text.trim());
  if (!match) return null;
  const amount = BigInt(match[2]) * 100n + BigInt((match[3] ?? "").padEnd(2, "0"));
  return match[1] ? -amount : amount;
};

/** Formats cents as the API expects an amount. */
export const fromCents = (amount) => {
  const digits = String(amount < 0n ? -amount : amount).padStart(3, "0");
  return `${amount < 0n ? "-" : ""}${digits.slice(0, -2)}.${digits.slice(-2)}`;
};
