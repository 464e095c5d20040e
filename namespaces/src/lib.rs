//! namespaces: first cut follows.
