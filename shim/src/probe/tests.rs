use std::path::Path;

use super::*;

const ALL: [&str; 6] =
    ["ocfs2", "ocfs2_stack_o2cb", "ocfs2_stack_user", "ocfs2_dlmfs", "dlm", "brd"];

fn facts(release: &str, fortify: Option<bool>) -> Facts {
    let modules = ALL.map(str::to_owned).to_vec();
    Facts { release: release.into(), fortify, modules, ..Facts::default() }
}

fn on(facts: &Facts, shim: &str) -> (Possible, String) {
    let verdicts = judge(facts);
    let found = verdicts.into_iter().find(|verdict| verdict.shim == shim).unwrap();
    (found.possible, found.why)
}

#[test]
fn down_by_version_and_configuration() {
    let word = |release, fortify| facts(release, fortify).down().as_str();
    for fortify in [None, Some(true), Some(false)] {
        assert_eq!(word("5.10.0-46-amd64", fortify), "safe", "tried");
    }
    for release in ["5.11.0", "5.15.0-100-generic", "6.1.0-56-amd64", "6.12.107", "7.2.13", "10.0"]
    {
        assert_eq!(word(release, Some(true)), "bug", "{release}");
        assert_eq!(word(release, None), "unknown", "{release}");
        assert_eq!(word(release, Some(false)), "safe", "{release}");
    }
    for release in ["4.18.0-553.el8.x86_64", "5.4.0", "5.9.16"] {
        assert_eq!(word(release, Some(true)), "unknown", "{release}");
        assert_eq!(word(release, None), "unknown", "{release}");
    }
    for release in ["", "linux", "6", "99999999999.1"] {
        for fortify in [None, Some(true), Some(false)] {
            assert_eq!(word(release, fortify), "unknown", "{release}");
        }
    }
}

#[test]
fn control_is_for_kernels_where_down_is_safe_and_dlm_controld_waits_for_it() {
    let beside = |release, fortify, recover_callbacks| {
        let has_dlm_controld = true;
        on(&Facts { has_dlm_controld, recover_callbacks, ..facts(release, fortify) }, "control")
    };
    assert_eq!(beside("5.10.0", Some(true), Some(false)).0, Possible::Yes);
    let (possible, why) = beside("6.12.0", Some(true), Some(false));
    assert_eq!(possible, Possible::Harmful);
    assert!(why.contains("DOWN is a kernel BUG"), "{why}");
    let (possible, why) = beside("6.12.0", None, Some(false));
    assert_eq!(possible, Possible::Harmful);
    assert!(why.contains("control.risk_kernel_bug"), "{why}");
    let (possible, why) = beside("5.10.0", Some(true), Some(true));
    assert_eq!(possible, Possible::Harmful);
    assert!(why.contains("without enable_fscontrol=1"), "{why}");
    assert_eq!(beside("5.10.0", Some(true), None).0, Possible::NotNow);
    let (possible, why) = on(&facts("5.10.0", Some(true)), "control");
    assert_eq!((possible, why.contains("dlm_controld does not run")), (Possible::NotNow, true));
}

#[test]
fn observe_is_for_dlm_controld_in_its_default_mode() {
    let beside = |recover_callbacks| {
        let has_dlm_controld = true;
        let facts = facts("6.12.0", Some(true));
        on(&Facts { has_dlm_controld, recover_callbacks, ..facts }, "observe").0
    };
    assert_eq!(beside(Some(true)), Possible::Yes);
    assert_eq!(beside(Some(false)), Possible::Harmful);
    assert_eq!(beside(None), Possible::NotNow);
    assert_eq!(on(&facts("6.12.0", None), "observe").0, Possible::NotNow);
}

#[test]
fn a_stack_in_use_is_not_changed() {
    let with = |stack: &str, is_stack_in_use| {
        let stack = Some(stack.to_owned());
        Facts { stack, is_stack_in_use, ..facts("5.10.0", None) }
    };
    for shim in ["control", "observe"] {
        assert_eq!(on(&with("o2cb", true), shim).0, Possible::No, "{shim}");
        assert_eq!(on(&with("o2cb", false), shim).0, Possible::NotNow, "{shim}");
    }
    assert_eq!(on(&with("pcmk", true), "user-heartbeat").0, Possible::No);
    assert_eq!(on(&with("pcmk", false), "user-heartbeat").0, Possible::Yes);
    let waits = Facts { recover_callbacks: Some(false), ..with("pcmk", true) };
    assert_eq!(on(&waits, "record").0, Possible::Harmful);
    assert_eq!(on(&with("o2cb", true), "record").0, Possible::Yes);
}

