//! Writes into an OCI layout: blobs under their digests, and the index that names images.

use crate::document::REF_NAME;
use crate::layout::{Layout, RETRIES, open_beneath};
use crate::{Compression, Digest, Error, ErrorKind, LayerSummary, Operation};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, fsync, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

/// An OCI layout directory that is written to. Blobs that are there are not written again; each appears under its name only when it is whole.
///
/// One program at a time should change the index: images that two add at the same moment can lose each other.
#[derive(Debug)]
#[doc(alias = "oci-layout")]
pub struct LayoutWriter {
    dir: OwnedFd,
    blobs: OwnedFd,
}

/// A layer in a layout, ready to become part of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewLayer {
    /// What it is.
    pub summary: LayerSummary,
}

impl NewLayer {
    pub(crate) fn descriptor(&self) -> Value {
        let media_type = match self.summary.compression {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        descriptor(media_type, &self.summary.blob_digest, self.summary.blob_size)
    }
}

pub(crate) fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size })
}

impl LayoutWriter {
    /// Opens a layout in this directory, or makes one there if it is empty. Half-written files of writers that were killed are removed, where the file system has
    /// locks (`flock`) that tell them from those of others who are at work.
    ///
    /// # Errors
    /// What the system calls say; what [`Image::open`](crate::Image::open) says of a layout that is none.
    pub fn open(dir: impl AsFd) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = open_beneath(dir, ".", flags).map_err(|e| failed("openat2", e, "."))?;
        for name in ["blobs", "blobs/sha256"] {
            match mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("mkdirat", errno, name)),
            }
        }
        let blobs = open_beneath(&dir, "blobs/sha256", flags).map_err(|e| failed("openat2", e, "blobs/sha256"))?;
        let writer = LayoutWriter { dir, blobs };
        if !has(&writer.dir, "oci-layout")? {
            writer.replace("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        // Whether it is a version that is known.
        Layout::at(writer.dir.try_clone().map_err(|e| Error::from_io(Operation::Write, e))?)?;
        sweep(&writer.dir, ".")?;
        sweep(&writer.blobs, "blobs/sha256")?;
        Ok(writer)
    }

    /// Adds a layer: what `write` writes, for example [`LayerBuilder::tree`](crate::LayerBuilder::tree).
    ///
    /// # Errors
    /// What `write` says, and the system calls.
    pub fn layer(&self, write: impl FnOnce(&mut dyn Write) -> Result<LayerSummary, Error>) -> Result<NewLayer, Error> {
        self.blob(|file| {
            let summary = write(file)?;
            Ok((summary.blob_digest.clone(), NewLayer { summary }))
        })
    }

    /// Adds a layer that is there as a blob, compressed or not: a root file system in a tar archive, for example.
    ///
    /// # Errors
    /// What reading it says, or writing.
    pub fn import(&self, mut blob: impl std::io::Read) -> Result<NewLayer, Error> {
        self.layer(|to| {
            let mut copied = Copying { from: &mut blob, to, failed: None };
            let summary = crate::LayerReader::new(&mut copied).and_then(crate::LayerReader::finish);
            match copied.failed {
                Some(error) => Err(Error::from_io(Operation::Write, error)),
                None => summary,
            }
        })
    }

    /// Adds a blob, and says its digest.
    pub(crate) fn document(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        self.blob(|file| {
            file.write_all(bytes).map_err(|e| Error::from_io(Operation::Write, e))?;
            Ok((digest.clone(), digest))
        })
    }

    pub(crate) fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        has(&self.blobs, digest.hex())
    }

    /// Writes a blob under a name of its own, and gives it its real one when it is whole.
    pub(crate) fn blob<T>(&self, write: impl FnOnce(&mut File) -> Result<(Digest, T), Error>) -> Result<T, Error> {
        let (mut file, name) = create_new(&self.blobs)?;
        let written = write(&mut file).and_then(|(digest, value)| {
            fsync(&file).map_err(|e| failed("fsync", e, &name))?;
            if digest.algorithm() != crate::Algorithm::Sha256 {
                return Err(Error::new(ErrorKind::Unsupported, Operation::Write, "is written as sha256 only"));
            }
            renameat(&self.blobs, &name, &self.blobs, digest.hex()).map_err(|e| failed("renameat", e, &name))?;
            Ok(value)
        });
        if written.is_err() {
            // The error that is told is the first one.
            let _ = unlinkat(&self.blobs, &name, AtFlags::empty());
        }
        written
    }

    /// Names a manifest in the index, which keeps everything else that it has.
    pub(crate) fn name(&self, mut manifest: Value, reference: &str) -> Result<(), Error> {
        let layout = Layout::at(self.dir.try_clone().map_err(|e| Error::from_io(Operation::Write, e))?)?;
        let mut index: Value = if has(&self.dir, "index.json")? {
            crate::document::parse(&layout.index()?, Operation::ReadIndex)?
        } else {
            json!({ "schemaVersion": 2, "manifests": [] })
        };
        if let Some(manifest) = manifest.as_object_mut() {
            manifest.insert("annotations".into(), json!({ REF_NAME: reference }));
        }
        let named = |other: &Value| other.pointer(REF_POINTER).and_then(Value::as_str) == Some(reference);
        let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            return Err(Error::new(ErrorKind::Malformed, Operation::ReadIndex, "has no list of manifests"));
        };
        manifests.retain(|other| !named(other));
        manifests.push(manifest);
        self.replace("index.json", index.to_string().as_bytes())
    }

    /// Puts a file in the place of the one of that name, in one step.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let (mut file, new) = create_new(&self.dir)?;
        let written = file.write_all(bytes).map_err(|e| Error::from_io(Operation::Write, e).about(name));
        let synced = written.and_then(|()| fsync(&file).map_err(|e| failed("fsync", e, name)));
        let named =
            synced.and_then(|()| renameat(&self.dir, &new, &self.dir, name).map_err(|e| failed("renameat", e, name)));
        if named.is_err() {
            let _ = unlinkat(&self.dir, &new, AtFlags::empty());
        }
        named
    }
}

