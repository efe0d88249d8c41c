//! Compiled Policies, shared between the snapshots of an Org tree.

/// Compiled Policies and Tool schemas by digest. Cheap to share; keeps what recent builds used.
#[derive(Debug, Default)]
pub struct CompileCache {}
