//! The command line, after bwrap's: each option is a method of [`Sandbox`]. Pure: nothing is looked at but the arguments.

use crate::rights::Rights;
use cofferdam_namespaces::{CapabilitySet, IdMap, Mount, Namespaces, Root, Sandbox};
use lexopt::prelude::*;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

pub(crate) const HELP: &str = "\
Runs a program in a root of its own, in new namespaces. Who knows bwrap(1) knows the options.

usage: run-in-rootfs [options] [--] PROGRAM [ARG...]

The root; without one of these it is empty, and all that is in it is mounted there:
  --root DIR               this directory; the same as --bind DIR /
  --ro-bind DIR /          this directory, read-only: / for all that the host has

Mounts, made in the order given; a mount point that is missing is made, but not in what is bound:
  --bind SRC DEST          what is at SRC on the host, with all that is mounted there
  --ro-bind SRC DEST       the same, read-only
  --dev-bind SRC DEST      the same, with devices that work
  --bind-try, --ro-bind-try, --dev-bind-try SRC DEST   nothing if there is no SRC
  --proc DEST              the processes of the sandbox (there is a new pid namespace then, as if by --unshare-pid)
  --dev DEST               a small /dev
  --tmpfs DEST             an empty tmpfs, as large as a --size BYTES before it says, with the mode of a --perms OCTAL
  --mqueue DEST            POSIX message queues
  --sysfs DEST             the devices of the machine, read-only
  --cgroup DEST            the control groups, read-only
  --dir DEST               a directory, if there is none
  --symlink TEXT DEST      a symbolic link; what is there already is not replaced
  --mask PATH              nothing is to be seen there
  --remount-ro PATH        what is there becomes read-only, with all that is mounted below it

Namespaces, beside the mounts'. Without root a user namespace is always among them:
  --unshare-user, --unshare-ipc, --unshare-pid, --unshare-net, --unshare-uts, --unshare-cgroup
  --unshare-all            all of them
  --share-net              not the network, after --unshare-all
  --uid N, --gid N         who the program is in a user namespace; by default who it is outside
  --hostname NAME          there is a new host name then, as if by --unshare-uts

The program:
  --chdir DIR              its working directory; by default /
  --argv0 NAME             what it finds as its own name
  --setenv NAME VALUE, --unsetenv NAME, --clearenv
  --cap-add CAP, --cap-drop CAP   the capabilities that it has whatever its user is, a name or ALL; the first of these begins
                           with those of root, or for an ordinary user with none. Without them: what its user has by itself
  --die-with-parent        it is killed when run-in-rootfs ends
  --new-session            it is cut off from the terminal
  --as-pid-1               nothing: it is process 1 anyhow, unless --init says otherwise
  --init                   in front of it a process 1 that waits for orphans and sends signals on, as if by --unshare-pid
  --explain                do not run it; print the system calls that would start it
  --help                   print this

Unlike bwrap there is no process beside the program unless --init says so: in a pid namespace it is process 1.
Exit status: the program's, or 128 and the number of the signal that ended it; 127 and 126 if there is no such
program or it cannot be started, 125 for other failures, 2 for bad usage.
";

/// What the user wants.
#[derive(Debug)]
pub(crate) enum Command {
    Run(Box<Sandbox>),
    Explain(Box<Sandbox>),
    Help,
}

/// What of the caller matters.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) env: BTreeMap<OsString, OsString>,
    /// Its effective set.
    pub(crate) capabilities: CapabilitySet,
    /// Whether there is something at a path.
    pub(crate) exists: fn(&Path) -> bool,
}

/// What has been read so far.
#[expect(clippy::struct_excessive_bools, reason = "each is an option")]
struct Reading {
    args: lexopt::Parser,
    caller: Caller,
    root: Root,
    read_only: bool,
    mounts: Vec<Mount>,
    namespaces: Namespaces,
    ids: (Option<u32>, Option<u32>),
    /// Of the next tmpfs.
    size: Option<u64>,
    mode: Option<u32>,
    hostname: Option<OsString>,
    directory: PathBuf,
    arg0: Option<OsString>,
    rights: Rights,
    die_with_parent: bool,
    new_session: bool,
    as_pid_1: bool,
    init: bool,
}

