//! usage: every-test-ran LOG...
//!
//! Compares the logs that test runs wrote (`COFFERDAM_TEST_LOG`) with `testkit/places.txt`: every
//! test must have passed in every place that it is listed for.

use std::process::ExitCode;
use std::{env, fs};

use cofferdam_testkit::{Places, Ran};

fn main() -> ExitCode {
    match compare() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("every-test-ran: {why}");
            ExitCode::from(2)
        }
    }
}

/// Prints what is lacking and returns how much it is.
fn compare() -> Result<usize, String> {
    let (places, mut ran) = (Places::committed()?, Ran::default());
    for log in env::args_os().skip(1) {
        let say = |e: &dyn std::fmt::Display| format!("{}: {e}", log.display());
        let text = fs::read_to_string(&log).map_err(|e| say(&e))?;
        ran.read(&text).map_err(|e| say(&e))?;
    }
    let lacking = ran.lacks(&places);
    for line in &lacking {
        println!("{line}");
    }
    let all: usize = places.iter().map(|(_, of_test)| of_test.len()).sum();
    println!("{} of {all} pairs of test and place ran and passed", all - lacking.len());
    Ok(lacking.len())
}
