//! placeholder
use super::{
    program::{Fault, Parsed},
    ty::Ty,
};
pub fn check(_parsed: &Parsed, _args: &Ty) -> Vec<Fault> {
    Vec::new()
}
