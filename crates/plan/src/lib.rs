//! polity-plan
