//! Stocks: sizes, enrolments, refusals.
use std::time::Duration;

use super::*;

const KIND: SocketKind = SocketKind::Upstream;
const FAMILY: Family = Family::V4;

fn sockets(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| OwnedFd::from(std::fs::File::open("/dev/null").unwrap())).collect()
}

fn take(stocks: &mut Stocks, now: Instant) -> (Taken, usize) {
    let (taken, refill) = stocks.take("a", KIND, FAMILY, now);
    (taken, refill.map_or(0, |Refill(count)| count))
}

#[test]
fn first_use_asks_once_and_grows_when_it_runs_dry() {
    let now = Instant::now();
    let mut stocks = Stocks::default();
    let (taken, refill) = take(&mut stocks, now);
    assert!(matches!(taken, Taken::Empty(_)));
    assert_eq!(refill, limits::STOCK_MIN);
    assert_eq!(take(&mut stocks, now).1, 0, "a second waiter must not ask again");
    let mut asked = limits::STOCK_MIN;
    for _ in 0..10 {
        stocks.put("a", 7, KIND, FAMILY, sockets(asked));
        let mut refill = 0;
        for _ in 0..asked {
            let (taken, more) = take(&mut stocks, now);
            assert!(matches!(taken, Taken::Socket(_)));
            refill = refill.max(more);
        }
        // Everything went before the refill came.
        stocks.put("a", 7, KIND, FAMILY, Vec::new());
        let (taken, more) = take(&mut stocks, now);
        assert!(matches!(taken, Taken::Empty(_)));
        assert!(refill > 0, "half empty asks ahead of need");
        asked = more;
    }
    assert_eq!(asked, limits::STOCK_MAX);
    assert_eq!(stocks.total, 0);
}

#[test]
fn sockets_of_another_enrolment_are_not_handed_out() {
    let now = Instant::now();
    let mut stocks = Stocks::default();
    let _first = take(&mut stocks, now);
    stocks.enrolled("a", 1);
    stocks.put("a", 1, KIND, FAMILY, sockets(4));
    assert!(matches!(take(&mut stocks, now).0, Taken::Socket(_)));
    stocks.enrolled("a", 2);
    assert_eq!(stocks.total, 0);
    assert!(matches!(take(&mut stocks, now).0, Taken::Empty(_)));
    stocks.put("a", 1, KIND, FAMILY, sockets(4));
    assert!(matches!(take(&mut stocks, now).0, Taken::Empty(_)), "late batch of the first enrolment");
}

#[test]
fn a_refusal_is_told_once() {
    let now = Instant::now();
    let mut stocks = Stocks::default();
    let _first = take(&mut stocks, now);
    stocks.refuse("a", KIND, FAMILY, "not enrolled".to_owned());
    assert!(matches!(take(&mut stocks, now).0, Taken::Refused(_)));
    let (taken, refill) = take(&mut stocks, now);
    assert!(matches!(taken, Taken::Empty(_)) && refill > 0);
}

#[test]
fn idle_stocks_are_closed() {
    let now = Instant::now();
    let mut stocks = Stocks::default();
    let _first = take(&mut stocks, now);
    stocks.put("a", 1, KIND, FAMILY, sockets(4));
    stocks.sweep(now + limits::STOCK_IDLE - Duration::from_millis(1));
    assert_eq!(stocks.total, 4);
    stocks.sweep(now + limits::STOCK_IDLE);
    assert_eq!(stocks.total, 0);
}
