//! Binds: what is somewhere else.

use super::source::{Found, Place, Sources};
use super::{Attributes, EMPTY_PATH, Mounts};
use crate::compile::c_string;
use crate::program::{Arg, Slot, Sys, Then};
use crate::{Error, Mount, Sandbox, Step};
use std::path::Path;

/// What `statx(2)` is asked for.
const STATX: u32 = libc::STATX_TYPE | libc::STATX_INO;

impl Mounts<'_> {
    /// A detached mount of each thing to be bound, with its flags.
    pub(super) fn open_sources(&mut self, sources: &Sources, sandbox: &Sandbox) -> Result<Vec<Option<Slot>>, Error> {
        let mut trees = Vec::new();
        for ((mount, found), ids) in sandbox.mounts.iter().zip(&sources.mounts).zip(&sources.ids) {
            let Some(found) = found else {
                trees.push(None);
                continue;
            };
            let slot = self.program.slot();
            let recursive = !mount.alone;
            match found {
                Found::Place(place) => self.open_place(Step::Mount, place, recursive, slot)?,
                // A copy of its number, so that all are alike from here on.
                Found::Mount { fd, .. } => {
                    let copy = [(*fd).into(), libc::F_DUPFD_CLOEXEC.into(), 3_u64.into()];
                    self.program.call_then(Step::Mount, &mount.target, Sys::fcntl, copy, Then::Keep(slot));
                }
            }
            // It may be a peer of a shared mount of the host, where what is mounted below it would appear.
            if matches!(found, Found::Mount { .. }) {
                self.make_private(&mount.target, slot);
            }
            if !mount.flags.is_empty() || ids.is_some() {
                let how = Attributes { flags: mount.flags, recursive, ids: *ids };
                match found {
                    Found::Place(place) if mount.sets_flags_alone(Some(found)) => {
                        self.set_now_or_later(&mount.target, slot, how);
                        if recursive {
                            self.open_place_alone(place, slot)?;
                        }
                    }
                    _ => self.set(Step::Mount, &mount.target, slot.into(), how),
                }
            }
            trees.push(Some(slot));
        }
        if sandbox.mounts.iter().any(Mount::covers) {
            self.open_null();
        }
        Ok(trees)
    }

    /// A detached copy of what is at this place, if it is what was there before.
    pub(super) fn open_place(&mut self, step: Step, place: &Place, recursive: bool, into: Slot) -> Result<(), Error> {
        let path: Arg = self.program.string(c_string("source", place.path.as_os_str())?).into();
        self.clone_tree(step, &place.path, (libc::AT_FDCWD.into(), path), recursive, into);
        self.expect(step, &place.path, into, Then::Finds(place.identity(), libc::ESTALE));
        Ok(())
    }

    /// Tells one file from another by what it is, not by its name.
    pub(super) fn expect(&mut self, step: Step, object: &Path, file: Slot, finds: Then) {
        let look = [file.into(), self.here, EMPTY_PATH.into(), STATX.into(), Arg::Scratch];
        self.program.call_then(step, object, Sys::statx, look, finds);
    }
}
