//! Somebody else exchanges a directory of the stage for a symlink, again and again, while a layer is unpacked.

use crate::support::{Done, Scratch, Tar, lenient, options, sentinel, unpack, unpack_onto};
use cofferdam_image::ErrorKind;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

const SWAPS: usize = 4000;
const DIRECTORIES: usize = 60;

fn archive() -> Vec<u8> {
    let mut tar = Tar::of(&["d/"]);
    for number in 0..DIRECTORIES {
        tar = tar.entry(&format!("d/{number}/"));
    }
    for number in 0..DIRECTORIES {
        tar = tar.entry(&format!("d/{number}/file=overwritten")).entry(&format!("d/{number}/link->x"));
    }
    tar.end()
}

/// Runs `unpack` on new stages while `d` in them is swapped for a symlink and back, until there were enough swaps and one of the runs has met what it should: it
/// says so.
fn race(scratch: &Scratch, mut unpack: impl FnMut(&Path) -> bool) {
    let mut met = false;
    let swaps = AtomicUsize::new(0);
    while swaps.load(Ordering::SeqCst) < SWAPS || !met {
        let stage = scratch.stage();
        // Of the stage's own number: what could not be removed is in nobody's way.
        let trap = stage.with_extension("trap");
        symlink(scratch.outside(), &trap).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let _end = Done(&done);
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let target = stage.join("d");
                    if renameat_with(CWD, &trap, CWD, &target, RenameFlags::EXCHANGE).is_ok() {
                        swaps.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
            met |= unpack(&stage);
        });
        let _ = fs::remove_dir_all(&trap).or_else(|_| fs::remove_file(&trap));
        let _ = fs::remove_dir_all(&stage);
    }
}

pub(crate) fn a_directory_that_is_swapped_for_a_symlink() {
    let scratch = Scratch::new();
    for number in 0..DIRECTORIES {
        fs::create_dir(scratch.outside().join(number.to_string())).unwrap();
    }
    let before = sentinel(&scratch.outside());
    let archive = archive();
    race(&scratch, |stage| match unpack(&archive, stage, None, options()) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Interfered, "{error}");
            true
        }
    });
    assert_eq!(sentinel(&scratch.outside()), before);
    // The same in a tree onto which the layer is merged.
    let staging = scratch.stage();
    race(&scratch, |target| {
        let _ = fs::remove_dir_all(&staging);
        fs::create_dir(&staging).unwrap();
        let _ = fs::create_dir(target.join("d"));
        for number in 0..DIRECTORIES {
            let _ = fs::create_dir(target.join(format!("d/{number}")));
        }
        // Until the layer is there, the directory may be anything.
        unpack_onto(&archive, &staging, target, lenient()).is_err()
    });
    assert_eq!(sentinel(&scratch.outside()), before);
    // The same race takes in who opens by paths: it is one.
    race(&scratch, |stage| {
        let _ = fs::create_dir(stage.join("d"));
        for number in 0..DIRECTORIES {
            let dir = stage.join(format!("d/{number}"));
            let _ = fs::create_dir(&dir);
            let _ = fs::write(dir.join("file"), "overwritten");
        }
        sentinel(&scratch.outside()) != before
    });
}
