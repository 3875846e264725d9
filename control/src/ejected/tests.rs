use weir_api::v1;

use super::*;
use crate::fixtures;

fn index(pods: &[&str]) -> Index {
    let mut index = Index::default();
    fixtures::upsert(&mut index, fixtures::NAMESPACE);
    for (number, name) in pods.iter().enumerate() {
        fixtures::upsert(&mut index, &fixtures::pod(name, "n", &format!("10.0.{}.{}", number / 250, number % 250), ""));
    }
    index
}

/// Nodes, each with the pods that it has taken out of `demo/web` port 80.
fn nodes(out: &[&[&str]]) -> Gathered {
    let node = |(number, pods): (usize, &&[&str])| {
        let out = pods.iter().map(|pod| v1::OutEndpoint {
            service: "demo/web".to_owned(),
            port: 80,
            uid: format!("uid-{pod}"),
        });
        let name = format!("n-{number}");
        (name.clone(), v1::ConnectedNode { node_name: name, out: out.collect(), ..v1::ConnectedNode::default() })
    };
    Gathered { nodes: out.iter().enumerate().map(node).collect(), ..Gathered::default() }
}

fn words(news: &[Notice]) -> Vec<(&str, &str)> {
    news.iter().map(|notice| (notice.name.as_str(), notice.reason.as_str())).collect()
}

#[test]
fn out_is_told_once_for_all_nodes_and_back_when_it_is_so_at_the_last() {
    let (mut ejected, index, now) = (Ejected::default(), index(&["a", "b"]), Instant::now());
    let mut look = |out: &[&[&str]], occasion: &str| ejected.look(&nodes(out), &index, now, occasion);
    assert!(look(&[&[], &[]], "0").is_empty());
    let news = look(&[&["a"], &["a"], &[]], "1");
    assert_eq!(words(&news), [("a", "EndpointEjected")]);
    assert!(news[0].note.contains("demo/web port 80 (at 2 nodes)") && &*news[0].occasion == "1", "{news:?}");
    assert!(news[0].reason.is_warning());
    assert!(look(&[&["a"], &["a"], &["a"]], "2").is_empty(), "further nodes are no news");
    assert!(look(&[&[], &[], &["a"]], "3").is_empty(), "one still has it out");
    let news = look(&[&[], &[], &[]], "4");
    assert_eq!(words(&news), [("a", "EndpointReinstated")]);
    assert!(!news[0].reason.is_warning() && news[0].note.contains("demo/web port 80"), "{news:?}");
    assert!(look(&[&[], &[], &[]], "5").is_empty());
}

/// Seen to fail without the allowance.
#[test]
fn one_that_goes_in_and_out_at_a_hundred_nodes_is_told_of_once_a_minute() {
    let (mut ejected, index, begin) = (Ejected::default(), index(&["a"]), Instant::now());
    let out = |is_out: bool| nodes(&vec![if is_out { &["a"][..] } else { &[] }; 100]);
    let mut told = 0;
    // An hour, with a change each ten seconds.
    for step in 0..360 {
        let now = begin + Duration::from_secs(step * 10);
        told += ejected.look(&out(step % 2 == 0), &index, now, "").len();
    }
    assert!((40..=4 + 60).contains(&told), "{told}");
    // What is true is told in the end, and then all is forgotten.
    let end = begin + Duration::from_secs(3_700);
    ejected.look(&out(false), &index, end, "");
    assert!(ejected.pods.values().all(|told| told.out.is_empty()), "{ejected:?}");
    ejected.look(&out(false), &index, end + Duration::from_secs(300), "");
    assert!(ejected.pods.is_empty(), "{ejected:?}");
}

#[test]
fn what_a_silent_replica_may_know_is_not_called_back() {
    let (mut ejected, index, now) = (Ejected::default(), index(&["a"]), Instant::now());
    assert_eq!(ejected.look(&nodes(&[&["a"]]), &index, now, "").len(), 1);
    let asleep = v1::Replica { problem: "asleep".to_owned(), ..v1::Replica::default() };
    let partial = Gathered { replicas: vec![asleep], ..nodes(&[]) };
    assert!(ejected.look(&partial, &index, now, "").is_empty());
    assert_eq!(words(&ejected.look(&nodes(&[]), &index, now, "")), [("a", "EndpointReinstated")]);
}

#[test]
fn of_many_each_is_told_in_the_end_and_of_the_gone_nobody() {
    let names: Vec<String> = (0..limits::EJECTIONS_PER_LOOK * 2 + 5).map(|number| format!("p{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut ejected, index, now) = (Ejected::default(), index(&names), Instant::now());
    let gathered = nodes(&[&names, &["gone"]]);
    let counts: Vec<usize> = (0..4).map(|_| ejected.look(&gathered, &index, now, "").len()).collect();
    assert_eq!(counts, [limits::EJECTIONS_PER_LOOK, limits::EJECTIONS_PER_LOOK, 5, 0]);
    ejected.look(&gathered, &Index::default(), now, "");
    assert!(ejected.pods.is_empty(), "pods that are gone");
}
