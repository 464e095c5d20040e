//! The entries that we see are those that Go's library, Python's `tarfile` and GNU tar see: nothing is smuggled past one of them.

use crate::support::{Scratch, Tar, lenient, options, unpack};
use cofferdam_image::{Draft, LayoutWriter};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

pub(crate) const PYTHON: &str = "/usr/bin/python3";
pub(crate) const TAR: &str = "/bin/tar";
pub(crate) const UMOCI: &str = "/usr/bin/umoci";

/// `kind name size`, the name in hexadecimal, of each entry of each archive, archives separated by a line `--`.
const LIST: &str = r#"
import signal, sys, tarfile
def stop(*_):
    raise TimeoutError
signal.signal(signal.SIGALRM, stop)
for path in sys.argv[1:]:
    try:
        # A negative size makes it read the same header for ever (CVE-2025-8194).
        signal.setitimer(signal.ITIMER_REAL, 2)
        seen = {}
        for m in tarfile.open(path, 'r:', errorlevel=2):
            name = '/'.join(p for p in m.name.split('/') if p not in ('', '.'))
            kind = 'd' if m.isdir() else 'l' if m.issym() else 'h' if m.islnk() else 'f' if m.isreg() else 'o'
            seen[name] = f"{kind} {name.encode('utf-8', 'surrogateescape').hex()} {m.size if kind == 'f' else 0}"
        print(*seen.values(), sep='\n')
    except Exception as e:
        print('error', type(e).__name__, 0)
    print('--')
"#;

fn python(archives: &[Vec<u8>], scratch: &Scratch) -> Vec<BTreeSet<String>> {
    let paths: Vec<_> = (0..archives.len()).map(|i| scratch.path().join(format!("{i}.tar"))).collect();
    for (path, archive) in paths.iter().zip(archives) {
        fs::write(path, archive).unwrap();
    }
    let output = Command::new(PYTHON).args(["-I", "-c", LIST]).args(&paths).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lists: Vec<&str> = text.split("--\n").collect();
    let lists = lists[..archives.len()].iter();
    lists.map(|list| list.lines().filter(|l| !l.is_empty()).map(readable).collect()).collect()
}

fn readable(line: &str) -> String {
    let mut words = line.split(' ');
    let (kind, hex, size) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let bytes: Result<Vec<u8>, _> =
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16)).collect();
    // An error stays what it is.
    bytes.map_or_else(|_| line.to_owned(), |bytes| format!("{kind} {} {size}", String::from_utf8_lossy(&bytes)))
}

fn ours(root: &Path) -> BTreeSet<String> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().display();
            found.insert(match meta.file_type() {
                t if t.is_dir() => format!("d {name} 0"),
                t if t.is_symlink() => format!("l {name} 0"),
                t if t.is_file() => format!("f {name} {}", meta.len()),
                _ => format!("o {name} 0"),
            });
            if meta.is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(root, root, &mut found);
    found
}

fn hidden() -> Vec<u8> {
    // A whole archive, as the data of a file: whoever miscounts the data sees its entries.
    Tar::of(&["smuggled=evil"]).0
}

