//! Who may call whom, from YAML to bytes: decided and enforced at the server's node, whichever way a client comes.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

#[path = "policy/defaults.rs"]
mod defaults;
#[path = "policy/probes.rs"]
mod probes;
#[path = "policy/routes.rs"]
mod routes;
#[path = "policy/servers.rs"]
mod servers;
#[path = "policy/stage.rs"]
mod stage;
