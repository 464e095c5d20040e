//! Labels of a security module, where the kernel has one that is on: `AppArmor` in one of the virtual machines.

use crate::joins::{end, inside, joined};
use crate::support::{output, refused, sh};
use cofferdam_namespaces::{Capabilities, ErrorKind, IdMap, Join, Mount, Namespaces, Sandbox, Step};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount, umount};
use std::fs::{self, File};
use std::io::Write;

const PLACE: &str = "/sys/kernel/security";
const NAME: &str = "cofferdam-test";
/// What there is of it as a text is beside it.
const PROFILE: &[u8] = include_bytes!("apparmor.bin");

/// A profile that the kernel has as long as this is there. It is the machine's: one test at a time.
struct Loaded {
    _turn: Flock<File>,
}

impl Loaded {
    fn new() -> Self {
        let turn = Flock::lock(File::open("/proc/self/exe").unwrap(), FlockArg::LockExclusive).unwrap();
        mount(Some("securityfs"), PLACE, Some("securityfs"), MsFlags::empty(), None::<&str>).unwrap();
        tell(".replace", PROFILE);
        Loaded { _turn: turn }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        tell(".remove", NAME.as_bytes());
        umount(PLACE).unwrap();
    }
}

/// In one write.
fn tell(file: &str, text: &[u8]) {
    let file = File::options().write(true).open(format!("{PLACE}/apparmor/{file}"));
    assert_eq!(file.unwrap().write(text).unwrap(), text.len());
}

/// The program runs under the profile, which refuses it something; and without it does not.
pub(crate) fn the_profile_is_the_programs() {
    let loaded = Loaded::new();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("refused"), "read\n").unwrap();
    let script = format!("cat /proc/self/attr/apparmor/current {}/refused 2>&1; true", folder.path().display());
    let (free, confined) = ("unconfined\nread\n".to_owned(), format!("{NAME} (enforce)\n"));
    let check = |run: &dyn Fn(Sandbox) -> String, sandbox: Sandbox| {
        assert_eq!(run(sandbox.clone()), free, "{sandbox:?}");
        let said = run(sandbox.clone().apparmor_profile(NAME));
        let refused = said.strip_prefix(&confined).unwrap_or_else(|| panic!("{sandbox:?}: {said}"));
        assert!(refused.ends_with("/refused: Permission denied\n"), "{sandbox:?}: {said}");
    };
    let own = Namespaces::MOUNT | Namespaces::PID;
    let apart = sh(&script).user(IdMap::root()).namespaces(own).mount(Mount::proc("/proc"));
    check(&output, sh(&script));
    check(&output, sh(&script).no_new_privs().capabilities(Capabilities::none()));
    check(&output, apart.clone());
    check(&output, apart.init());
    let target = inside(sh("echo ready; read line").user(IdMap::root()).namespaces(own).mount(Mount::proc("/proc")));
    check(&|sandbox| joined(&target, sandbox), sh(&script).join(Join::all()));
    end(&target);
    // It is gone with the profile, whose name nobody else has.
    tell(".remove", NAME.as_bytes());
    let error = refused(&sh("true").apparmor_profile(NAME));
    assert_eq!((error.step(), error.kind()), (Step::Label, ErrorKind::NotFound), "{error}");
    tell(".replace", PROFILE);
    drop(loaded);
}
