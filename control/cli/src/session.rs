//! What all commands share. Must never hold state between commands.

use crate::{client::Settings, output::Format};

/// Global choices.
pub(crate) struct Session {
    pub(crate) settings: Settings,
    pub(crate) format: Format,
    pub(crate) color: bool,
}

/// How a command that ran to its end went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Exit code 0.
    Good,
    /// It found errors and showed them: exit code 1.
    Bad,
}
