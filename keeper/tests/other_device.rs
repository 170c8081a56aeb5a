//! A keeper that outlived its daemon, and a daemon that comes back with another device.

mod support;

use std::fs::File;

use o2bridge_keeper::KeeperError;
use support::{Node, ms};

/// The daemon would clear what is free on its own device, and wipe the slots of living peers on the keeper's.
#[test]
fn a_keeper_on_another_device_is_left_alone() {
    let mut node = Node::new();
    assert!(node.ctl(&["beat", "0", "1", "5"]).0);
    let running = node.device();
    let other = node.path("other");
    File::create(&other).unwrap().set_len(1 << 20).unwrap();
    node.settings.device = Some(other.clone());
    match node.try_keeper() {
        Err(KeeperError::OtherDevice { pid, running: beaten, wanted }) => {
            assert_eq!((beaten, wanted), (running.clone(), other));
            assert!(support::lives(pid));
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("adopted"),
    }
    node.settings.device = Some(running);
    node.beats(0, 1, 3);
    assert_eq!(node.resets(), 0);

    // Under another name it is the same one.
    let link = node.path("link");
    std::os::unix::fs::symlink(node.device(), &link).unwrap();
    node.settings.device = Some(link);
    let (keeper, _) = node.keeper();
    assert_eq!(keeper.table().len(), 1);
}

/// It was only looked at: that is no sign of life.
#[test]
fn a_keeper_on_another_device_goes_on_waiting_for_its_daemon() {
    let mut node = Node::with(|settings| settings.daemon_back_ms = 1_500);
    assert!(node.ctl(&["beat", "0", "1", "5"]).0);
    let other = node.path("other");
    File::create(&other).unwrap().set_len(1 << 20).unwrap();
    node.settings.device = Some(other);
    support::until("the reset", ms(4_000), || {
        assert!(
            matches!(node.try_keeper(), Err(KeeperError::OtherDevice { .. })) || node.resets() > 0
        );
        node.resets() > 0
    });
}
