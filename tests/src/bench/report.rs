//! Medians, ratios and the table. Must never print a figure without its spread.

use std::{fmt::Write as _, time::Duration};

use super::{load::Sample, scenario::Scenario, stage::Subject};

/// Median, least, greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread(f64, f64, f64);

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            *values.get(middle)?
        } else {
            f64::midpoint(*values.get(middle.checked_sub(1)?)?, *values.get(middle)?)
        };
        Some(Spread(median, *values.first()?, *values.last()?))
    }

    fn text(self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}–{:.digits$})", self.0, self.1, self.2)
    }
}

/// All rounds of one subject in one scenario.
#[derive(Debug)]
pub(super) struct Row<'a> {
    scenario: &'a Scenario,
    subject: Subject,
    /// What rounds gave; nothing where the load generator gave up.
    pub(super) rounds: Vec<Option<Sample>>,
}

impl<'a> Row<'a> {
    /// Without any round yet.
    pub(super) fn new(scenario: &'a Scenario, subject: Subject) -> Row<'a> {
        Row { scenario, subject, rounds: Vec::new() }
    }

    /// Whether a round had errors.
    pub(super) fn failed(&self) -> bool {
        self.rounds.iter().any(|round| round.as_ref().is_none_or(|sample| sample.errors > 0))
    }

    fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.rounds.iter().flatten()
    }

    /// What went wrong, in words.
    fn complaint(&self) -> String {
        let errors: usize = self.samples().map(|sample| sample.errors).sum();
        let lost = self.rounds.iter().filter(|round| round.is_none()).count();
        format!("**{errors} errors, {lost} rounds lost**")
    }

    fn cost(&self) -> Option<Spread> {
        Spread::of(self.samples().map(Sample::cost)).filter(|cost| cost.0 > 0.0)
    }

    /// Ratio of medians, with the least and greatest ratio of two figures of one round.
    fn ratio(&self, to: &Row<'_>) -> Option<Spread> {
        let rounds = self.rounds.iter().zip(&to.rounds);
        let pairs = rounds.filter_map(|(own, other)| Some(own.as_ref()?.cost() / other.as_ref()?.cost()));
        let spread = Spread::of(pairs)?;
        Some(Spread(self.cost()?.0 / to.cost()?.0, spread.1, spread.2))
    }

    fn latency(&self, place: usize) -> String {
        let values = self.samples().filter_map(|sample| sample.latency[place]);
        Spread::of(values.map(|value| value.as_secs_f64() * 1e3))
            .map_or_else(|| "–".to_owned(), |spread| format!("{:.2}", spread.0))
    }
}

/// A figure of the proxies' memory.
#[derive(Debug)]
pub(super) struct MemoryRow {
    what: String,
    unit: &'static str,
    /// Node 1, node 2.
    values: Vec<f64>,
    bar: Option<f64>,
    /// Whether there were errors on the way.
    pub(super) failed: bool,
}

impl MemoryRow {
    /// One value for each node.
    pub(super) fn new(what: &str, unit: &'static str, values: Vec<f64>, bar: Option<f64>) -> MemoryRow {
        MemoryRow { what: what.to_owned(), unit, values, bar, failed: false }
    }

    /// For the terminal.
    pub(super) fn line(&self) -> String {
        let values: Vec<String> = self.values.iter().map(|value| format!("{value:.1}")).collect();
        format!("{}: {} {}", self.what, values.join(" / "), self.unit)
    }
}

/// Latencies of others beside one attack.
#[derive(Debug)]
pub(super) struct BesideRow {
    what: &'static str,
    /// 99th percentiles in milliseconds: before, and beside the attack.
    rounds: Vec<(f64, f64)>,
    /// Whether there were errors on the way, or a worker died.
    pub(super) failed: bool,
}

/// How much higher the 99th percentile of others may be beside an attack.
const BESIDE_BAR: f64 = 2.0;

impl BesideRow {
    /// Without any round yet.
    pub(super) fn new(what: &'static str) -> BesideRow {
        BesideRow { what, rounds: Vec::new(), failed: false }
    }