type Named = (&'static str, Vec<u8>);

/// Sizes that readers disagree about.
fn sizes() -> Vec<Named> {
    let hidden = hidden();
    let size = |n: usize| n.to_string().into_bytes();
    let pax_size = |pax: usize, ustar: u64| {
        Tar::default().pax(b'x', &[("size", &size(pax))]).header(b'0', "f", "", &hidden, move |h| h.set_size(ustar))
    };
    vec![
        ("PAX says more", pax_size(hidden.len(), 0).entry("after=1").end()),
        ("PAX says less", pax_size(0, hidden.len() as u64).entry("after=1").end()),
        ("the same", pax_size(hidden.len(), hidden.len() as u64).entry("after=1").end()),
        ("PAX before a symlink", Tar::default().pax(b'x', &[("size", b"1024")]).raw(b'2', "s", "t", &hidden).end()),
        ("a symlink with a size", Tar::default().header(b'2', "s", "t", &hidden, |h| h.set_size(1024)).end()),
        ("a fifo with a size", Tar::default().header(b'6', "p", "", b"", |h| h.set_size(512)).entry("after=1").end()),
        ("a directory with a size", Tar::default().header(b'5', "d/", "", &hidden, |h| h.set_size(1024)).end()),
        (
            "base 256",
            Tar::default()
                .header(b'0', "f", "", &hidden, |h| {
                    h.as_mut_bytes()[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0]);
                })
                .entry("after=1")
                .end(),
        ),
        (
            "spaces around numbers",
            Tar::default()
                .header(b'0', "f", "", &hidden, |h| {
                    h.as_mut_bytes()[124..136].copy_from_slice(b"   2000 \0\0\0\0");
                })
                .entry("after=1")
                .end(),
        ),
    ]
}

fn names() -> Vec<Named> {
    let long = "long/".repeat(50);
    vec![
        (
            "a GNU name",
            Tar::default().raw(b'L', "././@LongLink", "", format!("{long}f\0").as_bytes()).entry("x=1").end(),
        ),
        ("a GNU link", Tar::default().raw(b'K', "././@LongLink", "", b"target\0rest").entry("x->y").end()),
        ("a PAX name", Tar::default().pax(b'x', &[("path", format!("{long}f").as_bytes())]).entry("x=1").end()),
        (
            "a prefix",
            Tar::default()
                .header(b'0', "name", "", b"1", |h| h.as_mut_bytes()[345..351].copy_from_slice(b"prefix"))
                .end(),
        ),
        (
            "a prefix of another version",
            Tar::default()
                .header(b'0', "name", "", b"1", |h| {
                    h.as_mut_bytes()[263..265].copy_from_slice(b"\0\0");
                    h.as_mut_bytes()[345..351].copy_from_slice(b"prefix");
                })
                .end(),
        ),
    ]
}

fn kinds() -> Vec<Named> {
    vec![
        ("a directory of old", Tar::default().raw(0, "d/", "", b"").raw(0, "f", "", b"1").end()),
        ("contiguous", Tar::default().raw(b'7', "f", "", b"12").end()),
        ("a global comment", Tar::default().pax(b'g', &[("comment", b"x"), ("mtime", b"1")]).entry("f=1").end()),
        ("no end", Tar::of(&["f=1"]).0),
        ("after the end", [Tar::of(&["f=1"]).end(), hidden()].concat()),
        ("nothing", Tar::default().end()),
    ]
}

fn corpus() -> Vec<Named> {
    [sizes(), names(), kinds()].concat()
}

/// What we make of each archive, without the directories that its entries only pass through.
fn ours_of_corpus(mut check: impl FnMut(&str, &[u8], BTreeSet<String>)) {
    let scratch = Scratch::new();
    for (what, archive) in corpus() {
        let stage = scratch.stage();
        unpack(&archive, &stage, None, lenient()).unwrap_or_else(|e| panic!("{what}: {e}"));
        let passed_through = |line: &String| line.starts_with("d long");
        let ours = ours(&stage).into_iter().filter(|l| !passed_through(l) && l != "d prefix 0").collect();
        check(what, &archive, ours);
    }
}

pub(crate) fn entries_are_those_of_tarfile() {
    let scratch = Scratch::new();
    let archives: Vec<Vec<u8>> = corpus().into_iter().map(|(_, archive)| archive).collect();
    let mut lists = python(&archives, &scratch).into_iter();
    ours_of_corpus(|what, _, ours| assert_eq!(ours, lists.next().unwrap(), "{what}"));
}

