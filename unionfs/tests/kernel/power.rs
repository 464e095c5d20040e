//! In a virtual machine whose power is cut: `testkit/power-loss` starts this program there again and again, with the same disk.

use crate::store::{id, names, owner, path_of};
use crate::support::{Random, list, open};
use cofferdam_unionfs::{AfterVolatile, ContainerSpec, Form, LayerStore, SyncPolicy};
use nix::mount::{MsFlags, mount, umount};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const FILES: usize = 6;

pub(crate) struct Power {
    writes: bool,
    round: u64,
    promised: PathBuf,
}

pub(crate) fn asked_for() -> Option<Power> {
    let mut args = std::env::args().skip(1);
    (args.next()? == "--power-loss").then(|| Power {
        writes: args.next().expect("write or check") == "write",
        round: args.next().and_then(|round| round.parse().ok()).expect("a number"),
        promised: args.next().expect("a file").into(),
    })
}

/// Checks what is there, and writes until the end.
#[expect(clippy::print_stdout, reason = "is read by the script")]
pub(crate) fn run(power: &Power) -> ExitCode {
    let disk = Path::new("/run/disk");
    fs::create_dir(disk).expect("is made");
    mount(Some("/dev/vda"), disk, Some("ext4"), MsFlags::empty(), None::<&str>).expect("is mounted");
    let path = disk.join("store");
    if !path.exists() {
        fs::create_dir(&path).expect("is made");
    }
    let store = LayerStore::open(open(&path), Form::Trusted).unwrap_or_else(|e| panic!("{e}"));
    let promised = fs::read_to_string(&power.promised).expect("is read");
    check(&store, &path, promised.lines());
    println!("checked {} layers, {} of them promised", names(&store).len(), promised.lines().count());
    if power.writes {
        println!("ready");
        write(&store, power.round);
    }
    drop(store);
    umount(disk).expect("is unmounted");
    ExitCode::SUCCESS
}

/// Nothing is lost that was promised, nothing is there by half, and nothing that nobody can know to be whole.
fn check<'a>(store: &LayerStore, path: &Path, promised: impl Iterator<Item = &'a str>) {
    assert_eq!(store.check().unwrap_or_else(|e| panic!("{e}")), []);
    for folder in ["staging", "trash"] {
        assert!(list(path.join(folder)).is_empty(), "{folder}: {:?}", list(path.join(folder)));
    }
    let found = names(store);
    for name in promised {
        assert!(found.iter().any(|f| f == name), "{name} is lost: {found:?}");
    }
    for name in &found {
        assert!(!name.starts_with("none"), "{name} was published without waiting for the disk");
        for layer in store.chain(&id(name)).unwrap_or_else(|e| panic!("{e}")) {
            let dir = path_of(&layer).join("dir");
            assert_eq!(list(&dir).len(), FILES, "{} is not whole", layer.id());
            for file in list(&dir) {
                let content = fs::read(dir.join(file)).expect("is read");
                assert_eq!(content, content_of(layer.id().as_str()), "{}", layer.id());
            }
        }
        assert!(!store.owners(&id(name)).expect("is there").is_empty(), "{name} has lost its owner");
    }
    if let Some(container) = store.container(&owner("c"), AfterVolatile::Refuse).unwrap_or_else(|e| panic!("{e}")) {
        container.discard().unwrap_or_else(|e| panic!("{e}"));
    }
}

/// More than a block.
fn content_of(name: &str) -> Vec<u8> {
    name.as_bytes().iter().copied().cycle().take(5000).collect()
}

#[expect(clippy::print_stdout, reason = "is read by the script")]
fn write(store: &LayerStore, round: u64) {
    let mut random = Random::new(round);
    let keep = owner("keep");
    let mut parent = None;
    for number in 0.. {
        let (policy, word) = match random.below(4) {
            0 => (SyncPolicy::None, "none"),
            1 => (SyncPolicy::PerFile, "per-file"),
            _ => (SyncPolicy::Filesystem, "filesystem"),
        };
        let store = store.clone().sync_policy(policy);
        let name = id(&format!("{word}-{round}-{number}"));
        let fill = |dir: &Path| {
            fs::create_dir(dir.join("dir")).expect("is made");
            for file in 0..FILES {
                fs::write(dir.join("dir").join(file.to_string()), content_of(name.as_str())).expect("is written");
            }
        };
        if random.below(3) == 0 {
            // By way of a container.
            let container = store.prepare(&owner("c"), None, &ContainerSpec::new()).unwrap_or_else(|e| panic!("{e}"));
            let root = container.mount().unwrap_or_else(|e| panic!("{e}"));
            fill(&path_of(&root));
            drop(root);
            container.commit(&name).unwrap_or_else(|e| panic!("{e}"));
            store.acquire(&name, &keep).unwrap_or_else(|e| panic!("{e}"));
            container.discard().unwrap_or_else(|e| panic!("{e}"));
        } else {
            let stage = store.stage(&keep).unwrap_or_else(|e| panic!("{e}"));
            fill(&path_of(&stage));
            stage.publish(&name, parent.as_ref()).unwrap_or_else(|e| panic!("{e}"));
        }
        if policy != SyncPolicy::None {
            println!("published {name}.");
        }
        // What stands on one that is not safe makes it so.
        parent = (word != "none" && random.below(2) == 0).then_some(name);
    }
}
