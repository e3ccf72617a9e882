//! The thread that writes to its share of the viewers.
//!
//! Data: the seats, and for each run that is watched from here their numbers. Time: it sleeps in `epoll` until a socket
//! takes more, a viewer comes or goes, or a run changes; every [`TICK`] it looks for viewers that need a sign of life or
//! have to go. Nothing it does waits: a socket that takes nothing is passed over.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tracing::debug;
use uuid::Uuid;

use super::super::memory::{SHED, ShedSignal, TOO_LITTLE};
use super::super::viewer::SelectionCache;
use super::connection::{ViewerConnection, WriteOutcome};
use super::pool::{CloseReason, Inbox, Mailbox, Metrics, NewConnection, WAKER};
use crate::sse::DRAINS;
use crate::tail::TailListener;
use runcast_access::open_streams::Revocation;

/// The seats of a run are served no more often than this: what comes in between is one write for each. As long as a
/// round over thousands of seats takes, and far below what anybody sees.
pub const FLUSH: Duration = Duration::from_millis(4);

/// How long viewers may take for what is still to be sent when the server stops.
pub const DRAIN: Duration = Duration::from_secs(8);

/// How often all seats are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Socket events taken at a time.
const EVENTS: usize = 1024;

/// One thread's viewers.
#[derive(Debug)]
pub struct WriterThread {
    poll: Poll,
    desk: Arc<Mailbox>,
    shedding: ShedSignal,
    patience: Duration,
    meter: Metrics,
    seats: Slab<ViewerConnection>,
    runs: HashMap<Uuid, RunGroup>,
    /// Runs that changed too soon after they were served.
    due: Vec<Uuid>,
    /// Viewers who had their turn and have more to get.
    hungry: Vec<usize>,
    ticked_at: Instant,
    stops_at: Option<Instant>,
    /// Bytes sent, not yet counted.
    sent: u64,
}

/// The viewers of one run.
#[derive(Debug)]
struct RunGroup {
    seats: Vec<usize>,
    /// When they may be served again.
    next_at: Instant,
    is_due: bool,
}

impl WriterThread {
    pub(super) fn new(
        poll: Poll,
        desk: Arc<Mailbox>,
        shedding: ShedSignal,
        patience: Duration,
        meter: Metrics,
    ) -> Self {
        Self {
            poll,
            desk,
            shedding,
            patience,
            meter,
            seats: Slab::new(),
            runs: HashMap::new(),
            due: Vec::new(),
            hungry: Vec::new(),
            ticked_at: Instant::now(),
            stops_at: None,
            sent: 0,
        }
    }

