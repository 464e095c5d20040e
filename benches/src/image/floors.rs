//! The least that has to be done: the layers decompressed, by the same decompressor; and hashed.

use super::{Place, by_hand, contender};
use crate::Result;
use crate::area::{Contender, Role};
use flate2::bufread::MultiGzDecoder;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tar::{Archive, EntryType};

/// One buffer as large as a decompressor likes it.
const BUFFER: usize = 1 << 20;

pub(super) fn of(place: &Arc<Place>) -> Vec<Contender> {
    let mut floors = of_any(place);
    // What is written by hand knows no layers.
    if let Some(blob) = place.only_layer() {
        floors.extend(of_one(place, &blob));
    }
    floors
}

/// The single steps, each on its own, and all of them without care. (Beside *the* floor: as peers, so that each has its column.)
fn of_one(place: &Arc<Place>, blob: &Path) -> Vec<Contender> {
    let archive: OnceLock<Vec<u8>> = OnceLock::new();
    let files: OnceLock<Vec<Made>> = OnceLock::new();
    let (of_parse, of_files, of_hand) = (blob.to_owned(), blob.to_owned(), blob.to_owned());
    vec![
        contender("tar headers only", Role::Peer, place, move |_, _| {
            if archive.get().is_none() {
                let _ = archive.set(inflated(&of_parse)?);
            }
            let archive = archive.get().map(Vec::as_slice).unwrap_or_default();
            let entries = Archive::new(archive).entries()?.try_fold(0, |count, entry| entry.map(|_| count + 1))?;
            if entries > 0 { Ok(()) } else { Err("no entries".into()) }
        }),
        contender("files without data only", Role::Peer, place, move |_, made| {
            if files.get().is_none() {
                let _ = files.set(list(&inflated(&of_files)?)?);
            }
            fs::create_dir(made)?;
            files.get().into_iter().flatten().try_for_each(|file| file.make(made))
        }),
        contender("by hand, in three threads", Role::Peer, place, move |_, made| {
            fs::create_dir(made)?;
            by_hand::unpack(&of_hand, made).map(drop)
        }),
    ]
}

fn inflated(blob: &Path) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    MultiGzDecoder::new(BufReader::new(File::open(blob)?)).read_to_end(&mut archive)?;
    Ok(archive)
}

enum Made {
    Directory(PathBuf),
    File(PathBuf),
    Symlink(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
}

impl Made {
    fn make(&self, root: &Path) -> Result<()> {
        match self {
            // The root is there.
            Made::Directory(path) if path.as_os_str() == "./" || path.as_os_str() == "." => {}
            Made::Directory(path) => fs::create_dir(root.join(path))?,
            Made::File(path) => drop(File::create_new(root.join(path))?),
            Made::Symlink(path, target) => std::os::unix::fs::symlink(target, root.join(path))?,
            Made::Link(path, target) => fs::hard_link(root.join(target), root.join(path))?,
        }
        Ok(())
    }
}

fn list(archive: &[u8]) -> Result<Vec<Made>> {
    let mut found = Vec::new();
    for entry in Archive::new(archive).entries()? {
        let entry = entry?;
        let path = entry.path()?.into_owned();
        let link = || -> Result<PathBuf> { Ok(entry.link_name()?.ok_or("no target")?.into_owned()) };
        found.push(match entry.header().entry_type() {
            EntryType::Directory => Made::Directory(path),
            EntryType::Symlink => Made::Symlink(path, link()?),
            EntryType::Link => Made::Link(path, link()?),
            _ => Made::File(path),
        });
    }
    Ok(found)
}

fn of_any(place: &Arc<Place>) -> Vec<Contender> {
    vec![
        contender("inflate only", Role::Floor, place, |place, _| {
            let image = place.image()?;
            let mut buffer = vec![0; BUFFER];
            for number in 0..image.layers().len() {
                let blob = BufReader::with_capacity(BUFFER, image.blob(number)?);
                let mut archive = MultiGzDecoder::new(blob);
                while archive.read(&mut buffer)? > 0 {}
            }
            Ok(())
        }),
        contender("inflate, sha256 of both, in turn", Role::Peer, place, |place, _| {
            let image = place.image()?;
            for number in 0..image.layers().len() {
                image.read_layer(number)?.finish()?;
            }
            Ok(())
        }),
    ]
}
