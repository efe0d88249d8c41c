//! polity-api
