//! Compiled expressions as text again, for people. Constants are those of the rule; no value of a call is at hand here.

use std::fmt::Write as _;

use super::{
    build::{Arith, Call, Each, Node, Order, Where},
    val::Const,
};
use crate::{
    cel::lib::{Ext, On},
    past,
};

/// Writes to a `String`, which cannot fail.
macro_rules! put {
    ($out:expr, $($text:tt)*) => {
        let _ = write!($out, $($text)*);
    };
}

/// A node as an expression.
pub fn text(node: &Node) -> String {
    let mut writer = Writer { loops: Vec::new(), out: String::new() };
    writer.show(node);
    writer.out
}

struct Writer<'a> {
    /// Variables of the loops around, innermost last.
    loops: Vec<&'a str>,
    out: String,
}

/// How tightly a node binds: what binds less than its place asks for is put in brackets.
fn level(node: &Node) -> u8 {
    match node {
        Node::Cond(..) => 0,
        Node::Or(..) => 1,
        Node::And(..) => 2,
        Node::Equal(..) | Node::Compare(..) | Node::In(..) => 3,
        Node::Arith(Arith::Add | Arith::Sub, ..) => 4,
        Node::Arith(..) => 5,
        Node::Not(_) | Node::Neg(_) => 6,
        Node::Shared(_, of) => level(of),
        Node::Const(Const::Int(i)) if *i < 0 => 6,
        Node::Const(Const::Double(d)) if *d < 0.0 => 6,
        _ => 7,
    }
}

impl<'a> Writer<'a> {
    fn show(&mut self, node: &'a Node) {
        match node {
            Node::Const(c) => constant(c, &mut self.out),
            Node::Slot(slot) => self.out += &slot.name(),
            Node::SlotHas(slot) => {
                put!(self.out, "has({})", slot.name());
            }
            Node::SlotOpt(slot) => self.out += &slot.name().replacen('.', ".?", 1),
            Node::Args => self.out += "args",
            Node::Roles => self.out += "roles",
            Node::Now => self.out += "now",
            Node::Counters => self.out += past::COUNTERS,
            Node::History => self.out += past::HISTORY,
            Node::Local(depth) => self.out += self.loops.get(*depth).copied().unwrap_or("item"),
            Node::And(a, b) => self.infix(node, a, "&&", b),
            Node::Or(a, b) => self.infix(node, a, "||", b),
            Node::Equal(true, a, b) => self.infix(node, a, "==", b),
            Node::Equal(false, a, b) => self.infix(node, a, "!=", b),
            Node::Compare(order, a, b) => self.infix(node, a, compare(*order), b),
            Node::In(a, b) => self.infix(node, a, "in", b),
            Node::Arith(op, a, b) => self.infix(node, a, arithmetic(*op), b),
            Node::Not(a) => self.prefix('!', a),
            Node::Neg(a) => self.prefix('-', a),
            Node::Cond(c, a, b) => {
                self.at(1, c);
                self.out += " ? ";
                self.at(1, a);
                self.out += " : ";
                self.at(0, b);
            }
            Node::Field(of, name) => self.select(of, ".", name),
            Node::FieldOpt(of, name) => self.select(of, ".?", name),
            Node::Has(of, name) => {
                self.out += "has(";
                self.select(of, ".", name);
                self.out.push(')');
            }
            Node::Index(of, key) => self.index(of, "[", key),
            Node::IndexOpt(of, key) => self.index(of, "[?", key),
            Node::Size(of) => self.method(of, "size", None),
            Node::Clock(get, of) => self.method(of, get.name(), None),
            Node::ClockIn(get, of, zone) => {
                self.at(7, of);
                put!(self.out, ".{}(", get.name());
                match &**zone {
                    Where::Known(zone) => self.out += &quoted(&zone.to_string()),
                    Where::Computed(node) => self.show(node),
                }
                self.out.push(')');
            }
            Node::Call(call) => self.call(call),
            Node::Shared(_, of) => self.show(of),
            Node::Convert(to, of) => {
                put!(self.out, "{}(", to.name());
                self.show(of);
                self.out.push(')');
            }
            Node::Text(op, of, with) => self.method(of, op.name(), Some(with)),
            Node::Matches(of, pattern) => {
                self.at(7, of);
                put!(self.out, ".matches({})", quoted(pattern.as_str()));
            }
            Node::HasValue(of) => self.method(of, "hasValue", None),
            Node::Unwrap(of) => self.method(of, "value", None),
            Node::OrValue(of, other) => self.method(of, "orValue", Some(other)),
            Node::Or2(of, other) => self.method(of, "or", Some(other)),
            Node::List(items) => {
                self.out.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.out += if i > 0 { ", " } else { "" };
                    self.show(item);
                }
                self.out.push(']');
            }
            Node::Map(entries) => {
                self.out.push('{');
                for (i, (key, value)) in entries.iter().enumerate() {
                    self.out += if i > 0 { ", " } else { "" };
                    self.show(key);
                    self.out += ": ";
                    self.show(value);
                }
                self.out.push('}');
            }
            Node::All(each) => self.each(each, "all"),
            Node::Exists(each) => self.each(each, "exists"),
            Node::One(each) => self.each(each, "exists_one"),
            Node::Collect(each) => self.each(each, "map"),
        }
    }

    /// A node where at least this level is asked for.
    fn at(&mut self, least: u8, node: &'a Node) {
        if level(node) >= least {
            return self.show(node);
        }
        self.out.push('(');
        self.show(node);
        self.out.push(')');
    }

    fn infix(&mut self, node: &Node, a: &'a Node, sign: &str, b: &'a Node) {
        let own = level(node);
        self.at(own, a);
        put!(self.out, " {sign} ");
        self.at(own + 1, b);
    }

    fn prefix(&mut self, sign: char, of: &'a Node) {
        self.out.push(sign);
        self.at(7, of);
    }

    fn select(&mut self, of: &'a Node, dot: &str, name: &str) {
        self.at(7, of);
        put!(self.out, "{dot}{name}");
    }

    fn index(&mut self, of: &'a Node, open: &str, key: &'a Node) {
        self.at(7, of);
        self.out += open;
        self.show(key);
        self.out.push(']');
    }

    fn method(&mut self, of: &'a Node, name: &str, with: Option<&'a Node>) {
        self.at(7, of);
        put!(self.out, ".{name}(");
        with.into_iter().for_each(|with| self.show(with));
        self.out.push(')');
    }

    fn call(&mut self, call: &'a Call) {
        let args = match (call.fun.on(), call.args.split_first()) {
            (On::Value(_), Some((of, args))) => {
                self.at(7, of);
                self.out.push('.');
                args
            }
            (On::Space(space), _) => {
                put!(self.out, "{space}.");
                &call.args
            }
            _ => &call.args,
        };
        put!(self.out, "{}(", call.fun.name());
        let mut first = true;
        if let Some(pattern) = &call.pattern {
            self.out += &quoted(pattern.as_str());
            first = false;
        }
        for arg in args {
            self.out += if first { "" } else { ", " };
            first = false;
            match arg {
                // a text that stands for a value where either may be given
                Node::Const(Const::Ext(_, text)) if call.fun.reads(1).is_some() => self.out += &quoted(text),
                arg => self.show(arg),
            }
        }
        self.out.push(')');
    }

    fn each(&mut self, each: &'a Each, name: &str) {
        self.at(7, &each.range);
        let depth = self.loops.len();
        self.loops.push(&each.var);
        // `filter` keeps the element as it is
        let filter = each.guard.is_some() && matches!(each.body, Node::Local(d) if d == depth);
        put!(self.out, ".{}({}", if filter { "filter" } else { name }, each.var);
        for part in each.guard.iter().chain((!filter).then_some(&each.body)) {
            self.out += ", ";
            self.show(part);
        }
        self.out.push(')');
        self.loops.pop();
    }
}

