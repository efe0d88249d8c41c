//! Operand types of the operators.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators as op};

use super::{Checker, article};
use crate::{
    cel::{lib::Kind, ty::Ty},
    suggest,
};

impl Checker<'_> {
    /// Type of an operator's result; None: the name is not an operator's.
    pub(super) fn operator(&mut self, e: &IdedExpr, call: &CallExpr) -> Option<Ty> {
        Some(match (call.func_name.as_str(), call.args.as_slice()) {
            (name @ (op::LOGICAL_AND | op::LOGICAL_OR), [a, b]) => {
                let what = if name == op::LOGICAL_AND { "each side of &&" } else { "each side of ||" };
                self.bool(a, what);
                self.bool(b, what);
                Ty::Bool
            }
            (op::LOGICAL_NOT, [a]) => {
                self.bool(a, "what ! negates");
                Ty::Bool
            }
            (op::CONDITIONAL, [cond, a, b]) => {
                self.bool(cond, "the condition before ?");
                let (x, y) = (self.ty(a), self.ty(b));
                match x.join(&y) {
                    Some(ty) => ty,
                    None => self.fault_at(b, format!("both branches of ?: have one type: {} and {}", article(&x), article(&y))),
                }
            }
            (op::EQUALS | op::NOT_EQUALS, [a, b]) => self.equality(e, a, b),
            (name @ (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS), [a, b]) => self.order(e, sign(name), a, b),
            (name @ (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO), [a, b]) => self.arithmetic(e, sign(name), a, b),
            (op::NEGATE, [a]) => {
                let ty = self.ty(a);
                match ty.non_null() {
                    Ty::Int | Ty::Double | Ty::Dyn => ty.non_null().clone(),
                    other => self.fault_at(e, format!("- negates numbers, this is {}", article(other))),
                }
            }
            (op::IN, [a, b]) => self.membership(e, a, b),
            (name @ (op::INDEX | op::OPT_INDEX), [a, b]) => {
                let ty = self.index(a, b);
                optional_if(name == op::OPT_INDEX, ty)
            }
            (op::OPT_SELECT, [a, IdedExpr { id, expr: Expr::Literal(LiteralValue::String(name)) }]) => {
                let operand = self.ty(a);
                let at = self.find_after(name.inner(), self.offset(*id));
                let ty = self.field(&operand, name.inner(), at);
                optional_if(true, ty)
            }
            _ => return None,
        })
    }

    fn equality(&mut self, e: &IdedExpr, a: &IdedExpr, b: &IdedExpr) -> Ty {
        let (x, y) = (self.ty(a), self.ty(b));
        if !x.comparable(&y) {
            let why = if matches!((&x, &y), (Ty::Null, _) | (_, Ty::Null)) { "; it is never null" } else { "" };
            return self.fault_op(e, format!("{} never equals {}{why}", article(&x), article(&y)));
        }
        self.one_of(&x, b);
        self.one_of(&y, a);
        Ty::Bool
    }

    /// A constant that is compared with a string of known values must be one of them.
    fn one_of(&mut self, ty: &Ty, e: &IdedExpr) {
        if let (Ty::Str(Some(values)), Expr::Literal(LiteralValue::String(s))) = (ty.non_null(), &e.expr)
            && !values.iter().any(|v| v == s.inner())
        {
            let message = format!(
                "`{}` is not one of the values; {}",
                s.inner(),
                suggest::among("values", s.inner(), values.iter().map(String::as_str))
            );
            self.fault_at(e, message);
        }
    }

    fn order(&mut self, e: &IdedExpr, sign: &str, a: &IdedExpr, b: &IdedExpr) -> Ty {
        let (x, y) = (self.ty(a), self.ty(b));
        let ordered = |t: &Ty| matches!(t.non_null(), Ty::Int | Ty::Double | Ty::Str(_) | Ty::Timestamp | Ty::Duration | Ty::Dyn);
        let same = x.comparable(&y) && x != Ty::Null && y != Ty::Null;
        if same && ordered(&x) && ordered(&y) {
            return Ty::Bool;
        }
        let quantities = [&x, &y].iter().all(|t| *t.non_null() == Ty::Of(Kind::Quantity));
        let text_and_number =
            matches!((x.non_null(), y.non_null()), (Ty::Str(_), Ty::Int | Ty::Double) | (Ty::Int | Ty::Double, Ty::Str(_)));
        let instead = match () {
            () if quantities => "; use isLessThan(), isGreaterThan() or compareTo()",
            () if text_and_number => "; write numbers without quotes, or convert with int() or double()",
            () => "",
        };
        self.fault_op(e, format!("{sign} does not compare {} with {}{instead}", article(&x), article(&y)))
    }

    fn arithmetic(&mut self, e: &IdedExpr, sign: &str, a: &IdedExpr, b: &IdedExpr) -> Ty {
        let (x, y) = (self.ty(a), self.ty(b));
        let ty = match (sign, x.non_null(), y.non_null()) {
            ("+" | "-" | "*" | "/" | "%", Ty::Int, Ty::Int) => Some(Ty::Int),
            ("+" | "-" | "*" | "/", Ty::Double, Ty::Double) => Some(Ty::Double),
            ("+", Ty::Str(_), Ty::Str(_)) => Some(Ty::STRING),
            ("+", Ty::List(a), Ty::List(b)) => a.join(b).map(Ty::list),
            ("+" | "-", Ty::Timestamp, Ty::Duration) | ("+", Ty::Duration, Ty::Timestamp) => Some(Ty::Timestamp),
            ("-", Ty::Timestamp, Ty::Timestamp) | ("+" | "-", Ty::Duration, Ty::Duration) => Some(Ty::Duration),
            (_, Ty::Dyn, t) | (_, t, Ty::Dyn) => goes_with(sign, t).then_some(Ty::Dyn),
            _ => None,
        };
        match ty {
            Some(ty) => {
                if !ty.scalar() {
                    self.copy(e, &ty);
                }
                ty
            }
            None => {
                let cast = if x.number() && y.number() { "; convert one with int() or double()" } else { "" };
                self.fault_op(e, format!("{sign} does not go with {} and {}{cast}", article(&x), article(&y)))
            }
        }
    }

    fn membership(&mut self, e: &IdedExpr, a: &IdedExpr, b: &IdedExpr) -> Ty {
        let (x, y) = (self.ty(a), self.ty(b));
        match y.non_null() {
            Ty::Dyn => Ty::Bool,
            Ty::List(of) if x.comparable(of) => {
                self.one_of(of, a);
                if let Expr::List(list) = &b.expr {
                    for element in &list.elements {
                        self.one_of(&x, element);
                    }
                }
                Ty::Bool
            }
            Ty::List(of) => self.fault_op(e, format!("{} is never in a list of {of}", article(&x))),
            Ty::Map(_) if matches!(x.non_null(), Ty::Str(_) | Ty::Dyn) => Ty::Bool,
            Ty::Object(object) => match &a.expr {
                Expr::Literal(LiteralValue::String(name)) => {
                    let object = Ty::Object(object.clone());
                    let at = self.start(a);
                    self.field(&object, name.inner(), at);
                    Ty::Bool
                }
                _ => self.fault_op(e, "in needs a literal name here, or has()"),
            },
            Ty::Str(_) if matches!(x.non_null(), Ty::Str(_)) => {
                self.fault_op(e, "in does not look for a part of a text; write text.contains(part)")
            }
            other => self.fault_op(e, format!("in does not look for {} in {}", article(&x), article(other))),
        }
    }

    /// `a[b]`.
    fn index(&mut self, a: &IdedExpr, b: &IdedExpr) -> Ty {
        let (of, key) = (self.ty(a), self.ty(b));
        self.index_of(&of, &key, b)
    }

    fn index_of(&mut self, of: &Ty, key: &Ty, b: &IdedExpr) -> Ty {
        match (of, key.non_null()) {
            (Ty::Nullable(inner), _) => self.index_of(inner, key, b),
            (Ty::Optional(inner), _) => {
                let ty = self.index_of(inner, key, b);
                optional_if(true, ty)
            }
            (Ty::Dyn, Ty::Int | Ty::Str(_) | Ty::Dyn) => Ty::Dyn,
            (Ty::List(of), Ty::Int | Ty::Dyn) | (Ty::Map(of), Ty::Str(_) | Ty::Dyn) => (**of).clone(),
            (Ty::Object(object), Ty::Str(_) | Ty::Dyn) => match &b.expr {
                Expr::Literal(LiteralValue::String(name)) => {
                    let at = self.start(b);
                    self.field(of, name.inner(), at)
                }
                _ => {
                    let message = format!("{} is read by literal names only, so that each can be checked", object.what);
                    self.fault_at(b, message)
                }
            },
            (of, key) => self.fault_at(b, format!("{} is not read by {}", article(of), article(key))),
        }
    }

    /// A fault at an operator's sign.
    fn fault_op(&mut self, e: &IdedExpr, message: impl Into<String>) -> Ty {
        let at = self.offset(e.id);
        self.fault(at, message)
    }
}

fn optional_if(optional: bool, ty: Ty) -> Ty {
    match ty {
        ty if !optional => ty,
        Ty::Optional(_) => ty,
        ty => Ty::Optional(ty.into()),
    }
}

/// The sign of an operator's name `_<_`.
fn sign(name: &str) -> &str {
    name.trim_matches('_')
}

/// Whether an operator goes with a type and something that is not known.
fn goes_with(sign: &str, ty: &Ty) -> bool {
    match ty {
        Ty::Dyn => true,
        Ty::Int => true,
        Ty::Double => sign != "%",
        Ty::Str(_) | Ty::List(_) => sign == "+",
        Ty::Timestamp | Ty::Duration => matches!(sign, "+" | "-"),
        _ => false,
    }
}
