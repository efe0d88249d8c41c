//! polity-policy
