//! polity-gateway
