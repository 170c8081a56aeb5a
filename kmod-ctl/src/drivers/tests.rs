use super::*;
use crate::kernel::fake::Fake;
use crate::o2cb::O2cb;

const EBUSY: i32 = 16;
const ENODEV: i32 = 19;

const STACK_FILE: &str = "/sys/fs/ocfs2/cluster_stack";
const PLUGINS: &str = "/sys/fs/ocfs2/loaded_cluster_plugins";
const ACTIVE: &str = "/sys/fs/ocfs2/active_cluster_plugin";

/// A stock kernel after boot: all is a module.
fn fresh() -> Fake {
    let fake = Fake::default();
    fake.file("/proc/filesystems", "nodev\tdebugfs\n\text4\n");
    fake.file("/proc/self/mountinfo", "25 1 0:7 / /sys/kernel/debug rw - debugfs debugfs rw\n");
    let systems = |line: &str| ("/proc/filesystems".into(), line.to_owned());
    let file = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
    let modules = [
        ("configfs", vec![systems("nodev\tconfigfs\n")]),
        (
            "ocfs2_nodemanager",
            vec![
                file("/sys/kernel/config/cluster", ""),
                file("/sys/fs/o2cb/interface_revision", "5"),
            ],
        ),
        (
            "ocfs2",
            vec![
                systems("\tocfs2\n"),
                file(STACK_FILE, "o2cb"),
                file(PLUGINS, ""),
                file(ACTIVE, ""),
            ],
        ),
        ("ocfs2_stack_o2cb", vec![file(PLUGINS, "o2cb\n")]),
        ("ocfs2_dlmfs", vec![systems("nodev\tocfs2_dlmfs\n")]),
    ];
    fake.state().modules.extend(modules);
    fake
}

fn run(fake: &Fake) -> Result<Prepared, Error> {
    O2cb::with_kernel(Paths::default(), Box::new(fake.clone())).prepare()
}

#[test]
fn a_fresh_kernel_and_once_more() {
    let fake = fresh();
    let prepared = run(&fake).unwrap();
    assert_eq!(
        fake.log(),
        [
            "load configfs",
            "mount configfs /sys/kernel/config",
            "load ocfs2_nodemanager",
            "load ocfs2",
            "load ocfs2_stack_o2cb",
            "load ocfs2_dlmfs",
            "make /dlm",
            "mount ocfs2_dlmfs /dlm",
        ]
    );
    assert_eq!((prepared.done.len(), prepared.heads_up.len()), (7, 0));
    assert_eq!(run(&fake).unwrap(), Prepared::default());
    assert_eq!(fake.log(), [""; 0]);
}

#[test]
fn a_missing_module_undoes_the_mounts() {
    let fake = fresh();
    fake.state().modules.remove("ocfs2_stack_o2cb");
    let error = run(&fake).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("ocfs2_stack_o2cb") && text.contains("not found"), "{text}");
    assert_eq!(fake.log().last().unwrap(), "unmount /sys/kernel/config");
    let fake = fresh();
    fake.state().modules.insert("ocfs2_nodemanager", Vec::new());
    let error = run(&fake).unwrap_err();
    assert!(matches!(error, Error::Module { cause: ModuleCause::NotThere(_), .. }), "{error}");
}

#[test]
fn a_dlmfs_that_cannot_be_mounted_leaves_no_directory() {
    let fake = fresh();
    fake.fail("mount ocfs2_dlmfs /dlm", ENODEV);
    let error = run(&fake).unwrap_err();
    assert!(error.to_string().starts_with("cannot mount ocfs2_dlmfs at /dlm"), "{error}");
    let log = fake.log();
    assert_eq!(log[log.len() - 2..], ["remove /dlm", "unmount /sys/kernel/config"]);
}

#[test]
fn another_stack_is_replaced_when_idle() {
    let fake = fresh();
    run(&fake).unwrap();
    fake.file(STACK_FILE, "pcmk");
    fake.log();
    assert_eq!(run(&fake).unwrap().done, ["stack o2cb chosen, it was 'pcmk'"]);
    assert_eq!(fake.log(), ["write o2cb /sys/fs/ocfs2/cluster_stack"]);
}

#[test]
fn another_stack_in_use_is_refused_before_anything_is_done() {
    let fake = fresh();
    fake.file(STACK_FILE, "pcmk");
    fake.file(ACTIVE, "user");
    let error = run(&fake).unwrap_err();
    assert!(matches!(&error, Error::Stack { found, .. } if found == "pcmk"), "{error}");
    assert_eq!(fake.log(), [""; 0]);
    // The kernel knows better than the file.
    run_all_but_stack(&fake);
    fake.fail("write o2cb /sys/fs/ocfs2/cluster_stack", EBUSY);
    assert!(matches!(run(&fake), Err(Error::Stack { .. })));
}

fn run_all_but_stack(fake: &Fake) {
    fake.file(STACK_FILE, "o2cb");
    fake.file(ACTIVE, "");
    run(fake).unwrap();
    fake.file(STACK_FILE, "pcmk");
}

#[test]
fn another_interface_is_refused() {
    let fake = fresh();
    let files = vec![
        ("/sys/kernel/config/cluster".into(), String::new()),
        ("/sys/fs/o2cb/interface_revision".into(), "6".to_owned()),
    ];
    fake.state().modules.insert("ocfs2_nodemanager", files);
    let error = run(&fake).unwrap_err();
    assert!(matches!(&error, Error::Interface { found, .. } if found == "6"), "{error}");
}

#[test]
fn without_debugfs_it_goes_on() {
    let fake = fresh();
    fake.file("/proc/self/mountinfo", "");
    fake.fail("mount debugfs /sys/kernel/debug", EBUSY);
    assert_eq!(run(&fake).unwrap().heads_up.len(), 1);
}

#[test]
fn the_last_mount_of_a_place_counts() {
    let fake = fresh();
    let hidden = "1 1 0:1 / /dlm rw - ocfs2_dlmfs a rw\n2 1 0:2 / /dlm rw - tmpfs b rw\n";
    fake.file("/proc/self/mountinfo", hidden);
    run(&fake).unwrap();
    assert!(fake.log().contains(&"mount ocfs2_dlmfs /dlm".to_owned()));
}

#[test]
fn a_driver_with_the_user_heartbeat_is_taken_as_it_is() {
    for mode in ["/sys/kernel/config/cluster/heartbeat_mode", "/sys/o2cb/heartbeat_mode"] {
        let fake = fresh();
        fake.file(mode, "disk");
        assert_eq!(run(&fake).unwrap().heads_up, [""; 0]);
        assert_eq!(fake.log(), ["load configfs", "mount configfs /sys/kernel/config"], "{mode}");
        assert_eq!(run(&fake).unwrap(), Prepared::default());
    }
}

#[test]
fn a_user_stack_needs_its_drivers_and_chooses_nothing() {
    let fake = fresh();
    let run = || O2cb::with_kernel(Paths::default(), Box::new(fake.clone())).prepare_user_stack();
    let error = run().unwrap_err().to_string();
    assert!(error.contains("ocfs2_stack_user"), "{error}");
    assert_eq!(fake.log(), ["load ocfs2"]);
    let plugin = vec![(PathBuf::from(PLUGINS), "user\n".to_owned())];
    fake.state().modules.insert("ocfs2_stack_user", plugin);
    assert_eq!(run().unwrap().done, ["module ocfs2_stack_user loaded"]);
    assert_eq!(fake.log(), ["load ocfs2_stack_user"]);
    assert_eq!(run().unwrap(), Prepared::default());
}