    /// Takes one round in; says how it went.
    pub(super) fn note(
        &mut self,
        quiet: Result<Sample, String>,
        attacked: Result<Sample, String>,
        died: bool,
    ) -> String {
        self.failed |= died;
        let p99 = |sample: &Sample| sample.latency[1].map_or(f64::NAN, |value| value.as_secs_f64() * 1e3);
        match (quiet, attacked) {
            (Ok(quiet), Ok(attacked)) if quiet.errors + attacked.errors == 0 => {
                self.rounds.push((p99(&quiet), p99(&attacked)));
                format!("p99 {:.2} ms, beside {:.2} ms", p99(&quiet), p99(&attacked))
            }
            (quiet, attacked) => {
                self.failed = true;
                let errors = [quiet, attacked].map(|round| match round {
                    Ok(sample) => format!("{} errors", sample.errors),
                    Err(error) => error,
                });
                format!("FAILED: {}", errors.join("; "))
            }
        }
    }

    fn cells(&self) -> [String; 6] {
        let quiet = Spread::of(self.rounds.iter().map(|round| round.0));
        let beside = Spread::of(self.rounds.iter().map(|round| round.1));
        let ratio = Spread::of(self.rounds.iter().map(|round| round.1 / round.0));
        let shown = |spread: Option<Spread>| spread.map_or_else(|| "–".to_owned(), |spread| spread.text(2));
        let (bar, verdict) = verdict(ratio.map_or(f64::NAN, |ratio| ratio.0), Some(BESIDE_BAR));
        let verdict = if self.failed { "**errors**" } else { verdict };
        [self.what.to_owned(), shown(quiet), shown(beside), shown(ratio), bar, verdict.to_owned()]
    }
}

/// How far above another one a figure may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Than {
    /// Microseconds of processor time for one request.
    pub(super) micros: Option<f64>,
    /// Its multiple.
    pub(super) ratio: Option<f64>,
}

/// What requests of one Service cost, beside those of another one.
#[derive(Debug)]
pub(super) struct RuleRow {
    name: &'static str,
    what: &'static str,
    than: Option<(&'static str, Than)>,
    /// Processor time for one request, microseconds; in the order of rounds.
    rounds: Vec<f64>,
    /// Whether there were errors on the way.
    pub(super) failed: bool,
}

impl RuleRow {
    /// Without any round yet.
    pub(super) fn new(name: &'static str, what: &'static str, than: Option<(&'static str, Than)>) -> RuleRow {
        RuleRow { name, what, than, rounds: Vec::new(), failed: false }
    }

    /// Takes one round in; says how it went.
    pub(super) fn note(&mut self, sample: Result<Sample, String>) -> String {
        match sample {
            Ok(sample) if sample.errors == 0 => {
                self.rounds.push(sample.cost());
                sample.line("request")
            }
            Ok(sample) => {
                self.failed = true;
                format!("FAILED: {} errors", sample.errors)
            }
            Err(error) => {
                self.failed = true;
                format!("FAILED: {error}")
            }
        }
    }

    fn cells(&self, rows: &[RuleRow]) -> [String; 7] {
        let cost = Spread::of(self.rounds.iter().copied());
        let shown = |spread: Option<Spread>, digits| {
            spread.map_or_else(|| "–".to_owned(), |spread: Spread| spread.text(digits))
        };
        let other = self.than.and_then(|(name, than)| Some((rows.iter().find(|row| row.name == name)?, than)));
        let pairs = other.map(|(other, _)| self.rounds.iter().zip(&other.rounds));
        let more = pairs.clone().and_then(|pairs| Spread::of(pairs.map(|(own, other)| own - other)));
        let times = pairs.and_then(|pairs| Spread::of(pairs.map(|(own, other)| own / other)));
        let (bar, verdict) = match other.map(|(_, than)| than) {
            Some(Than { micros: Some(bar), .. }) => {
                let (_, verdict) = verdict(more.map_or(f64::NAN, |more| more.0), Some(bar));
                (format!("+{bar} µs"), verdict)
            }
            Some(Than { ratio, .. }) => verdict(times.map_or(f64::NAN, |times| times.0), ratio),
            None => verdict(f64::NAN, None),
        };
        let verdict = if self.failed { "**errors**" } else { verdict };
        let than = other.map_or("–", |(other, _)| other.what);
        [
            self.what.to_owned(),
            shown(cost, 1),
            than.to_owned(),
            shown(more, 1),
            shown(times, 3),
            bar,
            verdict.to_owned(),
        ]
    }
}

/// What one round of clients got, and what it cost their servers.
#[derive(Clone, Debug)]
pub(super) struct TroubleRound {
    /// Of 100.
    success: f64,
    /// At 50 and 99 per cent, of all answers, milliseconds.
    latency: [f64; 2],
    /// Requests at all endpoints for each of the clients'.
    load: f64,
    /// Shares of the endpoints, of 100.
    shares: Vec<f64>,
}

impl TroubleRound {
    /// From all answers, and how often each endpoint was asked.
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    pub(super) fn of(answers: Vec<(bool, Duration)>, asked: Vec<u64>) -> TroubleRound {
        let all = answers.len().max(1) as f64;
        let success = answers.iter().filter(|answer| answer.0).count() as f64 / all * 100.0;
        let sample = Sample::of(answers.into_iter().map(|answer| answer.1).collect(), Duration::from_secs(1));
        let at = |place: usize| sample.latency[place].map_or(f64::NAN, |value| value.as_secs_f64() * 1e3);
        let sum = asked.iter().sum::<u64>().max(1) as f64;
        let shares = asked.into_iter().map(|count| count as f64 / sum * 100.0).collect();
        TroubleRound { success, latency: [at(0), at(1)], load: sum / all, shares }
    }
}

/// One way to meet trouble.
#[derive(Debug)]
pub(super) struct TroubleRow {
    what: &'static str,
    /// Most load.
    bar: Option<f64>,
    rounds: Vec<TroubleRound>,
    /// Whether a round broke off.
    pub(super) failed: bool,
}

impl TroubleRow {
    /// Without any round yet.
    pub(super) fn new(what: &'static str, bar: Option<f64>) -> TroubleRow {
        TroubleRow { what, bar, rounds: Vec::new(), failed: false }
    }

