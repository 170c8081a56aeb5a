//! What a person wrote, and what a bug left behind.

use std::path::Path;

use o2bridge_sim::run;
use o2bridge_sim::scenario::Scenario;

fn here(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn every_scenario_ends_as_it_says() {
    let mut files: Vec<_> = std::fs::read_dir(here("scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    let mut failures = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let scenario =
            Scenario::parse(&text).unwrap_or_else(|bad| panic!("{}: {bad}", path.display()));
        assert!(!scenario.schedule.is_empty(), "{}: nothing happens", path.display());
        if let (_, Err(text)) = scenario.run(false) {
            failures.push(format!("{}: {text}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_seed_that_once_failed_is_fine() {
    let text = std::fs::read_to_string(here("seeds.txt")).unwrap();
    let seeds: Vec<u64> = text
        .lines()
        .filter_map(|line| line.split('#').next())
        .filter(|it| !it.trim().is_empty())
        .map(|it| it.trim().parse().expect("a seed"))
        .collect();
    assert!(!seeds.is_empty());
    for seed in seeds {
        let run = run::seed(seed, false);
        assert_eq!(run.result, Ok(()), "seed {seed}");
    }
}
