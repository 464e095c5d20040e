//! The files by which a container knows names: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.

use crate::{Error, ErrorKind, Operation};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, ftruncate, openat2};
use rustix::io::Errno;
use std::fmt::{self, Write as _};
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

/// The longest name of a host that Linux keeps, `HOST_NAME_MAX`.
const LONGEST_NAME: usize = 64;
/// How often a path is looked up again that changed meanwhile.
const LOOKUPS: usize = 64;

/// The content of an `/etc/hosts`, `hosts(5)`: loopback's names, and the addresses of others.
///
/// Displayed as the file's text. Plain data: when somebody joins or leaves, change it and write it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[doc(alias = "/etc/hosts")]
pub struct Hosts {
    entries: Vec<(IpAddr, Vec<String>)>,
}

impl Hosts {
    /// Loopback's names alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an address with its names.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) if one is no name of a host: it could add other lines.
    pub fn entry<N: Into<String>>(
        mut self,
        address: impl Into<IpAddr>,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Self, Error> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        names.iter().try_for_each(|name| check_name(name))?;
        self.entries.push((address.into(), names));
        Ok(self)
    }

    /// Writes it to a file below a folder: in place, so that a container sees it that has the file itself mounted. The path is
    /// resolved as in the folder as root: no link leads out of it.
    ///
    /// # Errors
    /// What the kernel says against it; [`Refused`](ErrorKind::Refused) if there is something else than a file.
    pub fn write(&self, folder: impl AsFd, path: impl AsRef<Path>) -> Result<(), Error> {
        write(folder, path.as_ref(), &self.to_string())
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")?;
        for (address, names) in self.entries.iter().filter(|(_, names)| !names.is_empty()) {
            writeln!(f, "{address}\t{}", names.join(" "))?;
        }
        Ok(())
    }
}

/// Writes an `/etc/hostname`, `hostname(5)`, to a file below a folder, as [`Hosts::write`] does.
///
/// # Errors
/// As [`Hosts::write`]; [`InvalidConfig`](ErrorKind::InvalidConfig) if it is no name of a host.
pub fn write_hostname(folder: impl AsFd, path: impl AsRef<Path>, name: &str) -> Result<(), Error> {
    check_name(name)?;
    write(folder, path.as_ref(), &format!("{name}\n"))
}

/// The content of an `/etc/resolv.conf`, `resolv.conf(5)`.
///
/// Displayed as the file's text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[doc(alias("DNS", "resolver", "/etc/resolv.conf"))]
pub struct ResolvConf {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl ResolvConf {
    /// What a file says. Lines that the resolver would not understand are left out, as it does.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut conf = ResolvConf::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => {
                    conf.servers.extend(words.next().filter(|server| server_address(server).is_some()));
                }
                // The last one counts.
                Some("search" | "domain") => conf.search = words.filter(|word| check_name(word).is_ok()).collect(),
                Some("options") => conf.options.extend(words),
                _ => {}
            }
        }
        conf
    }

    /// The same for a container: servers at the host's loopback, which mean something else there, are replaced by `instead` (those of the
    /// file `/run/systemd/resolve/resolv.conf` for example). Search list and options stay.
    #[must_use]
    pub fn for_container(mut self, instead: &[IpAddr]) -> Self {
        let before = self.servers.len();
        self.servers
            .retain(|server| server_address(server).is_some_and(|address| !address.to_canonical().is_loopback()));
        if self.servers.len() < before || self.servers.is_empty() {
            self.servers.extend(instead.iter().map(ToString::to_string));
            let mut seen = std::collections::HashSet::new();
            self.servers.retain(|server| seen.insert(server.clone()));
        }
        self
    }

    /// The addresses of its servers.
    #[must_use]
    pub fn servers(&self) -> Vec<IpAddr> {
        self.servers.iter().filter_map(|server| server_address(server)).collect()
    }

    /// Writes it to a file below a folder, as [`Hosts::write`] does.
    ///
    /// # Errors
    /// As [`Hosts::write`].
    pub fn write(&self, folder: impl AsFd, path: impl AsRef<Path>) -> Result<(), Error> {
        write(folder, path.as_ref(), &self.to_string())
    }
}

impl fmt::Display for ResolvConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for server in &self.servers {
            writeln!(text, "nameserver {server}")?;
        }
        for (word, list) in [("search", &self.search), ("options", &self.options)] {
            if !list.is_empty() {
                writeln!(text, "{word} {}", list.join(" "))?;
            }
        }
        f.write_str(&text)
    }
}

