//! What an expression may come to before any call is made: true, false, an error. Constants are computed, the schema of a Tool bounds its numbers, and whatever
//! is not understood may be anything. It never claims less than what can happen, apart from a spent budget.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use cel::{
    Context, IdedExpr, Value,
    common::ast::{Expr, operators},
};
use serde_json::{Map, Value as Json};

use super::{
    bounds::{self, Op, Range},
    code::Slots,
    eval::Session,
    meter::{Limits, MAX_TIME, Meter},
    program::{Program, children},
};

/// Steps for all constants of one Policy.
const STEPS: u64 = 100_000;
/// Most nodes that are looked at for one expression and schema; beyond them everything may be.
const FUEL: u32 = 10_000;

/// The values that an expression may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct May(u8);

impl May {
    /// Nothing but true.
    pub const TRUE: Self = Self(1);
    /// Nothing but false.
    pub const FALSE: Self = Self(2);
    /// Nothing but an error.
    pub const ERROR: Self = Self(4);
    /// Anything.
    pub const ANY: Self = Self(7);

    /// Either of both.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all that `other` may be is possible here.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn not(self) -> Self {
        Self(self.0 & Self::ERROR.0 | (self.0 & 1) << 1 | (self.0 & 2) >> 1)
    }
}

impl From<bool> for May {
    fn from(value: bool) -> Self {
        if value { Self::TRUE } else { Self::FALSE }
    }
}

/// A path below `args`.
type Path<'e> = Vec<&'e str>;

/// Computes what names no variable, for all rules of one Policy.
pub struct Closed {
    meter: Arc<Meter>,
    context: Option<Context<'static, 'static>>,
}

impl Closed {
    /// With a budget of its own.
    #[must_use]
    pub fn new() -> Self {
        // steps decide, not the machine: the outcome is kept in a condition, which must not come and go
        let meter = Arc::new(Meter::new(Limits { steps: STEPS, time: 100 * MAX_TIME }));
        let context = Session::new(Arc::clone(&meter), Slots::default()).context().ok();
        Self { meter, context }
    }

    /// The value of an expression without variables, or that it is an error; None: it is not known.
    fn value(&self, program: &Program, expr: &IdedExpr) -> Option<Result<Value, ()>> {
        let context = self.context.as_ref()?;
        if !closed(expr, &mut Vec::new()) || !self.meter.charge(1) {
            return None;
        }
        self.meter.use_patterns(&program.patterns);
        let value = catch_unwind(AssertUnwindSafe(|| Value::resolve(expr, context))).ok()?;
        (!self.meter.spent()).then(|| value.map_err(|_| ()))
    }

    /// The number that an expression without variables is.
    fn number(&self, program: &Program, expr: &IdedExpr) -> Option<Value> {
        match self.value(program, expr) {
            Some(Ok(value @ (Value::Int(_) | Value::Float(_)))) => Some(value),
            _ => None,
        }
    }
}

/// Whether an expression names nothing but what its own loops declare.
fn closed<'e>(expr: &'e IdedExpr, declared: &mut Vec<&'e str>) -> bool {
    match &expr.expr {
        Expr::Ident(name) => declared.contains(&name.as_str()),
        Expr::Unspecified | Expr::Struct(_) => false,
        Expr::Comprehension(c) => {
            if !closed(&c.iter_range, declared) || !closed(&c.accu_init, declared) {
                return false;
            }
            let before = declared.len();
            declared.extend([c.iter_var.as_str(), c.accu_var.as_str()]);
            declared.extend(c.iter_var2.as_deref());
            let all = [&c.loop_cond, &c.loop_step, &c.result].into_iter().all(|part| closed(part, declared));
            declared.truncate(before);
            all
        }
        _ => children(expr).into_iter().all(|child| closed(child, declared)),
    }
}

/// The path of `args.a.b`; None: it is something else.
pub fn path(expr: &IdedExpr) -> Option<Path<'_>> {
    match &expr.expr {
        Expr::Ident(name) if name == "args" => Some(Vec::new()),
        Expr::Select(select) if !select.test => {
            let mut path = path(&select.operand)?;
            path.push(&select.field);
            Some(path)
        }
        _ => None,
    }
}

/// The path that `has(args.a.b)` asks for.
fn asked(expr: &IdedExpr) -> Option<Path<'_>> {
    let Expr::Select(select) = &expr.expr else { return None };
    let mut path = path(&select.operand).filter(|_| select.test)?;
    path.push(&select.field);
    Some(path)
}

/// Function and operands of an operator.
fn operator(expr: &IdedExpr) -> Option<(&str, &[IdedExpr])> {
    match &expr.expr {
        Expr::Call(call) if call.target.is_none() => Some((&call.func_name, &call.args)),
        _ => None,
    }
}

/// What is there when an expression has this value.
fn implied<'e>(expr: &'e IdedExpr, value: bool, out: &mut Vec<Path<'e>>) {
    match operator(expr) {
        Some((operators::LOGICAL_NOT, [of])) => implied(of, !value, out),
        Some((operators::LOGICAL_AND, [a, b])) if value => [a, b].into_iter().for_each(|e| implied(e, true, out)),
        Some((operators::LOGICAL_OR, [a, b])) if !value => [a, b].into_iter().for_each(|e| implied(e, false, out)),
        Some(_) => {}
        None => out.extend(asked(expr).filter(|_| value)),
    }
}

