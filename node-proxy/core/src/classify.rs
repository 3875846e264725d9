//! Success or failure of a response: the one place that decides it for metrics, breakers, retries and people.
//!
//! Must never depend on who asks.

use weir_api::v1;

use crate::limits;

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

/// What a rule says its responses count as (ServiceProfile's `responseClasses`); of all others the rules above decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    failures: Box<[(u16, u16)]>,
    successes: Box<[(u16, u16)]>,
}

impl Classes {
    /// What control says.
    ///
    /// # Errors
    /// What is no range of statuses, or too many of them.
    pub fn of_api(given: &v1::ResponseClasses) -> Result<Classes, String> {
        let ranges = |given: &[v1::StatusRange]| -> Result<Box<[(u16, u16)]>, String> {
            if given.len() > limits::CLASS_STATUSES {
                return Err(format!("{} ranges of statuses, at most {}", given.len(), limits::CLASS_STATUSES));
            }
            let status = |number: u32| u16::try_from(number).ok().filter(|status| (100..600).contains(status));
            let range = |range: &v1::StatusRange| {
                let both = status(range.first).zip(status(range.last)).filter(|(first, last)| first <= last);
                both.ok_or_else(|| format!("{} to {} are no statuses", range.first, range.last))
            };
            given.iter().map(range).collect()
        };
        Ok(Classes { failures: ranges(&given.failures)?, successes: ranges(&given.successes)? })
    }

    /// What a status counts as, where it is said.
    fn of_status(&self, status: u16) -> Option<Classification> {
        let has = |ranges: &[(u16, u16)]| ranges.iter().any(|(first, last)| (*first..=*last).contains(&status));
        match (has(&self.failures), has(&self.successes)) {
            (true, _) => Some(Classification::Failure),
            (false, true) => Some(Classification::Success),
            (false, false) => None,
        }
    }
}

/// A response: by what its rule says of the HTTP status; else of a call by [`of_grpc`], of any other by [`of_http`].
pub fn of_response(classes: Option<&Classes>, status: u16, is_grpc: bool, code: Option<u32>) -> Classification {
    let said = classes.and_then(|classes| classes.of_status(status));
    said.unwrap_or_else(|| if is_grpc { of_grpc(code, status) } else { of_http(status) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rule_says_stands_above_the_usual() {
        let range = |first, last| v1::StatusRange { first, last };
        let given =
            v1::ResponseClasses { failures: vec![range(404, 404), range(200, 200)], successes: vec![range(500, 503)] };
        let classes = Classes::of_api(&given).unwrap();
        let of = |status, is_grpc, code| of_response(Some(&classes), status, is_grpc, code);
        use Classification::{Failure, Success};
        assert_eq!([of(404, false, None), of(503, false, None), of(504, false, None)], [Failure, Success, Failure]);
        assert_eq!(
            [of(201, true, Some(14)), of(201, true, Some(5)), of(200, true, Some(0))],
            [Failure, Success, Failure]
        );
        assert_eq!(of_response(None, 404, false, None), Success);
        let wrong = v1::ResponseClasses { failures: vec![range(503, 500)], ..given };
        assert!(Classes::of_api(&wrong).is_err());
    }

    #[test]
    fn table() {
        assert_eq!(of_http(499), Classification::Success);
        assert_eq!(of_http(500), Classification::Failure);
        let failures: Vec<u32> = (0..17).filter(|code| of_grpc(Some(*code), 200) == Classification::Failure).collect();
        assert_eq!(failures, [2, 4, 7, 13, 14, 15]);
        assert_eq!(of_grpc(None, 503), Classification::Failure);
    }
}
