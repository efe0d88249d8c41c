//! From a checked tree to nodes: names become slots, loops become loops, constants are computed and patterns compiled now. It evaluates nothing but
//! constants; what it does not know is `Unsupported`, never guessed.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators as op},
};
use regex::Regex;

use super::{Unsupported, ops, show, slots::Slot, val::Const};
use crate::{
    cel::{
        lib::{self, Fun, On},
        program,
    },
    past,
};

/// Most arguments of a function of the libraries, with the receiver.
pub const MAX_ARGUMENTS: usize = 4;

/// A node of a compiled expression.
#[derive(Debug)]
pub enum Node {
    Const(Const),
    Slot(Slot),
    SlotHas(Slot),
    SlotOpt(Slot),
    Args,
    Roles,
    Now,
    Counters,
    History,
    /// A loop's variable, by the number of loops around the one that it belongs to.
    Local(usize),
    Field(Box<Node>, Box<str>),
    FieldOpt(Box<Node>, Box<str>),
    Has(Box<Node>, Box<str>),
    Index(Box<Node>, Box<Node>),
    IndexOpt(Box<Node>, Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Cond(Box<Node>, Box<Node>, Box<Node>),
    /// `==` (true) or `!=` (false).
    Equal(bool, Box<Node>, Box<Node>),
    Compare(Order, Box<Node>, Box<Node>),
    In(Box<Node>, Box<Node>),
    Neg(Box<Node>),
    Arith(Arith, Box<Node>, Box<Node>),
    Size(Box<Node>),
    Convert(Kind, Box<Node>),
    Clock(Clock, Box<Node>),
    /// In a time zone.
    ClockIn(Clock, Box<Node>, Box<Where>),
    Text(Text, Box<Node>, Box<Node>),
    Matches(Box<Node>, Box<Regex>),
    List(Box<[Node]>),
    Map(Box<[(Node, Node)]>),
    HasValue(Box<Node>),
    Unwrap(Box<Node>),
    OrValue(Box<Node>, Box<Node>),
    Or2(Box<Node>, Box<Node>),
    All(Box<Each>),
    Exists(Box<Each>),
    One(Box<Each>),
    Collect(Box<Each>),
    Call(Box<Call>),
    /// A part that other rules may have as well, with its number among those of the expression.
    Shared(usize, Box<Node>),
}

/// A function of the libraries.
#[derive(Debug)]
pub struct Call {
    /// The function.
    pub fun: Fun,
    /// Its arguments, the receiver first, without the pattern.
    pub args: Box<[Node]>,
    /// Its pattern, if it has one.
    pub pattern: Option<Regex>,
}

/// A time zone.
#[derive(Debug)]
pub enum Where {
    /// Written in the rule.
    Known(ops::Zone),
    /// Computed.
    Computed(Node),
}

/// A loop.
#[derive(Debug)]
pub struct Each {
    /// Name of its variable.
    pub var: Box<str>,
    /// What it loops over.
    pub range: Node,
    /// Which elements `map` and `filter` take; None: all.
    pub guard: Option<Node>,
    /// What is computed for each element.
    pub body: Node,
    /// Steps charged for each element.
    pub cost: u64,
}

/// Gives an enumeration of names that rules use.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant),+ }

