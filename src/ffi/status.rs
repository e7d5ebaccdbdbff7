//! The status codes with their C names, generated from the table in `error/statuses.rs`.

macro_rules! item {
    ($($item:tt)*) => { $($item)* };
}
crate::error::statuses!(c_enum item);

use crate::error::c_enum;
