use std::time::Duration;

use super::*;

/// Looks at these milliseconds after the begin, with nodes and a successor or without, and says when it ended and why.
fn looked(at: &[(u64, bool, bool)]) -> Option<(u64, Reason)> {
    let begin = Instant::now();
    let mut leaving = Leaving::begin(begin);
    at.iter().find_map(|&(at, has_nodes, has_successor)| {
        let reason = leaving.look(begin + Duration::from_millis(at), has_nodes, has_successor)?;
        Some((at, reason))
    })
}

/// A node that is away for a moment is not gone. Seen to fail with one look.
#[test]
fn who_serves_nobody_ends_soon() {
    let away = [(0, false, false), (900, true, false), (1_000, false, false), (1_999, false, false)];
    assert_eq!(looked(&away), None);
    assert_eq!(looked(&[&away[..], &[(2_000, false, false)]].concat()), Some((2_000, Reason::Deserted)));
}

/// Seen to fail with a successor that counts as soon as it is there, and with the time that one was ready before.
#[test]
fn nodes_are_served_until_another_replica_has_been_ready_for_a_while() {
    let coming = [(0, true, false), (500, true, true), (1_499, true, true), (1_500, true, false), (1_600, true, true)];
    assert_eq!(looked(&coming), None);
    assert_eq!(looked(&[&coming[..], &[(2_600, true, true)]].concat()), Some((2_600, Reason::Succeeded)));
}

#[test]
fn without_a_successor_it_ends_before_it_is_killed() {
    assert_eq!(looked(&[(0, true, false), (19_999, true, false)]), None);
    assert_eq!(looked(&[(0, true, false), (20_000, true, false)]), Some((20_000, Reason::Late)));
    let manifest = include_str!("../../../deploy/chart/templates/mesh/control.yaml");
    let killed = manifest.split("terminationGracePeriodSeconds: ").nth(1).and_then(|rest| rest.lines().next());
    let killed = Duration::from_secs(killed.unwrap().parse().unwrap());
    assert!(limits::LEAVING + limits::LEAVING_LOOK + limits::SHUTDOWN * 2 < killed, "{killed:?}");
}
