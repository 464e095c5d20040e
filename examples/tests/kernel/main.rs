//! busyloop-limit against the real kernel: that it holds what it says, and leaves nothing behind.

mod endings;
mod figures;
mod refusals;
mod support;

use cofferdam_testkit::{Need, Test, patience, run};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    // A user may be unable to reach the folder that it was built in.
    let program = Need::Program(support::PROGRAM);
    // They take turns, since each takes all the CPUs.
    let cpu = |name, run| Test::new(name, run).needs(&[program, Need::Cgroup("cpu")]).time(Duration::from_secs(300));
    let mut tests = vec![
        cpu("holds_10_20_and_50_percent", figures::holds_10_20_and_50_percent),
        cpu("a_limit_above_the_machine", figures::a_limit_above_the_machine),
        cpu("a_limit_above_that_of_the_cgroup_above", figures::a_limit_above_that_of_the_cgroup_above),
        cpu("signals_end_it_and_leave_nothing", endings::signals_end_it_and_leave_nothing),
        cpu("sigkill_leaves_no_busy_process", endings::sigkill_leaves_no_busy_process),
        cpu("the_busy_process_dies_early", endings::the_busy_process_dies_early),
        cpu("closed_pipe", endings::closed_pipe),
        cpu("full_disk", endings::full_disk),
        Test::new("bad_use", refusals::bad_use).needs(&[program]),
        Test::new("help", refusals::help).needs(&[program]),
        Test::new("an_ordinary_user_may_not", refusals::an_ordinary_user_may_not).needs(&[program, Need::Root]),
    ];
    // A virtual machine that has to wait for CPUs itself cannot measure this finely.
    if patience() == 1 {
        tests.extend([
            cpu("holds_150_percent", figures::holds_150_percent),
            cpu("holds_in_other_periods", figures::holds_in_other_periods),
            cpu("one_thread_is_one_core_at_most", figures::one_thread_is_one_core_at_most),
            cpu("plain_lines_for_a_pipe", figures::plain_lines_for_a_pipe),
        ]);
    }
    run(&tests)
}
