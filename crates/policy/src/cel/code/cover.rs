//! Which branches of a rule ran for a call: the right sides of `&&` and `||`, and both sides of `?:`. On demand; holds no value of the call. What is within a
//! loop counts with the loop.

use super::{Code, Fail, Machine, build::Node, part::children, show::text};

/// A part of a rule that runs for some calls only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The part as an expression.
    pub expression: String,
    /// Whether it ran.
    pub ran: bool,
}

impl Code {
    /// The branches in the order in which they are written, the same for every call, and whether each ran for the machine's variables.
    pub fn branches<'a>(&'a self, machine: &mut Machine<'a, '_>) -> Vec<Branch> {
        let mut out = Vec::new();
        walk(&self.node, true, machine, &mut out);
        out
    }
}

/// Notes the branches of a node, which itself ran or did not.
fn walk<'a>(node: &'a Node, ran: bool, machine: &mut Machine<'a, '_>, out: &mut Vec<Branch>) {
    match node {
        Node::And(a, b) => {
            walk(a, ran, machine, out);
            let value = truth(a, ran, machine);
            branch(b, matches!(value, Some(Some(true) | None)), machine, out);
        }
        Node::Or(a, b) => {
            walk(a, ran, machine, out);
            let value = truth(a, ran, machine);
            branch(b, matches!(value, Some(Some(false) | None)), machine, out);
        }
        Node::Cond(cond, a, b) => {
            walk(cond, ran, machine, out);
            let value = truth(cond, ran, machine);
            branch(a, value == Some(Some(true)), machine, out);
            branch(b, value == Some(Some(false)), machine, out);
        }
        // what is within runs for each element, with a variable that is not at hand here
        Node::All(each) | Node::Exists(each) | Node::One(each) | Node::Collect(each) => walk(&each.range, ran, machine, out),
        other => children(other).into_iter().for_each(|child| walk(child, ran, machine, out)),
    }
}

fn branch<'a>(node: &'a Node, ran: bool, machine: &mut Machine<'a, '_>, out: &mut Vec<Branch>) {
    out.push(Branch { expression: text(node), ran });
    walk(node, ran, machine, out);
}

/// The value of a condition; `Some(None)`: an error. None: it did not run, or the budget is spent, so that nothing is known.
fn truth<'a>(node: &'a Node, ran: bool, machine: &mut Machine<'a, '_>) -> Option<Option<bool>> {
    match ran.then(|| machine.truth(node))? {
        Ok(value) => Some(Some(value)),
        Err(Fail::Spent) => None,
        Err(_) => Some(None),
    }
}
