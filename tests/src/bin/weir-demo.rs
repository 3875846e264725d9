//! The demo as a program. Must never do anything that `weir_tests::demo` does not.

use std::{panic, process::ExitCode, time::Duration};

use clap::Parser;
use weir_tests::demo::{self, Options};

/// Two nodes with real pods on this machine: a tour of the mesh. Needs root; leaves nothing behind.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo", bin_name = "cargo xtask demo")]
struct Args {
    /// How long the pods talk inside the mesh: 10s to 1h
    #[arg(long = "for", default_value = "30s", value_parser = time, value_name = "DURATION")]
    time: Duration,
    /// Stay in a shell at the end, with `weir` and `weir-curl` in its PATH
    #[arg(long)]
    shell: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration from 10s to 1h, as in 30s or 5m");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number: u16 = number.parse().map_err(|_not_a_number| wrong())?;
    let seconds = u64::from(number) * factor;
    if (10..=3600).contains(&seconds) { Ok(Duration::from_secs(seconds)) } else { Err(wrong()) }
}

fn main() -> ExitCode {
    let Args { time, shell } = Args::parse();
    panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("a failure without text");
        // With the logs' place, which is printed when the mesh is taken down.
        let _written = std::io::Write::write_all(&mut std::io::stderr(), format!("\nfailed: {text}\n").as_bytes());
    }));
    demo::run(Options { time, shell })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_bounded() {
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "30", "9s", "2h", "-1s", "s", "1ü"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
