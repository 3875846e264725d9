//! Success or failure of a response: the one place that decides it for metrics, balancing and people.
//!
//! Must never depend on who asks.

/// What a response counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Classification {
    /// The server did its part.
    Success,
    /// It did not.
    Failure,
}

impl Classification {
    /// Value of the label `classification`.
    pub fn label(self) -> &'static str {
        match self {
            Classification::Success => "success",
            Classification::Failure => "failure",
        }
    }
}

/// Plain HTTP: 5xx is failure.
pub fn of_http(status: u16) -> Classification {
    if status >= 500 { Classification::Failure } else { Classification::Success }
}

/// gRPC: the server's faults are failures (UNKNOWN, DEADLINE_EXCEEDED, PERMISSION_DENIED, INTERNAL, UNAVAILABLE,
/// DATA_LOSS: Linkerd's list). Without a gRPC status the HTTP status decides.
pub fn of_grpc(code: Option<u32>, status: u16) -> Classification {
    match code {
        Some(2 | 4 | 7 | 13 | 14 | 15) => Classification::Failure,
        Some(_) => Classification::Success,
        None => of_http(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        assert_eq!(of_http(499), Classification::Success);
        assert_eq!(of_http(500), Classification::Failure);
        let failures: Vec<u32> = (0..17).filter(|code| of_grpc(Some(*code), 200) == Classification::Failure).collect();
        assert_eq!(failures, [2, 4, 7, 13, 14, 15]);
        assert_eq!(of_grpc(None, 503), Classification::Failure);
    }
}