    /// Serves until it was told to stop and all viewers are gone.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let wait = self.wait(Instant::now());
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                if event.token() != WAKER {
                    self.socket_event(event);
                }
            }
            let Inbox {
                arrivals,
                changed,
                ends,
                stops,
            } = self.desk.empty();
            for arrival in arrivals {
                self.admit(arrival);
            }
            for run in changed {
                self.change(run);
            }
            if ends {
                self.send_away_ended();
            }
            self.serve_due();
            self.serve_hungry();
            self.tick(stops);
            self.meter.bytes.inc_by(std::mem::take(&mut self.sent));
            if self.is_over() {
                return Ok(());
            }
        }
    }

    /// How long there is nothing to do that no event tells of.
    fn wait(&self, now: Instant) -> Duration {
        if !self.hungry.is_empty() {
            return Duration::ZERO;
        }
        let due = self.due.iter().filter_map(|run| self.runs.get(run));
        let times = due
            .map(|round| round.next_at)
            .chain([self.ticked_at + TICK]);
        let first = times.min().unwrap_or(now);
        first.saturating_duration_since(now)
    }

    fn is_over(&self) -> bool {
        self.stops_at
            .is_some_and(|at| self.seats.is_empty() || at <= Instant::now())
    }

    fn admit(&mut self, arrival: NewConnection) {
        self.meter.viewers.inc();
        let mut seat = ViewerConnection::new(arrival);
        let entry = self.seats.vacant_entry();
        let number = entry.key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        if let Err(error) = registry.register(&mut seat.socket, Token(number), interest) {
            debug!(%error, "a viewer's socket cannot be watched");
            self.meter.closed(CloseReason::Failed);
            return;
        }
        let run = seat.viewer.run();
        let round = self.runs.entry(run).or_insert_with(|| {
            seat.viewer
                .watch()
                .attach(Arc::clone(&self.desk) as Arc<dyn TailListener>);
            RunGroup {
                seats: Vec::new(),
                next_at: Instant::now(),
                is_due: false,
            }
        });
        seat.place = round.seats.len();
        round.seats.push(number);
        entry.insert(seat);
        if self.stops_at.is_some() {
            self.send_away(number, DRAINS, CloseReason::Drained);
        } else if let Some(ending) = self.ending(number) {
            self.send_away(number, ending.reason(), CloseReason::Revoked);
        } else {
            self.serve(number, &mut SelectionCache::default(), Instant::now());
        }
    }

    fn socket_event(&mut self, event: &mio::event::Event) {
        let number = event.token().0;
        let Some(seat) = self.seats.get_mut(number) else {
            return;
        };
        if event.is_error() || (event.is_readable() && seat.hear()) {
            return self.remove(number, CloseReason::Left);
        }
        if event.is_writable() && seat.is_stuck() {
            self.serve(number, &mut SelectionCache::default(), Instant::now());
        }
    }

    fn change(&mut self, run: Uuid) {
        if let Some(round) = self.runs.get_mut(&run)
            && !std::mem::replace(&mut round.is_due, true)
        {
            self.due.push(run);
        }
    }

    fn serve_due(&mut self) {
        let now = Instant::now();
        let mut later = Vec::new();
        for run in std::mem::take(&mut self.due) {
            let Some(round) = self.runs.get_mut(&run) else {
                continue;
            };
            if round.next_at > now {
                later.push(run);
                continue;
            }
            round.is_due = false;
            round.next_at = now + FLUSH;
            let mut memo = SelectionCache::default();
            // From the end, since one that goes makes room for the last.
            for place in (0..round.seats.len()).rev() {
                let number = self.runs.get(&run).and_then(|round| round.seats.get(place));
                let Some(&number) = number else {
                    continue;
                };
                if self.seats.get(number).is_some_and(|seat| !seat.is_stuck()) {
                    self.serve(number, &mut memo, now);
                }
            }
        }
        self.due.append(&mut later);
    }

    fn serve_hungry(&mut self) {
        for number in std::mem::take(&mut self.hungry) {
            self.serve(number, &mut SelectionCache::default(), Instant::now());
        }
    }

    fn serve(&mut self, number: usize, memo: &mut SelectionCache, now: Instant) {
        let Some(seat) = self.seats.get_mut(number) else {
            return;
        };
        match seat.serve(memo, now, &mut self.sent) {
            WriteOutcome::Done => {}
            WriteOutcome::Hungry => self.hungry.push(number),
            WriteOutcome::Gone(why) => self.remove(number, why),
        }
    }

    fn tick(&mut self, stops: bool) {
        let now = Instant::now();
        if stops && self.stops_at.is_none() {
            self.stops_at = Some(now + DRAIN);
            for number in self.numbers() {
                self.send_away(number, DRAINS, CloseReason::Drained);
            }
        }
        if now.saturating_duration_since(self.ticked_at) < TICK {
            return;
        }
        self.ticked_at = now;
        let mut gone = Vec::new();
        for (number, seat) in &mut self.seats {
            if let WriteOutcome::Gone(why) = seat.tick(now, self.patience, &mut self.sent) {
                gone.push((number, why));
            }
        }
        for (number, why) in gone {
            self.remove(number, why);
        }
        if self.shedding.has_begun() {
            self.shed();
        }
    }

    /// Sends those away who take least; any, where all take as much.
    fn shed(&mut self) {
        let lag = |number: &usize| {
            let seat = self.seats.get(*number);
            let lag = seat.map(|seat| (seat.is_stuck(), seat.viewer.lag()));
            (lag, rand::random::<u32>())
        };
        let mut numbers = self.numbers();
        numbers.sort_by_cached_key(|number| std::cmp::Reverse(lag(number)));
        numbers.truncate(numbers.len().div_ceil(SHED as usize));
        for number in numbers {
            self.send_away(number, TOO_LITTLE, CloseReason::Memory);
        }
    }

    /// Sends those away who were let in by what has ended.
    fn send_away_ended(&mut self) {
        for number in self.numbers() {
            if let Some(ending) = self.ending(number) {
                self.send_away(number, ending.reason(), CloseReason::Revoked);
            }
        }
    }

    fn ending(&self, number: usize) -> Option<Revocation> {
        self.seats.get(number)?.viewer.opened()?.ending()
    }

    fn numbers(&self) -> Vec<usize> {
        self.seats.iter().map(|(number, _)| number).collect()
    }

    fn send_away(&mut self, number: usize, reason: &str, why: CloseReason) {
        let Some(seat) = self.seats.get_mut(number) else {
            return;
        };
        let frame = seat.viewer.closing(reason);
        seat.close(&frame, why);
        self.serve(number, &mut SelectionCache::default(), Instant::now());
        // One who takes nothing learns it by the end of the connection.
        if matches!(why, CloseReason::Memory | CloseReason::Revoked) && self.seats.contains(number)
        {
            self.remove(number, why);
        }
    }

    fn remove(&mut self, number: usize, why: CloseReason) {
        let Some(mut seat) = self.seats.try_remove(number) else {
            return;
        };
        if let Err(error) = self.poll.registry().deregister(&mut seat.socket) {
            debug!(%error, "a viewer's socket was not watched");
        }
        self.meter.closed(why);
        let run = seat.viewer.run();
        if let Some(round) = self.runs.get_mut(&run) {
            round.seats.swap_remove(seat.place);
            if let Some(moved) = round.seats.get(seat.place).copied()
                && let Some(moved) = self.seats.get_mut(moved)
            {
                moved.place = seat.place;
            }
            if round.seats.is_empty() {
                self.runs.remove(&run);
                seat.viewer
                    .watch()
                    .detach(&(Arc::clone(&self.desk) as Arc<dyn TailListener>));
            }
        }
    }
}
