//! Labels of security modules: which the machine has, and how the program gets one.

use crate::idmap::write_file;
use crate::privilege::Privilege;
use crate::program::Program;
use crate::{Error, ErrorKind, Step};
use std::path::Path;

impl Privilege {
    /// A label that is none, or that no module of this machine would look at.
    pub(crate) fn check_labels(&self) -> Result<(), Error> {
        for (module, label) in [(&APPARMOR, &self.apparmor_profile), (&SELINUX, &self.selinux_label)] {
            let Some(label) = label else { continue };
            if label.is_empty() || label.contains('\0') {
                return Err(Error::config(module.name, "has a label that is empty, or has a zero byte in it"));
            }
            if !(module.is_active)() {
                let words = "is not active on this machine";
                return Err(Error::words(ErrorKind::Unsupported, Step::Prepare, module.name, words));
            }
        }
        Ok(())
    }

    /// While the host's `/proc` is in sight: what the kernel is to do when the program starts.
    pub(crate) fn labels(&self, program: &mut Program) {
        if let Some(profile) = &self.apparmor_profile {
            let own = Path::new("/proc/self/attr/apparmor/exec").exists();
            let path = if own { c"/proc/self/attr/apparmor/exec" } else { c"/proc/self/attr/exec" };
            write_file(program, Step::Label, path.to_owned(), format!("exec {profile}"));
        }
        if let Some(label) = &self.selinux_label {
            write_file(program, Step::Label, c"/proc/self/attr/exec".to_owned(), label.clone());
        }
    }
}

/// A security module that labels programs.
struct Module {
    name: &'static str,
    is_active: fn() -> bool,
}

const APPARMOR: Module = Module {
    name: "AppArmor",
    is_active: || std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y")),
};

const SELINUX: Module = Module { name: "SELinux", is_active: || Path::new("/sys/fs/selinux").exists() };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_written_when_the_program_starts() {
        let mut program = Program::default();
        let privilege = Privilege {
            apparmor_profile: Some("tight".into()),
            selinux_label: Some("system_u:object_r:tight_t:s0".into()),
            ..Privilege::default()
        };
        privilege.labels(&mut program);
        let calls: Vec<String> = program.calls().map(|call| call.to_string()).collect();
        let files = ["/proc/self/attr/exec"; 4].map(str::to_owned);
        let names = ["openat", "write", "openat", "write"];
        // Where the one has a folder of its own, this machine has it.
        for ((call, file), name) in calls.iter().zip(files).zip(names) {
            let found = call.replace("attr/apparmor/", "attr/");
            assert_eq!(found, format!("set the label: {name}({file})"));
        }
        assert_eq!(calls.len(), 4);
    }
}
