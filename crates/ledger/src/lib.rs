//! polity-ledger