/// An address, possibly with the link that it is on: `fe80::1%eth0`.
fn server_address(server: &str) -> Option<IpAddr> {
    server.split_once('%').map_or(server, |(address, _)| address).parse().ok()
}

fn check_name(name: &str) -> Result<(), Error> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let why = if name.is_empty() || name.len() > LONGEST_NAME {
        "is empty or longer than 64 bytes"
    } else if !name.bytes().all(good) || name.starts_with('-') {
        "has other characters than letters, digits, - . and _, or begins with -"
    } else {
        return Ok(());
    };
    Err(Error::config(format!("host name {name}"), why))
}

/// In place. Whoever reads at that moment sees the new text, the old one, or a part of the new one: a container that has the file mounted would not see another file.
fn write(folder: impl AsFd, path: &Path, text: &str) -> Result<(), Error> {
    let failed =
        |call: &'static str, errno: i32| Error::os(Operation::WriteNames, call, errno).about(path.to_string_lossy());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut opened = Err(Errno::AGAIN);
    for _ in 0..LOOKUPS {
        opened = openat2(folder.as_fd(), path, flags, mode, how);
        if !matches!(opened, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    let file = opened.map_err(|errno| failed("openat2", errno.raw_os_error()))?;
    let stat = fstat(&file).map_err(|errno| failed("fstat", errno.raw_os_error()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        let words = "this is no regular file";
        return Err(Error::words(ErrorKind::Refused, Operation::WriteNames, words).about(path.to_string_lossy()));
    }
    let mut file = std::fs::File::from(file);
    file.write_all(text.as_bytes()).map_err(|e| failed("write", e.raw_os_error().unwrap_or(libc::EIO)))?;
    ftruncate(&file, text.len() as u64).map_err(|errno| failed("ftruncate", errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let hosts = Hosts::new().entry([10, 88, 0, 2], ["web", "web.ci"]).unwrap();
        let text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.88.0.2\tweb web.ci\n";
        assert_eq!(hosts.to_string(), text);
        for name in ["", "a b", "a\n10.0.0.1 bank", "ä", "-a", "#a", &"x".repeat(65)] {
            let error = Hosts::new().entry([10, 0, 0, 1], [name]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{name}");
        }
    }

    #[test]
    fn resolvers() {
        let text = "# made by\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver bad\nsearch old\nsearch a.example b.example\noptions edns0 trust-ad\noptions ndots:2\nsortlist x\n";
        let conf = ResolvConf::parse(text);
        let kept = "search a.example b.example\noptions edns0 trust-ad ndots:2\n";
        let both = format!("nameserver 127.0.0.53\nnameserver 192.0.2.53\n{kept}");
        assert_eq!(conf.to_string(), both);
        let instead = ["192.0.2.53", "2001:db8::53"].map(|a| a.parse().unwrap());
        let inside = conf.for_container(&instead);
        assert_eq!(inside.to_string(), format!("nameserver 192.0.2.53\nnameserver 2001:db8::53\n{kept}"));
        assert_eq!(inside.servers(), instead);
        let scoped = ResolvConf::parse("nameserver fe80::1%eth0\nnameserver ::ffff:127.0.0.1\n").for_container(&[]);
        assert_eq!(scoped.to_string(), "nameserver fe80::1%eth0\n");
        // One that is as it should be stays as it is.
        assert_eq!(ResolvConf::parse("nameserver 192.0.2.1\n").for_container(&instead).servers().len(), 1);
    }

    #[test]
    fn written_in_place_and_inside_the_folder() {
        let folder = std::env::temp_dir().join(format!("cofferdam-names-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("etc")).unwrap();
        std::fs::write(folder.join("etc/hosts"), "x".repeat(1000)).unwrap();
        let mounted = std::fs::File::open(folder.join("etc/hosts")).unwrap();
        let root = std::fs::File::open(&folder).unwrap();
        Hosts::new().write(&root, "etc/hosts").unwrap();
        assert_eq!(std::io::read_to_string(mounted).unwrap(), Hosts::new().to_string(), "the same file");
        // A link of the image that leads out, as the host sees it, stays inside.
        std::os::unix::fs::symlink("/secret", folder.join("etc/hostname")).unwrap();
        write_hostname(&root, "etc/hostname", "box").unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("secret")).unwrap(), "box\n");
        let error = ResolvConf::default().write(&root, "etc").unwrap_err();
        assert_eq!((error.raw_os_error(), error.operation()), (Some(libc::EISDIR), Operation::WriteNames));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
