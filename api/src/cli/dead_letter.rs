//! `runcastd dead-letter`: what stood in run streams and was no event, for the operator.
//!
//! The bytes may hold anything, terminal commands among them, so they are printed escaped, except
//! with `--raw`.

use std::io::Write;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Subcommand;
use runcast_common::protocol::entry::{Entry, Event};
use runcast_common::protocol::event::Head;
use serde_json::json;
use uuid::Uuid;

use super::escape::{escaped, escaped_start};
use super::output::{json_line, time};
use runcast_store::Store;
use runcast_store::audit::Actor;
use runcast_store::copy_rows::EventRow;
use runcast_store::dead_letters::{DeadLetterRow, Replayed};

/// Longest reason in a table; `show` prints all of it.
const MAX_REASON_CHARS: usize = 60;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum DeadLetter {
    /// List them, newest first
    List {
        /// Only those of this run
        #[arg(long)]
        run: Option<Uuid>,
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// One JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show one: its event id, what was wrong, and its bytes, escaped
    Show {
        /// Its number, from `list`
        id: i64,
        /// Print its bytes alone, as they came
        #[arg(long)]
        raw: bool,
    },
    /// Read one again, and store it under its own event id if this version finds events in it
    ///
    /// For letters that an older version could not read. Seals are not computed again.
    Replay {
        /// Its number, from `list`
        id: i64,
    },
    /// Delete one
    Drop {
        /// Its number, from `list`
        id: i64,
        /// Confirm
        #[arg(long)]
        yes: bool,
    },
}

impl DeadLetter {
    /// Runs the command and writes its result to `out`.
    pub async fn run(self, store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
        match self {
            Self::List { run, limit, json } => {
                let letters = store.dead_letters(run, limit).await?;
                if json {
                    letters
                        .iter()
                        .try_for_each(|letter| json_letter(letter, out))
                } else {
                    table(&letters, out)
                }
            }
            Self::Show { id, raw } => {
                let (letter, body) = find(store, id).await?;
                if raw {
                    return Ok(out.write_all(&body)?);
                }
                show(&letter, &body, out)
            }
            Self::Replay { id } => {
                let (letter, body) = find(store, id).await?;
                let count = replay(store, &letter, body).await?;
                Ok(writeln!(out, "stored as {count} of run {}", letter.run_id)?)
            }
            Self::Drop { id, yes: false } => {
                bail!("this deletes the bytes of dead letter {id}: add --yes to confirm")
            }
            Self::Drop { id, yes: true } => {
                if !store.drop_dead_letter(&Actor::operator(), id).await? {
                    bail!("there is no dead letter {id}");
                }
                Ok(writeln!(out, "dead letter {id} is deleted")?)
            }
        }
    }
}

async fn find(store: &Store, id: i64) -> anyhow::Result<(DeadLetterRow, Vec<u8>)> {
    let letter = store.dead_letter(id).await?;
    letter.with_context(|| format!("there is no dead letter {id}; see `runcastd dead-letter list`"))
}

fn json_letter(letter: &DeadLetterRow, out: &mut impl Write) -> anyhow::Result<()> {
    let object = json!({
        "id": letter.id,
        "run": letter.run_id,
        "place": letter.place().to_string(),
        "producer": letter.producer,
        "producer_seq": letter.producer_seq(),
        "bytes": letter.bytes,
        "reason": letter.reason,
        "created_at": letter.created_at,
    });
    json_line(&object, out)
}

fn table(letters: &[DeadLetterRow], out: &mut impl Write) -> anyhow::Result<()> {
    if letters.is_empty() {
        return Ok(writeln!(out, "no dead letters")?);
    }
    writeln!(
        out,
        "{:>8}  {:<20}  {:<36}  {:<22}  {:>8}  REASON",
        "ID", "SINCE", "RUN", "PLACE", "BYTES"
    )?;
    for letter in letters {
        // A reason may quote what came from outside.
        let reason = escaped_start(&letter.reason, MAX_REASON_CHARS);
        writeln!(
            out,
            "{:>8}  {}  {}  {:<22}  {:>8}  {reason}",
            letter.id,
            time(letter.created_at),
            letter.run_id,
            letter.place().to_string(),
            letter.bytes,
        )?;
    }
    Ok(())
}

fn show(letter: &DeadLetterRow, body: &[u8], out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "id        {}", letter.id)?;
    writeln!(out, "run       {}", letter.run_id)?;
    writeln!(out, "place     {}", letter.place())?;
    if let (Some(producer), Some(seq)) = (letter.producer, letter.producer_seq()) {
        writeln!(out, "producer  {producer}, its event {seq}")?;
    }
    writeln!(out, "since     {}", time(letter.created_at))?;
    writeln!(out, "reason    {}", escaped(&letter.reason))?;
    writeln!(out, "bytes     {}\n", body.len())?;
    // One line of output for each line of the letter.
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        writeln!(out, "{}", line.escape_ascii())?;
    }
    Ok(())
}

/// Reads a letter again, stores its events, and returns what was stored in words.
async fn replay(store: &Store, letter: &DeadLetterRow, body: Vec<u8>) -> anyhow::Result<String> {
    // What the letter holds: an entry of several events, or one line.
    let created_ms = u64::try_from(letter.created_at.timestamp_millis()).unwrap_or(0);
    let (events, appended_ms) = match Entry::from_dump(letter.place(), &body) {
        Ok(entry) if letter.producer.is_none() => (entry.events().collect(), entry.appended_ms),
        // A letter of one line, or an entry that still is none: then its line does not parse below.
        _ => {
            let event = Event {
                id: letter.place(),
                producer: letter.producer.unwrap_or_default(),
                producer_seq: letter.producer_seq().unwrap_or_default(),
                line: Bytes::from(body),
            };
            (vec![event], created_ms)
        }
    };
    // Its events as rows.
    let heads: Vec<Head<'_>> = events
        .iter()
        .map(|event| Head::parse(&event.line))
        .collect::<Result<_, _>>()
        .with_context(|| format!("dead letter {} is still no event", letter.id))?;
    let mut rows = Vec::with_capacity(events.len());
    for (event, head) in events.iter().zip(&heads) {
        rows.push(EventRow {
            run: letter.run_id,
            id: event.id,
            producer: event.producer,
            producer_seq: event.producer_seq,
            kind: head.kind,
            variation: head.variation,
            level: head.level.as_deref(),
            time_ms: if head.time == 0 {
                appended_ms
            } else {
                head.time
            },
            appended_ms,
            body: &event.line,
        });
    }
    match store
        .replay_dead_letter(&Actor::operator(), letter, &rows)
        .await?
    {
        Replayed::Stored(1) => Ok(format!("event {}", letter.place())),
        Replayed::Stored(count) => Ok(format!("{count} events up to {}", letter.place())),
        Replayed::Gone => bail!(
            "dead letter {} was dropped or replayed in the meantime",
            letter.id
        ),
        Replayed::NoRun => bail!("its run {} does not exist any more", letter.run_id),
        Replayed::Taken(id) => bail!("its event id is not free: {id} holds an event"),
        Replayed::Known(id) => bail!("it was published again and is stored as {id}; drop it"),
    }
}
