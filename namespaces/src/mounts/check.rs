//! What of root and mounts can be told to be wrong without asking the kernel.

use crate::mount::MountKind;
use crate::{Error, Mount, Namespaces, Propagation, Root, Sandbox};
use std::path::Component;

pub(crate) fn check(sandbox: &Sandbox) -> Result<(), Error> {
    let needs_mount =
        |object: &str| needs(sandbox, object, Namespaces::MOUNT, "needs Namespaces::MOUNT, or it would be the host's");
    if sandbox.root != Root::Host {
        needs_mount("root")?;
    }
    if sandbox.read_only_root {
        needs_mount("read-only root")?;
    }
    if sandbox.propagation != Propagation::Private {
        needs_mount("propagation")?;
    }
    if sandbox.propagation == Propagation::Shared && (sandbox.root != Root::Host || !sandbox.mounts.is_empty()) {
        return Err(Error::config(
            "propagation",
            "cannot be shared with a root or mounts of the sandbox: they would be the host's too",
        ));
    }
    for mount in &sandbox.mounts {
        let object = format!("mount on {:?}", mount.target);
        needs_mount(&object)?;
        target(mount, &object)?;
        namespaces(sandbox, mount, &object)?;
        settings(mount, &object)?;
    }
    Ok(())
}

fn needs(sandbox: &Sandbox, object: &str, namespace: Namespaces, words: &'static str) -> Result<(), Error> {
    if sandbox.namespaces.contains(namespace) { Ok(()) } else { Err(Error::config(object, words)) }
}

fn target(mount: &Mount, object: &str) -> Result<(), Error> {
    let mut components = mount.target.components();
    if components.next() != Some(Component::RootDir) {
        return Err(Error::config(object, "is not an absolute path"));
    }
    if mount.target.parent().is_none() || components.any(|part| !matches!(part, Component::Normal(_))) {
        return Err(Error::config(object, "is the root, or has .. in it"));
    }
    Ok(())
}

/// What shows a namespace would show the host's if the sandbox had none of its own.
fn namespaces(sandbox: &Sandbox, mount: &Mount, object: &str) -> Result<(), Error> {
    let (namespace, words) = match &mount.kind {
        MountKind::New(name) => match name.as_str() {
            "proc" => (Namespaces::PID, "needs Namespaces::PID, or it would show the host's processes"),
            "mqueue" => (Namespaces::IPC, "needs Namespaces::IPC, or it would be the host's"),
            "sysfs" if sandbox.namespaces.contains(Namespaces::USER) => {
                (Namespaces::NET, "needs Namespaces::NET in a user namespace: it shows the network")
            }
            _ => return Ok(()),
        },
        MountKind::Cgroup => (Namespaces::CGROUP, "needs Namespaces::CGROUP, or it would show the host's"),
        _ => return Ok(()),
    };
    needs(sandbox, object, namespace, words)
}

fn settings(mount: &Mount, object: &str) -> Result<(), Error> {
    let (new, bind) = (matches!(mount.kind, MountKind::New(_)), matches!(mount.kind, MountKind::Bind(_)));
    if !new && !mount.options.is_empty() {
        return Err(Error::config(object, "is no new file system, and has no options"));
    }
    if mount.only_makes() && !mount.flags.is_empty() {
        return Err(Error::config(object, "is no mount, and nothing can be denied there"));
    }
    if !bind && (mount.alone || mount.ids.is_some()) {
        return Err(Error::config(object, "is no bind mount: neither recursive nor mapped"));
    }
    Ok(())
}
