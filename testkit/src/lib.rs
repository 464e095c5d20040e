//! What the tests of the family need.
