//! Volumes: superblocks, block devices, the mount table.
