//! The mutants follow the source. Whether they are caught is `make mutants`.

use std::path::Path;

use o2bridge_sim::mutant::Mutant;

const ONE: &str = "\
name: one
why: It would be
  a disaster.
caught_by: gate or rest
seeds_max: 7

file: a.rs
--- find
    old();
--- replace
    new();
--- end
";

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn every_mutant_fits_the_source() {
    let mutants = Mutant::read_all(&root().join("tests/sim/mutants")).expect("readable mutants");
    assert!(mutants.len() >= 16, "only {} mutants", mutants.len());
    for mutant in mutants {
        for change in &mutant.changes {
            let source = std::fs::read_to_string(root().join(&change.file)).expect(&change.file);
            change.apply(&source).unwrap_or_else(|error| panic!("{}: {error}", mutant.name));
        }
    }
}

/// No checker can die unnoticed: a mutant has to be caught by it, or it has a test of its own in `src/check/tests.rs`
/// or `tests/runs.rs`.
#[test]
fn every_checker_is_shown_to_speak() {
    let source = std::fs::read_to_string(root().join("tests/sim/src/check.rs")).expect("check.rs");
    let rows = source.lines().filter_map(|line| line.strip_prefix("//! | ")?.split(" | ").next());
    let named: Vec<&str> = rows.skip(1).flat_map(|row| row.split(", ")).collect();
    assert!(named.len() > 15, "{named:?}");
    let mutants = Mutant::read_all(&root().join("tests/sim/mutants")).expect("readable mutants");
    let caught: Vec<String> = mutants.into_iter().flat_map(|it| it.caught_by).collect();
    let tested = ["buried alive", "view", "lock", "silence"];
    for checker in &named {
        let is_shown = tested.contains(checker) || caught.iter().any(|it| it == checker);
        assert!(is_shown, "nothing shows that '{checker}' can speak");
    }
    for by in caught.iter().filter(|by| *by != "panic") {
        assert!(named.contains(&by.as_str()), "there is no checker '{by}'");
    }
}

#[test]
fn a_mutant_is_read() {
    let mutant = Mutant::parse(ONE).expect("a mutant");
    assert_eq!((mutant.name.as_str(), mutant.seeds_max), ("one", 7));
    assert_eq!(mutant.why, "It would be a disaster.");
    assert_eq!(mutant.caught_by, ["gate", "rest"]);
    let [change] = mutant.changes.as_slice() else { panic!("{:?}", mutant.changes) };
    assert_eq!(change.apply("{\n    old();\n}\n").as_deref(), Ok("{\n    new();\n}\n"));
}

#[test]
fn a_change_stands_in_the_source_exactly_once() {
    let mutant = Mutant::parse(ONE).expect("a mutant");
    for source in ["    older();\n", "    old();\n    old();\n"] {
        let error = mutant.changes.first().map(|it| it.apply(source)).expect("a change");
        assert!(error.is_err_and(|it| it.contains("times, not once")), "{source}");
    }
}

#[test]
fn what_is_no_mutant_is_refused() {
    let cases = [
        (ONE.replace("seeds_max: 7", "seeds_max: many"), "line 5: 'many' is no number"),
        (ONE.replace("seeds_max: 7\n", ""), "seeds_max is missing"),
        (ONE.replace("name: one", "nam: one"), "line 1: 'nam' is none of"),
        (ONE.replace("name: one", "one"), "line 1: 'one' is no 'key: value'"),
        (ONE.replace("file: a.rs\n", ""), "'file' must come before"),
        (ONE.replace("--- end\n", ""), "'--- end' is missing"),
        (ONE.replace("    new();", "    old();"), "it changes nothing"),
        (ONE.replace("    old();\n", ""), "it changes nothing"),
    ];
    for (text, expected) in cases {
        let error = Mutant::parse(&text).expect_err(&text);
        assert!(error.contains(expected), "{error}");
    }
}
