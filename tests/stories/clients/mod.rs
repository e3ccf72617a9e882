//! SSE clients of other projects against the gateway: Chromium's EventSource, `eventsource` and
//! `@microsoft/fetch-event-source` of npm, `httpx-sse` of `PyPI`, and curl.

mod client;
mod sse_rules;
