//! One small container, through all five crates: an image's layers, a root of them, a cgroup, namespaces, a network.
//!
//! Read [`run`] first: it is the way of one container, from the image to the exit code. What is beside that way has a file of its own.

mod files;
mod network;
mod options;
mod signals;

use cofferdam_cgroups::{Controllers, Guard, Hierarchy};
use cofferdam_image::{Config, Image};
use cofferdam_namespaces::{Fds, IdMap, Mount, Namespaces, Root, Sandbox, Scope};
use files::Files;
use network::Connection;
use nix::unistd::geteuid;
use options::{Command, HELP, Network, Options};
use signals::Signals;
use std::error::Error;
use std::process::ExitCode;

/// Whatever went wrong, in one line.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => return complain(&format!("{why}; --help tells more"), 2),
    };
    // As for env(1) and its kin: 125 is a failure of ours, not of the program.
    match start(&options) {
        Ok(code) => ExitCode::from(code),
        Err(why) => complain(&why.to_string(), 125),
    }
}

/// Root works as it is. An ordinary user works in a scope, where they are root of what they make.
fn start(options: &Options) -> Result<u8> {
    let signals = Signals::watch()?;
    if geteuid().is_root() {
        return run(options, &signals, false);
    }
    if options.network == Network::Bridge {
        return Err("only root can connect a container to the host by a bridge; use --network none or host".into());
    }
    let scope = Scope::new(IdMap::root(), Namespaces::empty())?;
    #[expect(unsafe_code, reason = "a closure in a scope runs in a process of its own")]
    // SAFETY: nothing in it relies on the id of its thread, and it leaves no thread running.
    unsafe {
        scope.run(|| run(options, &signals, true))
    }?
}

/// The whole container. Returns its exit code.
fn run(options: &Options, signals: &Signals, rootless: bool) -> Result<u8> {
    // The image: what it says is verified before it is believed.
    let image = Image::open(&options.layout, &options.selection)?;

    // Its layers, each unpacked into a directory, and one for what the container will write; all of them as one mount, attached nowhere.
    let files = Files::unpack(&image, rootless)?;
    let root = files.mount()?;

    // What it may use. A cgroup is a list of descriptors to the sandbox, and a mount is another.
    let cgroup = limited(options)?;
    let entry = cgroup.as_ref().map(|cgroup| cgroup.entry()).transpose()?;
    let fds = Fds::new().bind("root", root).cgroup(entry.into_iter().flatten());

    // The process, up to the point where its program starts. It waits there until it is connected.
    let held = sandbox(options, image.config())?.prepare(fds)?.hold()?;
    let network = Connection::make(options, || held.namespace(Namespaces::NET))?;
    let child = held.release()?;

    // From here on it lives, until it ends or we are told to.
    let code = signals.wait(&child)?;
    network.close()?;
    if let Some(cgroup) = cgroup {
        cgroup.close()?;
    }
    files.remove()?;
    Ok(code)
}

/// What the image says, unless the user says something else, in every namespace that there is.
fn sandbox(options: &Options, config: &Config) -> Result<Sandbox> {
    let command: Vec<_> = match options.command.as_slice() {
        [] => config.command().into_iter().map(Into::into).collect(),
        given => given.to_vec(),
    };
    let Some((program, args)) = command.split_first() else {
        return Err("neither the image nor the command line says what to run".into());
    };
    if let Some(user) = config.user().filter(|user| !["root", "0", "0:0", "root:root"].contains(user)) {
        complain(&format!("the image asks for user {user:?}; running as root of the container"), 0);
    }
    let mut namespaces = Namespaces::PID | Namespaces::MOUNT | Namespaces::UTS | Namespaces::IPC | Namespaces::CGROUP;
    namespaces.set(Namespaces::NET, options.network != Network::Host);
    Ok(Sandbox::new(program)
        .args(args)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(config.env())
        .working_directory(config.working_directory().unwrap_or("/"))
        .namespaces(namespaces)
        .root(Root::mount("root"))
        .mount(Mount::proc("/proc"))
        .mount(Mount::dev("/dev"))
        .hostname(&options.name)
        .die_with_parent())
}

/// A cgroup with the limits that were asked for, if any. It kills and deletes when it is dropped.
fn limited(options: &Options) -> Result<Option<Guard>> {
    if options.controllers == Controllers::empty() {
        return Ok(None);
    }
    let advice = |error: cofferdam_cgroups::Error| {
        format!("{error}; limits need root, or a delegated cgroup (systemd-run --user --scope -p Delegate=yes)")
    };
    let cgroup = Hierarchy::detect()?.create(&options.name, options.controllers).map_err(advice)?.into_guard();
    cgroup.apply(&options.limits)?;
    Ok(Some(cgroup))
}

/// One line on standard error, and the code to end with.
fn complain(why: &str, code: u8) -> ExitCode {
    eprintln!("run-image: {}", why.replace(char::is_control, " "));
    ExitCode::from(code)
}
