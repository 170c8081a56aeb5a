//! Whole clusters: corosync and o2bridged on every node, with the record shim.
//!
//! ```no_run
//! use o2bridge_e2e::Lab;
//!
//! let lab = Lab::builder().nodes(3).start()?;
//! lab.o2bridge(1, &["begin", "19D19F8ECA01475EBA67AFD6D84C3B45", "/mnt"])?;
//! lab.cluster().node(3).crash();
//! let told = lab.records(1)?;
//! # Ok::<(), o2bridge_e2e::LabError>(())
//! ```

mod delay;
mod lab;
mod line;
mod record;
pub mod recorder;
pub use o2bridge_sim::recording;
mod story;
mod told;
mod tools;

pub use delay::Delay;
pub use lab::{Builder, Lab, LabError};
pub use line::Line;
pub use record::{Record, Verb};
pub use story::GROUPS;
pub use told::Told;
pub use tools::Stranger;
