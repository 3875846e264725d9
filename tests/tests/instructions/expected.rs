//! The committed figures. Must never be written unless asked for.

use std::{collections::BTreeMap, env, fmt::Write as _, fs};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/instructions/expected.txt");
/// Set to `write` to commit to what is measured.
const WRITE: &str = "WEIR_INSTRUCTIONS";
/// Most that a figure may deviate, in percent.
const TOLERANCE: f64 = 3.0;

/// Instructions of one exchange.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) count: u64,
}

/// Compares with the committed figures, or replaces them.
pub(crate) fn check(measured: &[Figure]) {
    if env::var(WRITE).is_ok_and(|value| value == "write") {
        return write(measured);
    }
    let text = read();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let mut expected: BTreeMap<&str, Vec<u64>> = lines
        .map(|line| {
            let (name, counts) = line.split_once(' ').unwrap_or_else(|| panic!("{FILE}: {line:?}"));
            let parse = |count: &str| count.parse().unwrap_or_else(|error| panic!("{FILE}: {line:?}: {error}"));
            (name, counts.split_whitespace().map(parse).collect())
        })
        .collect();
    let mut table = String::new();
    let mut agree = true;
    for Figure { name, count } in measured {
        let Some(expected) = expected.remove(name) else {
            panic!("{FILE} lacks {name}: run with {WRITE}=write");
        };
        // The nearest, where the compiler is known to have more than one way.
        let nearest = expected.into_iter().min_by_key(|expected| expected.abs_diff(*count));
        let expected = nearest.unwrap_or_else(|| panic!("{FILE}: {name} has no figure"));
        let percent = (as_f64(*count) / as_f64(expected) - 1.0) * 100.0;
        let within = percent.abs() <= TOLERANCE;
        agree &= within;
        let verdict = if within { "" } else { "  <--" };
        writeln!(table, "{name:<20} {count:>9} measured {expected:>9} expected {percent:>+7.2} %{verdict}").unwrap();
    }
    assert!(expected.is_empty(), "{FILE} has figures that nothing measures: {:?}", expected.keys());
    let _told = std::io::Write::write_all(&mut std::io::stdout(), table.as_bytes());
    assert!(
        agree,
        "instructions per exchange, more than {TOLERANCE} % from what is committed:\n{table}\
         Look for the reason (`callgrind_annotate`). To accept it, a gain too, run this suite with {WRITE}=write and commit {FILE}."
    );
}

fn as_f64(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

fn read() -> String {
    fs::read_to_string(FILE).unwrap_or_else(|error| panic!("{FILE}: {error}"))
}

fn write(measured: &[Figure]) {
    let mut text: String = read().lines().filter(|line| line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    for Figure { name, count } in measured {
        writeln!(text, "{name} {count}").unwrap();
    }
    fs::write(FILE, text).unwrap_or_else(|error| panic!("{FILE}: {error}"));
}
