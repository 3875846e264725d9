//! What ServiceProfiles and TrafficSplits say beside what routes do. Must never hold a name that is no Service's.

use std::sync::Arc;

use weir_api::v1;

use super::{Name, PortSpec};

/// Beyond a route's rules, what a ServiceProfile or TrafficSplit says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Where the Service's requests go instead; empty: to the Service itself.
    pub overrides: Vec<Override>,
    /// Ports of the Service that are opaque.
    pub opaque_ports: Vec<PortSpec>,
    /// Of all retries of its requests.
    pub retry_budget: Option<v1::RetryBudget>,
    /// It has routes of its own. Without routes and overrides it leaves requests to others (Linkerd).
    pub has_routes: bool,
}

impl Profile {
    /// Whether it decides about requests.
    pub fn decides(&self) -> bool {
        self.has_routes || !self.overrides.is_empty()
    }
}

/// A share of a Service's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Where they go.
    pub service: Name,
    /// The dialled one where there is none.
    pub port: Option<u16>,
    /// In thousandths of what is written; 0: nothing goes there.
    pub weight: u32,
}

/// Of one rule, what those of other routes lack.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileRule {
    /// For metrics and people; never empty.
    pub name: Arc<str>,
    /// Of the rules whose conditions hold the first one counts.
    pub condition: v1::Condition,
    /// What its responses count as, where it says so.
    pub classes: Option<v1::ResponseClasses>,
}
