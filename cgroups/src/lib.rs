//! cgroups: first cut follows.
