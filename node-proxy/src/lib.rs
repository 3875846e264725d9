//! The data plane of one node. The modules are listed in the order in which a connection meets them.
//!
//! Must never know how control works inside: all it knows of control is `weir-api`.

pub mod args;
pub mod limits;

pub mod proxy;
pub mod supervisor;

pub mod config;
pub mod handover;
pub mod identities;
pub mod vault;

pub mod accept;
pub mod inbound;
pub mod metered;
pub mod outbound;
pub mod sniff;

pub mod body;
pub mod http;
pub mod respond;
pub mod upgrade;
pub mod upstream;

pub mod copy;
pub mod deadline;
pub mod dial;
pub mod drain;
pub mod fair;
pub mod interim;
pub mod io;
pub mod pool;
pub mod queues;
pub mod replay;
pub mod tee;
pub mod tls;

pub mod access_log;
pub mod admin;
pub mod report;
pub mod telemetry;

pub mod cleanup;
pub mod cni;
pub mod holder;
pub mod installed;
