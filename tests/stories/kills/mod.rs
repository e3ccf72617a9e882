//! Kills at random moments while several producers publish.

mod load;
mod random_kills;
