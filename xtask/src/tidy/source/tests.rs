//! Comments and literals must not look like code, and code must not look like them.

use super::{Source, item_end, words};

fn code(text: &str) -> String {
    Source::new("a.rs", text).code
}

#[test]
fn comments_and_literals_are_blanked_and_lines_stay() {
    let blanked =
        code("let a = \"unsafe { \\\" }\"; // unsafe\n/* x /* y */ unsafe */ let b = r#\"un\"safe\"#;\nlet é = 'é';");
    assert!(!blanked.contains("unsafe") && !blanked.contains("safe"), "{blanked}");
    assert_eq!(blanked.lines().count(), 3);
    assert!(blanked.contains("let b =") && blanked.contains("let é ="), "{blanked}");
}

#[test]
fn lifetimes_and_raw_identifiers_are_code() {
    let text = "fn f<'a>(r#type: &'a str) -> &'a str { match c { '{' => b'\\'', _ => x } }";
    let blanked = code(text);
    assert!(blanked.contains("fn f<'a>(r#type: &'a str)"), "{blanked}");
    assert_eq!(blanked.matches('{').count(), 2);
    assert_eq!(blanked.matches('}').count(), 2);
}

#[test]
fn words_are_whole() {
    let found: Vec<usize> = words("http hyper_http http2 (http)", "http").collect();
    assert_eq!(found, [0, 23]);
}

#[test]
fn items_end_where_they_end() {
    assert_eq!(item_end("mod a; x", 0), 6);
    let text = "fn f(a: [u8; 2]) { if b { c; } } x";
    assert_eq!(text.get(item_end(text, 0)..), Some(" x"));
}

#[test]
fn tests_are_told_from_the_package_of_that_name() {
    let is_test = |path: &str| Source::new(path, "").is_test();
    assert!(is_test("node-proxy/src/a/tests.rs") && is_test("tests/tests/capture.rs") && is_test("control/tests/x.rs"));
    assert!(is_test("node-proxy/src/a/tests/long.rs"));
    assert!(!is_test("tests/src/netns.rs") && !is_test("node-proxy/src/a.rs"));
}
