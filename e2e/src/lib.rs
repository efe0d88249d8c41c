//! polity-e2e
