use weir_api::v1;

use super::*;
use crate::fixtures;

fn index(pods: &[&str]) -> Index {
    let mut index = Index::default();
    fixtures::upsert(&mut index, fixtures::NAMESPACE);
    let address = |number: usize| format!("10.0.{}.{}", number / 250, number % 250);
    for (number, name) in pods.iter().enumerate() {
        fixtures::upsert(&mut index, &fixtures::pod(name, "n", &address(number), ""));
    }
    let addresses: Vec<String> = (0..pods.len()).map(address).collect();
    let endpoints: Vec<(&str, bool)> = addresses.iter().map(|one| (one.as_str(), true)).collect();
    fixtures::upsert(&mut index, &format!("{}{}", fixtures::SERVICE, fixtures::slice(&endpoints)));
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
        (
            name.clone(),
            v1::ConnectedNode {
                node_name: name,
                out: out.collect(),
                has_said_out: true,
                ..v1::ConnectedNode::default()
            },
        )
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
    // However long that takes, its nodes then have a minute to come to another one.
    let later = now + limits::OUT_NODE_GONE * 3;
    assert!(ejected.look(&partial, &index, later, "").is_empty());
    assert!(ejected.look(&nodes(&[]), &index, later + limits::OUT_NODE_GONE / 2, "").is_empty());
    assert_eq!(words(&ejected.look(&nodes(&[&[]]), &index, now, "")), [("a", "EndpointReinstated")]);
}

/// A stream that breaks and comes again is no news, and neither is a list that another endpoint pushes one off. Seen to fail where what is not
/// listed is back.
#[test]
fn what_a_node_does_not_say_is_not_called_back() {
    let (index, now) = (index(&["a"]), Instant::now());
    let out = || {
        let mut ejected = Ejected::default();
        assert_eq!(ejected.look(&nodes(&[&["a"], &[]]), &index, now, "").len(), 1);
        ejected
    };
    let mut ejected = out();
    let mut mute = nodes(&[&[], &[]]);
    mute.nodes.get_mut("n-0").unwrap().has_said_out = false;
    let mut gone = nodes(&[&[], &[]]);
    gone.nodes.remove("n-0");
    for silent in [&gone, &mute] {
        assert!(ejected.look(silent, &index, now + limits::OUT_NODE_GONE / 2, "").is_empty());
    }
    assert!(ejected.look(&nodes(&[&["a"], &[]]), &index, now + limits::OUT_NODE_GONE / 2, "").is_empty(), "no news");
    let later = now + limits::OUT_NODE_GONE;
    assert!(ejected.look(&gone, &index, later, "").is_empty(), "it was heard of half a minute ago");
    assert_eq!(words(&ejected.look(&gone, &index, later + limits::OUT_NODE_GONE, "")), [("a", "EndpointReinstated")]);

    let mut ejected = out();
    let others: Vec<String> = (0..limits::OUT_PER_NODE).map(|number| format!("other-{number}")).collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    assert!(ejected.look(&nodes(&[&others, &[]]), &index, later, "").is_empty(), "its list is full");
    assert_eq!(ejected.look(&nodes(&[&[], &[]]), &index, later, "").len(), 1);
}

/// A node that was taken over must not write on pods that it has nothing to do with.
#[test]
fn what_cannot_be_is_not_told() {
    let (mut ejected, index, now) = (Ejected::default(), index(&["a"]), Instant::now());
    let mut index = index;
    fixtures::upsert(&mut index, &fixtures::pod("alone", "n", "10.9.0.1", ""));
    let mut said = nodes(&[&["alone"]]);
    for (service, port, uid) in [
        ("demo/none", 80, "uid-a"),
        ("demo/web", 81, "uid-a"),
        ("see example.com", 80, "uid-a"),
        ("demo/web", 80, "uid-b"),
    ] {
        let one = v1::OutEndpoint { service: service.to_owned(), port, uid: uid.to_owned() };
        said.nodes.get_mut("n-0").unwrap().out.push(one);
    }
    assert!(ejected.look(&said, &index, now, "").is_empty());
    assert_eq!(ejected.look(&nodes(&[&["a", "alone"]]), &index, now, "").len(), 1);
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
