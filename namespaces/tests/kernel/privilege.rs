//! What the program may do, as the kernel tells it, and that the host program may do what it could before.

use crate::escape;
use crate::support::{engine, output, output_with, program, refused, sh};
use cofferdam_namespaces::{
    Capabilities, Capability, CapabilitySet, Credentials, Engine, ErrorKind, Fallbacks, Fds, IdMap, IdRange,
    Namespaces, Sandbox, Seccomp, SecureBits, Step, landlock_abi,
};
use cofferdam_testkit::Need;
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use landlock::{Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, path_beneath_rules};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;

/// The sets in a `status` file of `/proc`, by their names there.
fn sets(status: &str) -> BTreeMap<&str, u64> {
    let lines = status.lines().filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"));
    lines.map(|(name, bits)| (name, u64::from_str_radix(bits, 16).unwrap())).collect()
}

fn bits(set: impl IntoIterator<Item = Capability>) -> u64 {
    set.into_iter().fold(0, |bits, one| bits | 1 << one.number())
}

const STATUS: &str = "cat /proc/self/status";

/// User 0 has what the bounding set has, and another user what the ambient one has.
pub(crate) fn the_five_sets_are_the_programs() {
    let two = [Capability::Kill, Capability::NetBindService];
    let root = sh(STATUS).user(IdMap::root());
    let other = sh(STATUS).user(IdMap::single(1000, 1000));
    let none = BTreeMap::from([("Inh", 0), ("Prm", 0), ("Eff", 0), ("Bnd", 0), ("Amb", 0)]);
    let with = |keys: &[&'static str], value: u64| {
        let mut all = none.clone();
        all.extend(keys.iter().map(|key| (*key, value)));
        all
    };
    let just = bits(two);
    for (sandbox, capabilities, expected) in [
        (&root, Capabilities::none(), none.clone()),
        (&root, Capabilities::only(two), with(&["Prm", "Eff", "Bnd"], just)),
        (&other, Capabilities::only(two), with(&["Bnd"], just)),
        (&other, Capabilities::none().with_ambient(two), with(&["Inh", "Prm", "Eff", "Bnd", "Amb"], just)),
        // Inheritable is what a file must ask for.
        (&other, Capabilities::only(two).inheritable(two), with(&["Inh", "Bnd"], just)),
        (
            &root,
            Capabilities::container_default(),
            with(&["Prm", "Eff", "Bnd"], bits(Capabilities::container_default().bounding_set().iter())),
        ),
    ] {
        let status = output(sandbox.clone().capabilities(capabilities));
        assert_eq!(sets(&status), expected, "{capabilities:?}");
    }
}

/// Root who becomes another user keeps what is asked for, and nothing else.
pub(crate) fn capabilities_outlive_a_change_of_user() {
    let kept = [Capability::NetBindService, Capability::Chown];
    let capabilities = Capabilities::none().with_ambient(kept);
    let ranges = || IdMap::ranges([IdRange::new(0, 100_000, 65_536)], [IdRange::new(0, 100_000, 65_536)]);
    for sandbox in [sh(STATUS), sh(STATUS).user(ranges())] {
        let status = output(sandbox.clone().credentials(Credentials::new(1000, 1000)).capabilities(capabilities));
        assert!(sets(&status).values().all(|set| *set == bits(kept)), "{status}");
        let status = output(sandbox.credentials(Credentials::new(1000, 1000)).capabilities(Capabilities::none()));
        assert!(sets(&status).values().all(|set| *set == 0), "{status}");
    }
}

/// CVE-2022-27650: what the caller has in its inheritable set is not the program's; without being told about capabilities it is.
pub(crate) fn nothing_is_inherited_unasked() {
    let own = Capability::Chown;
    let inherit = move || {
        let mut data = [0_u32; 6];
        let mut header = [0x2008_0522_u32, 0];
        for call in [libc::SYS_capget, libc::SYS_capset] {
            #[expect(unsafe_code, reason = "libc has no wrapper")]
            // SAFETY: both are as long as this version says; this thread has one that it inherits to.
            let result = unsafe { libc::syscall(call, header.as_mut_ptr(), data.as_mut_ptr()) };
            assert_eq!(result, 0);
            data[2] |= 1 << own.number();
        }
    };
    // In a thread, whose set it is.
    std::thread::spawn(move || {
        inherit();
        let inherited = |sandbox| sets(&output(sandbox))["Inh"];
        assert_eq!(inherited(sh(STATUS)), bits([own]), "the attack is none");
        assert_eq!(inherited(sh(STATUS).capabilities(Capabilities::container_default())), 0);
        let asked = Capabilities::container_default().inheritable(own);
        assert_eq!(inherited(sh(STATUS).capabilities(asked)), bits([own]));
    })
    .join()
    .unwrap();
}

