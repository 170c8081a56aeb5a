//! What is known of the kernel: its release, its configuration, its list of modules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge_shim::probe::{Down, Facts, Possible, fortify, judge, module_of};

/// The last kernel on which DOWN is safe whatever else it is.
const LAST_SAFE: (u32, u32) = (5, 10);

fuzz_target!(|text: &str| {
    let (release, rest) = text.split_once('\n').unwrap_or((text, ""));
    let said = fortify(rest);
    is_read(rest, said);
    for fortify in [said, None, Some(true), Some(false)] {
        is_careful(&Facts { release: release.into(), fortify, ..machine() });
    }
    for module in rest.lines().filter_map(module_of) {
        assert!(!module.contains(['/', ':', '-']) && !module.contains(".ko"), "{module:?}");
        let line = format!("kernel/fs/{module}.ko.xz: kernel/fs/jbd2/jbd2.ko.xz");
        assert_eq!(module_of(&line), Some(module));
    }
});

/// A machine that has all that the shim `control` needs.
fn machine() -> Facts {
    Facts {
        modules: ["ocfs2", "ocfs2_stack_user", "dlm"].map(str::to_owned).to_vec(),
        has_dlm_controld: true,
        recover_callbacks: Some(false),
        ..Facts::default()
    }
}

/// A configuration says no only if it is one of OCFS2's kernels, says so and does not say yes.
fn is_read(config: &str, said: Option<bool>) {
    let is_on = config.lines().any(|line| line == "CONFIG_FORTIFY_SOURCE=y");
    let is_ours = config.lines().any(|line| line.starts_with("CONFIG_OCFS2_FS="));
    let is_off = config.lines().any(|line| line == "# CONFIG_FORTIFY_SOURCE is not set");
    assert_eq!(said, (is_ours && (is_on || is_off)).then_some(is_on));
    let more = format!("{config}\nCONFIG_FORTIFY_SOURCE=y\n");
    assert_eq!(fortify(&more), is_ours.then_some(true), "whatever stands before it");
}

/// What is not known is not safe.
fn is_careful(facts: &Facts) {
    let mut digits = facts.release.split(|c: char| !c.is_ascii_digit());
    let mut number = || digits.next().and_then(|digits| digits.parse::<u32>().ok());
    let version = number().zip(number());
    let down = facts.down();
    match (&down, version) {
        (Down::Safe(_), Some(LAST_SAFE)) => {}
        (Down::Safe(_), Some(_)) => assert_eq!(facts.fortify, Some(false), "{facts:?}"),
        (Down::Bug(_), Some(version)) => assert!(version > LAST_SAFE, "{facts:?}"),
        (Down::Unknown(_), Some(version)) => {
            assert!(version != LAST_SAFE && facts.fortify != Some(false), "{facts:?}");
            assert!(version < LAST_SAFE || facts.fortify.is_none(), "{facts:?}");
        }
        (Down::Unknown(_), None) => {}
        (Down::Safe(_) | Down::Bug(_), None) => panic!("no version: {facts:?}"),
    }
    assert!(!down.why().is_empty());
    let verdicts = judge(facts);
    let control = verdicts.iter().find(|verdict| verdict.shim == "control").expect("it is judged");
    let possible = match down {
        Down::Safe(_) => Possible::Yes,
        Down::Bug(_) | Down::Unknown(_) => Possible::Harmful,
    };
    assert_eq!(control.possible, possible, "{}", control.why);
}