/// `type name size` of each entry in GNU tar's list, the last one of a name.
fn gnu_tar(archive: &[u8], path: &Path) -> BTreeSet<String> {
    fs::write(path, archive).unwrap();
    let mut tar = Command::new(TAR);
    tar.args(["--list", "--verbose", "--numeric-owner", "--file"]).arg(path).env("LC_ALL", "C");
    let text = String::from_utf8(tar.output().unwrap().stdout).unwrap();
    let entry = |line: &str| {
        // Mode, owner, size, date, time, name; then where a link leads.
        let words: Vec<&str> = line.split_whitespace().collect();
        let (kind, size, name) = (line.chars().next().unwrap(), words[2], words[5].trim_end_matches('/'));
        let kind = match kind {
            '-' | 'C' => 'f',
            'd' | 'l' | 'h' => kind,
            _ => 'o',
        };
        (name.to_owned(), format!("{kind} {name} {}", if kind == 'f' { size } else { "0" }))
    };
    text.lines().map(entry).collect::<BTreeMap<_, _>>().into_values().collect()
}

/// GNU tar takes what follows for data where there can be none (but not of directories and hard links); Go and Python, as we do, for the next entry.
const DATA_OF_NO_FILE: [&str; 3] = ["PAX before a symlink", "a symlink with a size", "a fifo with a size"];

pub(crate) fn entries_are_those_of_gnu_tar() {
    let scratch = Scratch::new();
    let path = scratch.path().join("list.tar");
    ours_of_corpus(|what, archive, ours| {
        let theirs = gnu_tar(archive, &path);
        if DATA_OF_NO_FILE.contains(&what) {
            let without_data = ours.into_iter().filter(|line| !line.starts_with("f ")).collect();
            assert_eq!(theirs, without_data, "{what}");
        } else {
            assert_eq!(ours, theirs, "{what}");
        }
    });
}

/// Every type that can have no data, with a size in its header, then in an extended one, and what looks like data of its own: a whole archive.
fn data_of_no_file() -> Vec<Named> {
    let one = |name: &'static str, flag: u8| {
        let (begin, hidden) = (Tar::of(&["f=1"]), hidden());
        let change = |h: &mut tar::Header| {
            h.set_device_major(1).unwrap();
            h.set_device_minor(3).unwrap();
        };
        let size = hidden.len() as u64;
        let in_header = begin.clone().header(flag, "x", "f", &hidden, change);
        let extended = begin.pax(b'x', &[("size", size.to_string().as_bytes())]).header(flag, "x", "f", &hidden, |h| {
            change(h);
            h.set_size(0);
        });
        [(name, in_header.entry("after=1").end()), (name, extended.entry("after=1").end())]
    };
    let kinds =
        [("link", b'1'), ("symlink", b'2'), ("char", b'3'), ("block", b'4'), ("directory", b'5'), ("fifo", b'6')];
    kinds.into_iter().flat_map(|(name, flag)| one(name, flag)).collect()
}

/// Types that Go's library reads, but umoci does not know.
const UNKNOWN_TO_UMOCI: [&str; 2] = ["contiguous", "a global comment"];

/// umoci reads archives by Go's library, as docker, containerd and buildah do.
pub(crate) fn entries_are_those_of_go() {
    let corpus = corpus().into_iter().filter(|(what, _)| !UNKNOWN_TO_UMOCI.contains(what)).collect();
    let archives = [data_of_no_file(), corpus].concat();
    for (number, (what, archive)) in archives.iter().enumerate() {
        let scratch = Scratch::new();
        let (dir, stage, out) = (scratch.stage(), scratch.stage(), scratch.path().join("out"));
        unpack(archive, &stage, None, options()).unwrap_or_else(|e| panic!("{what}: {e}"));
        let writer = LayoutWriter::open(fs::File::open(&dir).unwrap()).unwrap();
        let layer = writer.import(&archive[..]).unwrap();
        Draft::empty("amd64").layer(&layer, "x").write(&writer, "x").unwrap();
        let mut umoci = Command::new(UMOCI);
        umoci.args(["raw", "unpack", "--image"]).arg(format!("{}:x", dir.display())).arg(&out);
        let output = umoci.output().unwrap();
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(ours(&stage), ours(&out), "{what}");
        if number < data_of_no_file().len() {
            assert!(stage.join("smuggled").exists() && stage.join("after").exists(), "{what}: those are entries");
        }
    }
}

