//! HTTPRoutes from YAML to bytes: which rule a request falls under, what is done to it, and where it goes.

#![expect(clippy::expect_used, reason = "a failed step of a test is a panic")]

#[path = "routes/asked.rs"]
mod asked;
#[path = "routes/balancers.rs"]
mod balancers;
#[path = "routes/breakers.rs"]
mod breakers;
#[path = "routes/calls.rs"]
mod calls;
#[path = "routes/connections.rs"]
mod connections;
#[path = "routes/dead.rs"]
mod dead;
#[path = "routes/ejections.rs"]
mod ejections;
#[path = "routes/explained.rs"]
mod explained;
#[path = "routes/filters.rs"]
mod filters;
#[path = "routes/flaky.rs"]
mod flaky;
#[path = "routes/gateway.rs"]
mod gateway;
#[path = "routes/matching.rs"]
mod matching;
#[path = "routes/metrics.rs"]
mod metrics;
#[path = "routes/mirrors.rs"]
mod mirrors;
#[path = "routes/profiles.rs"]
mod profiles;
#[path = "routes/recorder.rs"]
mod recorder;
#[path = "routes/retries.rs"]
mod retries;
#[path = "routes/seen.rs"]
mod seen;
#[path = "routes/sessions.rs"]
mod sessions;
#[path = "routes/shifting.rs"]
mod shifting;
#[path = "routes/stage.rs"]
mod stage;
#[path = "routes/stingy.rs"]
mod stingy;
#[path = "routes/timeouts.rs"]
mod timeouts;
#[path = "routes/turns.rs"]
mod turns;
