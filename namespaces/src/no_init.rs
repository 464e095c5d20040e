//! In place of `init.rs` without the feature: there is none.

use crate::deadline::Deadline;
use crate::plan::Shared;
use crate::program::{Program, Slot};
use crate::start::Found;
use crate::sys::Born;
use crate::{Error, Sandbox};
use std::os::fd::OwnedFd;

#[derive(Debug)]
pub(crate) enum Wanted {}

#[derive(Debug)]
pub(crate) enum Ours {}

pub(crate) const FILE: Slot = Slot(18);
pub(crate) const HANDOVER: Slot = Slot(19);

pub(crate) type Theirs = [(Slot, OwnedFd); 2];

pub(crate) fn descriptors(_: &Sandbox) -> i32 {
    0
}

#[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
pub(crate) fn confirm(_: &Shared, _: &Born, ours: Option<Ours>, _: Deadline) -> Result<(), Error> {
    match ours {
        None => Ok(()),
        Some(ours) => match ours {},
    }
}

impl Wanted {
    #[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
    pub(crate) fn of(_: &Sandbox, _: &Found, _: i32) -> Result<Option<Self>, Error> {
        Ok(None)
    }

    pub(crate) fn compile(&self, _: &mut Program) {
        match *self {}
    }

    pub(crate) fn start(&self, _: &mut Program, _: Found) {
        match *self {}
    }

    pub(crate) fn open(&self) -> Result<(Ours, Theirs), Error> {
        match *self {}
    }
}
