//! What one writes in an afternoon: inflate, hash and write in three threads, by paths, of an archive that is trusted. One layer; no attributes.

use crate::Result;
use flate2::bufread::MultiGzDecoder;
use nix::sys::stat::{Mode, UtimensatFlags, futimens, utimensat};
use nix::sys::time::TimeSpec;
use sha2::{Digest, Sha256};
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, chown, fchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use tar::{Archive, EntryType};

const CHUNK: usize = 1 << 20;
const QUEUE: usize = 4;

/// Unpacks the layer that the blob is into a folder, and says its digest and that of the archive inside.
pub(super) fn unpack(blob: &Path, into: &Path) -> Result<[Vec<u8>; 2]> {
    let (to_writer, from) = sync_channel(QUEUE);
    let (to_hasher, pieces) = sync_channel(QUEUE);
    thread::scope(|scope| {
        let inflater = scope.spawn(move || inflate(blob, &to_writer, &to_hasher));
        let hash = |hash: Sha256, piece: Arc<Vec<u8>>| hash.chain_update(&*piece);
        let hasher = scope.spawn(move || pieces.iter().fold(Sha256::new(), hash));
        write(Archive::new(Chunks { from, current: Arc::default(), used: 0 }), into)?;
        let of_blob = inflater.join().map_err(|_| "the inflater")??;
        let of_archive = hasher.join().map_err(|_| "the hasher")?;
        Ok([of_blob, of_archive.finalize().to_vec()])
    })
}

type To = SyncSender<Arc<Vec<u8>>>;

/// Hashes what it reads.
struct Hashed(File, Sha256);

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.update(&buffer[..count]);
        Ok(count)
    }
}

fn inflate(blob: &Path, to_writer: &To, to_hasher: &To) -> Result<Vec<u8>> {
    let mut archive = MultiGzDecoder::new(BufReader::with_capacity(CHUNK, Hashed(File::open(blob)?, Sha256::new())));
    loop {
        let mut chunk = vec![0; CHUNK];
        let mut filled = 0;
        while filled < CHUNK {
            match archive.read(&mut chunk[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            return Ok(archive.into_inner().into_inner().1.finalize().to_vec());
        }
        chunk.truncate(filled);
        let chunk = Arc::new(chunk);
        // Who does not want it any more says why.
        let _ = to_writer.send(Arc::clone(&chunk));
        let _ = to_hasher.send(chunk);
    }
}

struct Chunks {
    from: Receiver<Arc<Vec<u8>>>,
    current: Arc<Vec<u8>>,
    used: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.current.len() {
            let Ok(next) = self.from.recv() else { return Ok(0) };
            (self.current, self.used) = (next, 0);
        }
        let count = (&self.current[self.used..]).read(buffer)?;
        self.used += count;
        Ok(count)
    }
}

fn write(mut archive: Archive<Chunks>, into: &Path) -> Result<()> {
    let mut directories: Vec<(PathBuf, u32, TimeSpec)> = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let header = entry.header();
        let (mode, kind) = (header.mode()?, header.entry_type());
        let (user, group) = (u32::try_from(header.uid()?)?, u32::try_from(header.gid()?)?);
        let time = TimeSpec::new(i64::try_from(header.mtime()?)?, 0);
        let path = into.join(entry.path()?);
        let link = entry.link_name()?.map(std::borrow::Cow::into_owned);
        match kind {
            EntryType::Directory => {
                let _ = fs::create_dir(&path);
                chown(&path, Some(user), Some(group))?;
                directories.push((path, mode, time));
            }
            EntryType::Symlink => {
                symlink(link.ok_or("no target")?, &path)?;
                std::os::unix::fs::lchown(&path, Some(user), Some(group))?;
                utimensat(nix::fcntl::AT_FDCWD, &path, &time, &time, UtimensatFlags::NoFollowSymlink)?;
            }
            EntryType::Link => fs::hard_link(into.join(link.ok_or("no target")?), &path)?,
            EntryType::Regular => {
                let mut file = File::create_new(&path)?;
                io::copy(&mut entry, &mut file)?;
                fchown(&file, Some(user), Some(group))?;
                file.set_permissions(Permissions::from_mode(mode))?;
                futimens(&file, &time, &time)?;
            }
            EntryType::Fifo => nix::unistd::mkfifo(&path, Mode::from_bits_truncate(mode))?,
            _ => return Err("of another type".into()),
        }
    }
    for (path, mode, time) in directories.iter().rev() {
        fs::set_permissions(path, Permissions::from_mode(*mode))?;
        utimensat(nix::fcntl::AT_FDCWD, path, time, time, UtimensatFlags::FollowSymlink)?;
    }
    Ok(())
}