pub(crate) fn securebits_are_the_programs() {
    let bits = SecureBits::NOROOT | SecureBits::NOROOT_LOCKED | SecureBits::NO_CAP_AMBIENT_RAISE;
    let sandbox = sh(STATUS).user(IdMap::root()).securebits(bits);
    // User 0 is nobody special then.
    for sandbox in [sandbox.clone(), sandbox.clone().capabilities(Capabilities::container_default())] {
        assert_eq!(sets(&output(sandbox))["Eff"], 0);
    }
    let kept = Capabilities::none().with_ambient([Capability::Kill]);
    assert_eq!(sets(&output(sandbox.capabilities(kept)))["Eff"], 1 << Capability::Kill.number());
}

pub(crate) fn no_new_privileges() {
    let told = |status: String| status.lines().find_map(|line| line.strip_prefix("NoNewPrivs:\t")).unwrap().to_owned();
    assert_eq!(told(output(sh(STATUS).no_new_privs())), "1");
    assert_eq!(told(output(sh(STATUS))), "0");
    // A program that is root's for everybody.
    if nix::unistd::geteuid().is_root() {
        let folder = tempfile::tempdir().unwrap();
        let suid = folder.path().join("id");
        fs::copy("/usr/bin/id", &suid).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&suid, fs::Permissions::from_mode(0o4755)).unwrap();
        let id = program(&suid).arg("-u").credentials(Credentials::new(1000, 1000)).working_directory("/");
        assert_eq!(output(id.clone().no_new_privs()), "1000\n");
        assert_eq!(output(id), "0\n", "the attack is none");
    }
}

pub(crate) fn privileges_that_cannot_be() {
    let error = refused(&sh("true").capabilities(Capabilities::none().effective(Capability::Kill)));
    assert_eq!((error.step(), error.kind()), (Step::Configure, ErrorKind::InvalidConfig), "{error}");
    let error = refused(&sh("true").securebits(SecureBits::from_bits_retain(1 << 20)));
    assert_eq!((error.step(), error.kind()), (Step::Configure, ErrorKind::InvalidConfig), "{error}");
    let unsupported = |sandbox: &Sandbox| {
        let error = refused(sandbox);
        assert_eq!((error.step(), error.kind()), (Step::Prepare, ErrorKind::Unsupported), "{error}");
    };
    // A machine has one of them, or none.
    let profiled = sh("true").apparmor_profile("unconfined");
    if Need::AppArmor.check().is_ok() {
        assert!(profiled.spawn().unwrap().wait().unwrap().success());
    } else {
        unsupported(&profiled);
    }
    // SELinux is on without a policy in the virtual ones: any label is as good there.
    let labelled = sh("true").selinux_label("system_u:system_r:init_t:s0");
    if fs::exists("/sys/fs/selinux").unwrap() {
        assert!(labelled.spawn().unwrap().wait().unwrap().success());
    } else {
        unsupported(&labelled);
    }
    let error = refused(&sh("true").apparmor_profile("a\0b"));
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    let error = refused(&sh("true").landlock("rules"));
    assert_eq!((error.step(), error.kind()), (Step::Configure, ErrorKind::InvalidConfig), "{error}");
}

/// Who is nobody cannot give up what they have: it takes a capability.
pub(crate) fn capabilities_are_dropped_by_those_who_may() {
    let error = refused(&sh("true").capabilities(Capabilities::none()));
    assert_eq!((error.step(), error.raw_os_error()), (Step::BoundingSet, Some(libc::EPERM)), "{error}");
    assert!(error.hint().unwrap().contains("CAP_SETPCAP"), "{error}");
    let error = refused(&sh("true").seccomp(Seccomp::no_user_namespaces()));
    assert_eq!((error.step(), error.raw_os_error()), (Step::Seccomp, Some(libc::EACCES)), "{error}");
    assert!(error.hint().unwrap().contains("no_new_privs"), "{error}");
    output(sh("true").seccomp(Seccomp::no_user_namespaces()).no_new_privs());
}

