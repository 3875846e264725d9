//! Processor time and memory of processes, from `/proc`. Must never read another kind of clock than the kernel's account.

use std::{fs, time::Duration};

/// Length of the unit of `utime` and `stime`: `USER_HZ` is 100 in the kernel's interface on every architecture that we run on.
const TICK: Duration = Duration::from_millis(10);
/// Places of `utime` and `stime` in `/proc/PID/stat` after the name (proc_pid_stat(5), fields 14 and 15).
const UTIME: usize = 11;
const STIME: usize = 12;

/// Memory of one process, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// `VmRSS`.
    pub(super) resident: u64,
    /// `VmHWM`.
    pub(super) peak: u64,
}

/// The processes and all that descends from them.
pub(super) fn trees(roots: &[u32]) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = roots.to_vec();
    while let Some(process) = open.pop() {
        found.push(process);
        let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            open.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// Processor time that the processes and all that descends from them used so far, all threads, user and kernel.
pub(super) fn cpu(roots: &[u32]) -> Duration {
    trees(roots)
        .into_iter()
        .map(|process| of_stat(&fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default()))
        .sum()
}

fn of_stat(text: &str) -> Duration {
    // The name may hold spaces and parentheses.
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<u32>().ok()).unwrap_or_default();
    TICK * (ticks(UTIME) + ticks(STIME))
}

/// Memory of one process.
pub(super) fn memory(process: u32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Memory { resident: value("VmRSS:").unwrap_or_default(), peak: value("VmHWM:").unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_read_behind_any_name() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 9 0 0 12 30 5 6 20 0 1 0 99";
        assert_eq!(of_stat(line), Duration::from_millis(420));
        assert_eq!(of_stat(""), Duration::ZERO);
    }
}