fn compare(order: Order) -> &'static str {
    match order {
        Order::Less => "<",
        Order::LessEqual => "<=",
        Order::Greater => ">",
        Order::GreaterEqual => ">=",
    }
}

fn arithmetic(op: Arith) -> &'static str {
    match op {
        Arith::Add => "+",
        Arith::Sub => "-",
        Arith::Mul => "*",
        Arith::Div => "/",
        Arith::Rem => "%",
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\\' => out += "\\\\",
            '\'' => out += "\\'",
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            c if c.is_control() => {
                put!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

fn constant(c: &Const, out: &mut String) {
    match c {
        Const::Null => *out += "null",
        Const::Bool(b) => {
            put!(out, "{b}");
        }
        Const::Int(i) => {
            put!(out, "{i}");
        }
        Const::Double(d) if !d.is_finite() => {
            put!(out, "double('{d}')");
        }
        Const::Double(d) => {
            put!(out, "{d:?}");
        }
        Const::Str(s) => *out += &quoted(s),
        Const::Ext(ext, text) => {
            let made = match **ext {
                Ext::Quantity(_) => "quantity",
                Ext::Ip(_) => "ip",
                Ext::Cidr(_) => "cidr",
                Ext::Url(_) => "url",
            };
            put!(out, "{made}({})", quoted(text));
        }
        Const::Time(t) => {
            put!(out, "timestamp('{}')", t.to_rfc3339());
        }
        Const::Span(d) => {
            let (sign, d) = (if d.num_nanoseconds().is_some_and(|n| n < 0) { "-" } else { "" }, d.abs());
            put!(out, "duration('{sign}{}s", d.num_seconds());
            if d.subsec_nanos() > 0 {
                put!(out, "{}ns", d.subsec_nanos());
            }
            *out += "')";
        }
        Const::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                *out += if i > 0 { ", " } else { "" };
                constant(item, out);
            }
            out.push(']');
        }
    }
}
