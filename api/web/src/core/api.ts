// Requests to the gateway: JSON over fetch, with the session cookie of the same origin. Every
// request has a timeout.
//
// Every failure becomes an ApiError, whose `status` is that of the response, or 0 without a
// response.

const REQUEST_TIMEOUT_MS = 15_000;

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** The `Retry-After` header, in seconds. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const timeout = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  let response: Response;
  try {
    response = await fetch(path, {
      credentials: "same-origin",
      cache: "no-store",
      ...init,
      signal: init.signal ? AbortSignal.any([init.signal, timeout]) : timeout,
    });
  } catch {
    throw new ApiError(0, "the gateway cannot be reached");
  }
  if (!response.ok) {
    throw new ApiError(response.status, await problemText(response), parseSeconds(response.headers.get("Retry-After")));
  }
  return response;
}

export async function getJson<T>(path: string, init?: RequestInit): Promise<T> {
  const response = await request(path, init);
  try {
    return (await response.json()) as T;
  } catch {
    throw new ApiError(response.status, "the gateway sent an answer that is not JSON");
  }
}

/** The text of a problem document (RFC 9457), or the status line if the body is not one. */
async function problemText(response: Response): Promise<string> {
  try {
    const body = (await response.json()) as { detail?: unknown; title?: unknown };
    for (const text of [body.detail, body.title]) {
      if (typeof text === "string" && text !== "") {
        return text;
      }
    }
  } catch {
    // A proxy in between may answer with a page of its own.
  }
  return `the gateway answered ${response.status} ${response.statusText}`.trim();
}

function parseSeconds(header: string | null): number | null {
  return header !== null && /^\d+$/.test(header) ? Number(header) : null;
}
