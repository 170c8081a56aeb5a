//! One test for each row of the table; each names events and the state after them.

use o2bridge_core::{OpError, Waiting};

use super::*;

const GROUP: GroupId = GroupId(0xAB);
const NOW: Now = Now(1_000_000);

/// A usage and what it is driven with.
struct Bench {
    usage: Usage,
    ids: Ids,
    out: Vec<Event>,
}

impl Bench {
    fn new() -> Self {
        let mut ids = Ids::default();
        let usage = Usage::new(name(), &mut ids);
        Self { usage, ids, out: Vec::new() }
    }

    fn with<R>(&mut self, now: Now, act: impl FnOnce(&mut Usage, &mut Step<'_>) -> R) -> R {
        let mut step = Step {
            now,
            group: GROUP,
            cluster: Some("lab"),
            ids: &mut self.ids,
            out: &mut self.out,
        };
        act(&mut self.usage, &mut step)
    }

    fn advance(&mut self, wanted: bool, now: Now) -> Vec<Event> {
        self.usage.expire(now);
        self.with(now, |usage, step| usage.advance(wanted, step));
        std::mem::take(&mut self.out)
    }

    fn reply(&mut self, reply: &Reply) -> Vec<Event> {
        self.with(NOW, |usage, step| usage.handle_reply(reply, step));
        std::mem::take(&mut self.out)
    }

    /// The id that was given out last.
    fn last(&self) -> u64 {
        OURS | self.ids.next
    }

    fn request(&self) -> RequestId {
        RequestId(self.last())
    }

    fn begin(&self) -> Event {
        Event::Begin(Begin {
            request: self.request(),
            client: CLIENT,
            group: GROUP,
            service: name(),
            cluster: Some("lab".into()),
            device: None,
            held: false,
        })
    }

    fn complete(&self) -> Event {
        let request = self.request();
        Event::Complete { request, client: CLIENT, group: GROUP, service: name(), code: 0 }
    }

    fn leave(&self) -> Event {
        Event::Leave { request: self.request(), client: CLIENT, group: GROUP, service: name() }
    }
}

const CLIENT: ClientId = ClientId(OURS | 1);

fn name() -> ServiceName {
    ServiceName::new("/srv").unwrap()
}

fn idle() -> Bench {
    Bench::new()
}

fn beginning() -> Bench {
    let mut bench = idle();
    let out = bench.advance(true, NOW);
    assert_eq!(out, [bench.begin()]);
    bench
}

fn completing() -> Bench {
    let mut bench = beginning();
    let out = bench.reply(&Reply::Done);
    assert_eq!(out, [bench.complete()]);
    bench
}

fn live() -> Bench {
    let mut bench = completing();
    assert_eq!(bench.reply(&Reply::Done), []);
    assert_eq!(bench.usage.state, LIVE);
    bench
}

fn anothers() -> Bench {
    let mut bench = beginning();
    assert_eq!(bench.reply(&refused(Refusal::InUse)), []);
    assert_eq!(bench.usage.state, LIVE);
    bench
}

fn assuring() -> Bench {
    let mut bench = live();
    let out = bench.advance(true, NOW.after(ASSURE_MS));
    assert_eq!(out, [bench.begin()]);
    bench
}

fn lapsing() -> Bench {
    let mut bench = anothers();
    assert_eq!(bench.advance(false, NOW), []);
    bench
}

fn leaving() -> Bench {
    let mut bench = live();
    let out = bench.advance(false, NOW);
    assert_eq!(out, [bench.leave()]);
    bench
}

fn again() -> Bench {
    let mut bench = leaving();
    assert_eq!(bench.reply(&refused(Refusal::Busy)), []);
    bench
}

fn pausing() -> Bench {
    let mut bench = beginning();
    assert_eq!(bench.reply(&refused(Refusal::NoCluster)), []);
    bench
}

const LIVE: State = State::Live { assure_at: NOW.after(ASSURE_MS) };

fn refused(refusal: Refusal) -> Reply {
    Reply::Refused(refusal)
}

fn failed() -> Reply {
    refused(Refusal::Failed { what: "attach", error: OpError::Errno(16) })
}

fn pause(ms: u64, reply: &Reply) -> State {
    let is_final = others().into_iter().any(|refusal| refused(refusal) == *reply);
    State::Pausing { until: NOW.after(ms), why: why(reply), is_final }
}

/// The replies of the last column.
fn others() -> Vec<Refusal> {
    vec![
        Refusal::WrongCluster { volume: "a".into(), ours: "b".into() },
        Refusal::DeviceMismatch,
        Refusal::NoCluster,
        Refusal::Expelled,
        Refusal::TooMany { what: "mountgroups", max: 1 },
        Refusal::Stopping,
    ]
}

fn undone() -> Vec<Refusal> {
    let failed = Refusal::Failed { what: "attach", error: OpError::Errno(16) };
    vec![Refusal::NotBegun, Refusal::TimedOut(Waiting::Quorum), failed]
}

fn absent() -> [Refusal; 2] {
    [Refusal::NoGroup, Refusal::NoService]
}

/// Each of these replies leads from one state to another, without an event.
fn lead(from: fn() -> Bench, replies: &[Reply], to: impl Fn(&Reply) -> State) {
    for reply in replies {
        let mut bench = from();
        assert_eq!(bench.reply(reply), [], "{reply:?}");
        assert_eq!(bench.usage.state, to(reply), "{reply:?}");
    }
}

fn all(refusals: impl IntoIterator<Item = Refusal>) -> Vec<Reply> {
    refusals.into_iter().map(Reply::Refused).collect()
}

fn why(reply: &Reply) -> String {
    match reply {
        Reply::Refused(refusal) => refusal.to_string(),
        Reply::Done | Reply::Already => "ended by somebody else".into(),
    }
}

#[test]
fn ids_are_not_those_of_the_doors() {
    let mut ids = Ids::default();
    assert!(is_ours(RequestId(ids.next())));
    assert!(!is_ours(RequestId(0)) && !is_ours(RequestId(u64::MAX >> 1)));
}

#[test]
fn row_idle() {
    let bench = beginning();
    assert_eq!(bench.usage.state, State::Beginning(bench.request()));
    let mut bench = idle();
    assert_eq!(bench.advance(false, NOW), []);
    assert!(bench.usage.is_idle());
    assert_eq!(bench.reply(&Reply::Done), []);
    assert!(bench.usage.is_idle(), "nothing is waited for");
}

#[test]
fn row_beginning() {
    let mut bench = beginning();
    assert_eq!(bench.advance(true, NOW.after(1_000_000)), [], "the core ends it");
    let out = bench.advance(false, NOW);
    assert_eq!(out, [Event::ClientGone { client: CLIENT }, bench.leave()]);
    assert_eq!(bench.usage.state, State::Leaving(bench.request()));

    let bench = completing();
    assert_eq!(bench.usage.state, State::Completing(bench.request()));
    let there = [Reply::Already, refused(Refusal::InUse)];
    lead(beginning, &there, |_| LIVE);
    assert!(anothers().usage.is_anothers && !live().usage.is_anothers);
    let busy = [refused(Refusal::Busy)];
    lead(beginning, &busy, |reply| pause(BUSY_MS, reply));
    let rest = [all(absent()), all(undone()), all(others())].concat();
    lead(beginning, &rest, |reply| pause(RETRY_MS, reply));
}

#[test]
fn row_completing() {
    let mut bench = completing();
    assert_eq!(bench.advance(true, NOW.after(1_000_000)), []);
    assert_eq!(bench.advance(false, NOW), [], "its answer first");
    lead(completing, &[Reply::Done], |_| LIVE);
    lead(completing, &[refused(Refusal::Busy)], |reply| pause(BUSY_MS, reply));
    let there = [Reply::Already, refused(Refusal::InUse)];
    let rest = [there.to_vec(), all(absent()), all(undone()), all(others())].concat();
    lead(completing, &rest, |reply| pause(RETRY_MS, reply));
}

#[test]
fn row_live() {
    let mut bench = live();
    assert_eq!(bench.advance(true, NOW.after(ASSURE_MS - 1)), []);
    assert_eq!(bench.usage.next_at(), Some(NOW.after(ASSURE_MS)));
    let bench = assuring();
    assert_eq!(bench.usage.state, State::Assuring(bench.request()));
    let bench = leaving();
    assert_eq!(bench.usage.state, State::Leaving(bench.request()));
    let bench = lapsing();
    assert_eq!(bench.usage.state, State::Lapsing { until: NOW.after(LAPSE_MS) });
}

#[test]
fn row_assuring() {
    let mut bench = assuring();
    assert!(bench.usage.is_live());
    assert_eq!(bench.advance(true, NOW.after(1_000_000)), []);
    let out = bench.advance(false, NOW);
    assert_eq!(out, [Event::ClientGone { client: CLIENT }, bench.leave()]);
    let mut bench = assuring();
    let out = bench.reply(&Reply::Done);
    assert_eq!(out, [bench.complete()], "somebody had ended it");
    let there = [Reply::Already, refused(Refusal::InUse), refused(Refusal::Busy)];
    lead(assuring, &there, |_| LIVE);
    let rest = [all(absent()), all(undone())].concat();
    lead(assuring, &rest, |reply| pause(RETRY_MS, reply));
    let soon = State::Live { assure_at: NOW.after(RETRY_MS) };
    lead(assuring, &all(others()), |_| soon.clone());
}

#[test]
fn row_lapsing() {
    let mut bench = lapsing();
    assert_eq!(bench.advance(true, NOW), []);
    assert_eq!(bench.usage.state, LIVE);
    assert!(bench.usage.is_anothers, "still");
    let mut bench = lapsing();
    assert_eq!(bench.advance(false, NOW.after(LAPSE_MS - 1)), []);
    let out = bench.advance(false, NOW.after(LAPSE_MS));
    assert_eq!(out, [bench.leave()]);
}

#[test]
fn row_leaving() {
    let mut bench = leaving();
    assert_eq!(bench.advance(true, NOW.after(1_000_000)), []);
    assert_eq!(bench.advance(false, NOW.after(1_000_000)), []);
    lead(leaving, &[vec![Reply::Done], all(absent())].concat(), |_| State::Idle);
    let there = [Reply::Already, refused(Refusal::InUse), refused(Refusal::Busy)];
    let rest = [there.to_vec(), all(undone()), all(others())].concat();
    lead(leaving, &rest, |_| State::Again { at: NOW.after(BUSY_MS) });
}

#[test]
fn row_again() {
    for wanted in [true, false] {
        let mut bench = again();
        assert_eq!(bench.advance(wanted, NOW.after(BUSY_MS - 1)), []);
        let out = bench.advance(wanted, NOW.after(BUSY_MS));
        assert_eq!(out, [bench.leave()]);
    }
}

#[test]
fn row_pausing() {
    let mut bench = pausing();
    assert_eq!(bench.usage.refusal(), Some(Refusal::NoCluster.to_string().as_str()));
    assert_eq!(bench.advance(true, NOW.after(RETRY_MS - 1)), []);
    assert_eq!(bench.advance(false, NOW.after(RETRY_MS - 1)), []);
    bench.usage.expire(NOW.after(RETRY_MS));
    assert!(bench.usage.is_idle());
    let mut bench = pausing();
    bench.usage.hurry(NOW);
    let out = bench.advance(true, NOW);
    assert_eq!(out, [bench.begin()]);
    let mut bench = live();
    bench.usage.hurry(NOW);
    assert_eq!(bench.usage.state, LIVE, "no pause, no hurry");
}

#[test]
fn inherited() {
    let mut bench = idle();
    bench.usage = bench.with(NOW, |_, step| Usage::inherit(name(), true, step));
    assert_eq!(bench.usage.state, LIVE);
    assert_eq!(bench.out, []);
    let mut bench = idle();
    bench.usage = bench.with(NOW, |_, step| Usage::inherit(name(), false, step));
    assert!(matches!(bench.out.as_slice(), [Event::Complete { code: 0, .. }]), "{:?}", bench.out);
    assert_eq!(bench.usage.state, State::Completing(bench.request()));
}

#[test]
fn questions() {
    type Row = (fn() -> Bench, [bool; 5]);
    let rows: [Row; 9] = [
        // idle, live, begun, leaving, refused
        (idle, [true, false, false, false, false]),
        (beginning, [false, false, true, false, false]),
        (completing, [false, false, true, false, false]),
        (live, [false, true, true, false, false]),
        (assuring, [false, true, true, false, false]),
        (lapsing, [false, true, true, false, false]),
        (leaving, [false, false, false, true, false]),
        (again, [false, false, false, true, false]),
        (pausing, [false, false, false, false, true]),
    ];
    for (make, expected) in rows {
        let usage = make().usage;
        let refused = usage.refusal().is_some();
        let are = [usage.is_idle(), usage.is_live(), usage.is_begun(), usage.is_leaving(), refused];
        assert_eq!(are, expected, "{usage:?}");
    }
}

#[test]
fn only_the_request_under_way_is_waited_for() {
    for make in [beginning, completing, assuring, leaving] {
        let bench = make();
        assert!(bench.usage.waits_for(bench.request()));
        assert!(!bench.usage.waits_for(RequestId(bench.last() - 1)));
    }
    for make in [idle, live, lapsing, again, pausing] {
        let bench = make();
        assert!(!bench.usage.waits_for(bench.request()));
    }
    let mut bench = live();
    assert_eq!(bench.reply(&failed()), []);
    assert_eq!(bench.usage.state, LIVE);
}
