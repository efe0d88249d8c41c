//! Functions: which there are, on what, with how many arguments of which types.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};

use super::{Checker, article, functions};
use crate::{
    cel::{
        eval,
        lib::{Fun, Kind, On, Takes},
        program,
        ty::Ty,
    },
    suggest,
};

/// Functions called by name alone.
const GLOBAL: [&str; 8] = ["bool", "double", "duration", "int", "size", "string", "timestamp", "usd"];
const STRING: [&str; 5] = ["contains", "endsWith", "matches", "size", "startsWith"];
const TIMESTAMP: [&str; 10] = [
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
];
const DURATION: [&str; 4] = ["getHours", "getMilliseconds", "getMinutes", "getSeconds"];
const OPTIONAL: [&str; 4] = ["hasValue", "or", "orValue", "value"];
const MACROS: [&str; 5] = ["all", "exists", "exists_one", "filter", "map"];

impl Checker<'_> {
    pub(super) fn call(&mut self, e: &IdedExpr, call: &CallExpr) -> Ty {
        match &call.target {
            None => match self.operator(e, call) {
                Some(ty) => ty,
                None => self.global(e, call),
            },
            Some(target) => {
                if let Some(space) = program::space(target).filter(|space| !self.loops.iter().any(|(name, _)| name == space)) {
                    return self.of_space(e, call, space);
                }
                // a namespace such as `optional` is no variable, so that a function behind one ends here
                let before = self.faults.len();
                let on = self.ty(target);
                if self.faults.len() > before {
                    return Ty::Dyn;
                }
                self.method(e, call, &on)
            }
        }
    }

    fn global(&mut self, e: &IdedExpr, call: &CallExpr) -> Ty {
        let name = call.func_name.as_str();
        let args: Vec<Ty> = call.args.iter().map(|a| self.ty(a)).collect();
        if let Some(fun) = Fun::of(On::Nothing, name) {
            return self.library(e, fun, None, call, &args);
        }
        if !GLOBAL.contains(&name) {
            let method = STRING.contains(&name) || TIMESTAMP.contains(&name) || MACROS.contains(&name);
            let hint = if method || Fun::of(On::Value(Takes::Element), name).is_some() {
                format!("it is called on a value: x.{name}(…)")
            } else if let Some(other) = suggest::in_cel(name) {
                format!("in CEL this is {other}")
            } else {
                suggest::among("functions", name, GLOBAL.into_iter().chain(["has"]).chain(functions::named(On::Nothing)))
            };
            return self.fault_call(e, name, format!("no function `{name}`; {hint}"));
        }
        let [arg] = args.as_slice() else {
            return self.fault_call(e, name, format!("{name}() takes one argument, not {}", args.len()));
        };
        let arg = arg.non_null();
        let (fits, result) = match name {
            "size" => (matches!(arg, Ty::Str(_) | Ty::List(_) | Ty::Map(_) | Ty::Object(_)), Ty::Int),
            "int" => (matches!(arg, Ty::Int | Ty::Double | Ty::Str(_) | Ty::Timestamp), Ty::Int),
            "double" => (matches!(arg, Ty::Int | Ty::Double | Ty::Str(_)), Ty::Double),
            "bool" => (matches!(arg, Ty::Bool | Ty::Str(_)), Ty::Bool),
            "string" => {
                let text = matches!(arg, Ty::Bool | Ty::Int | Ty::Double | Ty::Str(_) | Ty::Timestamp | Ty::Duration);
                (text || matches!(arg, Ty::Of(Kind::Ip | Kind::Cidr)), Ty::STRING)
            }
            "timestamp" => (matches!(arg, Ty::Str(_) | Ty::Timestamp), Ty::Timestamp),
            "duration" => (matches!(arg, Ty::Str(_) | Ty::Duration), Ty::Duration),
            _ => (matches!(arg, Ty::Str(_)), Ty::Int),
        };
        if !fits && *arg != Ty::Dyn {
            let takes = if name == "usd" { "; it takes a decimal string, such as usd('12.50')" } else { "" };
            let message = format!("{name}() does not take {}{takes}", article(arg));
            return self.fault_call(e, name, message);
        }
        if matches!(call.args.as_slice(), [IdedExpr { expr: Expr::Literal(_), .. }]) && !eval::constant(e) {
            return self.fault_call(e, name, format!("{name}() cannot convert this constant"));
        }
        result
    }

    fn method(&mut self, e: &IdedExpr, call: &CallExpr, on: &Ty) -> Ty {
        let name = call.func_name.as_str();
        let args: Vec<Ty> = call.args.iter().map(|a| self.ty(a)).collect();
        let on = on.non_null();
        let library = functions::on(on);
        if let Some(fun) = Fun::of(On::Value(Takes::Element), name).filter(|fun| library.contains(&fun.name())) {
            return self.library(e, fun, Some(on), call, &args);
        }
        let mut there: Vec<&str> = match on {
            Ty::Str(_) => STRING.to_vec(),
            Ty::List(_) | Ty::Map(_) | Ty::Object(_) => [&MACROS[..], &["size"]].concat(),
            Ty::Timestamp => TIMESTAMP.to_vec(),
            Ty::Duration => DURATION.to_vec(),
            Ty::Optional(_) => OPTIONAL.to_vec(),
            Ty::Dyn => [&STRING[..], &TIMESTAMP, &OPTIONAL, &MACROS].concat(),
            _ => Vec::new(),
        };
        if !there.contains(&name) {
            there.extend(library);
            let hint = match suggest::in_cel(name) {
                Some(other) => format!("in CEL this is {other}"),
                None => suggest::among("functions on it", name, there),
            };
            return self.fault_call(e, name, format!("{} has no function `{name}`; {hint}", article(on)));
        }
        match (name, args.as_slice()) {
            ("size", []) => Ty::Int,
            ("contains" | "startsWith" | "endsWith", [arg]) => self.text(e, name, arg),
            ("matches", [arg]) => {
                let ty = self.text(e, name, arg);
                self.pattern(&call.args[0], name);
                ty
            }
            ("hasValue", []) => Ty::Bool,
            ("value", []) => inner(on),
            ("orValue", [arg]) => match inner(on).join(arg) {
                Some(ty) => ty,
                None => self.fault_call(
                    e,
                    name,
                    format!("orValue() gives {} or {}; both must have one type", article(&inner(on)), article(arg)),
                ),
            },
            ("or", [arg @ (Ty::Optional(_) | Ty::Dyn)]) => on.join(arg).unwrap_or(Ty::Dyn),
            (getter, []) if getter.starts_with("get") => Ty::Int,
            (getter, [Ty::Str(_) | Ty::Dyn]) if getter.starts_with("get") && *on != Ty::Duration => {
                self.zone(&call.args[0]);
                Ty::Int
            }
            _ if MACROS.contains(&name) => self.fault_call(e, name, format!("{name}() is written as x.{name}(item, …)")),
            _ => {
                let given: Vec<String> = args.iter().map(ToString::to_string).collect();
                self.fault_call(e, name, format!("{name}() does not take ({}) on {}", given.join(", "), article(on)))
            }
        }
    }

    /// A function from text to bool.
    fn text(&mut self, e: &IdedExpr, name: &str, arg: &Ty) -> Ty {
        if !matches!(arg.non_null(), Ty::Str(_) | Ty::Dyn) {
            let message = format!("{name}() takes a string, not {}", article(arg));
            self.fault_call(e, name, message);
        }
        Ty::Bool
    }

    /// A pattern is a constant, compiled now.
    pub(super) fn pattern(&mut self, e: &IdedExpr, of: &str) {
        match &e.expr {
            Expr::Literal(LiteralValue::String(text)) => {
                if let Err(why) = program::pattern(text.inner()) {
                    self.fault_at(e, why);
                }
            }
            _ => {
                self.fault_at(e, format!("the pattern of {of}() must be a constant text"));
            }
        }
    }

    /// A fault at a function's name. The tree notes a call at its bracket.
    pub(super) fn fault_call(&mut self, e: &IdedExpr, name: &str, message: impl Into<String>) -> Ty {
        let at = self.find_before(name, self.offset(e.id));
        self.fault(at, message)
    }
}

fn inner(ty: &Ty) -> Ty {
    match ty {
        Ty::Optional(of) => (**of).clone(),
        _ => Ty::Dyn,
    }
}