#[test]
fn a_kernel_without_the_modules() {
    let bare = Facts { modules: vec!["ocfs2".into()], ..facts("5.10.0", None) };
    let (possible, why) = on(&bare, "control");
    assert_eq!(possible, Possible::No);
    assert!(why.contains("no module ocfs2_stack_user"), "{why}");
    assert_eq!(on(&bare, "user-heartbeat").0, Possible::No);
    let links = Facts { has_link_driver: true, ..bare };
    assert_eq!(on(&links, "user-heartbeat").0, Possible::Yes);
    assert_eq!(on(&links, "fsdlm").0, Possible::NotBuilt);
}

#[test]
fn only_a_whole_configuration_says_no() {
    assert_eq!(fortify("CONFIG_OCFS2_FS=m\nCONFIG_FORTIFY_SOURCE=y\n"), Some(true));
    assert_eq!(fortify("CONFIG_OCFS2_FS=m\n# CONFIG_FORTIFY_SOURCE is not set\n"), Some(false));
    assert_eq!(fortify("CONFIG_OCFS2_FS=m\n"), None, "cut off");
    assert_eq!(fortify("# CONFIG_FORTIFY_SOURCE is not set\n"), None, "another's");
    assert_eq!(fortify(""), None);
}

#[test]
fn names_of_modules() {
    let name = |line| module_of(line);
    assert_eq!(name("kernel/fs/ocfs2/ocfs2.ko.xz: kernel/x.ko.xz"), Some("ocfs2".into()));
    assert_eq!(name("kernel/fs/dlm/dlm.ko:"), Some("dlm".into()));
    assert_eq!(name("kernel/a/some-name.ko"), Some("some_name".into()));
    assert_eq!(name("nothing"), None);
}

fn put(root: &Path, path: &str, text: &[u8]) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn machine(root: &Path) -> Places {
    put(root, "proc/sys/kernel/osrelease", b"5.10.0-46-amd64\n");
    put(root, "proc/misc", b" 58 ocfs2_control\n 59 dlm-monitor\n");
    put(
        root,
        "proc/net/unix",
        b"Num RefCount\n0: 00000002 00000000 00010000 0001 01 1 @dlmc_sock\n",
    );
    put(root, "modules/5.10.0-46-amd64/modules.dep", b"kernel/fs/ocfs2/ocfs2.ko: kernel/x.ko\n");
    put(root, "modules/5.10.0-46-amd64/modules.builtin", b"kernel/drivers/block/brd.ko\n");
    put(root, "sys/module/dlm/refcnt", b"1\n");
    put(root, "sys/fs/ocfs2/cluster_stack", b"pcmk\n");
    put(root, "sys/fs/ocfs2/active_cluster_plugin", b"user\n");
    put(root, "sys/kernel/config/dlm/cluster/recover_callbacks", b"0\n");
    Places {
        proc: root.join("proc"),
        boot: root.join("boot"),
        modules: root.join("modules"),
        sys: root.join("sys"),
        cluster_stack: root.join("sys/fs/ocfs2/cluster_stack"),
    }
}

#[test]
fn a_machine_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let places = machine(dir.path());
    let expected = Facts {
        release: "5.10.0-46-amd64".into(),
        modules: ["ocfs2", "dlm", "brd"].map(str::to_owned).to_vec(),
        stack: Some("pcmk".into()),
        is_stack_in_use: true,
        has_control_device: true,
        has_dlm_controld: true,
        recover_callbacks: Some(false),
        ..Facts::default()
    };
    assert_eq!(look(&places), expected);

    let config = b"CONFIG_OCFS2_FS=m\nCONFIG_FORTIFY_SOURCE=y\n";
    put(dir.path(), "boot/config-5.10.0-46-amd64", config);
    assert_eq!(look(&places).fortify, Some(true));
    let packed = dir.path().join("proc/config.gz");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gz, b"CONFIG_OCFS2_FS=m\n# CONFIG_FORTIFY_SOURCE is not set\n")
        .unwrap();
    std::fs::write(&packed, gz.finish().unwrap()).unwrap();
    let found = look(&places);
    assert_eq!((found.fortify, found.config), (Some(false), Some(packed.clone())));
    std::fs::write(&packed, b"no gzip").unwrap();
    assert_eq!(look(&places).fortify, Some(true), "a broken one says nothing");
}

#[test]
fn nothing_there_is_nothing_known() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    let places = Places {
        proc: nowhere.clone(),
        boot: nowhere.clone(),
        modules: nowhere.clone(),
        cluster_stack: nowhere.join("cluster_stack"),
        sys: nowhere,
    };
    assert_eq!(look(&places), Facts::default());
}
