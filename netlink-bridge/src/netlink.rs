//! Route netlink, `rtnetlink(7)`: as little of it as this crate speaks.

mod decode;
mod encode;
mod route;
mod socket;
mod thread;

pub(crate) use encode::Batch;
pub(crate) use route::{Link, Pair};
pub(crate) use socket::{Answers, Session};
pub(crate) use thread::{Opened, current, enter_fd, enter_pidfd, unshared};
