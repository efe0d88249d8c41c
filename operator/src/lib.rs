//! polity-operator
