//! Annotations, one by one. Must never let one that is not understood affect another.

use std::collections::BTreeMap;

use super::FieldError;
use crate::objects::annotation;

/// Which of those that say how requests are treated an object has, and are not among the `flaws`.
pub(super) fn understood(given: Option<&BTreeMap<String, String>>, flaws: &[FieldError]) -> Vec<&'static str> {
    let is_flawed = |key: &str| flaws.iter().any(|flaw| flaw.field.strip_prefix("metadata.annotations.") == Some(key));
    let held = annotation::all().filter(|key| given.is_some_and(|given| given.contains_key(*key)));
    held.filter(|key| !is_flawed(key)).collect()
}

/// Reads annotations; what is not understood is noted and left out.
pub(super) struct Annotations<'a> {
    given: &'a BTreeMap<String, String>,
    errors: &'a mut Vec<FieldError>,
    is_any: bool,
}

impl<'a> Annotations<'a> {
    /// Of one object.
    pub(super) fn new(given: &'a BTreeMap<String, String>, errors: &'a mut Vec<FieldError>) -> Annotations<'a> {
        Annotations { given, errors, is_any: false }
    }

    /// Any of those asked for so far is there, understood or not.
    pub(super) fn is_any(&self) -> bool {
        self.is_any
    }

    /// None where it is not there, or not understood.
    pub(super) fn read<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.given.get(key)?;
        self.is_any = true;
        match parse(text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.refuse(key, reason);
                None
            }
        }
    }

    /// Notes that one which was read cannot be used.
    pub(super) fn refuse(&mut self, key: &str, reason: impl Into<String>) {
        self.errors.push(FieldError::new(format!("metadata.annotations.{key}"), reason));
    }
}
