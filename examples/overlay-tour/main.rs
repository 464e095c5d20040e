//! A tour of a union: two folders become one, and everything that is done there shows up in only one of them.

use cofferdam_namespaces::{IdMap, Namespaces, Scope};
use cofferdam_unionfs::{Form, Overlay, WritableLayer, is_whiteout};
use nix::unistd::{geteuid, mkdtemp};
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const HELP: &str = "\
Shows what an overlay does, on a small one of its own.

usage: overlay-tour [--help]

Makes a folder in $TMPDIR (/tmp) with a lower and an upper layer, mounts them as one where nobody else sees it, changes,
deletes and adds files there, and prints after each step what is in which layer. The folder is removed at the end.
Anybody may do it: an ordinary user in a user namespace of their own.
";

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        None => {}
        Some(word) if word == "--help" => {
            print(HELP);
            return ExitCode::SUCCESS;
        }
        Some(word) => {
            let _ = writeln!(std::io::stderr(), "overlay-tour: what is {word:?}? Try --help.");
            return ExitCode::from(2);
        }
    }
    match in_a_folder() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "overlay-tour: {error}");
            ExitCode::FAILURE
        }
    }
}

fn in_a_folder() -> Result<()> {
    let folder = mkdtemp(&std::env::temp_dir().join("overlay-tour-XXXXXX"))?;
    let toured = if geteuid().is_root() { tour(&folder, Form::Trusted) } else { in_a_scope(&folder) };
    let layers = File::open(&folder)?;
    let removed = WritableLayer::remove(layers).map_err(Into::into).and_then(|()| Ok(fs::remove_dir_all(&folder)?));
    toured.and(removed)
}

/// As an ordinary user: root of a user namespace, whose overlays have attributes that such a root may write.
fn in_a_scope(folder: &Path) -> Result<()> {
    let scope = Scope::new(IdMap::root(), Namespaces::empty())?;
    #[expect(unsafe_code, reason = "a closure in a scope runs in a process of its own")]
    // SAFETY: nothing in it relies on the id of its thread, changes credentials, or needs a lock or an allocator that would.
    unsafe { scope.run(|| tour(folder, Form::User)) }?
}

fn tour(folder: &Path, form: Form) -> Result<()> {
    let lower = folder.join("lower");
    fs::create_dir(&lower)?;
    for (name, content) in
        [("lower.txt", "of the lower layer\n"), ("both.txt", "of the lower layer\n"), ("gone.txt", "not for long\n")]
    {
        fs::write(lower.join(name), content)?;
    }
    let writable = WritableLayer::create(File::open(folder)?)?;
    let upper = folder.join("upper");
    fs::write(upper.join("both.txt"), "of the upper layer\n")?;

    let mount = Overlay::new().lower(&lower).writable(&writable).form(form).mount()?;
    let tour = Tour { lower, upper, merged: path_of(&mount), form };
    tour.show("Two layers become one. both.txt is in each of them, and the upper one is shown:")?;

    fs::remove_file(tour.merged.join("gone.txt"))?;
    tour.show("gone.txt is deleted. The lower layer still has it; a whiteout in the upper layer hides it:")?;

    OpenOptions::new().append(true).open(tour.merged.join("lower.txt"))?.write_all(b"and a line more\n")?;
    tour.show("lower.txt gets a line more. The file was copied up first; the lower layer's is as it was:")?;

    fs::write(tour.merged.join("new.txt"), "of the mount\n")?;
    tour.show("new.txt is written. It lands in the upper layer:")?;

    let overlay = Overlay::new().lower(&tour.lower).writable(&writable).form(form);
    drop(mount);
    print("What the upper layer changes, as a layer of an image would have it:\n");
    for change in overlay.diff()?.changes() {
        print(&format!("  {:<9} /{}\n", format!("{:?}", change.kind), change.path.display()));
    }
    Ok(())
}

/// A mount that is attached nowhere has no path but this.
fn path_of(mount: &OwnedFd) -> PathBuf {
    format!("/proc/thread-self/fd/{}", mount.as_raw_fd()).into()
}

struct Tour {
    lower: PathBuf,
    upper: PathBuf,
    merged: PathBuf,
    form: Form,
}

impl Tour {
    fn show(&self, what_happened: &str) -> Result<()> {
        print(&format!("{what_happened}\n"));
        for (name, dir) in [("merged", &self.merged), ("upper", &self.upper), ("lower", &self.lower)] {
            print(&format!("  {name}\n"));
            let mut names = fs::read_dir(dir)?.map(|e| Ok(e?.file_name())).collect::<std::io::Result<Vec<_>>>()?;
            names.sort();
            for file in names {
                let content = if is_whiteout(File::open(dir)?, &file, self.form)? {
                    "(whiteout)".to_owned()
                } else {
                    fs::read_to_string(dir.join(&file))?.trim_end().replace('\n', " / ")
                };
                print(&format!("    {:<10} {content}\n", file.display()));
            }
        }
        print("\n");
        Ok(())
    }
}

fn print(text: &str) {
    // Nobody may be reading.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
