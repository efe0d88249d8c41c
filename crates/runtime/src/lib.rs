//! polity-runtime
