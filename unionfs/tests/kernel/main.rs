//! Tests against the real kernel: see the test kit for how they are run and what they may not leave behind.

use cofferdam_testkit::run;
use std::process::ExitCode;

fn main() -> ExitCode {
    run(&[])
}
