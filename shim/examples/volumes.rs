//! Says what the watch sees on this machine, one line for each change, until it is killed. With the
//! path of a device: who beats on that volume's disk, and nothing else. For a look by hand; needs
//! root to read disks, and changes nothing.

use std::path::Path;
use std::sync::mpsc::channel;

use o2bridge_shim::volume::heartbeat::PAUSE;
use o2bridge_shim::volume::{
    Change, Guarded, Order, Settings, Watch, beating, disk_heartbeat, read,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    match std::env::args_os().nth(1) {
        Some(path) => look(Path::new(&path)),
        None => watch(),
    }
}

fn look(path: &Path) -> Outcome {
    println!("{:?}", read(path)?);
    println!("slots: {:?}", disk_heartbeat(path)?);
    println!("beating: {:?}", beating(&[path], PAUSE)?);
    Ok(())
}

fn watch() -> Outcome {
    let started = std::time::Instant::now();
    let (sender, changes) = channel();
    let watch = Watch::start(Settings::default(), move |change| drop(sender.send(change)))?;
    let mut present = Vec::new();
    for change in changes {
        println!("{:8.3} {change:?}", started.elapsed().as_secs_f64());
        match change {
            Change::Volumes(volumes) => {
                for volume in &volumes {
                    let (uuid, devices) = (volume.superblock.uuid, vec![volume.device.clone()]);
                    watch.order(Order::Beats { uuid, devices });
                }
                present = volumes;
            }
            Change::Mounts(mounts) => {
                let guarded = present.iter().filter_map(|volume| {
                    let uuid = volume.superblock.uuid;
                    let mount = mounts.iter().find(|mount| mount.uuid == Some(uuid))?;
                    let path = mount.path.clone()?;
                    Some((uuid, Guarded { path, offset: volume.superblock.offset() }))
                });
                watch.order(Order::Guard(guarded.collect()));
            }
            Change::Lockspaces(_) | Change::Beats { .. } | Change::Storage { .. } => {}
        }
    }
    Ok(())
}
