//! `traps.md` names tests that are there.

use std::fs;
use std::path::Path;

fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_trap_has_its_test() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    for folder in ["src", "tests"] {
        sources(&top.join(folder), &mut all);
    }
    let list = fs::read_to_string(top.join("tests/traps.md")).unwrap();
    let rows = list.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| trap"));
    let mut count = 0;
    for row in rows {
        let tests = row.split('|').nth(2).unwrap().trim();
        assert!(!tests.is_empty(), "{row}");
        for test in tests.split_whitespace() {
            let name = test.trim_matches('`');
            assert!(all.contains(&format!("fn {name}(")), "{name}");
            count += 1;
        }
    }
    assert!(count > 60, "{count}");
}
