//! A counter that stops counting, and goes on as if nothing had been.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use cofferdam_cgroups::{Controllers, Hierarchy};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
Usage: freeze [SECONDS]

Starts a shell that counts, stops it with all that it may have forked, waits (1 second if not said), lets it
go on, and shows that it has counted nothing meanwhile. Needs root, or a delegated cgroup.
";
const TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "freeze: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let argument = std::env::args().nth(1);
    let seconds = match argument.as_deref() {
        Some("--help" | "-h") => return Ok(write!(io::stdout(), "{HELP}")?),
        Some(seconds) => seconds.parse()?,
        None => 1,
    };
    let name = format!("freeze-{}", std::process::id());
    let cgroup = Hierarchy::detect()?.create(name, Controllers::FREEZER)?.into_guard();

    // It counts until it is asked, answers, and counts on.
    let script = "n=0; trap 'echo $n' USR1; echo ready; while :; do n=$((n+1)); done";
    let mut shell = Command::new("/bin/sh").args(["-c", script]).stdout(Stdio::piped()).spawn()?;
    cgroup.attach(shell.id())?;
    let mut answers = BufReader::new(shell.stdout.take().ok_or("no pipe")?).lines();
    let mut answer = || -> Result<String> { Ok(answers.next().ok_or("the shell has ended")??) };
    answer()?;
    std::thread::sleep(Duration::from_millis(200));

    let start = Instant::now();
    cgroup.freeze(TIMEOUT)?;
    writeln!(io::stdout(), "frozen after {:?}", start.elapsed())?;
    // The question waits with it: what it answers is what it had counted when it was stopped.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(shell.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1)?;
    let before = ticks(shell.id())?;
    std::thread::sleep(Duration::from_secs(seconds));
    let after = ticks(shell.id())?;
    cgroup.thaw(TIMEOUT)?;
    writeln!(io::stdout(), "thawed; it had counted to {}", answer()?)?;
    writeln!(io::stdout(), "CPU time used while it was frozen: {} ticks", after - before)?;

    cgroup.close()?; // kills the shell
    shell.wait()?;
    if before == after { Ok(()) } else { Err("it ran while it was frozen".into()) }
}

/// CPU time of a process: `proc_pid_stat(5)`.
fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no such process")?;
    let mut times = fields.split_whitespace().skip(11);
    let mut time = || -> Result<u64> { Ok(times.next().ok_or("no times")?.parse()?) };
    Ok(time()? + time()?)
}
