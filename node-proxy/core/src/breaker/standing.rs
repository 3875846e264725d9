//! What a breaker knows of one endpoint, for people. Must never change what it knows.

use std::{
    sync::atomic::Ordering::{Acquire, Relaxed},
    time::Duration,
};

use super::{Health, IN, nanos};

/// Whether requests are sent to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// None, or none but as a trial.
    Out,
    /// None but the trial that is under way.
    Trial,
    /// As to any other.
    In,
}

/// How an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// In, out, or between.
    pub state: State,
    /// How long it has been in, or out with its trials; none: it was never out.
    pub lasted: Option<Duration>,
    /// After how long a trial, or another one, may be made; none where it is in.
    pub next_trial: Option<Duration>,
    /// Times taken out, trials that failed included.
    pub ejections: u32,
}

impl Health {
    /// How it stands at `now`. Of what changes at the same moment it may show one part and not the other.
    pub fn standing(&self, now: Duration) -> Standing {
        let until = self.until.load(Acquire);
        let state = match until {
            IN => State::In,
            until if until == self.trial.load(Relaxed) && until > nanos(now) => State::Trial,
            _ => State::Out,
        };
        let since = Some(self.since.load(Relaxed)).filter(|since| *since > 0);
        Standing {
            state,
            lasted: since.map(|since| Duration::from_nanos(nanos(now).saturating_sub(since))),
            next_trial: (until != IN).then(|| Duration::from_nanos(until.saturating_sub(nanos(now)))),
            ejections: self.ejections.load(Relaxed),
        }
    }
}
