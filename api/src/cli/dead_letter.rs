//! `runcastd dead-letter`: what stood in run streams and was no event, for the operator.
//!
//! The bytes may hold anything, terminal commands among them, so they are shown escaped unless `--raw` asks
//! for them as they are.

use std::io::Write;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Subcommand;
use runcast_common::protocol::entry::{Entry, Event};
use runcast_common::protocol::event::Head;
use serde_json::json;
use uuid::Uuid;

use runcast_store::Store;
use runcast_store::copy_rows::EventRow;
use runcast_store::dead_letters::{DeadLetterRow, Replayed};

/// Longest reason in a table; `show` gives all of it.
const REASON_WIDTH: usize = 60;

/// What to do with dead letters.
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
    /// Show one: its place, what was wrong, and its bytes, escaped
    Show {
        /// Its number, from `list`
        id: i64,
        /// Only its bytes, as they came
        #[arg(long)]
        raw: bool,
    },
    /// Read one again, and store it in its own place if this version finds events in it; for letters that
    /// an older version could not read. Seals are not judged again
    Replay {
        /// Its number, from `list`
        id: i64,
    },
    /// Delete one for good
    Drop {
        /// Its number, from `list`
        id: i64,
        /// Really do it
        #[arg(long)]
        yes: bool,
    },
}

impl DeadLetter {
    /// Does it, and writes what there is to tell to `out`.
    ///
    /// # Errors
    /// In words for a person.
    pub async fn run(self, store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
        match self {
            Self::List { run, limit, json } => {
                let letters = store.dead_letters(run, limit).await?;
                if json {
                    letters.iter().try_for_each(|letter| line(letter, out))
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
                bail!("this deletes the bytes of dead letter {id} for good: add --yes")
            }
            Self::Drop { id, yes: true } => {
                if !store.drop_dead_letter(id).await? {
                    bail!("there is no dead letter {id}");
                }
                Ok(writeln!(out, "dead letter {id} is deleted")?)
            }
        }
    }
}

async fn find(store: &Store, id: i64) -> anyhow::Result<(DeadLetterRow, Vec<u8>)> {
    let found = store.dead_letter(id).await?;
    found.with_context(|| format!("there is no dead letter {id}; see `runcastd dead-letter list`"))
}

fn line(letter: &DeadLetterRow, out: &mut impl Write) -> anyhow::Result<()> {
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
    Ok(writeln!(out, "{object}")?)
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
        let reason: String = letter.reason.escape_debug().take(REASON_WIDTH).collect();
        writeln!(
            out,
            "{:>8}  {}  {}  {:<22}  {:>8}  {reason}",
            letter.id,
            letter.created_at.format("%Y-%m-%dT%H:%M:%SZ"),
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
    writeln!(
        out,
        "since     {}",
        letter.created_at.format("%Y-%m-%dT%H:%M:%SZ")
    )?;
    writeln!(out, "reason    {}", letter.reason.escape_debug())?;
    writeln!(out, "bytes     {}\n", body.len())?;
    // One line of the terminal for one line of the letter.
    for piece in body.split_inclusive(|byte| *byte == b'\n') {
        writeln!(out, "{}", piece.escape_ascii())?;
    }
    Ok(())
}

/// Reads a letter again, stores what it is, and says what that was.
async fn replay(store: &Store, letter: &DeadLetterRow, body: Vec<u8>) -> anyhow::Result<String> {
    let put_aside = u64::try_from(letter.created_at.timestamp_millis()).unwrap_or(0);
    let (events, appended_ms) = match Entry::from_dump(letter.place(), &body) {
        Ok(entry) if letter.producer.is_none() => (entry.events().collect(), entry.appended_ms),
        // A letter of one line, or an entry that is still none: its line then says so.
        _ => {
            let event = Event {
                id: letter.place(),
                producer: letter.producer.unwrap_or_default(),
                producer_seq: letter.producer_seq().unwrap_or_default(),
                line: Bytes::from(body),
            };
            (vec![event], put_aside)
        }
    };
    let mut rows = Vec::with_capacity(events.len());
    let heads: Vec<Head<'_>> = events
        .iter()
        .map(|event| Head::parse(&event.line))
        .collect::<Result<_, _>>()
        .with_context(|| format!("dead letter {} is still no event", letter.id))?;
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
    match store.replay_dead_letter(letter, &rows).await? {
        Replayed::Stored(1) => Ok(format!("event {}", letter.place())),
        Replayed::Stored(count) => Ok(format!("{count} events up to {}", letter.place())),
        Replayed::Gone => bail!(
            "dead letter {} was dropped or replayed meanwhile",
            letter.id
        ),
        Replayed::NoRun => bail!("its run {} does not exist any more", letter.run_id),
        Replayed::Taken(place) => bail!("its place is not free: {place} holds an event"),
        Replayed::Known(place) => bail!("it was published again and is stored as {place}; drop it"),
    }
}
