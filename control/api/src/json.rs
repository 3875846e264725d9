//! Numbers that are names where people read them. Must never be needed to read anything.

use serde::Serializer;

use crate::v1::Protocol;

/// As the contract names it; one that is not known here as its number.
pub(crate) fn protocol<S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    match Protocol::try_from(*number) {
        Ok(protocol) => serializer.serialize_str(protocol.as_str_name()),
        Err(_unknown) => serializer.serialize_i32(*number),
    }
}
