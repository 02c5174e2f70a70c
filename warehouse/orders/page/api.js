// Talks to the server that this page came from, and to no other. Every failure is a Problem, told in words.

const TOKEN = "refold-token";
const PATIENCE_MS = 20_000;

/** What went wrong: an answer of the server (RFC 9457), or none at all, which has the status 0. */
export class Problem extends Error {
  constructor({ status, title, detail, code, ...rest }) {
    super(detail || title);
    Object.assign(this, { status, title, detail: detail || "", code: code || "", rest });
  }

  /** Whether the command may have been done all the same, so that only the same key can be sent again. */
  get isUncertain() {
    return this.status === 0 || this.status >= 500;
  }
}

export const keepToken = (token) => sessionStorage.setItem(TOKEN, token);

/** A random identity. By hand, since crypto.randomUUID is missing on pages that came over plain HTTP. */
export const uuid = () => {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
};

export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/**
 * Sends one request and reads the JSON of its answer.
 *
 * A 401 also raises "token-wanted" on the document, where the field for a token listens.
 */
export const request = async (path, { method = "GET", body, headers = {}, signal } = {}) => {
  const token = sessionStorage.getItem(TOKEN);
  const patience = AbortSignal.timeout(PATIENCE_MS);
  let answer;
  try {
    answer = await fetch(path, {
      method,
      cache: "no-store",
      headers: {
        Accept: "application/json",
        ...(token && { Authorization: `Bearer ${token}` }),
        ...(body && { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body && JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, patience]) : patience,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem({ status: 0, title: "The server did not answer", detail: "It can't be reached from here." });
  }
  const document_ = await answer.json().catch(() => null);
  if (answer.ok) return { status: answer.status, document: document_ ?? {} };
  if (answer.status === 401 && token === sessionStorage.getItem(TOKEN)) { // else another was given in the meantime
    document.dispatchEvent(new CustomEvent("token-wanted", { detail: { refused: Boolean(token) } }));
  }
  throw new Problem({ title: answer.statusText || "Refused", ...document_, status: answer.status });
};

/** Sends a command under an idempotency key: sent again under the same key, it is done once. */
export const command = (name, body, { key, correlationId, expectedVersion }) =>
  request(`/commands/${name}${expectedVersion === undefined ? "" : `?expected_version=${expectedVersion}`}`, {
    method: "POST",
    body,
    headers: { "Idempotency-Key": key, "Correlation-Id": correlationId },
  }).then((answer) => answer.document);
