//! What it costs to let a program do less: the same spawn, without a namespace, under more and more.

use crate::Result;
use crate::area::{Area, Case, Contender, Ready, Role};
use crate::floor::spawn::{Confinement, Floor, Kind};
use crate::spawn::run::{of_child, of_floor};
use crate::spawn::{Program, Shape, ignored_signals};
use cofferdam_namespaces::{BpfInstruction, Capabilities, Fds, Sandbox, Seccomp, Stdio};
use landlock::{Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

/// See the module.
pub const AREA: Area = Area { name: "confine", cases, plots: &[], counted: true };

/// Under what.
#[derive(Debug, Clone, Copy)]
struct Under {
    name: &'static str,
    no_new_privs: bool,
    profile: bool,
    rules: bool,
}

const ALL: [Under; 5] = [
    Under { name: "nothing", no_new_privs: false, profile: false, rules: false },
    Under { name: "no_new_privs", no_new_privs: true, profile: false, rules: false },
    Under { name: "the container engines' filter", no_new_privs: true, profile: true, rules: false },
    Under { name: "a ruleset of ten rules", no_new_privs: true, profile: false, rules: true },
    Under { name: "both", no_new_privs: true, profile: true, rules: true },
];

fn cases(_quick: bool) -> Result<Vec<Case>> {
    let program = Arc::new(Program::write()?);
    Ok(ALL.into_iter().map(|under| case(under, &program)).collect())
}

fn case(under: Under, program: &Arc<Program>) -> Case {
    let program = Arc::clone(program);
    Case {
        name: under.name.to_owned(),
        threads: 1,
        point: None,
        ready: Box::new(move || {
            let contenders = vec![cofferdam(under, &program)?, floor(under, &program)?];
            Ok(Ready { contenders, held: Box::new(program) })
        }),
    }
}

fn filter() -> Seccomp {
    Seccomp::container_default(&Capabilities::container_default())
}

/// All that a file can be asked for, and ten folders where that is allowed.
fn ruleset() -> Result<OwnedFd> {
    let all = AccessFs::from_all(landlock::ABI::V1);
    let mut ruleset = Ruleset::default().handle_access(all)?.create()?;
    for folder in ["/usr", "/etc", "/proc", "/tmp", "/var", "/dev", "/run", "/sys", "/home", "/root"] {
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(folder)?, all))?;
    }
    Option::<OwnedFd>::from(ruleset).ok_or_else(|| "no Landlock here".into())
}

fn cofferdam(under: Under, program: &Program) -> Result<Contender> {
    let mut sandbox = Sandbox::new(program.path(Shape::PLAIN)).stdout(Stdio::Pipe);
    let mut fds = Fds::new();
    if under.no_new_privs {
        sandbox = sandbox.no_new_privs();
    }
    if under.profile {
        sandbox = sandbox.seccomp(filter());
    }
    if under.rules {
        sandbox = sandbox.landlock("rules");
        fds = fds.bind("rules", ruleset()?);
    }
    let plan = sandbox.prepare(fds)?;
    Ok(Contender::new("cofferdam", Role::Cofferdam, move || {
        let plan = plan.clone();
        move || of_child(|| Ok(plan.spawn()?), said)
    }))
}

fn floor(under: Under, program: &Program) -> Result<Contender> {
    let path = CString::new(program.path(Shape::PLAIN).into_os_string().into_vec())?;
    let ignored = ignored_signals()?;
    let words = |instruction: BpfInstruction| {
        let BpfInstruction { code, jt, jf, k } = instruction;
        u64::from(code) | u64::from(jt) << 16 | u64::from(jf) << 24 | u64::from(k) << 32
    };
    let filter: Vec<u64> = if under.profile { filter().program().into_iter().map(words).collect() } else { Vec::new() };
    let rules = if under.rules { Some(ruleset()?) } else { None };
    Ok(Contender::new("floor", Role::Floor, move || {
        let ruleset = rules.as_ref().and_then(|rules| rules.try_clone().ok());
        let confinement = Confinement { no_new_privs: under.no_new_privs, ruleset, filter: filter.clone() };
        let kind = Kind { namespaces: 0, hostname: None };
        let mut floor = Floor::new(path.clone(), kind, ignored).confined(confinement);
        move || of_floor(|| Ok(floor.spawn(None)?), said)
    }))
}

/// Its own number, as it is in the `/proc` that it may read.
fn said(text: &[u8], pid: u32) -> Result<()> {
    let text = String::from_utf8_lossy(text);
    if text.starts_with(&format!("{pid} ")) { Ok(()) } else { Err(format!("printed {text:?}").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spawn_under_each() {
        let program = Arc::new(Program::write().unwrap());
        for under in ALL {
            (cofferdam(under, &program).unwrap().make)()().unwrap();
            (floor(under, &program).unwrap().make)()().unwrap();
        }
    }
}
