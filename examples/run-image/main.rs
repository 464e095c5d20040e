//! One small container, through all five crates: an image's layers, a root made of them, a cgroup, namespaces, a network.
//!
//! Read [`run`] first: it is the way of one container, from the image to the exit code. What is beside that way has a file of its own.

mod files;
mod neighbours;
mod network;
mod options;
mod signals;

use cofferdam_cgroups::{Enforcement, ErrorKind, Guard, Hierarchy};
use cofferdam_image::{Config, Image};
use cofferdam_namespaces::{Fds, IdMap, Mount, Namespaces, Root, Sandbox, Scope, Step};
use files::Files;
use network::Connection;
use nix::unistd::geteuid;
use options::{Command, HELP, Network, Options};
use signals::{Signals, Told};
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

/// Whatever went wrong, in one line.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => {
            // To whoever still reads it.
            let _ = io::stdout().write_all(HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            say(&format!("{why}; --help tells more"));
            return ExitCode::from(2);
        }
    };
    ExitCode::from(start(&options).unwrap_or_else(|why| {
        if let Some(Told(signal)) = why.downcast_ref() {
            return 128 + signal;
        }
        say(&why.to_string());
        // As env(1) and its kin: it is not there, it cannot be started, or we could not.
        match why.downcast_ref::<cofferdam_namespaces::Error>() {
            Some(e) if e.step() != Step::Exec => 125,
            Some(e) if e.kind() == cofferdam_namespaces::ErrorKind::NotFound => 127,
            Some(_) => 126,
            None => 125,
        }
    }))
}

/// Root works as it is. An ordinary user works in a scope: a user namespace, in which they are root of what they make.
fn start(options: &Options) -> Result<u8> {
    let signals = Signals::watch()?;
    if geteuid().is_root() {
        return run(options, &signals, false);
    }
    if !matches!(options.network, Network::None | Network::Host) {
        return Err("only root can connect a container to the host by a bridge; there is --network none or host".into());
    }
    let scope = Scope::new(IdMap::root(), Namespaces::empty())?;
    #[expect(unsafe_code, reason = "a closure in a scope runs in a process of its own")]
    // SAFETY: nothing in it relies on the id of its thread, changes credentials, or needs a lock or an allocator that would.
    unsafe { scope.run(|| run(options, &signals, true)) }?
}

/// The whole container. Returns its exit code. Whatever fails, what was made until then is put away by its owner.
fn run(options: &Options, signals: &Signals, rootless: bool) -> Result<u8> {
    // The image: what it says is verified before it is believed. It also says what to start.
    let image = Image::open(&options.layout, &options.selection)?;
    let sandbox = sandbox(options, image.config(), rootless)?;

    // What the container may use. To the sandbox, a cgroup is a few descriptors by which it is entered.
    let cgroup = limited(options)?;
    let entry = cgroup.as_ref().map(|cgroup| cgroup.entry()).transpose()?.unwrap_or_default();

    // Its files: the layers in a store, where they may be from the last time, a place for what it will write, and all of them as one mount. That is a
    // descriptor too.
    let files = Files::prepare(options, &image, signals, rootless)?;
    let fds = Fds::new().cgroup(entry).bind("root", files.mount()?);

    // The process, up to the point where its program starts. It waits there until it is connected.
    network::enter(options)?;
    let held = sandbox.prepare(fds)?.hold()?;
    let network = Connection::make(options, &held)?;
    signals.check()?;
    let child = held.release()?;

    // It lives until it ends, or until we are told to. All that it started goes with it.
    let code = signals.wait(&child)?;
    network.map_or(Ok(()), Connection::close)?;
    files.remove()?;
    cgroup.as_ref().map_or(Ok(()), Guard::close)?;
    Ok(code)
}

/// What the image says, or the user instead of it, in every namespace that there is.
fn sandbox(options: &Options, config: &Config, rootless: bool) -> Result<Sandbox> {
    let command: Vec<_> = match options.command.as_slice() {
        [] => config.command().into_iter().map(Into::into).collect(),
        given => given.to_vec(),
    };
    let Some((program, args)) = command.split_first() else {
        return Err("neither the image nor the command line says what to run".into());
    };
    if let Some(user) = config.user().filter(|user| !["root", "0", "0:0", "root:root"].contains(user)) {
        say(&format!(
            "the image asks for user {user:?}, which is not possible yet: it is run as root of the container"
        ));
    }
    let mut namespaces = Namespaces::PID | Namespaces::MOUNT | Namespaces::UTS | Namespaces::IPC | Namespaces::CGROUP;
    namespaces.set(Namespaces::NET, matches!(options.network, Network::None | Network::Bridge));
    let sandbox = Sandbox::new(program)
        .args(args)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(config.env())
        .working_directory(config.working_directory().unwrap_or("/"))
        .namespaces(namespaces)
        .root(Root::mount("root"))
        .mount(Mount::proc("/proc"))
        .mount(Mount::dev("/dev"))
        .hostname(&options.name)
        .die_with_parent();
    let sandbox = if options.init { sandbox.init() } else { sandbox };
    // One more in the scope's: in the same one, the program would have rights over us, who work there.
    Ok(if rootless { sandbox.user(IdMap::root()) } else { sandbox })
}

/// A cgroup with the limits that were asked for, if any. It kills what is in it and deletes itself when it is dropped.
fn limited(options: &Options) -> Result<Option<Guard>> {
    const ADVICE: &str =
        "limits need root, or a delegated cgroup (systemd-run --user --scope -p Delegate=yes run-image ...)";
    if options.controllers.is_empty() {
        return Ok(None);
    }
    let made = Hierarchy::detect().and_then(|hierarchy| hierarchy.create(&options.name, options.controllers));
    let cgroup = made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::InvalidInput => error.to_string(),
        _ => format!("{error}; {ADVICE}"),
    })?;
    let cgroup = cgroup.into_guard();
    cgroup.apply(&options.limits, Enforcement::Strict)?;
    Ok(Some(cgroup))
}

/// One line on standard error, whatever is in it.
fn say(what: &str) {
    let _ = writeln!(io::stderr(), "run-image: {}", what.replace(char::is_control, " "));
}
