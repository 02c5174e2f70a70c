// Sends requests to the server of this page, and to no other. Every failure becomes a Problem.

const TOKEN = "refold-token";
const TIMEOUT_MS = 20_000;

/** A failed request: the problem document of the response (RFC 9457), or status 0 if there was no response. */
export class Problem extends Error {
  constructor({ status, title, detail, code, ...rest }) {
    super(detail || title);
    Object.assign(this, { status, title, detail: detail || "", code: code || "", rest });
  }

  /** Whether the command may have been carried out, so that it must be sent again with the same key. */
  get isUncertain() {
    return this.status === 0 || this.status >= 500;
  }
}

export const keepToken = (token) => sessionStorage.setItem(TOKEN, token);

/** Returns a random UUID; crypto.randomUUID is missing on pages that were loaded over plain HTTP. */
export const uuid = () => {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
};

export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/**
 * Sends one request and reads the JSON of the response.
 *
 * A 401 also dispatches "token-needed" on the document, which shows the token field.
 */
export const request = async (path, { method = "GET", body, headers = {}, signal } = {}) => {
  const token = sessionStorage.getItem(TOKEN);
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  try {
    response = await fetch(path, {
      method,
      cache: "no-store",
      headers: {
        Accept: "application/json",
        ...(token && { Authorization: `Bearer ${token}` }),
        ...(body && { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body && JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem({ status: 0, title: "No response", detail: "The server cannot be reached." });
  }
  const content = await response.json().catch(() => null);
  if (response.ok) return { status: response.status, document: content ?? {} };
  // A token that the user entered meanwhile has not been tried yet.
  if (response.status === 401 && token === sessionStorage.getItem(TOKEN)) {
    document.dispatchEvent(new CustomEvent("token-needed", { detail: { rejected: Boolean(token) } }));
  }
  throw new Problem({ title: response.statusText || "Request failed", ...content, status: response.status });
};

/** Sends a command with an idempotency key: repeated with the same key, it is carried out once. */
export const command = (name, body, { key, correlationId, expectedVersion }) =>
  request(`/commands/${name}${expectedVersion === undefined ? "" : `?expected_version=${expectedVersion}`}`, {
    method: "POST",
    body,
    headers: { "Idempotency-Key": key, "Correlation-Id": correlationId },
  }).then((response) => response.document);
