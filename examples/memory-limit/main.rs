//! A program that wants more memory than it may have, and the event that says so.
//!
//! `memory-limit 64 tail /dev/zero` runs `tail` with 64 MiB and tells what became of it.

use std::io::{self, Write};
use std::process::{Command, ExitCode};
use std::time::Duration;

use cofferdam_cgroups::{Controllers, Enforcement, Event, Hierarchy, Limits};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
Usage: memory-limit MIB PROGRAM [ARGUMENT...]

Runs a program in a cgroup that may use so many MiB of memory, and no swap. Tells when the limit is met
and when the kernel kills for it. Needs root, or a delegated cgroup. Exits with 3 if something was killed.
";

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "memory-limit: {error}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mib, program) = match arguments.as_slice() {
        [help] if help == "--help" || help == "-h" => {
            write!(io::stdout(), "{HELP}")?;
            return Ok(ExitCode::SUCCESS);
        }
        [mib, program @ ..] if !program.is_empty() => (mib.parse::<u64>()?, program),
        _ => return Err("how many MiB, and which program? --help tells more".into()),
    };

    let name = format!("memory-limit-{}", std::process::id());
    let cgroup = Hierarchy::detect()?.create(name, Controllers::MEMORY)?.into_guard();
    let limits = Limits::new().memory(mib.checked_mul(1 << 20).ok_or("that is too much")?).swap(0);
    cgroup.apply(&limits, Enforcement::Strict)?;
    // Watched from before there is anything to see.
    let mut events = cgroup.events()?;

    // The shell waits until it is inside before it becomes the program.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read -r go && exec \"$@\" < /dev/null", "sh"]).args(program);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn()?;
    cgroup.attach(child.id())?;
    child.stdin.take().ok_or("no pipe")?.write_all(b"\n")?;

    let mut killed = 0;
    let status = loop {
        for event in events.wait(Duration::from_millis(200))? {
            if let Event::OomKill(count) = event {
                killed += count;
            }
            if matches!(event, Event::MemoryMax(_) | Event::Oom(_) | Event::OomKill(_)) {
                writeln!(io::stderr(), "memory-limit: {event:?}")?;
            }
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
    };
    let memory = cgroup.memory_stats()?;
    let killed = killed.max(memory.events.oom_kill.unwrap_or(0));
    let peak = memory.peak.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    writeln!(io::stderr(), "memory-limit: {status}; at most {peak} in use; {killed} killed")?;
    cgroup.close()?;
    Ok(if killed > 0 { ExitCode::from(3) } else { ExitCode::from(u8::from(!status.success())) })
}
