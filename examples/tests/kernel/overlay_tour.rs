//! overlay-tour: what it prints is what happened.

use std::process::Command;

pub(crate) const PROGRAM: &str = concat!(env!("CARGO_BIN_EXE_overlay-tour"));

const EXPECTED: &str = "\
Two layers become one. both.txt is in each of them, and the upper one is shown:
  merged
    both.txt   of the upper layer
    gone.txt   not for long
    lower.txt  of the lower layer
  upper
    both.txt   of the upper layer
  lower
    both.txt   of the lower layer
    gone.txt   not for long
    lower.txt  of the lower layer

gone.txt is deleted. The lower layer still has it; a whiteout in the upper layer hides it:
  merged
    both.txt   of the upper layer
    lower.txt  of the lower layer
  upper
    both.txt   of the upper layer
    gone.txt   (whiteout)
  lower
    both.txt   of the lower layer
    gone.txt   not for long
    lower.txt  of the lower layer

lower.txt gets a line more. The file was copied up first; the lower layer's is as it was:
  merged
    both.txt   of the upper layer
    lower.txt  of the lower layer / and a line more
  upper
    both.txt   of the upper layer
    gone.txt   (whiteout)
    lower.txt  of the lower layer / and a line more
  lower
    both.txt   of the lower layer
    gone.txt   not for long
    lower.txt  of the lower layer

new.txt is written. It lands in the upper layer:
  merged
    both.txt   of the upper layer
    lower.txt  of the lower layer / and a line more
    new.txt    of the mount
  upper
    both.txt   of the upper layer
    gone.txt   (whiteout)
    lower.txt  of the lower layer / and a line more
    new.txt    of the mount
  lower
    both.txt   of the lower layer
    gone.txt   not for long
    lower.txt  of the lower layer

What the upper layer changes, as a layer of an image would have it:
";

/// The root's own line is left out of the comparison: its time is another one, or by chance the same.
const CHANGES: &str = "  Modified  /both.txt\n  Deleted   /gone.txt\n  Modified  /lower.txt\n  Added     /new.txt\n";

pub(crate) fn the_classic_tour() {
    let output = Command::new(PROGRAM).output().expect("is started");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let changes = text.strip_prefix(EXPECTED).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(changes.strip_prefix("  Modified  /\n").unwrap_or(changes), CHANGES);
    let help = Command::new(PROGRAM).arg("--help").output().expect("is started");
    assert!(help.status.success() && help.stdout.starts_with(b"Shows what an overlay does"));
    assert_eq!(Command::new(PROGRAM).arg("--nonsense").output().expect("is started").status.code(), Some(2));
}