        #[allow(dead_code, reason = "not each of them is both read and written")]
        impl $name {
            /// The one of this name.
            pub fn of(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

named!(
    /// Comparisons.
    Order { Less = "_<_", LessEqual = "_<=_", Greater = "_>_", GreaterEqual = "_>=_" }
);
named!(
    /// Conversions.
    Kind { Bool = "bool", Double = "double", Duration = "duration", Int = "int", String = "string", Timestamp = "timestamp", Usd = "usd" }
);
named!(
    /// Functions from two texts to bool.
    Text { Contains = "contains", EndsWith = "endsWith", StartsWith = "startsWith" }
);
named!(
    /// Parts of a time.
    Clock {
        Date = "getDate",
        DayOfMonth = "getDayOfMonth",
        DayOfWeek = "getDayOfWeek",
        DayOfYear = "getDayOfYear",
        FullYear = "getFullYear",
        Hours = "getHours",
        Milliseconds = "getMilliseconds",
        Minutes = "getMinutes",
        Month = "getMonth",
        Seconds = "getSeconds",
    }
);
named!(
    /// Arithmetic, named as in messages.
    Arith { Add = "add", Sub = "sub", Mul = "mul", Div = "div", Rem = "rem" }
);

impl Arith {
    fn operator(name: &str) -> Option<Self> {
        Some(match name {
            op::ADD => Self::Add,
            op::SUBSTRACT => Self::Sub,
            op::MULTIPLY => Self::Mul,
            op::DIVIDE => Self::Div,
            op::MODULO => Self::Rem,
            _ => return None,
        })
    }
}

type Built = Result<Node, Unsupported>;

/// Compiles a tree, and names its parts that are worth to be computed once for all rules of a decision: by what they are as text. Those in a loop depend on its
/// variable, and those with `roles` mean something else in each Org.
///
/// # Errors
/// It has something that compiled rules do not know.
pub fn build(expr: &IdedExpr) -> Result<(Node, Vec<String>), Unsupported> {
    let mut builder = Builder { loops: Vec::new(), roles: false, shared: Vec::new() };
    let node = builder.node(expr)?;
    Ok((node, builder.shared))
}

struct Builder {
    /// Variables of the loops around, innermost last.
    loops: Vec<String>,
    /// Whether `roles` or `counters`, which are others for each Policy, was read since this was set back.
    roles: bool,
    /// Texts of the parts that may be shared.
    shared: Vec<String>,
}

/// Whether computing a node takes much more than looking it up.
fn worth_sharing(node: &Node) -> bool {
    match node {
        Node::All(_) | Node::Exists(_) | Node::One(_) | Node::Collect(_) | Node::Matches(..) | Node::ClockIn(..) => true,
        Node::Call(call) => !call.fun.free(),
        _ => false,
    }
}

impl Builder {
    fn boxed(&mut self, e: &IdedExpr) -> Result<Box<Node>, Unsupported> {
        self.node(e).map(Box::new)
    }

    fn node(&mut self, e: &IdedExpr) -> Built {
        let before = std::mem::take(&mut self.roles);
        let node = self.bare(e)?;
        let own = self.loops.is_empty() && !self.roles && worth_sharing(&node);
        self.roles |= before;
        if !own {
            return Ok(node);
        }
        let text = show::text(&node);
        let number = self.shared.iter().position(|known| *known == text).unwrap_or(self.shared.len());
        if number == self.shared.len() {
            self.shared.push(text);
        }
        Ok(Node::Shared(number, Box::new(node)))
    }

    fn bare(&mut self, e: &IdedExpr) -> Built {
        match &e.expr {
            Expr::Literal(literal) => literal_of(literal).map(Node::Const),
            Expr::Ident(name) => self.ident(name),
            Expr::Select(select) => {
                if let Some(slot) = self.slot(&select.operand, &select.field) {
                    return Ok(if select.test { Node::SlotHas(slot) } else { Node::Slot(slot) });
                }
                let (of, name) = (self.boxed(&select.operand)?, select.field.as_str().into());
                Ok(if select.test { Node::Has(of, name) } else { Node::Field(of, name) })
            }
            Expr::Call(call) => match &call.target {
                Some(target) => self.method(call, target),
                None => self.call(call),
            },
            Expr::List(list) => {
                let items = list.elements.iter().map(|item| self.node(item)).collect::<Result<Vec<_>, _>>()?;
                if items.iter().all(|item| matches!(item, Node::Const(_))) {
                    let consts = items.into_iter().filter_map(|item| if let Node::Const(c) = item { Some(c) } else { None });
                    return Ok(Node::Const(Const::List(consts.collect())));
                }
                Ok(Node::List(items.into()))
            }
            Expr::Map(map) => {
                let entries = map.entries.iter().map(|entry| match &entry.expr {
                    // another key than a text could be known only when it runs
                    EntryExpr::MapEntry(e) => match self.node(&e.key)? {
                        key @ Node::Const(Const::Str(_)) => Ok((key, self.node(&e.value)?)),
                        _ => Err(Unsupported("a map with a key that is no constant")),
                    },
                    EntryExpr::StructField(_) => Err(Unsupported("a message")),
                });
                Ok(Node::Map(entries.collect::<Result<Vec<_>, _>>()?.into()))
            }
            Expr::Comprehension(c) => self.comprehension(c),
            Expr::Struct(_) | Expr::Unspecified => Err(Unsupported("a message")),
        }
    }

    fn ident(&mut self, name: &str) -> Built {
        if let Some(depth) = self.loops.iter().rposition(|l| l == name) {
            return Ok(Node::Local(depth));
        }
        match name {
            "args" => Ok(Node::Args),
            "roles" => {
                self.roles = true;
                Ok(Node::Roles)
            }
            "now" => Ok(Node::Now),
            past::COUNTERS => {
                self.roles = true;
                Ok(Node::Counters)
            }
            past::HISTORY => Ok(Node::History),
            _ => Err(Unsupported("a variable as a whole")),
        }
    }

    /// The slot of a field that is read of a variable.
    fn slot(&self, operand: &IdedExpr, field: &str) -> Option<Slot> {
        let Expr::Ident(variable) = &operand.expr else { return None };
        if self.loops.contains(variable) { None } else { Slot::of(variable, field) }
    }

    fn call(&mut self, call: &CallExpr) -> Built {
        let name = call.func_name.as_str();
        match (name, call.args.as_slice()) {
            (op::LOGICAL_AND, [a, b]) => Ok(Node::And(self.boxed(a)?, self.boxed(b)?)),
            (op::LOGICAL_OR, [a, b]) => Ok(Node::Or(self.boxed(a)?, self.boxed(b)?)),
            (op::LOGICAL_NOT, [a]) => Ok(Node::Not(self.boxed(a)?)),
            (op::CONDITIONAL, [cond, a, b]) => Ok(Node::Cond(self.boxed(cond)?, self.boxed(a)?, self.boxed(b)?)),
            (op::EQUALS | op::NOT_EQUALS, [a, b]) => Ok(Node::Equal(name == op::EQUALS, self.boxed(a)?, self.boxed(b)?)),
            (op::IN, [a, b]) => {
                if let Expr::Literal(LiteralValue::String(field)) = &a.expr
                    && let Some(slot) = self.slot(b, field.inner())
                {
                    return Ok(Node::SlotHas(slot));
                }
                Ok(Node::In(self.boxed(a)?, self.boxed(b)?))
            }
            (op::NEGATE, [a]) => Ok(Node::Neg(self.boxed(a)?)),
            (op::INDEX | op::OPT_INDEX | op::OPT_SELECT, [a, b]) => {
                if let Expr::Literal(LiteralValue::String(field)) = &b.expr {
                    if let Some(slot) = self.slot(a, field.inner()) {
                        return Ok(if name == op::INDEX { Node::Slot(slot) } else { Node::SlotOpt(slot) });
                    }
                    if name == op::OPT_SELECT {
                        return Ok(Node::FieldOpt(self.boxed(a)?, field.inner().into()));
                    }
                }
                let (a, b) = (self.boxed(a)?, self.boxed(b)?);
                match name {
                    op::INDEX => Ok(Node::Index(a, b)),
                    op::OPT_INDEX => Ok(Node::IndexOpt(a, b)),
                    _ => Err(Unsupported("a field whose name is no constant")),
                }
            }
            ("size", [a]) => Ok(Node::Size(self.boxed(a)?)),
            (_, [a, b]) => {
                if let Some(order) = Order::of(name) {
                    return Ok(Node::Compare(order, self.boxed(a)?, self.boxed(b)?));
                }
                match Arith::operator(name) {
                    Some(arith) => Ok(Node::Arith(arith, self.boxed(a)?, self.boxed(b)?)),
                    None => Err(Unsupported("a function")),
                }
            }
            (_, [a]) => {
                if let Some(fun) = Fun::of(On::Nothing, name) {
                    return self.library(fun, None, &call.args);
                }
                let Some(kind) = Kind::of(name) else { return Err(Unsupported("a function")) };
                let of = self.node(a)?;
                // constants are converted once
                if let Node::Const(c) = &of
                    && let Some(done) = ops::convert(kind, c.val()).ok().as_ref().and_then(Const::of)
                {
                    return Ok(Node::Const(done));
                }
                Ok(Node::Convert(kind, Box::new(of)))
            }
            _ => Err(Unsupported("a function")),
        }
    }

    fn method(&mut self, call: &CallExpr, target: &IdedExpr) -> Built {
        let name = call.func_name.as_str();
        if let Some(fun) = program::function(call, |name| self.loops.iter().any(|l| l == name)) {
            let of = if matches!(fun.on(), On::Space(_)) { None } else { Some(target) };
            return self.library(fun, of, &call.args);
        }
        match (name, call.args.as_slice()) {
            ("size", []) => Ok(Node::Size(self.boxed(target)?)),
            ("hasValue", []) => Ok(Node::HasValue(self.boxed(target)?)),
            ("value", []) => Ok(Node::Unwrap(self.boxed(target)?)),
            ("orValue", [other]) => Ok(Node::OrValue(self.boxed(target)?, self.boxed(other)?)),
            ("or", [other]) => Ok(Node::Or2(self.boxed(target)?, self.boxed(other)?)),
            ("matches", [IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }]) => {
                let pattern = program::pattern(text.inner()).map_err(|_| Unsupported("a pattern"))?;
                Ok(Node::Matches(self.boxed(target)?, Box::new(pattern)))
            }
            (_, []) => match Clock::of(name) {
                Some(get) => Ok(Node::Clock(get, self.boxed(target)?)),
                None => Err(Unsupported("a function")),
            },
            (_, [with]) if Clock::of(name).is_some() => {
                let Some(get) = Clock::of(name) else { return Err(Unsupported("a function")) };
                let zone = match &with.expr {
                    Expr::Literal(LiteralValue::String(text)) => {
                        ops::zone(text.inner()).map(Where::Known).ok_or(Unsupported("a time zone"))?
                    }
                    _ => Where::Computed(self.node(with)?),
                };
                Ok(Node::ClockIn(get, self.boxed(target)?, Box::new(zone)))
            }
            (_, [with]) => match Text::of(name) {
                Some(text) => Ok(Node::Text(text, self.boxed(target)?, self.boxed(with)?)),
                None => Err(Unsupported("a function")),
            },
            _ => Err(Unsupported("a function")),
        }
    }

    /// A function of the libraries. What a literal stands for is made now.
    fn library(&mut self, fun: Fun, of: Option<&IdedExpr>, args: &[IdedExpr]) -> Built {
        let (pattern, args) = match (fun.has_pattern(), args.split_first()) {
            (true, Some((IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }, rest))) => {
                (Some(program::pattern(text.inner()).map_err(|_| Unsupported("a pattern"))?), rest)
            }
            (true, _) => return Err(Unsupported("a pattern that is no constant")),
            (false, _) => (None, args),
        };
        let mut nodes = of.into_iter().chain(args).map(|a| self.node(a)).collect::<Result<Vec<_>, _>>()?;
        for (at, node) in nodes.iter_mut().enumerate() {
            if let Node::Const(Const::Str(text)) = node
                // one that was computed and stands for nothing has no value when it runs
                && let Some(Ok(ext)) = lib::literal(fun, at, text)
            {
                *node = Node::Const(Const::Ext(ext.into(), text.clone()));
            }
        }
        if fun.makes() && matches!(nodes.as_slice(), [Node::Const(Const::Ext(..))]) {
            return nodes.pop().ok_or(Unsupported("a function"));
        }
        if nodes.len() > MAX_ARGUMENTS {
            return Err(Unsupported("a function"));
        }
        Ok(Node::Call(Box::new(Call { fun, args: nodes.into(), pattern })))
    }

