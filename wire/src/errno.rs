//! The Linux errno numbers that the doors say by themselves. Tools know them by heart.

/// The argument is none.
pub const EINVAL: i32 = 22;
/// The number does not fit.
pub const ERANGE: i32 = 34;
/// The name is too long.
pub const ENAMETOOLONG: i32 = 36;
/// The service lives already.
pub const EALREADY: i32 = 114;