/// What is wrong comes as a line.
pub(crate) fn parse(args: lexopt::Parser, caller: Caller) -> Result<Command, String> {
    let rights = Rights::new(caller.uid, caller.capabilities);
    let mut reading = Reading {
        args,
        caller,
        root: Root::Empty,
        read_only: false,
        mounts: Vec::new(),
        namespaces: Namespaces::MOUNT,
        ids: (None, None),
        size: None,
        mode: None,
        hostname: None,
        directory: "/".into(),
        arg0: None,
        rights,
        die_with_parent: false,
        new_session: false,
        as_pid_1: false,
        init: false,
    };
    let mut explain = false;
    while let Some(arg) = reading.args.next().map_err(|e| e.to_string())? {
        let name = match arg {
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("explain") => {
                explain = true;
                continue;
            }
            Long(name) => name.to_owned(),
            Value(program) => {
                let sandbox = Box::new(reading.finish(program)?);
                return Ok(if explain { Command::Explain(sandbox) } else { Command::Run(sandbox) });
            }
            other @ Short(_) => return Err(other.unexpected().to_string()),
        };
        let known = reading.mount(&name)? || reading.namespace(&name)? || reading.program(&name)?;
        if !known {
            return Err(format!("invalid option '--{name}'"));
        }
    }
    Err("which program?".into())
}

impl Reading {
    fn mount(&mut self, name: &str) -> Result<bool, String> {
        let mount = match name {
            "root" => {
                self.root = Root::directory(self.value()?);
                return Ok(true);
            }
            "bind" | "ro-bind" | "dev-bind" | "bind-try" | "ro-bind-try" | "dev-bind-try" => return self.bind(name),
            "size" => {
                self.size = Some(self.number(10)?.into());
                return Ok(true);
            }
            "perms" => {
                self.mode = Some(self.number(8)?);
                return Ok(true);
            }
            "tmpfs" => {
                let mut tmpfs = Mount::tmpfs(self.value()?);
                tmpfs = self.size.take().map_or(tmpfs.clone(), |size| tmpfs.size(size));
                self.mode.take().map_or(tmpfs.clone(), |mode| tmpfs.mode(mode))
            }
            "proc" => {
                self.namespaces |= Namespaces::PID;
                Mount::proc(self.value()?)
            }
            "dev" => Mount::dev(self.value()?),
            "mqueue" => {
                self.namespaces |= Namespaces::IPC;
                Mount::mqueue(self.value()?)
            }
            "sysfs" => Mount::sysfs(self.value()?),
            "cgroup" => {
                self.namespaces |= Namespaces::CGROUP;
                Mount::cgroup(self.value()?)
            }
            "dir" if self.mode.is_some() => return Err("--perms is for a --tmpfs".into()),
            "dir" => Mount::directory(self.value()?),
            "symlink" => {
                let text = self.value()?;
                Mount::link(text, self.value()?)
            }
            "mask" => Mount::mask(self.value()?),
            "remount-ro" => Mount::read_only_path(self.value()?),
            _ => return Ok(false),
        };
        self.mounts.push(mount);
        Ok(true)
    }

    fn bind(&mut self, name: &str) -> Result<bool, String> {
        let (source, target) = (PathBuf::from(self.value()?), PathBuf::from(self.value()?));
        let (how, when) = name.strip_suffix("-try").map_or((name, "always"), |how| (how, "try"));
        if when == "try" && !(self.caller.exists)(&source) {
            return Ok(true);
        }
        if target == Path::new("/") {
            self.root = Root::Directory(source);
            self.read_only = how == "ro-bind";
            return Ok(true);
        }
        let bind = Mount::bind(source, target);
        self.mounts.push(match how {
            "ro-bind" => bind.read_only(),
            "dev-bind" => bind.allow_devices(),
            _ => bind,
        });
        Ok(true)
    }

