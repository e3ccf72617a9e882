//! The one task that owns a publisher's connection: it takes batches out of the queue, keeps them in
//! the ledger, appends them several at a time, and does what the answers ask for.
//!
//! - **Batching.** A closed batch leaves as soon as the window allows. So does an open one, unless many
//!   have just been sent: then it lingers for [`LINGER`](crate::pace::LINGER). The events of a quiet stream never wait.
//! - **Answers.** `ok` advances; `gap` starts over where Redis says; `full` waits and tries again;
//!   `fenced` stops the publisher for good. An error on the wire, or none for too long, breaks the
//!   connection: it is made anew for as long as the publisher lives, and what was not acknowledged
//!   goes out again. The script appends nothing twice.
//! - **Durability.** Answers tell what Postgres holds. A publisher with nothing to send but
//!   something to hear asks for it, after [`POKE_FIRST`](crate::pace::POKE_FIRST), then ever more rarely.
//!   One that is idle and durable sleeps.
//!
//! - **Keeping.** What was taken out of the queue is in the spool, if there is one, before it is sent;
//!   see `keep`.
//!
//! Nothing here ends by time; `close` and dropping the publisher bound the task from outside.

use std::sync::Arc;

use runcast_common::backoff::Backoff;
use runcast_common::connect::Redis;
use runcast_common::protocol::encoding::Body;
use runcast_common::protocol::keys::RunKeys;
use runcast_common::scripts::{Append, Cap};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::batch::Batch;
use crate::ledger::Ledger;
use crate::link::{Link, LinkError, WINDOW};
use crate::outcome::Stopped;
use crate::pace::Pace;
use crate::progress::{LastWord, Progress};
use crate::queue::Queue;

mod answers;
mod keep;

use self::keep::Keeping;

/// Who publishes, and where to.
pub(crate) struct Identity {
    pub(crate) producer: Uuid,
    pub(crate) producer_epoch: u64,
    pub(crate) keys: RunKeys,
    pub(crate) cap: Cap,
}

/// The state of the task.
pub(crate) struct Sender {
    /// Stands before `progress`, whose drop wakes those who then ask why.
    last_word: LastWord,
    queue: Arc<Queue>,
    /// None while it is not known where the run will be published: then everything is only kept.
    redis: Option<Redis>,
    identity: Identity,
    ledger: Ledger,
    progress: watch::Sender<Progress>,
    keeping: Keeping,
    pace: Pace,
    reconnect: Backoff,
}

/// Why a connection is no longer served.
enum Left {
    /// Everything that will ever be published is in Postgres.
    Done,
    Fenced {
        by: u64,
    },
    Broken(LinkError),
}

impl Sender {
    pub(crate) fn new(
        queue: Arc<Queue>,
        redis: Option<Redis>,
        identity: Identity,
        ledger: Ledger,
        progress: watch::Sender<Progress>,
    ) -> Self {
        Self {
            keeping: Keeping::new(&ledger),
            last_word: LastWord {
                queue: Arc::clone(&queue),
                why: Stopped::Died,
            },
            queue,
            redis,
            identity,
            ledger,
            progress,
            pace: Pace::new(),
            reconnect: Backoff::for_connections(),
        }
    }

    /// Sends until the queue has ended and all of it is durable, or a newer process takes over.
    pub(crate) async fn run(&mut self) {
        let Some(redis) = self.redis.clone() else {
            return self.wait_keeping(std::future::pending()).await;
        };
        self.last_word.why = loop {
            let mut link = self.connect(&redis).await;
            match self.serve(&mut link).await {
                Left::Done => {
                    self.forget_the_run();
                    break Stopped::Closed;
                }
                Left::Fenced { by } => break Stopped::Fenced { by },
                Left::Broken(error) => {
                    drop(link);
                    self.ledger.disconnected();
                    self.note_trouble(&error);
                    let wait = self.reconnect.next_wait();
                    self.wait_keeping(sleep(wait)).await;
                }
            }
        };
    }

    /// Makes a connection, however long it takes.
    async fn connect(&mut self, redis: &Redis) -> Link {
        let keys = self.identity.keys.clone();
        loop {
            match self.wait_keeping(Link::open(redis, &keys)).await {
                Ok(link) => return link,
                Err(error) => {
                    self.note_trouble(&error);
                    let wait = self.reconnect.next_wait();
                    self.wait_keeping(sleep(wait)).await;
                }
            }
        }
    }

    async fn serve(&mut self, link: &mut Link) -> Left {
        // Tells where to go on, and that this producer may call the script at all.
        self.send_poke(link);
        self.pace.start_over();
        loop {
            let linger_until = self.take_and_send(link);
            if self.keeping.ended && self.ledger.is_durable() {
                return Left::Done;
            }
            self.plan_poke(link);
            let timers = linger_until.into_iter().chain(self.pace.next());
            let timer = timers.chain(self.keep_until()).min();
            tokio::select! {
                answer = link.answer() => match answer {
                    Ok(answer) => if let Err(left) = self.take_answer(link, answer).await {
                        return left;
                    },
                    Err(error) => return Left::Broken(error),
                },
                () = self.queue.arrived() => {}
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
        }
    }

    /// Sends what the window allows; tells until when an open batch is left to grow.
    fn take_and_send(&mut self, link: &mut Link) -> Option<Instant> {
        let now = Instant::now();
        let may_append = self.pace.may_append(now);
        let mut left_behind = self.keep(false);
        if may_append {
            self.send_batches(link, now);
        }
        let idle_hands = may_append && self.ledger.is_sent() && link.in_flight() < WINDOW;
        if !left_behind || !idle_hands {
            return None;
        }
        let linger_until = self.pace.linger_until();
        if linger_until > now && !self.queue.has_ended() {
            return Some(linger_until);
        }
        left_behind = self.keep(true);
        self.send_batches(link, now);
        left_behind.then(|| self.pace.linger_until())
    }

    fn send_batches(&mut self, link: &mut Link, now: Instant) {
        while let Some(batch) = self.ledger.next_to_send(link.in_flight(), WINDOW) {
            link.send(&self.identity.keys, &self.append(&batch));
            self.ledger.sent(&batch);
            self.pace.sent(now);
        }
    }

    fn append<'a>(&self, batch: &'a Batch) -> Append<'a> {
        let question = self.question();
        Append {
            first: batch.first,
            count: batch.count,
            body: Body::packed(&batch.body),
            // What is skipped does not exist, and everything before it is durable.
            base: match batch.skips {
                0 => question.base,
                _ => batch.first - 1,
            },
            ..question
        }
    }

    /// A call that only asks how things stand.
    fn question(&self) -> Append<'static> {
        Append {
            producer: self.identity.producer,
            producer_epoch: self.identity.producer_epoch,
            base: self.ledger.durable(),
            acked: self.ledger.acked(),
            first: self.ledger.acked() + 1,
            count: 0,
            body: Body::Plain(b""),
            cap: self.identity.cap,
        }
    }

    fn send_poke(&self, link: &mut Link) {
        link.send(&self.identity.keys, &self.question());
    }

    /// Asks what Postgres holds, if that is due and no answer on its way will tell.
    fn plan_poke(&mut self, link: &mut Link) {
        if self.ledger.is_durable() {
            self.pace.nothing_to_ask();
        } else if self.pace.must_ask(Instant::now()) && link.in_flight() == 0 {
            self.send_poke(link);
        }
    }
}
