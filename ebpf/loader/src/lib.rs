//! The only user of bpf(2) and of raw socket options: loads, pins, replaces and removes the kernel programs.
//!
//! Must never know what a holder, a proxy or a pod's specification is; and no other crate may hold `unsafe`.

mod bpffs;
mod error;
mod object;
mod probe;
mod probed;
mod programs;
pub mod sockopt;
mod sys;

pub use bpffs::{Place, directories};
pub use error::LoadError;
pub use object::embedded;
pub use probe::{Feature, probe};
pub use programs::{Filled, Programs, Slot, entries};
