//! What the answers of Redis ask for, and what is told of them to those who publish.

use redis::RedisError;
use runcast_common::connect::Redis;

use super::{Left, Sender};
use crate::ledger::{Asked, Verdict};
use crate::link::{Answer, Link, LinkError};
use crate::progress::Progress;

impl Sender {
    pub(super) async fn take_answer(
        &mut self,
        link: &mut Link,
        answer: Answer,
    ) -> Result<(), Left> {
        let Answer {
            asked,
            counts,
            result,
        } = answer;
        let durable = self.ledger.durable();
        let was_unsure = self.ledger.is_unsure();
        match result {
            Ok(appended) if !counts => self.ledger.answered_late(&appended),
            Ok(appended) => {
                let verdict = self.ledger.answered(asked, &appended);
                // Before anybody is told how far it is: what was taken out has got larger seqs.
                if was_unsure && !self.ledger.is_unsure() {
                    self.queue.renumber(self.ledger.newest());
                }
                match verdict {
                    Verdict::Advanced => self.note_progress(asked),
                    Verdict::Rewound => {
                        link.forget();
                        self.pace.rewound();
                    }
                    Verdict::Wait => {
                        link.forget();
                        self.note_full("the run holds as much in Redis as it may");
                    }
                    Verdict::Fenced { by } => return Err(Left::Fenced { by }),
                }
            }
            Err(error) => self.take_error(link, asked, counts, error).await?,
        }
        if self.ledger.durable() > durable {
            self.pace.heard();
            self.publish_progress();
        }
        Ok(())
    }

    /// What the server itself refused, without having done anything.
    async fn take_error(
        &mut self,
        link: &mut Link,
        asked: Asked,
        counts: bool,
        error: RedisError,
    ) -> Result<(), Left> {
        match error.code() {
            Some("NOSCRIPT" | "OOM" | "MISCONF" | "BUSY") if !counts => Ok(()),
            Some("NOSCRIPT") => {
                link.forget();
                self.ledger.refused(asked);
                link.load_script().await.map_err(Left::Broken)
            }
            Some("OOM" | "MISCONF" | "BUSY") => {
                link.forget();
                self.ledger.refused(asked);
                self.note_full(&error.to_string());
                Ok(())
            }
            _ => Err(Left::Broken(link.failed(error))),
        }
    }

    fn note_full(&mut self, why: &str) {
        if self.pace.is_advancing() {
            tracing::info!(run = %self.identity.keys.run, why, "Redis takes no more for now");
        }
        self.pace.pause();
        self.progress
            .send_modify(|progress| progress.trouble = Some(why.to_owned()));
    }

    fn note_progress(&mut self, asked: Asked) {
        // An answer to a question proves nothing about the appends that wait.
        if asked != Asked::State || self.ledger.is_sent() {
            if self.reconnect.attempts() > 0 {
                tracing::info!(redis = self.address(), "publishing goes on");
            }
            self.reconnect.reset();
            self.pace.advanced();
        }
        self.publish_progress();
    }

    fn publish_progress(&mut self) {
        let spooled = self.ledger.backlog().spooled_up_to();
        let (acked, durable) = (self.ledger.acked(), self.ledger.durable());
        self.progress.send_if_modified(|progress| {
            let new = Progress {
                acked,
                durable,
                spooled,
                reached: true,
                trouble: None,
            };
            let changed = *progress != new;
            *progress = new;
            changed
        });
    }

    fn address(&self) -> &str {
        self.redis.as_ref().map_or("", Redis::address)
    }

    /// One line for each outage, not for each attempt.
    pub(super) fn note_trouble(&self, error: &LinkError) {
        let redis = self.address();
        if self.reconnect.attempts() == 0 {
            tracing::warn!(redis, %error, "publishing is interrupted, trying again");
        } else {
            tracing::debug!(redis, %error, "no connection yet");
        }
        self.progress
            .send_modify(|progress| progress.trouble = Some(error.to_string()));
    }
}
