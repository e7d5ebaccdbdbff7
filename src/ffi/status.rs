//! The status codes under their C names, made from the table in `error/statuses.rs`.

macro_rules! item {
    ($($item:tt)*) => { $($item)* };
}
crate::error::statuses!(c_enum item);

use crate::error::c_enum;
