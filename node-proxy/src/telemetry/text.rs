//! The two text formats: Prometheus 0.0.4 and OpenMetrics 1.0.
//!
//! Must never write a sample outside its family: OpenMetrics wants them together.

use std::fmt::{Display, Write as _};

use super::families::{Family, Kind};

/// Which text a scraper gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`
    OpenMetrics,
}

impl Format {
    /// What the scraper prefers among what there is; Prometheus text when it does not say.
    pub fn negotiate(accept: Option<&str>) -> Format {
        let mut best = (Format::Prometheus, 0.0_f32);
        for offer in accept.unwrap_or_default().split(',') {
            let mut parts = offer.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let mut quality = 1.0_f32;
            let mut version = None;
            for part in parts {
                if let Some(value) = part.strip_prefix("q=") {
                    quality = value.parse().unwrap_or(0.0);
                } else if let Some(value) = part.strip_prefix("version=") {
                    version = Some(value);
                }
            }
            let format = match (kind, version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => Format::OpenMetrics,
                ("text/plain", None | Some("0.0.4")) => Format::Prometheus,
                _ => continue,
            };
            if quality > best.1 {
                best = (format, quality);
            }
        }
        best.0
    }

    /// Value of the response's `content-type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Text in the making.
pub(super) struct Text {
    format: Format,
    text: String,
}

impl Text {
    pub(super) fn new(format: Format) -> Text {
        Text { format, text: String::new() }
    }

    /// Bytes written and not taken yet.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Hands over what was written.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// `# HELP` and `# TYPE`. Once per family, before its samples.
    pub(super) fn family(&mut self, family: &Family) {
        let name = match (self.format, family.kind) {
            (Format::OpenMetrics, Kind::Counter) => family.name.strip_suffix("_total").unwrap_or(family.name),
            _ => family.name,
        };
        let kind = family.kind.name();
        // Help texts are ours: no character in them needs an escape in either format.
        let help = family.help;
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// One sample. `labels` are written pairs already, `extra` are appended.
    pub(super) fn sample(&mut self, family: &Family, labels: &str, extra: &[(&str, &str)], value: impl Display) {
        self.labelled(family.name, "", labels, extra, value);
    }

    /// A histogram: `counts` per bucket of `bounds` and one more, not cumulative.
    pub(super) fn histogram(&mut self, family: &Family, labels: &str, bounds: &[f64], counts: &[u64], sum: f64) {
        let mut cumulative = 0;
        for (index, count) in counts.iter().enumerate() {
            cumulative += count;
            match (bounds.get(index), self.format) {
                (Some(bound), Format::Prometheus) => {
                    self.bucket(family, labels, format_args!("{bound}"), cumulative);
                }
                (Some(bound), Format::OpenMetrics) => {
                    self.bucket(family, labels, format_args!("{bound:?}"), cumulative);
                }
                (None, _) => self.bucket(family, labels, format_args!("+Inf"), cumulative),
            }
        }
        self.labelled(family.name, "_sum", labels, &[], sum);
        self.labelled(family.name, "_count", labels, &[], cumulative);
    }

    /// What has to follow the last family.
    pub(super) fn end(&mut self) {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
    }

    fn bucket(&mut self, family: &Family, labels: &str, bound: std::fmt::Arguments<'_>, count: u64) {
        let name = family.name;
        let comma = if labels.is_empty() { "" } else { "," };
        self.write(format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}\n"));
    }

    fn labelled(&mut self, name: &str, suffix: &str, labels: &str, extra: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        if !labels.is_empty() || !extra.is_empty() {
            self.text.push('{');
            self.text.push_str(labels);
            for (index, (name, value)) in extra.iter().enumerate() {
                let comma = if index > 0 || !labels.is_empty() { "," } else { "" };
                // Extra labels are ours: nothing in them needs an escape.
                self.write(format_args!("{comma}{name}=\"{value}\""));
            }
            self.text.push('}');
        }
        self.write(format_args!(" {value}\n"));
    }

    fn write(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing into a String cannot fail.
        let _infallible = self.text.write_fmt(arguments);
    }
}