    /// A loop in the form that the macros give it.
    fn comprehension(&mut self, c: &ComprehensionExpr) -> Built {
        if c.iter_var2.is_some() {
            return Err(Unsupported("a loop with two variables"));
        }
        let accu = |e: &IdedExpr| matches!(&e.expr, Expr::Ident(name) if *name == c.accu_var);
        let Expr::Call(step) = &c.loop_step.expr else { return Err(Unsupported("a loop")) };
        let range = self.node(&c.iter_range)?;
        let cost = program::nodes(&c.loop_step);
        self.loops.push(c.iter_var.clone());
        let each = |guard: Option<&IdedExpr>, body: &IdedExpr| -> Result<Box<Each>, Unsupported> {
            let guard = guard.map(|g| self.node(g)).transpose()?;
            Ok(Box::new(Each { var: c.iter_var.as_str().into(), range, guard, body: self.node(body)?, cost }))
        };
        let built = match (step.func_name.as_str(), step.args.as_slice()) {
            (op::LOGICAL_AND, [first, body]) if accu(first) => each(None, body).map(Node::All),
            (op::LOGICAL_OR, [first, body]) if accu(first) => each(None, body).map(Node::Exists),
            (op::ADD, [first, appended]) if accu(first) => match one_element(appended) {
                Some(body) => each(None, body).map(Node::Collect),
                None => Err(Unsupported("a loop")),
            },
            (op::CONDITIONAL, [guard, then, last]) if accu(last) => match (&c.accu_init.expr, &then.expr) {
                (Expr::Literal(LiteralValue::Int(_)), _) => each(None, guard).map(Node::One),
                (Expr::List(_), Expr::Call(add)) => match add.args.as_slice() {
                    [first, appended] if accu(first) => match one_element(appended) {
                        Some(body) => each(Some(guard), body).map(Node::Collect),
                        None => Err(Unsupported("a loop")),
                    },
                    _ => Err(Unsupported("a loop")),
                },
                _ => Err(Unsupported("a loop")),
            },
            _ => Err(Unsupported("a loop")),
        };
        self.loops.pop();
        built
    }
}

/// The one expression of a list.
fn one_element(e: &IdedExpr) -> Option<&IdedExpr> {
    match &e.expr {
        Expr::List(list) if list.elements.len() == 1 => list.elements.first(),
        _ => None,
    }
}

fn literal_of(literal: &LiteralValue) -> Result<Const, Unsupported> {
    Ok(match literal {
        LiteralValue::Boolean(b) => Const::Bool(*b.inner()),
        LiteralValue::Double(d) => Const::Double(*d.inner()),
        LiteralValue::Int(i) => Const::Int(*i.inner()),
        LiteralValue::Null => Const::Null,
        LiteralValue::String(s) => Const::Str(s.inner().into()),
        LiteralValue::UInt(_) | LiteralValue::Bytes(_) => return Err(Unsupported("a literal of another type")),
    })
}