/// A comparison of an argument with a constant.
#[derive(Clone, Debug)]
pub struct Comparison<'e> {
    /// Path below `args`.
    pub path: Path<'e>,
    /// The operator, with the argument on its left.
    pub op: Op,
    /// The constant: int or double.
    pub constant: Value,
}

/// The comparison that an expression is.
pub fn comparison<'e>(closed: &Closed, program: &Program, expr: &'e IdedExpr) -> Option<Comparison<'e>> {
    let (name, [a, b]) = operator(expr)? else { return None };
    let op = Op::of(name)?;
    let of = |of: &'e IdedExpr, other, op| {
        let path = path(of).filter(|p| !p.is_empty())?;
        Some(Comparison { path, op, constant: closed.number(program, other)? })
    };
    of(a, b, op).or_else(|| of(b, a, op.flipped()))
}

/// What a program may come to; with the schema of a Tool: for arguments that fit it. Adds what of the schema was used to `used`.
pub fn foresee(closed: &Closed, program: &Program, schema: Option<&Map<String, Json>>, used: &mut BTreeSet<String>) -> May {
    let schema = schema.filter(|s| bounds::known(s));
    Foresight { closed, program, schema, fuel: FUEL, used }.may(&program.expr, &[])
}

struct Foresight<'a> {
    closed: &'a Closed,
    program: &'a Program,
    schema: Option<&'a Map<String, Json>>,
    fuel: u32,
    used: &'a mut BTreeSet<String>,
}

impl Foresight<'_> {
    /// What an expression may come to where all of `there` is present.
    fn may(&mut self, expr: &IdedExpr, there: &[Path<'_>]) -> May {
        if self.fuel == 0 {
            return May::ANY;
        }
        self.fuel -= 1;
        match self.closed.value(self.program, expr) {
            Some(Ok(Value::Bool(b))) => return b.into(),
            Some(_) => return May::ERROR,
            None => {}
        }
        if let Some(path) = asked(expr) {
            return self.has(&path, there);
        }
        match operator(expr) {
            Some((operators::LOGICAL_NOT, [of])) => self.may(of, there).not(),
            Some((operators::LOGICAL_AND, [a, b])) => self.both(a, b, false, there),
            Some((operators::LOGICAL_OR, [a, b])) => self.both(a, b, true, there),
            Some((operators::CONDITIONAL, [cond, a, b])) => {
                let chosen = self.may(cond, there);
                let mut out = May(chosen.0 & May::ERROR.0);
                for (value, part) in [(true, a), (false, b)] {
                    if chosen.has(value.into()) {
                        out = out.or(self.under(cond, value, part, there));
                    }
                }
                out
            }
            Some(_) => match comparison(self.closed, self.program, expr) {
                Some(comparison) => self.compare(&comparison, there),
                None => May::ANY,
            },
            None => May::ANY,
        }
    }

    /// `part` where `cond` has this value.
    fn under(&mut self, cond: &IdedExpr, value: bool, part: &IdedExpr, there: &[Path<'_>]) -> May {
        let mut more = Vec::new();
        implied(cond, value, &mut more);
        more.extend(there.iter().cloned());
        self.may(part, &more)
    }

    /// `a || b` (`wins` is true) or `a && b` (false): the value that wins absorbs an error on either side.
    fn both(&mut self, a: &IdedExpr, b: &IdedExpr, wins: bool, there: &[Path<'_>]) -> May {
        let wins_may: May = wins.into();
        let left = self.may(a, there);
        let mut out = May(left.0 & wins_may.0);
        if left.has((!wins).into()) {
            out = out.or(self.under(a, !wins, b, there));
        }
        if left.has(May::ERROR) {
            let right = self.may(b, there);
            out = out.or(May(right.0 & wins_may.0));
            if right != wins_may {
                out = out.or(May::ERROR);
            }
        }
        out
    }

    fn has(&mut self, path: &[&str], there: &[Path<'_>]) -> May {
        if self.present(path, there) {
            return May::TRUE;
        }
        let parent = path.split_last().is_some_and(|(_, parent)| self.present(parent, there));
        let out = May::TRUE.or(May::FALSE);
        if parent { out } else { out.or(May::ERROR) }
    }

    fn compare(&mut self, comparison: &Comparison<'_>, there: &[Path<'_>]) -> May {
        let Comparison { path, op, constant } = comparison;
        let Some((range, integer)) = self.schema.and_then(|schema| Range::of(bounds::node(schema, path)?)) else { return May::ANY };
        let Some(may) = range.compare(*op, constant, integer) else { return May::ANY };
        self.used.insert(format!("args.{} is {range}", path.join(".")));
        if self.present(path, there) { may } else { may.or(May::ERROR) }
    }

    /// Whether a path is there for certain.
    fn present(&mut self, path: &[&str], there: &[Path<'_>]) -> bool {
        let Some((last, parent)) = path.split_last() else { return true };
        if there.iter().any(|t| t.starts_with(path)) {
            return true;
        }
        let required =
            self.schema.and_then(|s| bounds::node(s, parent)).is_some_and(|node| bounds::requires(node, last, parent.is_empty()));
        if required && self.present(parent, there) {
            self.used.insert(format!("args.{} is required", path.join(".")));
            return true;
        }
        false
    }
}
