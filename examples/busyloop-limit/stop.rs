//! Why the demonstration may end before its time.

use cofferdam_cgroups::ErrorKind;
use nix::sys::signal::Signal;
use std::io;
use std::process::ExitCode;

const ADVICE: &str = ". Run this as root; or in a cgroup that is delegated to you, with its cpu controller \
    (systemd-run --user --scope -p Delegate=yes busyloop-limit); or in a container that may make cgroups \
    (--privileged --cgroupns=host)";

/// Why the demonstration ends before its time.
#[derive(Debug)]
pub(crate) enum Stop {
    /// We were asked to.
    Signal(u8),
    /// Nobody reads our output any more, as in `busyloop-limit | head -1`.
    OutputClosed,
    /// In one line.
    Failed(String),
}

impl Stop {
    /// 128 and the number of the signal, as a shell tells it: also for the one that a closed pipe means.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Stop::Signal(number) => ExitCode::from(128 + number),
            Stop::OutputClosed => ExitCode::from(128 + Signal::SIGPIPE as u8),
            Stop::Failed(_) => ExitCode::FAILURE,
        }
    }
}

/// One line that also says what would help, where a right is missing.
impl From<cofferdam_cgroups::Error> for Stop {
    fn from(error: cofferdam_cgroups::Error) -> Self {
        let advice = match error.kind() {
            ErrorKind::PermissionDenied
            | ErrorKind::Occupied
            | ErrorKind::ControllerUnavailable
            | ErrorKind::NoCgroups => ADVICE,
            _ => "",
        };
        Stop::Failed(format!("{error}{advice}"))
    }
}

impl From<cofferdam_namespaces::Error> for Stop {
    fn from(error: cofferdam_namespaces::Error) -> Self {
        Stop::Failed(format!("cannot run the busy process: {error}"))
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::OutputClosed,
            _ => Stop::Failed(error.to_string()),
        }
    }
}
