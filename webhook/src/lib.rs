//! polity-webhook
