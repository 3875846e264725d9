//! Names of the annotations of Services and routes that say how requests are treated. Must never be written a second time elsewhere.

/// Ports on which no request is seen.
pub const OPAQUE_PORTS: &str = "config.linkerd.io/opaque-ports";

/// Time limits.
pub mod timeouts {
    /// Of the request as a whole.
    pub const REQUEST: &str = "timeout.linkerd.io/request";
    /// Of the response.
    pub const RESPONSE: &str = "timeout.linkerd.io/response";
    /// Of silence.
    pub const IDLE: &str = "timeout.linkerd.io/idle";
    /// All of them.
    pub const ALL: [&str; 3] = [REQUEST, RESPONSE, IDLE];
}

/// What is sent again.
pub mod retry {
    /// For which statuses.
    pub const HTTP: &str = "retry.linkerd.io/http";
    /// For which codes.
    pub const GRPC: &str = "retry.linkerd.io/grpc";
    /// How often.
    pub const LIMIT: &str = "retry.linkerd.io/limit";
    /// After which time an attempt is given up.
    pub const TIMEOUT: &str = "retry.linkerd.io/timeout";
    /// Budget: part of the requests.
    pub const BUDGET_RATIO: &str = "weir.mesh/retry-budget-ratio";
    /// Budget: each second at least.
    pub const BUDGET_LEAST: &str = "weir.mesh/retry-budget-min-per-second";
    /// Budget: for how long a request counts.
    pub const BUDGET_TTL: &str = "weir.mesh/retry-budget-ttl";
    /// All of them.
    pub const ALL: [&str; 7] = [HTTP, GRPC, LIMIT, TIMEOUT, BUDGET_RATIO, BUDGET_LEAST, BUDGET_TTL];
}

/// How endpoints are chosen between.
pub mod balancer {
    use weir_api::v1::BalancerKind;

    /// Which one of them.
    pub const KIND: &str = "weir.mesh/balancer";
    /// What a consistent hash is made of.
    pub const HASH: &str = "weir.mesh/balancer-hash";
    /// For how long the share of a new one grows.
    pub const SLOW_START: &str = "weir.mesh/balancer-slow-start";
    /// From how many open requests on at an endpoint of a client's own zone others are asked too.
    pub const ZONE_OVERFLOW: &str = "weir.mesh/balancer-zone-overflow";
    /// The kinds, as they are written.
    pub const KINDS: [(&str, BalancerKind); 5] = [
        ("peak-ewma", BalancerKind::PeakEwma),
        ("least-request", BalancerKind::LeastRequest),
        ("round-robin", BalancerKind::RoundRobin),
        ("random", BalancerKind::Random),
        ("consistent-hash", BalancerKind::ConsistentHash),
    ];
    /// All of them.
    pub const ALL: [&str; 4] = [KIND, HASH, SLOW_START, ZONE_OVERFLOW];
}

/// What takes endpoints out that keep failing, or makes them less wanted.
pub mod breaker {
    /// Whether, and by what.
    pub const KIND: &str = "balancer.linkerd.io/failure-accrual";
    /// Failures in a row.
    pub const MAX_FAILURES: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";
    /// Out for so long at first.
    pub const MIN_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-min-penalty";
    /// Out for so long at most.
    pub const MAX_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-penalty";
    /// As much longer at random.
    pub const JITTER: &str = "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio";
    /// Success rate: too few.
    pub const RATE: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold";
    /// Success rate: for how long a request counts.
    pub const RATE_WINDOW: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-window";
    /// Success rate: fewer requests say nothing.
    pub const RATE_LEAST: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-min-requests";
    /// Whether a server's word makes it longer.
    pub const RETRY_AFTER: &str = "balancer.alpha.linkerd.io/failure-accrual-honor-retry-after";
    /// Below which part of endpoints all count as in.
    pub const PANIC: &str = "weir.mesh/failure-accrual-panic-threshold";
    /// Whether failures add to the load.
    pub const PENALIZE: &str = "balancer.alpha.linkerd.io/penalize-failures";
    /// How much.
    pub const BIAS: &str = "balancer.alpha.linkerd.io/load-biaser-penalty";
    /// How much by a server's word, at most.
    pub const BIAS_MOST: &str = "balancer.alpha.linkerd.io/load-biaser-max-retry-after";
    /// All of them.
    pub const ALL: [&str; 13] = [
        KIND,
        MAX_FAILURES,
        MIN_PENALTY,
        MAX_PENALTY,
        JITTER,
        RATE,
        RATE_WINDOW,
        RATE_LEAST,
        RETRY_AFTER,
        PANIC,
        PENALIZE,
        BIAS,
        BIAS_MOST,
    ];
}

/// All but the ports, which namespaces have as well.
pub fn all() -> impl Iterator<Item = &'static str> {
    timeouts::ALL.into_iter().chain(retry::ALL).chain(breaker::ALL).chain(balancer::ALL)
}