/// A kernel that knows fewer capabilities than this crate: they are left out, and told. As root: the faults of an ordinary user come with `no_new_privs`.
pub(crate) fn capabilities_that_the_kernel_does_not_know() {
    let asked = Capabilities::only([Capability::Kill, Capability::CheckpointRestore, Capability::Bpf]);
    let sandbox = sh(STATUS).user(IdMap::root()).capabilities(asked).stdout(cofferdam_namespaces::Stdio::Pipe);
    let report = |sandbox: &Sandbox| {
        let mut child = sandbox.spawn().unwrap();
        let status = crate::support::read(&mut child);
        assert!(child.wait().unwrap().success());
        (child.report().left_out(), sets(&status)["Eff"])
    };
    assert_eq!(report(&sandbox), (CapabilitySet::EMPTY, bits(asked.bounding_set().iter())));
    // The question about number 39 is the fortieth of its sort.
    let unknown = Fault { who: Who::Parent, nth: 39, action: Action::Errno(libc::EINVAL) };
    let (_, told) = Watch::only(&[libc::SYS_prctl]).inject(unknown, || report(&sandbox));
    let left_out = CapabilitySet::from_iter([Capability::CheckpointRestore, Capability::Bpf]);
    // The real kernel does know them, and has not been told to drop them.
    assert_eq!(told, (left_out, bits(asked.bounding_set().iter())));
    // Whoever only hides it is not believed.
    let hidden = Fault { action: Action::Errno(libc::EPERM), ..unknown };
    let (_, error) = Watch::only(&[libc::SYS_prctl]).inject(hidden, || refused(&sandbox));
    assert_eq!((error.step(), error.raw_os_error()), (Step::Prepare, Some(libc::EPERM)), "{error}");
}

fn rules(readable: &[&str]) -> OwnedFd {
    let abi = landlock::ABI::V1;
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(abi)).unwrap().create().unwrap();
    let ruleset = ruleset.add_rules(path_beneath_rules(readable, AccessFs::from_read(abi))).unwrap();
    Option::<OwnedFd>::from(ruleset).expect("the kernel has Landlock")
}

/// Nobody makes a device, and everything else is as it was.
pub(crate) fn no_devices() -> OwnedFd {
    let ruleset = Ruleset::default().handle_access(AccessFs::MakeBlock).unwrap().create().unwrap();
    Option::<OwnedFd>::from(ruleset).expect("the kernel has Landlock")
}

/// Only what the rules allow can be reached.
pub(crate) fn a_ruleset_restricts() {
    assert!(landlock_abi().unwrap() >= 1);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "secret\n").unwrap();
    let script = format!("cat {}/secret 2>&1; true", folder.path().display());
    let base = sh(&script).working_directory("/");
    let readable: Vec<_> =
        ["/bin", "/usr", "/lib", "/lib64"].into_iter().filter(|path| fs::exists(path).unwrap()).collect();
    let bound = || Fds::new().bind("rules", rules(&readable));
    let shown = output_with(base.clone().no_new_privs().landlock("rules"), bound());
    assert!(shown.contains("Permission denied"), "{shown}");
    assert_eq!(output(base.clone().no_new_privs()), "secret\n", "the attack is none");
    // With the right to it, and held.
    let sandbox = base.user(IdMap::root()).landlock("rules").stdout(cofferdam_namespaces::Stdio::Pipe);
    let mut child = sandbox.prepare(bound()).unwrap().hold().unwrap().release().unwrap();
    assert!(crate::support::read(&mut child).contains("Permission denied"));
    assert!(child.wait().unwrap().success());
}

/// What the kernel lacks is an error, or left out because that was allowed, and told.
pub(crate) fn what_the_kernel_lacks_is_told() {
    type Case = (i64, i32, Step, Fallbacks, fn(Sandbox) -> Sandbox);
    let cases: [Case; 2] = [
        (libc::SYS_keyctl, libc::ENOSYS, Step::Keyring, Fallbacks::SESSION_KEYRING, |s| s.new_session_keyring()),
        (libc::SYS_landlock_restrict_self, libc::EOPNOTSUPP, Step::Landlock, Fallbacks::LANDLOCK, |s| {
            s.no_new_privs().landlock("rules")
        }),
    ];
    for (call, errno, step, fallback, ask) in cases {
        let fault = Fault { who: Who::Child, nth: Fault::EVERY, action: Action::Errno(errno) };
        let spawn = |allowed: Fallbacks| {
            let fds = if step == Step::Landlock { Fds::new().bind("rules", rules(&["/"])) } else { Fds::new() };
            let sandbox = ask(program("/bin/true").fallbacks(allowed));
            let (_, child) = Watch::only(&[call]).inject(fault, || sandbox.spawn_with(fds));
            child
        };
        let error = spawn(Fallbacks::empty()).unwrap_err();
        assert_eq!((error.step(), error.kind()), (step, ErrorKind::Unsupported), "{error}");
        let child = spawn(fallback).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(child.report().fallbacks(), fallback);
    }
    // There was nothing to bind. Where there is, a name that is not bound is none that may be left out.
    let unbound = program("/bin/true").landlock("rules").fallbacks(Fallbacks::LANDLOCK);
    let fault = Fault { who: Who::Parent, nth: Fault::EVERY, action: Action::Errno(libc::EOPNOTSUPP) };
    let (_, child) = Watch::only(&[libc::SYS_landlock_create_ruleset]).inject(fault, || unbound.spawn());
    let child = child.unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(child.report().fallbacks(), Fallbacks::LANDLOCK);
    let error = refused(&unbound);
    assert_eq!((error.kind(), error.object().unwrap()), (ErrorKind::InvalidConfig, "descriptor \"rules\"".as_ref()));
}

