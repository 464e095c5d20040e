//! The test kit on a real kernel, each test in a process of its own.

mod fault;
mod offers;

use std::process::ExitCode;

use cofferdam_testkit::Test;

fn main() -> ExitCode {
    let mut tests = vec![
        Test::new("record_sees_the_parent", fault::record_sees_the_parent),
        Test::new("record_sees_a_child_until_exec", fault::record_sees_a_child_until_exec),
        Test::new("record_sees_a_child_whose_exec_fails", fault::record_sees_a_child_whose_exec_fails),
        Test::new("record_sees_a_fork", fault::record_sees_a_fork),
        Test::new("a_child_may_outlive_the_recording", fault::a_child_may_outlive_the_recording),
        Test::new("an_errno_for_one_call_of_the_parent", fault::an_errno_for_one_call_of_the_parent),
        Test::new("an_errno_for_one_call_of_the_child", fault::an_errno_for_one_call_of_the_child),
        Test::new("a_child_is_killed", fault::a_child_is_killed),
        Test::new("every_call_can_fail", fault::every_call_can_fail),
        Test::new("other_calls_are_not_watched", fault::other_calls_are_not_watched),
        Test::new("what_is_left_of_a_program_that_dies", fault::what_is_left_of_a_program_that_dies),
        Test::new("a_panic_comes_through", fault::a_panic_comes_through),
        Test::new("only_the_thread_is_filtered", fault::only_the_thread_is_filtered),
    ];
    tests.extend(offers::tests());
    cofferdam_testkit::run(&tests)
}