/// Of which archives are put together.
fn pieces() -> Vec<Vec<u8>> {
    vec![
        Tar::of(&["a=1"]).0,
        Tar::of(&["b=22"]).0,
        Tar::of(&["d/"]).0,
        Tar::of(&["s->t"]).0,
        Tar::default().pax(b'x', &[("size", b"512")]).0,
        Tar::default().pax(b'x', &[("path", b"renamed")]).0,
        Tar::default().pax(b'g', &[("mtime", b"1")]).0,
        Tar::default().pax(b'g', &[("size", b"512")]).0,
        Tar::default().raw(b'L', "././@LongLink", "", b"long\0").0,
        Tar::default().raw(b'K', "././@LongLink", "", b"link\0").0,
        Tar::default().header(b'0', "c", "", &hidden(), |_| {}).0,
        Tar::default().header(b'0', "e", "", b"", |h| h.set_size(512)).0,
        Tar::default().header(b'2', "l", "t", b"", |h| h.set_size(512)).0,
        vec![0; 512],
    ]
}

/// Archives changed at random: those that we take, Python sees in the same way.
pub(crate) fn entries_are_those_of_tarfile_at_random() {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    let scratch = Scratch::new();
    let pieces = pieces();
    let piece = (
        0..pieces.len(),
        prop::option::weighted(
            0.3,
            (prop::sample::select(vec![0_usize, 124, 134, 135, 156, 157, 257, 263, 345]), any::<u8>()),
        ),
    );
    let archive = prop::collection::vec(piece, 1..7).prop_map(move |chosen| {
        let mut bytes = Vec::new();
        for (piece, change) in chosen {
            let mut piece = pieces[piece].clone();
            if let Some((at, byte)) = change {
                // A prefix that is not the name of a symlink, through which its entry would go.
                piece[at] = if at == 345 { b'P' } else { byte };
                let mut header = tar::Header::new_old();
                header.as_mut_bytes().copy_from_slice(&piece[..512]);
                header.set_cksum();
                piece[..512].copy_from_slice(header.as_bytes());
            }
            bytes.extend(piece);
        }
        bytes.extend([0; 1024]);
        bytes
    });
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let archives: Vec<Vec<u8>> = (0..1200).map(|_| archive.new_tree(&mut runner).unwrap().current()).collect();
    let lists = python(&archives, &scratch);
    let mut taken = 0;
    for (archive, theirs) in archives.iter().zip(&lists) {
        let stage = scratch.stage();
        // What Python refuses cannot mean something else to it (a global header at the end, for example).
        let refused = theirs.iter().any(|line| line.starts_with("error"));
        // What is left out for its unknown type is in their list.
        let whole = unpack(archive, &stage, None, lenient()).is_ok_and(|report| report.skipped.is_empty());
        if whole && !refused {
            taken += 1;
            let ours = ours(&stage);
            // Directories that entries only pass through are in no list.
            let passed_through = |line: &String| {
                let inside = line.strip_suffix(" 0").and_then(|l| l.strip_prefix("d ")).map(|name| format!(" {name}/"));
                !theirs.contains(line) && inside.is_some_and(|inside| ours.iter().any(|l| l[1..].starts_with(&inside)))
            };
            let ours: BTreeSet<_> = ours.iter().filter(|line| !passed_through(line)).cloned().collect();
            // The root itself, as "./", is an entry to Python, and here where everything else is.
            let theirs: BTreeSet<_> = theirs.iter().filter(|line| *line != "d  0").cloned().collect();
            assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(archive));
        }
    }
    assert!(taken > 100, "only {taken} were taken: the test says little");
}
