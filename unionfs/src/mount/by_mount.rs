//! An overlay by `mount(2)`, on kernels that take lowers only as one string. On a thread with a mount namespace of its own.

use super::Writable;
use crate::context::THREAD_FDS;
use crate::layer::OpenLayer;
use crate::options::{Options, Setting};
use crate::overlay::Overlay;
use crate::{Error, ErrorKind, Operation, sys};
use rustix::mount::{MountFlags, OpenTreeFlags, mount, open_tree};
use rustix::process::chdir;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The kernel takes a page, with a zero at its end, and cuts off what is more.
const LONGEST: usize = 4095;

/// Where it is mounted in that namespace for a moment: a directory that is there, since it is needed before.
const TARGET: &str = "/proc";

pub(super) fn overlay(
    spec: &Overlay,
    lowers: &[OpenLayer<'_>],
    writable: Option<&Writable<'_>>,
) -> Result<OwnedFd, Error> {
    let failed = |call, e| Error::os(Operation::Mount, call, e).about(TARGET);
    let number = |layer: &OpenLayer<'_>| layer.handed_over().as_raw_fd();
    let writable = writable.map(|(upper, work)| (number(upper), number(work)));
    let options = options(spec.options, lowers.iter().map(number), writable)?;
    // From there on a layer's name is the number of its descriptor.
    chdir(THREAD_FDS).map_err(|e| Error::os(Operation::Mount, "chdir", e).about(THREAD_FDS))?;
    mount("overlay", TARGET, "overlay", MountFlags::empty(), options.as_c_str()).map_err(|e| failed("mount", e))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(rustix::fs::CWD, TARGET, flags).map_err(|e| failed("open_tree", e))?;
    if !spec.attributes.flags().is_empty() {
        sys::mount_setattr(mount.as_fd(), spec.attributes.flags()).map_err(|e| failed("mount_setattr", e))?;
    }
    Ok(mount)
}

/// The option string: short, and with nothing in it that would have to be escaped.
fn options(
    options: Options,
    lowers: impl Iterator<Item = i32>,
    writable: Option<(i32, i32)>,
) -> Result<CString, Error> {
    let lowers: Vec<String> = lowers.map(|number| number.to_string()).collect();
    let mut all: Vec<String> = options
        .settings()
        .map(|setting| match setting {
            Setting::Flag(key) => key.to_owned(),
            Setting::Value(key, value) => format!("{key}={value}"),
        })
        .collect();
    all.push(format!("lowerdir={}", lowers.join(":")));
    if let Some((upper, work)) = writable {
        all.push(format!("upperdir={upper},workdir={work}"));
    }
    let text = all.join(",");
    if text.len() > LONGEST {
        let words = "are more than fit into the 4095 bytes that mount(2) takes; what is more would be cut off";
        return Err(Error::explained(ErrorKind::LimitReached, Operation::Mount, words).about("lowers"));
    }
    CString::new(text).map_err(|_| Error::invalid(Operation::Mount, "lowers", "has a zero byte"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Form;

    #[test]
    fn layers_are_numbers_and_never_cut_off() {
        let user = Options { form: Form::User, ..Options::default() };
        let text = options(user, [7, 12, 13].into_iter(), Some((20, 21))).unwrap();
        let expected =
            "userxattr,index=off,redirect_dir=nofollow,metacopy=off,xino=off,lowerdir=7:12:13,upperdir=20,workdir=21";
        assert_eq!(text.to_str().unwrap(), expected);
        // All that the kernel takes fit, up to the descriptors of a very large program.
        assert!(options(user, 100_000..100_500, Some((1, 2))).is_ok());
        let error = options(user, 1_000_000..1_000_600, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitReached);
        for count in 550..600 {
            let fits = options(user, 1_000_000..1_000_000 + count, None);
            assert!(fits.map_or(true, |text| text.as_bytes().len() <= LONGEST));
        }
    }
}