    fn namespace(&mut self, name: &str) -> Result<bool, String> {
        match name {
            "unshare-user" => self.namespaces |= Namespaces::USER,
            "unshare-ipc" => self.namespaces |= Namespaces::IPC,
            "unshare-pid" => self.namespaces |= Namespaces::PID,
            "unshare-net" => self.namespaces |= Namespaces::NET,
            "unshare-uts" => self.namespaces |= Namespaces::UTS,
            "unshare-cgroup" => self.namespaces |= Namespaces::CGROUP,
            "unshare-all" => self.namespaces = Namespaces::all() - Namespaces::TIME,
            "share-net" => self.namespaces -= Namespaces::NET,
            "uid" => self.ids.0 = Some(self.number(10)?),
            "gid" => self.ids.1 = Some(self.number(10)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn program(&mut self, name: &str) -> Result<bool, String> {
        match name {
            "hostname" => {
                self.namespaces |= Namespaces::UTS;
                self.hostname = Some(self.value()?);
            }
            "chdir" => self.directory = self.value()?.into(),
            "argv0" => self.arg0 = Some(self.value()?),
            "cap-add" => {
                let name = self.text()?;
                self.rights.add(&name)?;
            }
            "cap-drop" => {
                let name = self.text()?;
                self.rights.drop(&name)?;
            }
            "as-pid-1" => self.as_pid_1 = true,
            "die-with-parent" => self.die_with_parent = true,
            "new-session" => self.new_session = true,
            "init" => {
                self.namespaces |= Namespaces::PID;
                self.init = true;
            }
            "clearenv" => self.caller.env.clear(),
            "setenv" => {
                let (name, value) = (self.value()?, self.value()?);
                self.caller.env.insert(name, value);
            }
            "unsetenv" => {
                let name = self.value()?;
                self.caller.env.remove(&name);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish(mut self, program: OsString) -> Result<Sandbox, String> {
        if self.as_pid_1 && self.init {
            return Err("--as-pid-1 and --init contradict each other".into());
        }
        let args: Vec<OsString> = self.args.raw_args().map_err(|e| e.to_string())?.collect();
        if self.caller.uid != 0 || self.ids != (None, None) {
            self.namespaces |= Namespaces::USER;
        }
        let mut sandbox = Sandbox::new(program)
            .args(args)
            .envs(self.caller.env)
            .namespaces(self.namespaces)
            .root(self.root)
            .working_directory(self.directory);
        sandbox = self.mounts.into_iter().fold(sandbox, Sandbox::mount);
        if self.namespaces.contains(Namespaces::USER) {
            let (uid, gid) = (self.ids.0.unwrap_or(self.caller.uid), self.ids.1.unwrap_or(self.caller.gid));
            sandbox = sandbox.user(IdMap::single(uid, gid));
        }
        if let Some(name) = self.hostname {
            sandbox = sandbox.hostname(name);
        }
        if let Some(name) = self.arg0 {
            sandbox = sandbox.arg0(name);
        }
        if let Some(capabilities) = self.rights.capabilities() {
            sandbox = sandbox.capabilities(capabilities);
        }
        if self.read_only {
            sandbox = sandbox.read_only_root();
        }
        if self.die_with_parent {
            sandbox = sandbox.die_with_parent();
        }
        if self.init {
            sandbox = sandbox.init();
        }
        Ok(if self.new_session { sandbox.new_session() } else { sandbox })
    }

    fn value(&mut self) -> Result<OsString, String> {
        self.args.value().map_err(|e| e.to_string())
    }

    fn text(&mut self) -> Result<String, String> {
        self.value()?.into_string().map_err(|text| format!("{} is not a name", OsStr::display(&text)))
    }

    fn number(&mut self, base: u32) -> Result<u32, String> {
        let text = self.value()?;
        let number = text.to_str().and_then(|text| u32::from_str_radix(text, base).ok());
        number.ok_or_else(|| format!("{} is not a number", OsStr::display(&text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_namespaces::{Capabilities, Capability};

    fn asked(args: &[&str]) -> Result<Sandbox, String> {
        let env = [("HOME", "/home/me"), ("SECRET", "x")].map(|(name, value)| (name.into(), value.into()));
        let exists = |path: &Path| path == Path::new("/there");
        let caller = Caller { uid: 1000, gid: 100, env: env.into(), capabilities: CapabilitySet::EMPTY, exists };
        match parse(lexopt::Parser::from_args(args), caller)? {
            Command::Run(sandbox) => Ok(*sandbox),
            Command::Explain(_) | Command::Help => Err("not run".into()),
        }
    }

    fn base() -> Sandbox {
        Sandbox::new("/bin/sh")
            .working_directory("/")
            .namespaces(Namespaces::MOUNT)
            .user(IdMap::single(1000, 100))
            .root(Root::Empty)
    }

    #[test]
    fn each_option_is_a_method() {
        let env = |sandbox: Sandbox| sandbox.env("HOME", "/home/me").env("SECRET", "x");
        assert_eq!(asked(&["/bin/sh", "-c", "--bind"]), Ok(env(base().args(["-c", "--bind"]))));
        let root =
            base().root(Root::directory("/")).read_only_root().mount(Mount::tmpfs("/tmp").size(4096).mode(0o700));
        let args = ["--size", "4096", "--perms", "700", "--ro-bind", "/", "/", "--tmpfs", "/tmp", "--", "/bin/sh"];
        assert_eq!(asked(&args), Ok(env(root)));
        let binds = base()
            .mount(Mount::bind("/there", "/a").read_only())
            .mount(Mount::bind("/dev/fuse", "/dev/fuse").allow_devices());
        let args = "--ro-bind-try /there /a --bind-try /not /b --dev-bind /dev/fuse /dev/fuse --clearenv /bin/sh";
        assert_eq!(asked(&args.split(' ').collect::<Vec<_>>()), Ok(binds));
        let alone = base()
            .user(IdMap::single(0, 100))
            .namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::NET)
            .hostname("box");
        let args = "--unshare-all --share-net --uid 0 --hostname box --clearenv /bin/sh";
        assert_eq!(asked(&args.split(' ').collect::<Vec<_>>()), Ok(alone));
        let made = base().mount(Mount::directory("/a")).mount(Mount::link("usr/bin", "/bin")).arg0("-sh");
        let made = made.capabilities(Capabilities::none().with_ambient([Capability::Kill]));
        let args = "--dir /a --symlink usr/bin /bin --argv0 -sh --cap-add CAP_KILL --as-pid-1 --clearenv /bin/sh";
        assert_eq!(asked(&args.split(' ').collect::<Vec<_>>()), Ok(made));
        let variables =
            base().env("HOME", "/home/me").env("A", "b").die_with_parent().namespaces(Namespaces::PID).init();
        let args = "--setenv A b --unsetenv SECRET --die-with-parent --init /bin/sh";
        assert_eq!(asked(&args.split(' ').collect::<Vec<_>>()), Ok(variables));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (args, says) in [
            (&[][..], "which program?"),
            (&["--uid", "x", "sh"], "x is not a number"),
            (&["--ro-bnd", "/", "/"], "--ro-bnd"),
            (&["--bind", "/"], "--bind"),
            (&["-x"], "-x"),
            (&["--cap-drop", "KILLS"], "\"KILLS\" is no capability"),
            (&["--perms", "700", "--dir", "/x"], "--perms"),
            (&["--init", "--as-pid-1", "sh"], "--as-pid-1"),
        ] {
            assert!(asked(args).unwrap_err().contains(says), "{args:?}");
        }
    }
}
