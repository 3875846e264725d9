//! Bounds of decisions, each with its reason. Must never hold a number without one.

use std::time::Duration;

/// A DNS name (RFC 1035): identities are DNS SANs.
pub const IDENTITY_BYTES: usize = 253;
/// Latency assumed of an endpoint nothing is known about (Linkerd's default).
pub const DEFAULT_RTT: Duration = Duration::from_millis(30);
/// Time constant of the latency estimate (Linkerd's default).
pub const EWMA_DECAY: Duration = Duration::from_secs(10);
/// Endpoints of one service: past this the node's memory is the limit, and splitting the service the answer.
pub const ENDPOINTS_PER_SERVICE: usize = 10_000;
/// Resources of one node: workloads, destinations in use and the slices behind them.
pub const RESOURCES: usize = 100_000;
/// Addresses of one pod: Kubernetes gives two, other CNIs some more.
pub const ADDRESSES_PER_POD: usize = 8;
/// Excluded port ranges, and excluded subnets, of one pod: the kernel programs walk them at each connect.
pub const EXCLUSIONS: usize = 16;
/// Declared port ranges of one pod.
pub const PORT_RANGES: usize = 128;
/// Declared probes of one pod: three for each of its containers and two hooks; pods with more than ten probed containers are not known.
pub const PROBES_PER_POD: usize = 64;
/// Trust anchors of one mesh: rotation needs two or three.
pub const ANCHORS: usize = 32;
/// Host name of a route (RFC 1035).
pub const HOSTNAME_BYTES: usize = 253;
/// Text of one regular expression: Gateway API's own bound for the value of a path or header.
pub const PATTERN_BYTES: usize = 4096;
/// Compiled form of one regular expression: repetitions of repetitions would take gigabytes.
pub const PATTERN_PROGRAM_BYTES: usize = 32 << 10;
/// Compiled form of all regular expressions of paths for one host name of one service: more than as many as are taken, each as large as can
/// be, so that what control took is never refused.
pub const PATTERN_SET_BYTES: usize = 32 << 20;
/// Each worker's cache for such a set: it is filled by what clients ask for.
pub const PATTERN_CACHE_BYTES: usize = 1 << 20;
/// Regular expressions in the routes of one port that hold for the same clients, once for each host name: with their size, 16 MiB.
pub const ROUTE_PATTERNS: usize = 512;
/// Matches of the routes of one port that hold for the same clients: some 150 routes of the greatest size that Gateway API allows.
pub const ROUTE_MATCHES: usize = 20_000;
/// Backends and mirrors of the routes of one port that hold for the same clients: each is told with the names of its slices, some 6 MiB.
pub const ROUTE_TARGETS: usize = 20_000;
/// How deep conditions of a ServiceProfile's routes are nested: people write three.
pub const CONDITION_DEPTH: usize = 16;
/// Items of one list of a CORS filter: what Gateway API allows.
pub const CORS_ITEMS: usize = 64;
/// Mirrors of one rule, and of one of its backends: Gateway API's own bound for filters.
pub const MIRRORS_PER_RULE: usize = 16;
/// Ranges of statuses that one rule counts as failures, or as successes: as many as there are without two that touch.
pub const CLASS_STATUSES: usize = 250;
/// Ranges of statuses that one rule sends requests again for.
pub const RETRY_STATUSES: usize = 64;
/// Attempts of one request after the first one. Budgets and pauses end them long before.
pub const RETRIES: u16 = 100;
/// Before the second attempt of a request (Linkerd's); doubles with each.
pub const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// What it doubles to (Linkerd's), before jitter.
pub const RETRY_PAUSE_MOST: Duration = Duration::from_millis(250);
/// For how long a request counts in a retry budget at least: a tenth of it is still a time in which something happens.
pub const RETRY_TTL_MIN: Duration = Duration::from_secs(1);
/// The same at most: what was an hour ago says nothing about what a service bears now.
pub const RETRY_TTL_MAX: Duration = Duration::from_secs(3600);
/// For how long a breaker takes an endpoint out at least: less is no rest.
pub const PENALTY_MIN: Duration = Duration::from_millis(1);
/// The same at most, before jitter: an endpoint that recovered must be found within a working day.
pub const PENALTY_MAX: Duration = Duration::from_secs(3600);
/// Jitter of that time, of a thousand (Linkerd's greatest: hundredfold).
pub const JITTER_PERMILLE: u32 = 100_000;
/// For how long a request counts in a success rate at least (Linkerd's).
pub const RATE_WINDOW_MIN: Duration = Duration::from_millis(10);
/// The same at most.
pub const RATE_WINDOW_MAX: Duration = Duration::from_secs(3600);
/// Draws of one endpoint before all are gone through for one that is in: with half of them out, one in 256 goes so far.
pub const DRAWS: usize = 8;
/// Places of one endpoint on a service's ring: shares differ by a sixteenth of themselves, as a rule.
pub const RING_POINTS_EACH: usize = 256;
/// The same of all endpoints of one service, 3 MiB: of more than 1,024 each has fewer, and shares are less equal.
pub const RING_POINTS: usize = 1 << 18;
/// Places along a ring that are looked at for an endpoint that is in, before all are gone through from one that the key says: with half of
/// them out, the second one is enough.
pub const RING_STEPS: usize = 64;
/// For how long the share of a new endpoint grows at most: what is not warm by then will not be.
pub const SLOW_START_MOST: Duration = Duration::from_secs(3600);
/// Open requests at one endpoint from which on others are asked, at most: one that has more open than that is no server of requests.
pub const ZONE_OVERFLOW_MOST: u32 = 10_000;
/// Share of an endpoint that became ready this moment, of a thousand: without requests nothing gets warm.
pub const SLOW_START_PERMILLE: u32 = 100;
/// How old the answer to "are too many endpoints out?" may be: for ten thousand of them it takes some ten microseconds.
pub const PANIC_LOOK: Duration = Duration::from_millis(10);
/// Name of a header or cookie that requests are hashed by: told once for each rule that names the Service.
pub const HASH_NAME_BYTES: usize = 256;
/// Name of the cookie or header of a session (Gateway API).
pub const SESSION_NAME_BYTES: usize = 128;
/// Tokens of one request that are looked at: browsers bring one for each path that a cookie was set for.
pub const SESSION_TOKENS: usize = 16;
/// Servers that decide about one pod's ports: looked through for each new connection.
pub const SERVERS_PER_POD: usize = 256;
/// Authorizations of one Server: a namespace of a thousand teams, each with some policies.
pub const GRANTS_PER_SERVER: usize = 8192;
/// Identities and networks of all authorizations of one Server: what is compiled stays below some ten MiB.
pub const GRANTED_PER_SERVER: usize = 65_536;
