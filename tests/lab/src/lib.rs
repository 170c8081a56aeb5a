//! Guests with real kernels: QEMU, a hub, shared disks, corosync, the stock OCFS2 tools and our
//! freshly built binaries. See `README.md` beside this package for how to write a scenario.
#![forbid(unsafe_code)]

mod accel;
mod agent;
mod attempt;
mod boot;
mod error;
mod fence;
mod guest;
pub mod kernel;
mod lab;
mod net;
mod power;
mod qmp;
pub mod run;
pub mod scenario;
mod tool;
pub mod wire;

pub use agent::Output;
pub use error::{LabError, Result};
pub use fence::{Fenced, Fencing, Switch};
pub use guest::{Corosync, Guest, Job, Off};
pub use kernel::Kernel;
pub use lab::{Lab, Places, Plan};
pub use net::{Net, address};
pub use power::end_with_signals;
pub use run::{Context, Scenario};
