//! Settings of the whole host that kubelets change: kept before, put back after. Must never forget the first value over a second `up`.

use std::{collections::BTreeMap, fs, path::Path};

use super::layout::Place;
use crate::child::{self, Outcome};

/// What kubelet insists on.
const CHANGED: [&str; 5] = [
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Notes the values, unless they are noted.
///
/// # Errors
/// The state folder cannot be written.
pub(super) fn keep(place: &Place) -> Outcome {
    if place.sysctls().exists() {
        return Ok(());
    }
    let read = |name: &&str| Some(((*name).to_owned(), fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?));
    let values: BTreeMap<String, String> = CHANGED.iter().filter_map(read).collect();
    // Whole or not at all: half a note would be taken for one, and nothing put back.
    let aside = place.sysctls().with_extension("json.new");
    fs::write(&aside, serde_json::to_vec(&values)?)?;
    Ok(fs::rename(aside, place.sysctls())?)
}

/// Puts the noted values back.
pub(super) fn restore(place: &Place) {
    let noted = fs::read(place.sysctls()).unwrap_or_default();
    let values: BTreeMap<String, String> = serde_json::from_slice(&noted).unwrap_or_default();
    for (name, value) in values.iter().filter(|(name, _)| CHANGED.contains(&name.as_str())) {
        if let Err(error) = fs::write(Path::new("/proc/sys").join(name), value) {
            child::say(format_args!("  · /proc/sys/{name} stays as kubelet set it: {error}"));
        }
    }
}