/// How the name of a file in the making begins; 32 random digits follow.
const NEW: &str = ".new-";

/// A new file under a name that nobody else has, or could have foreseen: not another writer, not one with the same process id in another
/// namespace, not one that was killed. It is locked for as long as it is open, which tells it from what that one has left.
fn create_new(dir: &OwnedFd) -> Result<(File, String), Error> {
    for _ in 0..RETRIES {
        let mut random = [0; 16];
        getrandom(&mut random, GetRandomFlags::empty()).map_err(|e| failed("getrandom", e, ""))?;
        let name = format!("{NEW}{:032x}", u128::from_ne_bytes(random));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(dir, &name, flags, Mode::from_raw_mode(0o644)).map_err(|e| failed("openat", e, &name))?;
        let locked = lock(&file).map_err(|e| failed("flock", e, &name))?;
        // Before it was locked, somebody else could take it for left over.
        if locked && fstat(&file).map_err(|e| failed("fstat", e, &name))?.st_nlink == 1 {
            return Ok((File::from(file), name));
        }
    }
    Err(failed("flock", Errno::AGAIN, NEW))
}

/// Whether nobody else has a lock. Where a file system has none, nobody has.
fn lock(file: &OwnedFd) -> Result<bool, Errno> {
    for _ in 0..RETRIES {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::INTR)
}

/// Removes what writers have left that were killed: files in the making that nobody has locked.
fn sweep(dir: &OwnedFd, path: &str) -> Result<(), Error> {
    let names = crate::unpack::names(dir.as_fd(), path.as_bytes()).map_err(|e| e.during(Operation::Write))?;
    let digits = |rest: &[u8]| rest.len() == 32 && rest.iter().all(u8::is_ascii_hexdigit);
    for name in names.iter().filter(|name| name.strip_prefix(NEW.as_bytes()).is_some_and(digits)) {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // Another one may have finished it, or removed it; whose it is may not be ours. What is in nobody's way can stay.
        let Ok(file) = openat(dir, name.as_slice(), flags, Mode::empty()) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = unlinkat(dir, name.as_slice(), AtFlags::empty());
        }
    }
    Ok(())
}

const REF_POINTER: &str = "/annotations/org.opencontainers.image.ref.name";

fn has(dir: &OwnedFd, name: &str) -> Result<bool, Error> {
    let found = crate::unpack::stat_in(dir.as_fd(), name.as_bytes());
    found.map(|stat| stat.is_some()).map_err(|e| e.during(Operation::Write))
}

fn failed(call: &'static str, errno: Errno, object: &str) -> Error {
    Error::os(Operation::Write, call, errno).about(object)
}

/// Copies what is read.
struct Copying<'a, R> {
    from: &'a mut R,
    to: &'a mut dyn Write,
    failed: Option<std::io::Error>,
}

impl<R: std::io::Read> std::io::Read for Copying<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.to.write_all(buffer.get(..count).unwrap_or_default()).map_err(|e| {
            let kind = e.kind();
            self.failed = Some(e);
            std::io::Error::from(kind)
        })?;
        Ok(count)
    }
}
