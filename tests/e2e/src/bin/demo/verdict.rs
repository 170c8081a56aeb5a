//! Whether the record files say what must be said: each death once, no leave as a death.

use std::collections::BTreeMap;

use o2bridge_e2e::{Record, Verb};

/// What the story did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Story {
    /// Who stayed to the end.
    pub(crate) stayed: u32,
    /// Who left cleanly, after the death.
    pub(crate) left: u32,
    /// Who was killed, and came back.
    pub(crate) killed: u32,
}

/// Compares what every shim was told with the story; one sentence for each difference.
pub(crate) fn problems(story: Story, told: &BTreeMap<u32, Vec<Record>>) -> Vec<String> {
    let Story { stayed, left, killed } = story;
    let mut found = Vec::new();
    for survivor in [stayed, left] {
        let expected = vec![killed];
        expect(&mut found, survivor, "node_down", &expected, &deaths(told, survivor));
    }
    expect(&mut found, killed, "node_down", &Vec::new(), &deaths(told, killed));
    let all = vec![stayed, left, killed];
    let last = |node| told.get(&node).and_then(|records| records.last()).map(|r| r.verb.clone());
    let end = Some(Verb::Resume(vec![stayed, killed]));
    expect(&mut found, stayed, "last line", &end, &last(stayed));
    expect(&mut found, left, "last line", &Some(Verb::Detach), &last(left));
    for survivor in [stayed, left] {
        let records = told.get(&survivor).map_or(&[][..], Vec::as_slice);
        found.extend(order_around_death(survivor, killed, &all, records));
    }
    let attaches = told.get(&killed).map_or(0, |records| {
        records.iter().filter(|record| matches!(record.verb, Verb::Attach(_))).count()
    });
    expect(
        &mut found,
        killed,
        "number of attaches (before the death, after the return)",
        &2,
        &attaches,
    );
    found
}

/// What was checked, and how long the death took to reach each survivor's shim.
pub(crate) fn summary(
    story: Story,
    power_cut_us: i64,
    told: &BTreeMap<u32, Vec<Record>>,
) -> String {
    let mut text = String::from("demo: OK.");
    for survivor in [story.stayed, story.left] {
        let records = told.get(&survivor).map_or(&[][..], Vec::as_slice);
        let death = records.iter().find(|record| record.verb == Verb::NodeDown(story.killed));
        let Some(death) = death else { continue };
        let since_ms = death.at_us.saturating_sub(power_cut_us) / 1000;
        let (seconds, ms) = (since_ms / 1000, since_ms % 1000);
        text += &format!(
            "\n  node {survivor}: exactly one node_down of node {}, {seconds}.{ms:03} s after the \
             power cut; none for any other node",
            story.killed
        );
    }
    text + &format!("\n  node {} left cleanly: nobody was told that it died", story.left)
}

fn expect<T: PartialEq + std::fmt::Debug>(
    found: &mut Vec<String>,
    node: u32,
    what: &str,
    expected: &T,
    seen: &T,
) {
    if expected != seen {
        found.push(format!("node {node}: {what}: expected {expected:?}, found {seen:?}"));
    }
}

fn deaths(told: &BTreeMap<u32, Vec<Record>>, node: u32) -> Vec<u32> {
    let records = told.get(&node).map_or(&[][..], Vec::as_slice);
    let death = |record: &Record| match record.verb {
        Verb::NodeDown(dead) => Some(dead),
        Verb::Attach(_) | Verb::Suspend | Verb::Resume(_) | Verb::Detach => None,
    };
    records.iter().filter_map(death).collect()
}

/// Suspend, the death, then a resume without the dead.
fn order_around_death(node: u32, killed: u32, all: &[u32], told: &[Record]) -> Vec<String> {
    let mut found = Vec::new();
    let Some(at) = told.iter().position(|record| record.verb == Verb::NodeDown(killed)) else {
        return found;
    };
    let before = at.checked_sub(1).and_then(|index| told.get(index)).map(|r| r.verb.clone());
    expect(&mut found, node, "line before the death", &Some(Verb::Suspend), &before);
    let rest: Vec<u32> = all.iter().copied().filter(|node| *node != killed).collect();
    let after = told.get(at + 1).map(|record| record.verb.clone());
    expect(&mut found, node, "line after the death", &Some(Verb::Resume(rest)), &after);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORY: Story = Story { stayed: 1, left: 2, killed: 3 };

    fn told(lists: [&[Verb]; 3]) -> BTreeMap<u32, Vec<Record>> {
        let record = |verb: &Verb| Record {
            at_us: 0,
            boot_us: 0,
            group: String::new(),
            verb: verb.clone(),
            uses: BTreeMap::new(),
        };
        (1..).zip(lists.map(|list| list.iter().map(record).collect())).collect()
    }

    fn good() -> [Vec<Verb>; 3] {
        let death = [Verb::Suspend, Verb::NodeDown(3), Verb::Resume(vec![1, 2])];
        let mut one = vec![Verb::Attach(vec![1])];
        one.extend(death.clone());
        one.extend([Verb::Suspend, Verb::Resume(vec![1])]);
        one.extend([Verb::Suspend, Verb::Resume(vec![1, 3])]);
        let mut two = vec![Verb::Attach(vec![1, 2])];
        two.extend(death);
        two.push(Verb::Detach);
        let three = vec![Verb::Attach(vec![1, 2, 3]), Verb::Attach(vec![1, 3])];
        [one, two, three]
    }

    fn judge(change: impl FnOnce(&mut [Vec<Verb>; 3])) -> Vec<String> {
        let mut lists = good();
        change(&mut lists);
        problems(STORY, &told([&lists[0], &lists[1], &lists[2]]))
    }

    #[test]
    fn the_story_as_it_should_be() {
        assert_eq!(judge(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn each_departure_from_it_is_named() {
        let twice = judge(|told| told[0].insert(3, Verb::NodeDown(3)));
        assert!(twice.iter().any(|text| text.contains("node 1: node_down")), "{twice:?}");
        let missed = judge(|told| told[1].retain(|verb| *verb != Verb::NodeDown(3)));
        assert_eq!(missed, ["node 2: node_down: expected [3], found []"]);
        let leaver_buried = judge(|told| told[0].insert(5, Verb::NodeDown(2)));
        assert_eq!(leaver_buried, ["node 1: node_down: expected [3], found [3, 2]"]);
        let early = judge(|told| told[1].swap(1, 2));
        assert!(early.iter().any(|text| text.contains("line before the death")), "{early:?}");
        let gone = judge(|told| told[2].truncate(1));
        assert!(gone.iter().any(|text| text.contains("attaches")), "{gone:?}");
        let nothing = problems(STORY, &BTreeMap::new());
        assert!(nothing.len() >= 4, "{nothing:?}");
    }
}
