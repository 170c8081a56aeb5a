//! What the documents promise exists: commands, files, and a reason for every dependency.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use syn::visit::Visit;

/// Which packages of ours each package may know. Purity is a list, not a habit.
const ARROWS: &[(&str, &[&str])] = &[
    ("o2bridge-core", &[]),
    ("o2bridge-wire", &["o2bridge-core"]),
    ("o2bridge-cpg", &["o2bridge-core", "o2bridge-harness"]),
    ("o2bridge-keeper", &[]),
    ("o2bridge-shim", &["o2bridge-core", "o2bridge-keeper", "o2bridge-wire"]),
    (
        "o2bridge",
        &[
            "o2bridge-core",
            "o2bridge-cpg",
            "o2bridge-keeper",
            "o2bridge-kmod-ctl",
            "o2bridge-shim",
            "o2bridge-wire",
        ],
    ),
    ("o2bridge-kmod-ctl", &[]),
    ("o2bridge-lab", &[]),
    ("o2bridge-harness", &[]),
    ("o2bridge-sim", &["o2bridge-core", "o2bridge-wire"]),
    ("o2bridge-exhaust", &["o2bridge-core", "o2bridge-sim"]),
    (
        "o2bridge-e2e",
        &[
            "o2bridge",
            "o2bridge-core",
            "o2bridge-cpg",
            "o2bridge-harness",
            "o2bridge-sim",
            "o2bridge-wire",
        ],
    ),
    (
        "o2bridge-fuzz",
        &[
            "o2bridge",
            "o2bridge-core",
            "o2bridge-cpg",
            "o2bridge-keeper",
            "o2bridge-kmod-ctl",
            "o2bridge-shim",
            "o2bridge-wire",
        ],
    ),
];

/// The workspace, and the package that is built apart from it.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "tests/fuzz/Cargo.toml"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(args).current_dir(root()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Package -> its direct dependencies, those for tests and builds included.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let packages = |manifest: &str| -> Vec<Value> {
        let what = ["metadata", "--no-deps", "--format-version=1", "--offline"];
        let text = cargo(&[&what[..], &["--manifest-path", manifest]].concat());
        let metadata: Value = serde_json::from_str(&text).unwrap();
        metadata["packages"].as_array().unwrap().clone()
    };
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    MANIFESTS
        .iter()
        .flat_map(|manifest| packages(manifest))
        .map(|package| {
            let list = package["dependencies"].as_array().unwrap();
            (name(&package), list.iter().map(name).collect())
        })
        .collect()
}

/// What stands between backticks or in indented and fenced blocks: what a reader may type.
fn typed(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in document.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced || line.starts_with("    ") {
            found.push(line.trim().to_owned());
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// The word after `first` wherever `first` starts something to type.
fn words_after(document: &str, first: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for text in typed(document) {
        let mut words = text.split(|c: char| c.is_whitespace() || "&|;".contains(c));
        while let Some(word) = words.next() {
            let next = if word == first { words.next() } else { None };
            let is_word = |text: &&str| {
                text.starts_with(|c: char| c.is_ascii_lowercase())
                    && text.chars().all(|c| c.is_ascii_lowercase() || c == '-')
            };
            found.extend(next.filter(is_word).map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_make_target_in_the_documents_exists() {
    let makefile = read("Makefile");
    let mut seen = 0;
    for document in ["README.md", "ARCHITECTURE.md", "packaging/README.md", "tests/fuzz/README.md"]
    {
        for target in words_after(&read(document), "make") {
            let rule = format!("{target}:");
            let exists = makefile.lines().any(|line| line.starts_with(&rule));
            assert!(exists, "{document} says `make {target}`; the Makefile has no such target");
            seen += 1;
        }
    }
    assert!(seen >= 3, "README must name make demo, make check and make test; found {seen}");
}

#[test]
fn every_subcommand_in_the_documents_exists() {
    let help = cargo(&["run", "--quiet", "-p", "o2bridge", "--bin", "o2bridge", "--", "--help"]);
    let commands: BTreeSet<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .collect();
    assert!(commands.contains("status"), "no list of commands in:\n{help}");
    let named = words_after(&read("README.md"), "o2bridge");
    assert!(!named.is_empty(), "README names no subcommand of o2bridge");
    for command in named {
        assert!(commands.contains(command.as_str()), "`o2bridge {command}`: only {commands:?}");
    }
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "packaging/README.md",
        "tests/fuzz/README.md",
    ] {
        let folder = root().join(document).parent().unwrap().to_owned();
        for rest in read(document).split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            assert!(folder.join(target).exists(), "{document} links to {target}: not there");
        }
    }
}

#[test]
fn every_dependency_has_its_reason_in_the_architecture() {
    let table = read("ARCHITECTURE.md");
    let explained: BTreeSet<&str> = table
        .lines()
        .skip_while(|line| !line.starts_with("## Dependencies"))
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let used: BTreeSet<String> = dependencies()
        .into_values()
        .flatten()
        .filter(|name| name != "o2bridge" && !name.starts_with("o2bridge-"))
        .collect();
    for name in &used {
        assert!(explained.contains(name.as_str()), "ARCHITECTURE.md: why do we need `{name}`?");
    }
    for name in explained {
        assert!(used.contains(name), "ARCHITECTURE.md explains `{name}`, which nobody uses");
    }
}

/// `if let .. && ..`: newer compilers accept it whatever `rust-version` says, and so does clippy.
#[derive(Default)]
struct LetChains(Vec<usize>);

impl<'ast> Visit<'ast> for LetChains {
    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        for side in [&binary.left, &binary.right] {
            if let syn::Expr::Let(found) = &**side {
                self.0.push(found.let_token.span.start().line);
            }
        }
        syn::visit::visit_expr_binary(self, binary);
    }
}

#[test]
fn no_source_file_uses_let_chains_which_rust_1_85_lacks() {
    let (mut folders, mut found, mut files) = (vec![root()], Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let file = syn::parse_file(&std::fs::read_to_string(&path).unwrap()).unwrap();
                let mut chains = LetChains::default();
                chains.visit_file(&file);
                found.extend(chains.0.iter().map(|line| format!("{}:{line}", path.display())));
                files += 1;
            }
        }
    }
    assert!(found.is_empty(), "let chains need Rust 1.88: {found:#?}");
    assert!(files > 30, "only {files} source files found");
}

#[test]
fn no_package_knows_more_than_it_may() {
    let dependencies = dependencies();
    assert!(dependencies["o2bridge-core"].is_empty(), "core is pure");
    for (package, may) in ARROWS {
        let known = dependencies[*package].iter().filter(|name| name.starts_with("o2bridge"));
        for name in known {
            assert!(may.contains(&name.as_str()), "{package} must not depend on {name}");
        }
    }
    // A seed decides everything: no threads, descriptors or clocks of somebody else's.
    let foreign = dependencies["o2bridge-sim"].iter().find(|it| !it.starts_with("o2bridge"));
    assert_eq!(foreign, None, "the simulator sees more than the core and the codecs");
    assert_eq!(dependencies.len(), ARROWS.len(), "a package without a rule: {dependencies:?}");
}