/// The right to restrict itself is lost with the user: that is told before, and how it is kept.
pub(crate) fn rights_that_are_lost_with_the_user() {
    type Ask = fn(Sandbox) -> Sandbox;
    let other = Credentials::new(1000, 1000);
    let bits = |s: Sandbox| s.securebits(SecureBits::NOROOT);
    let filter = |s: Sandbox| s.seccomp(Seccomp::no_user_namespaces());
    let rules = |s: Sandbox| s.landlock("rules");
    let asks: [(&str, Ask); 3] =
        [("securebits", bits), ("filters and rulesets", filter), ("filters and rulesets", rules)];
    for (at, (object, ask)) in asks.into_iter().enumerate() {
        let fds = || if at == 2 { Fds::new().bind("rules", self::rules(&["/"])) } else { Fds::new() };
        for base in [program("/bin/true"), program("/bin/true").user(crate::identity::strangers())] {
            let sandbox = ask(base.clone().credentials(other.clone()));
            let error = sandbox.prepare(fds()).unwrap_err();
            assert_eq!((error.kind(), error.object().unwrap()), (ErrorKind::InvalidConfig, object.as_ref()), "{error}");
            let run = |sandbox: Sandbox| assert!(sandbox.spawn_with(fds()).unwrap().wait().unwrap().success());
            run(sandbox.clone().capabilities(Capabilities::none()));
            run(ask(base.clone().credentials(Credentials::new(0, 0))));
            if object != "securebits" {
                run(sandbox.no_new_privs());
            }
        }
    }
}

/// A session of the test's own, with a key in it.
pub(crate) fn have_a_key() {
    let keyctl = |operation: u32, argument: u64| {
        #[expect(unsafe_code, reason = "libc has no wrapper")]
        // SAFETY: numbers, and null for a string.
        unsafe {
            libc::syscall(libc::SYS_keyctl, operation, argument)
        }
    };
    assert!(keyctl(libc::KEYCTL_JOIN_SESSION_KEYRING, 0) >= 0);
    let (kind, name, secret) = (c"user", c"cofferdam-secret", b"secret");
    #[expect(unsafe_code, reason = "libc has no wrapper")]
    // SAFETY: strings that end, and as many bytes as are told.
    let key = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            kind.as_ptr(),
            name.as_ptr(),
            secret.as_ptr(),
            secret.len(),
            libc::KEY_SPEC_SESSION_KEYRING,
        )
    };
    assert!(key > 0);
}

/// A key that the caller has in its session is not there.
pub(crate) fn keys_of_the_host_are_out_of_sight() {
    have_a_key();
    let look = program(escape::program()).args(["escape", "key"]).user(IdMap::root()).namespaces(Namespaces::PID);
    assert_eq!(output(look.clone().new_session_keyring()), "refused: key\n");
    assert_eq!(output(look), "ESCAPED: key\n", "the attack is none");
}

/// Nothing of all this reaches the host program, whose memory the child may have had.
pub(crate) fn the_host_program_keeps_its_privileges() {
    let own = || {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let of_rights = |line: &&str| {
            ["Cap", "NoNewPrivs", "Seccomp", "Speculation", "Uid"].iter().any(|start| line.starts_with(start))
        };
        let lines: Vec<String> = status.lines().filter(of_rights).map(str::to_owned).collect();
        #[expect(unsafe_code, reason = "libc has no wrapper")]
        // SAFETY: numbers only.
        let keyring = unsafe { libc::syscall(libc::SYS_keyctl, 0, libc::KEY_SPEC_SESSION_KEYRING, 0) };
        (lines, nix::sys::prctl::get_dumpable().unwrap(), keyring)
    };
    let before = own();
    let sandbox = sh("true")
        .user(IdMap::root())
        .capabilities(Capabilities::container_default())
        .securebits(SecureBits::NO_SETUID_FIXUP)
        .no_new_privs()
        .new_session_keyring()
        .seccomp(Seccomp::container_default(&Capabilities::container_default()));
    let child = sandbox.spawn().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(child.report().engine(), engine());
    assert_eq!(own(), before);
    assert!(matches!(engine(), Engine::Shared | Engine::Copy));
}
