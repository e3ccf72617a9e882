//! Webhooks and deliveries as tables.
//!
//! Addresses and answers of receivers come from outside, so they are printed escaped.

use std::io::Write;

use runcast_store::webhook_deliveries::{Delivery, PastAttempt};
use runcast_store::webhooks::Webhook;

use crate::cli::escape::{escaped, escaped_start};
use crate::cli::output::time;

/// Longest text of a receiver in a table.
const MAX_TEXT_CHARS: usize = 60;

/// One line for each webhook.
pub(super) fn webhooks(list: &[Webhook], out: &mut impl Write) -> anyhow::Result<()> {
    if list.is_empty() {
        return Ok(writeln!(out, "no webhooks")?);
    }
    writeln!(
        out,
        "{:<36}  {:<8}  {:>7}  {:>7}  URL, WHAT OF",
        "ID", "STATE", "WAITING", "DEAD"
    )?;
    for webhook in list {
        let state = match (webhook.enabled, webhook.held_until, webhook.failures) {
            (false, _, _) => "disabled",
            (true, Some(_), _) => "held",
            (true, None, 1..) => "failing",
            (true, None, _) => "ok",
        };
        let labels = webhook.labels.as_object().into_iter().flatten();
        let labels: String = labels
            .map(|(name, value)| format!(" {name}={}", value.as_str().unwrap_or_default()))
            .collect();
        let note = webhook.note.as_deref().map(|note| format!(" ({note})"));
        writeln!(
            out,
            "{}  {state:<8}  {:>7}  {:>7}  {} {}{}{}",
            webhook.id,
            webhook.waiting,
            webhook.dead,
            webhook.url,
            webhook.statuses.join(","),
            escaped(&labels),
            note.unwrap_or_default(),
        )?;
    }
    Ok(())
}

/// One line for each delivery.
pub(super) fn deliveries(list: &[Delivery], out: &mut impl Write) -> anyhow::Result<()> {
    if list.is_empty() {
        return Ok(writeln!(out, "no deliveries")?);
    }
    writeln!(
        out,
        "{:<36}  {:<20}  {:<14}  {:<36}  {:<9}  {:>5}  LAST ATTEMPT",
        "ID", "SINCE", "WHAT", "RUN", "STATE", "TRIED"
    )?;
    for delivery in list {
        let status = delivery.status.map(|status| format!("{status} "));
        let took = delivery.took_ms.map(|took| format!("in {took} ms"));
        let error = delivery.error.as_deref().map(|error| format!(": {error}"));
        let next = delivery.due_at.filter(|_| delivery.attempts > 0);
        let next = next.map(|due| format!(", next at {}", due.format("%H:%M:%SZ")));
        let error = escaped_start(&error.unwrap_or_default(), MAX_TEXT_CHARS);
        writeln!(
            out,
            "{}  {}  {:<14}  {:<36}  {:<9}  {:>5}  {}{}{error}{}",
            delivery.id,
            time(delivery.created_at),
            delivery.event,
            delivery
                .run_id
                .map(|run| run.to_string())
                .unwrap_or_default(),
            delivery.state,
            delivery.attempts,
            status.unwrap_or_default(),
            took.unwrap_or_default(),
            next.unwrap_or_default(),
        )?;
    }
    Ok(())
}

/// One delivery: its body and all its attempts.
pub(super) fn delivery(
    body: &str,
    attempts: Vec<PastAttempt>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    writeln!(out, "{}\n", escaped(body))?;
    for attempt in attempts {
        let status = attempt.status.map(|status| format!(", {status}"));
        let error = attempt.error.unwrap_or_else(|| "delivered".to_owned());
        writeln!(
            out,
            "{:>3}  {}  in {} ms{}: {}",
            attempt.number,
            time(attempt.at),
            attempt.took_ms,
            status.unwrap_or_default(),
            escaped(&error),
        )?;
    }
    Ok(())
}