    /// Takes one round in; says how it went.
    pub(super) fn note(&mut self, round: Result<TroubleRound, String>) -> String {
        match round {
            Ok(round) => {
                let said =
                    format!("{:.2} % successes, p99 {:.1} ms, load {:.2}", round.success, round.latency[1], round.load);
                self.rounds.push(round);
                said
            }
            Err(error) => {
                self.failed = true;
                format!("FAILED: {error}")
            }
        }
    }

    fn cells(&self) -> [String; 8] {
        let of = |value: &dyn Fn(&TroubleRound) -> f64| Spread::of(self.rounds.iter().map(value));
        let shown = |spread: Option<Spread>, digits| {
            spread.map_or_else(|| "–".to_owned(), |spread: Spread| spread.text(digits))
        };
        let load = of(&|round| round.load);
        // As it is shown.
        let (bar, verdict) = verdict(load.map_or(f64::NAN, |load| (load.0 * 100.0).round() / 100.0), self.bar);
        let verdict = if self.failed { "**errors**" } else { verdict };
        let places = self.rounds.first().map_or(0, |round| round.shares.len());
        let share = |place: usize| of(&|round: &TroubleRound| round.shares[place]).map_or(0.0, |share| share.0);
        let shares: Vec<String> =
            (0..places).map(share).filter(|share| *share > 0.0).map(|share| format!("{share:.1}")).collect();
        [
            self.what.to_owned(),
            shown(of(&|round| round.success), 2),
            shown(of(&|round| round.latency[0]), 2),
            shown(of(&|round| round.latency[1]), 1),
            shares.join(", "),
            shown(load, 2),
            bar,
            verdict.to_owned(),
        ]
    }
}

fn verdict(value: f64, bar: Option<f64>) -> (String, &'static str) {
    match bar {
        Some(bar) if value <= bar => (format!("{bar}"), "met"),
        // Nothing to compare with in a part of a run.
        Some(bar) if value.is_nan() => (format!("{bar}"), ""),
        Some(bar) => (format!("{bar}"), "**missed**"),
        None => ("–".to_owned(), ""),
    }
}

/// All tables in Markdown, aligned so that a terminal can show them.
pub(super) fn table(
    rows: &[Row<'_>],
    memory: &[MemoryRow],
    beside: &[BesideRow],
    rules: &[RuleRow],
    troubles: &[TroubleRow],
) -> String {
    let mut text = String::new();
    if !rows.is_empty() {
        let head = [
            "scenario",
            "subject",
            "per second",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "CPU µs each",
            "× nginx",
            "× nghttpx",
            "at most",
            "",
        ];
        text += &aligned(head, rows.iter().map(|row| cells(row, rows)).collect());
    }
    if !memory.is_empty() {
        let lines = memory.iter().map(|row| {
            let shown = |node: usize| {
                row.values.get(node).map_or_else(|| "–".to_owned(), |value| format!("{value:.1} {}", row.unit))
            };
            let worst = row.values.iter().copied().fold(0.0, f64::max);
            let (bar, verdict) = verdict(worst, row.bar);
            let verdict = if row.failed { "**errors**" } else { verdict };
            [row.what.clone(), shown(0), shown(1), bar, verdict.to_owned()]
        });
        text += "\n";
        text += &aligned(["memory of the proxies", "node 1", "node 2", "at most", ""], lines.collect());
    }
    if !beside.is_empty() {
        let head = ["p99 of another pod's requests, 500/s", "quiet, ms", "beside it, ms", "ratio", "at most", ""];
        text += "\n";
        text += &aligned(head, beside.iter().map(BesideRow::cells).collect());
    }
    if !rules.is_empty() {
        let head = ["HTTP/1.1, two nodes, 16 connections", "CPU µs each", "against", "µs more", "×", "at most", ""];
        text += "\n";
        text += &aligned(head, rules.iter().map(|row| row.cells(rules)).collect());
    }
    if !troubles.is_empty() {
        let head = [
            "endpoints in trouble, 400 requests/s",
            "successes, %",
            "p50 ms",
            "p99 ms",
            "shares of the endpoints, %",
            "requests at endpoints per request",
            "at most",
            "",
        ];
        text += "\n";
        text += &aligned(head, troubles.iter().map(TroubleRow::cells).collect());
    }
    text
}

fn cells(row: &Row<'_>, rows: &[Row<'_>]) -> [String; 11] {
    let peer = |subject| rows.iter().find(|other| other.scenario.name == row.scenario.name && other.subject == subject);
    let ratio = |subject| if row.subject == Subject::Direct { None } else { row.ratio(peer(subject)?) };
    let shown =
        |spread: Option<Spread>, digits| spread.map_or_else(|| "–".to_owned(), |spread: Spread| spread.text(digits));
    let to_nginx = ratio(Subject::Nginx);
    let (bar, verdict) = verdict(to_nginx.map_or(f64::NAN, |ratio| ratio.0), row.scenario.bar(row.subject));
    let verdict = if row.failed() { row.complaint() } else { verdict.to_owned() };
    [
        row.scenario.title.to_owned(),
        row.subject.title().to_owned(),
        shown(Spread::of(row.samples().map(Sample::rate)), 0),
        row.latency(0),
        row.latency(1),
        row.latency(2),
        shown(row.cost(), 1),
        shown(to_nginx, 2),
        shown(ratio(Subject::Nghttpx), 2),
        bar,
        verdict,
    ]
}

fn aligned<const N: usize>(head: [&str; N], lines: Vec<[String; N]>) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .chain([head[column].chars().count(), 3])
            .max()
            .unwrap_or(3)
    });
    let mut text = String::new();
    let mut add = |cells: [String; N]| {
        for (cell, width) in cells.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _written = write!(text, "| {cell:<width$} ");
        }
        text += "|\n";
    };
    add(head.map(str::to_owned));
    add(widths.map(|width| "-".repeat(width)));
    lines.into_iter().for_each(&mut add);
    text
}

/// Of a round, for people.
pub(super) fn seconds(length: Duration) -> String {
    format!("{} s", length.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_median_least_and_greatest() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread(2.0, 1.0, 3.0)));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread(2.5, 1.0, 4.0)));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_bar_is_met_or_missed() {
        assert_eq!(verdict(2.9, Some(2.9)).1, "met");
        assert_eq!(verdict(3.0, Some(2.9)).1, "**missed**");
        assert_eq!(verdict(f64::NAN, Some(2.9)).1, "");
    }
}
