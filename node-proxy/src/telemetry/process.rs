//! `process_*`, as Prometheus' client libraries name it, from /proc. Must never fail a scrape: what is not readable is left out.

use super::{
    families::{self, Family},
    text::Text,
};

/// Clock ticks per second of /proc: a constant of Linux' user interface on every architecture that we run on.
const TICKS: f64 = 100.0;

/// Fields of /proc/self/stat after the command, numbered as in proc(5).
struct Stat<'a>(Vec<&'a str>);

impl Stat<'_> {
    fn parse(stat: &str) -> Option<Stat<'_>> {
        // The command may hold spaces and parentheses: fields begin after the last one.
        let (_, rest) = stat.rsplit_once(')')?;
        Some(Stat(rest.split_whitespace().collect()))
    }

    fn field(&self, number: usize) -> Option<u64> {
        self.0.get(number.checked_sub(3)?)?.parse().ok()
    }
}

pub(super) fn write(text: &mut Text) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let stat = Stat::parse(&stat);
    let field = |number| stat.as_ref().and_then(|stat: &Stat<'_>| stat.field(number));
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) as f64 / TICKS);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let start = field(22).zip(boot_time()).map(|(ticks, boot)| boot + ticks as f64 / TICKS);
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    let max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let values: [(&'static Family, Option<f64>); 7] = [
        (&families::CPU, cpu),
        (&families::OPEN_FDS, open),
        (&families::MAX_FDS, max.map(|max| max as f64)),
        (&families::RESIDENT, resident_bytes(&status)),
        (&families::VIRTUAL, field(23).map(|bytes| bytes as f64)),
        (&families::THREADS, field(20).map(|threads| threads as f64)),
        (&families::START, start),
    ];
    for (family, value) in values {
        if let Some(value) = value {
            text.family(family);
            text.sample(family, "", &[], value);
        }
    }
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// Unix seconds.
fn boot_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_fields() {
        let stat = Stat::parse("7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 111 112").unwrap();
        assert_eq!(stat.field(14), Some(111));
        assert_eq!(stat.field(15), Some(112));
        assert_eq!(stat.field(99), None);
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(resident_bytes("VmSize:\t   9 kB\nVmRSS:\t    4096 kB\n"), Some(4_194_304.0));
    }
}
