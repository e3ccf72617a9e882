// Asks the gateway: JSON over fetch, with the session cookie of the same origin. Every wait has a deadline.
//
// Whatever goes wrong becomes an ApiError: `status` is the answer's, or 0 when there was none.

const DEADLINE_MS = 15_000;

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** What `Retry-After` asks for, in seconds. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  let response: Response;
  try {
    response = await fetch(path, {
      credentials: "same-origin",
      cache: "no-store",
      ...init,
      signal: init.signal ? AbortSignal.any([init.signal, deadline]) : deadline,
    });
  } catch {
    throw new ApiError(0, "the gateway cannot be reached");
  }
  if (!response.ok) {
    throw new ApiError(response.status, await problem(response), seconds(response.headers.get("Retry-After")));
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

/** The words of a problem document (RFC 9457), or of the status when there is none. */
async function problem(response: Response): Promise<string> {
  try {
    const body = (await response.json()) as { detail?: unknown; title?: unknown };
    for (const words of [body.detail, body.title]) {
      if (typeof words === "string" && words !== "") {
        return words;
      }
    }
  } catch {
    // A proxy in between answers with a page of its own.
  }
  return `the gateway answered ${response.status} ${response.statusText}`.trim();
}

function seconds(header: string | null): number | null {
  return header !== null && /^\d+$/.test(header) ? Number(header) : null;
}
