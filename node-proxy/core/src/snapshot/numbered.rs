//! Endpoints by what sessions know them by. Must never name one that may get no new requests.

use std::sync::{Arc, OnceLock};

use super::{Endpoint, Map, ServiceTarget};
use crate::route::number;

/// Indices of the ready endpoints by number: made when somebody first brings a session, as most services never see one.
#[derive(Debug, Default)]
pub(super) struct Numbered(OnceLock<Map<u64, usize>>);

/// A copy may get other endpoints.
impl Clone for Numbered {
    fn clone(&self) -> Numbered {
        Numbered::default()
    }
}

impl Endpoint {
    /// What sessions know it by.
    pub fn number(&self) -> u64 {
        number(self.address, &self.uid)
    }
}

impl ServiceTarget {
    /// The ready endpoint of this number.
    pub fn numbered(&self, number: u64) -> Option<&Arc<Endpoint>> {
        let ready = self.ready_endpoints();
        let numbers = || ready.iter().enumerate().map(|(index, endpoint)| (endpoint.number(), index)).collect();
        let index = *self.numbered.0.get_or_init(numbers).get(&number)?;
        ready.get(index)
    }
}
