//! The cluster itself: its API server, version and clock. Must never need rights that not every user has.

use std::time::{SystemTime, UNIX_EPOCH};

use http::Request;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::client::Body;

use super::finding::{Finding, Verdict, found};
use crate::{cluster::Cluster, duration, error::CliError, limits};

const API: &str = "kubernetes-api";
const VERSION: &str = "kubernetes-version";
const CLIENT: &str = "can initialize the client";
const QUERY: &str = "can query the Kubernetes API";
/// The first with what the chart uses (tokens that name the node of their pod, `securityContext.appArmorProfile`).
const OLDEST: (u32, u32) = (1, 30);

/// No client can be made.
pub(super) fn unusable(error: &CliError) -> (String, Finding) {
    found(API, CLIENT, Some((Verdict::Error, error.line())))
}

/// And whether it makes sense to ask for more.
pub(super) async fn findings(cluster: &Cluster) -> (Vec<(String, Finding)>, bool) {
    let mut all = vec![found(API, CLIENT, None)];
    match ask(cluster).await {
        Ok((info, date)) => {
            all.push(found(API, QUERY, None));
            all.push(found(API, "clock of this machine agrees with the API server's", skew(date)));
            all.push(version(&info));
            (all, true)
        }
        Err(error) => {
            all.push(found(API, QUERY, Some((Verdict::Error, error.line()))));
            (all, false)
        }
    }
}

/// Version, and what time the answer says it is.
async fn ask(cluster: &Cluster) -> Result<(Info, Option<SystemTime>), CliError> {
    let call = async {
        let request = Request::get("/version").body(Body::empty()).map_err(kube::Error::HttpError)?;
        let response = cluster.client.send(request).await?;
        let date = response.headers().get(http::header::DATE).and_then(|date| date.to_str().ok()).and_then(http_date);
        Ok((cluster.client.apiserver_version().await?, date))
    };
    cluster.ask("asking for its version", call).await
}

/// Certificates and tokens are short-lived: whoever's clock is off believes them expired, or not valid yet.
fn skew(date: Option<SystemTime>) -> Option<(Verdict, String)> {
    let Some(date) = date else {
        return Some((
            Verdict::Warning,
            "the API server's answer has no date: the clocks were not compared".to_owned(),
        ));
    };
    let now = SystemTime::now();
    let apart = now.duration_since(date).or_else(|_before| date.duration_since(now)).unwrap_or_default();
    let verdict = match apart {
        apart if apart > limits::SKEW_ERROR => Verdict::Error,
        apart if apart > limits::SKEW_WARNING => Verdict::Warning,
        _close => return None,
    };
    let apart = duration::rough(apart.as_secs());
    Some((
        verdict,
        format!("they are {apart} apart: set both by NTP; certificates look expired, or not valid yet, to who is off"),
    ))
}

fn version(info: &Info) -> (String, Finding) {
    let number = |text: &str| text.trim_end_matches(|other: char| !other.is_ascii_digit()).parse::<u32>().ok();
    let (least_major, least_minor) = OLDEST;
    let problem = match (number(&info.major), number(&info.minor)) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => None,
        (Some(_), Some(_)) => Some((
            Verdict::Error,
            format!("it is {}, and {least_major}.{least_minor} is needed: upgrade the cluster", info.git_version),
        )),
        _ => Some((
            Verdict::Warning,
            format!("{:?} is no version: {least_major}.{least_minor} is needed", info.git_version),
        )),
    };
    found(VERSION, "is running the minimum Kubernetes API version", problem)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that servers write (RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let rest = text.split_once(", ")?.1.strip_suffix(" GMT")?;
    let mut words = rest.split(' ');
    let day: i64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = i64::try_from(MONTHS.iter().position(|month| *month == name)?).ok()? + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if !(1970..=9_999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    // Civil date to days: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_of_http() {
        let unix = |text: &str| http_date(text).and_then(|time| Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs()));
        assert_eq!(unix("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(unix("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        for wrong in [
            "",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 6 Xxx 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "x, 06 Nov 99999999999 08:49:37 GMT",
        ] {
            assert_eq!(unix(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn clocks() {
        let verdict = |off: Duration| skew(Some(SystemTime::now() - off)).map(|(verdict, _)| verdict);
        assert_eq!(verdict(Duration::from_secs(1)), None);
        assert_eq!(verdict(limits::SKEW_WARNING + Duration::from_secs(1)), Some(Verdict::Warning));
        assert_eq!(verdict(limits::SKEW_ERROR + Duration::from_secs(1)), Some(Verdict::Error));
        let ahead = skew(Some(SystemTime::now() + limits::SKEW_ERROR * 2)).unwrap();
        assert!(ahead.0 == Verdict::Error && ahead.1.contains("NTP"), "{ahead:?}");
        assert_eq!(skew(None).unwrap().0, Verdict::Warning);
    }

    #[test]
    fn versions() {
        let verdict = |major: &str, minor: &str| {
            let info = Info { major: major.into(), minor: minor.into(), git_version: "v".into(), ..Info::default() };
            version(&info).1.result
        };
        assert_eq!(verdict("1", "34"), Verdict::Success);
        assert_eq!(verdict("1", "30+"), Verdict::Success);
        assert_eq!(verdict("1", "29"), Verdict::Error);
        assert_eq!(verdict("", ""), Verdict::Warning);
    }
}
