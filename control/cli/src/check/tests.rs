use weir_api::v1::{CheckOutcome, CheckResult, NodeVersion, VersionResponse};

use super::{
    control::{compare, foreign},
    finding::{Finding, Summary, Verdict, text},
};
use crate::version;

fn finding(category: &str, outcome: CheckOutcome) -> (String, Finding) {
    foreign(CheckResult {
        category: category.into(),
        description: format!("{category} is fine"),
        outcome: outcome.into(),
        hint: "do\x1bthis".into(),
    })
}

#[test]
fn categories_keep_their_order_and_hints_show_on_problems_only() {
    let summary = Summary::new(vec![
        finding("b", CheckOutcome::Success),
        finding("a", CheckOutcome::Warning),
        finding("b", CheckOutcome::Error),
    ]);
    let expected = "b\n-\n√ b is fine\n× b is fine\n    do\\u{1b}this\n\na\n-\n‼ a is fine\n    do\\u{1b}this\n\n\
                    Status check results are ×\n";
    assert_eq!(text(&summary, false, true), expected);
    assert!(!summary.success);
}

#[test]
fn nodes_that_are_alike_make_one_line_and_hints_keep_their_lines() {
    let bad = |hint: &str| foreign(CheckResult { hint: hint.into(), ..CheckResult::default() });
    let summary = Summary::new(vec![
        finding("n", CheckOutcome::Success),
        finding("n", CheckOutcome::Success),
        bad("a: no\nb: no\x1b"),
        bad("c: no"),
    ]);
    let shown = text(&summary, false, true);
    assert!(shown.starts_with("n\n-\n√ n is fine (2 times)\n"), "{shown}");
    assert!(shown.contains("    a: no\n    b: no\\u{1b}\n‼ \n    c: no\n"), "{shown}");
}

#[test]
fn warnings_are_no_failure_and_strange_outcomes_are_warnings() {
    let strange = foreign(CheckResult { outcome: 99, ..CheckResult::default() });
    assert_eq!(strange.1.result, Verdict::Warning);
    assert!(Summary::new(vec![strange]).success);
}

#[test]
fn json_has_linkerds_names() {
    let summary = Summary::new(vec![finding("a", CheckOutcome::Success)]);
    let value = serde_json::to_value(&summary).unwrap();
    assert_eq!(value["success"], true);
    assert_eq!(value["categories"][0]["categoryName"], "a");
    assert_eq!(value["categories"][0]["checks"][0]["result"], "success");
}

#[test]
fn versions_are_compared() {
    let node = |name: &str, version: &str| NodeVersion { node_name: name.into(), version: version.into() };
    let verdicts = |control: &str, nodes: Vec<NodeVersion>| -> Vec<Verdict> {
        let answer = VersionResponse { control: control.into(), nodes, replicas: Vec::new() };
        compare(&answer).into_iter().map(|(_, finding)| finding.result).collect()
    };
    let own = version::CLIENT;
    assert_eq!(verdicts(own, vec![node("a", own)]), [Verdict::Success; 3]);
    assert_eq!(verdicts("9", vec![node("a", "9")]), [Verdict::Warning, Verdict::Success, Verdict::Success]);
    assert_eq!(verdicts(own, vec![node("a", "9")]), [Verdict::Success, Verdict::Warning, Verdict::Success]);
    let many = VersionResponse { control: own.into(), nodes: vec![node("n", "9"); 20], replicas: Vec::new() };
    assert!(compare(&many)[1].1.hint.contains("and 12 more"));
}

#[test]
fn the_short_form_shows_only_what_is_wrong() {
    let summary = Summary::new(vec![
        finding("well", CheckOutcome::Success),
        finding("mixed", CheckOutcome::Success),
        finding("mixed", CheckOutcome::Error),
    ]);
    let expected = "mixed\n-----\n× mixed is fine\n    do\\u{1b}this\n\nStatus check results are ×\n";
    assert_eq!(text(&summary, false, false), expected);
    let good = Summary::new(vec![finding("well", CheckOutcome::Success)]);
    assert_eq!(text(&good, false, false), "Status check results are √\n");
}

#[test]
fn only_what_comes_by_itself_is_waited_for() {
    let (category, error) = finding("a", CheckOutcome::Error);
    let still = Finding { patience: true, ..finding("a", CheckOutcome::Warning).1 };
    let wrong = Finding { patience: false, ..finding("a", CheckOutcome::Error).1 };
    assert!(!Summary::new(vec![(category.clone(), still), (category.clone(), wrong)]).may_heal());
    assert!(Summary::new(vec![(category, error.worth_waiting())]).may_heal());
}
