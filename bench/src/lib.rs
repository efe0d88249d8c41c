//! What every bench needs: repeats of a figure, and the report of them. Measures nothing itself.

pub mod report;
pub mod samples;
