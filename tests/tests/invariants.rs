//! What must always hold (docs/architecture.md, section 8), each seen to fail when its mechanism is broken on purpose.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

#[path = "invariants/certificates.rs"]
mod certificates;
#[path = "invariants/control_gone.rs"]
mod control_gone;
#[path = "invariants/killed.rs"]
mod killed;
#[path = "invariants/late_hello.rs"]
mod late_hello;
#[path = "invariants/leaving.rs"]
mod leaving;
#[path = "invariants/privileges.rs"]
mod privileges;
#[path = "invariants/rotation.rs"]
mod rotation;
#[path = "invariants/stage.rs"]
mod stage;
#[path = "invariants/wire.rs"]
mod wire;
