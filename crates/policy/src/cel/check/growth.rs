//! Keeps values from growing: CEL can name a value only in a loop, so a value that doubles per step needs a `map()` that builds larger things than its
//! element. Together with the counter in every loop this bounds memory, not only time.

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators as op};

use super::Checker;
use crate::cel::ty::Ty;

/// Most operations of one expression that copy values of unbounded size: concatenations, and elements of list and map literals.
const MAX_COPIES: usize = 16;
/// Longest constant text that `map()` may yield per element.
const MAX_CONSTANT: usize = 256;

impl Checker<'_> {
    /// Notes that a value is copied, unless it is small or a constant.
    pub(super) fn copy(&mut self, e: &IdedExpr, ty: &Ty) {
        if ty.scalar() || matches!(e.expr, Expr::Literal(_)) || (*ty == Ty::Dyn && !self.strict) {
            return;
        }
        self.copies += 1;
        if self.copies == MAX_COPIES + 1 {
            self.fault_at(e, format!("more than {MAX_COPIES} values are joined or put into lists and maps; split the rule"));
        }
    }

    /// Whether what `map()` makes of an element is no larger than the element, but for a constant.
    pub(super) fn keeps_size(&self, e: &IdedExpr, element: &str) -> bool {
        let ty = self.types.get(&e.id);
        if ty.is_some_and(|t| t.scalar() || (*t == Ty::Dyn && !self.strict)) {
            return true;
        }
        match &e.expr {
            Expr::Ident(name) => name == element,
            Expr::Literal(LiteralValue::String(s)) => s.len() <= MAX_CONSTANT,
            Expr::Select(select) => self.keeps_size(&select.operand, element),
            Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice(), call.target.as_deref()) {
                (op::INDEX | op::OPT_INDEX | op::OPT_SELECT, [of, _], None) => self.keeps_size(of, element),
                (op::CONDITIONAL, [_, a, b], None) => self.keeps_size(a, element) && self.keeps_size(b, element),
                ("orValue" | "or", [other], Some(it)) => self.keeps_size(it, element) && self.keeps_size(other, element),
                ("value", [], Some(it)) => self.keeps_size(it, element),
                ("string", [of], None) => self.keeps_size(of, element),
                // a part of a text, or as long
                ("charAt" | "substring" | "trim" | "lowerAscii" | "upperAscii" | "find", _, Some(of)) => self.keeps_size(of, element),
                ("getScheme" | "getHost" | "getHostname" | "getPort" | "min" | "max", [], Some(of)) => self.keeps_size(of, element),
                ("url", [of], None) => self.keeps_size(of, element),
                _ => false,
            },
            _ => false,
        }
    }
}
