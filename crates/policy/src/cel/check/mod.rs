//! Resolves every name, field, function and operand type of an expression before it is in force, also under `has()`, optional syntax and in loops. It never
//! evaluates anything but conversions of constants. What it does not know, it refuses.

mod calls;
mod functions;
mod growth;
mod operators;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr, SelectExpr, operators as op};

use super::{
    program::{self, Fault, Parsed},
    ty::Ty,
};
use crate::{past, suggest, vars};

/// Deepest nesting of loops.
const MAX_LOOPS: usize = 3;
/// Most faults that are reported for one expression.
const MAX_FAULTS: usize = 10;

/// What is wrong with an expression for arguments of a type. With `Ty::Dyn` the arguments may have any name: for a Policy whose Tools are not known yet.
/// `counters` is the type of the variable of that name.
#[must_use]
pub fn check_rule(parsed: &Parsed, args: &Ty, counters: &Ty) -> Vec<Fault> {
    let before = [(past::COUNTERS, counters.clone()), (past::HISTORY, past::history_type())];
    guarded(|| faults(parsed, args, before, &Ty::Bool))
}

/// `check_rule` for a Policy with a counter `spent`.
#[cfg(test)]
pub fn check(parsed: &Parsed, args: &Ty) -> Vec<Fault> {
    check_rule(parsed, args, &past::counters_type(std::iter::once("spent")))
}

/// Checks what a call adds to a counter, an int.
#[must_use]
pub fn check_amount(parsed: &Parsed, args: &Ty) -> Vec<Fault> {
    guarded(|| faults(parsed, args, [], &Ty::Int))
}

/// A slip of ours must not take the view of a whole Org with it.
fn guarded(check: impl FnOnce() -> Vec<Fault>) -> Vec<Fault> {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| vec![Fault::whole("the expression cannot be checked")])
}

/// Checks a condition on a result, which knows `args` and `result` and nothing else.
pub fn check_result(parsed: &Parsed, args: &Ty, result: &Ty) -> Vec<Fault> {
    let variables = || vec![("args", args.clone()), ("result", result.clone())];
    guarded(|| faults_with(parsed, variables(), *args != Ty::Dyn || *result != Ty::Dyn, &Ty::Bool))
}

fn faults<const N: usize>(parsed: &Parsed, args: &Ty, more: [(&str, Ty); N], want: &Ty) -> Vec<Fault> {
    // a rule that does not name args is not checked again for each Tool
    let strict = *args != Ty::Dyn || !names_args(&parsed.expr);
    faults_with(parsed, vars::types().into_iter().chain([("args", args.clone())]).chain(more).collect(), strict, want)
}

fn faults_with(parsed: &Parsed, variables: Vec<(&str, Ty)>, strict: bool, want: &Ty) -> Vec<Fault> {
    let mut checker = Checker {
        parsed,
        text: parsed.source.source.chars().collect(),
        variables: variables.into_iter().map(|(name, ty)| (name.to_owned(), ty)).collect(),
        loops: Vec::new(),
        strict,
        types: HashMap::new(),
        copies: 0,
        faults: Vec::new(),
    };
    let ty = checker.ty(&parsed.expr);
    if checker.faults.is_empty() && ty != *want && ty != Ty::Dyn {
        let why = match want {
            Ty::Int => "what a counter adds must be an int; usd('12.50') is one, and int(…) makes one of a double",
            _ => "a rule states what must hold, so it must be a bool",
        };
        checker.fault(0, format!("the expression is {}; {why}", article(&ty)));
    }
    checker.faults.sort_by_key(|f| (f.line, f.column));
    checker.faults.dedup();
    checker.faults.truncate(MAX_FAULTS);
    checker.faults
}

/// Whether an expression names `args`.
fn names_args(e: &IdedExpr) -> bool {
    matches!(&e.expr, Expr::Ident(name) if name == "args") || program::children(e).into_iter().any(names_args)
}

struct Checker<'a> {
    parsed: &'a Parsed,
    text: Vec<char>,
    /// Declared variables.
    variables: Vec<(String, Ty)>,
    /// Variables of the loops around, innermost last.
    loops: Vec<(String, Ty)>,
    /// Arguments have a type, so that `any` means that a schema leaves something open.
    strict: bool,
    /// Type of each node seen.
    types: HashMap<u64, Ty>,
    /// Operations outside of loops' ranges that copy a value of unbounded size.
    copies: usize,
    faults: Vec<Fault>,
}

fn article(ty: &Ty) -> String {
    let name = if *ty == Ty::Dyn { "value".to_owned() } else { ty.to_string() };
    if name.starts_with(['a', 'e', 'i', 'o', 'u', 'I']) { format!("an {name}") } else { format!("a {name}") }
}

impl Checker<'_> {
    /// Type of an expression; `any` after a fault, so that one slip is reported once.
    fn ty(&mut self, e: &IdedExpr) -> Ty {
        let ty = match &e.expr {
            Expr::Literal(literal) => self.literal(e, literal),
            Expr::Ident(name) => self.ident(e, name),
            Expr::Select(select) => self.select(e, select),
            Expr::Call(call) => self.call(e, call),
            Expr::List(list) => self.list(e, list),
            Expr::Map(map) => self.map(e, map),
            Expr::Comprehension(c) => self.comprehension(e, c),
            Expr::Struct(_) => self.fault_at(e, "messages cannot be built here"),
            Expr::Unspecified => self.fault_at(e, "not an expression"),
        };
        self.types.insert(e.id, ty.clone());
        ty
    }

    fn literal(&mut self, e: &IdedExpr, literal: &LiteralValue) -> Ty {
        match literal {
            LiteralValue::Boolean(_) => Ty::Bool,
            LiteralValue::Double(_) => Ty::Double,
            LiteralValue::Int(_) => Ty::Int,
            LiteralValue::Null => Ty::Null,
            LiteralValue::String(_) => Ty::STRING,
            LiteralValue::UInt(_) => self.fault_at(e, "there are no unsigned integers here; leave out the u"),
            LiteralValue::Bytes(_) => self.fault_at(e, "there are no bytes here; use a string"),
        }
    }

    fn ident(&mut self, e: &IdedExpr, name: &str) -> Ty {
        let known = self.loops.iter().rev().chain(&self.variables).find(|(n, _)| n == name);
        if let Some((_, ty)) = known {
            return ty.clone();
        }
        let names: Vec<&str> = self.loops.iter().chain(&self.variables).map(|(n, _)| n.as_str()).collect();
        let message = format!("no variable `{name}`; {}", suggest::among("variables", name, names));
        self.fault_at(e, message)
    }

    fn select(&mut self, e: &IdedExpr, select: &SelectExpr) -> Ty {
        let operand = self.ty(&select.operand);
        // the dot's place for a selection; has() is placed at its bracket, so that the search begins at the operand
        let from = if select.test { self.offset(select.operand.id) } else { self.offset(e.id) };
        let at = self.find_after(&select.field, from + usize::from(!select.test));
        let field = self.field(&operand, &select.field, at);
        if select.test { Ty::Bool } else { field }
    }

    /// Type of a field of a value; `at` is where its name stands.
    fn field(&mut self, operand: &Ty, name: &str, at: usize) -> Ty {
        match operand {
            Ty::Dyn => Ty::Dyn,
            Ty::Nullable(inner) => self.field(inner, name, at),
            Ty::Optional(inner) => match self.field(inner, name, at) {
                it @ Ty::Optional(_) => it,
                it => Ty::Optional(it.into()),
            },
            Ty::Map(values) => (**values).clone(),
            Ty::Object(object) => match object.fields.get(name) {
                Some(field) => field.ty.clone(),
                None => {
                    let there = object.fields.keys().map(String::as_str);
                    let message = format!("no field `{name}` in {}; {}", object.what, suggest::among("fields", name, there));
                    self.fault(at, message)
                }
            },
            other => {
                let message = format!("{} has no fields, so `{name}` cannot be read from it", article(other));
                self.fault(at, message)
            }
        }
    }

    fn list(&mut self, e: &IdedExpr, list: &ListExpr) -> Ty {
        if !list.optional_indices.is_empty() {
            return self.fault_at(e, "optional elements are not supported");
        }
        let mut of: Option<Ty> = None;
        for element in &list.elements {
            let ty = self.ty(element);
            self.copy(element, &ty);
            of = match of {
                None => Some(ty),
                Some(have) => match have.join(&ty) {
                    Some(joined) => Some(joined),
                    None => {
                        return self
                            .fault_at(element, format!("a list has elements of one type: {} after {}", article(&ty), article(&have)));
                    }
                },
            };
        }
        Ty::list(of.unwrap_or(Ty::Dyn))
    }

    fn map(&mut self, e: &IdedExpr, map: &MapExpr) -> Ty {
        let mut of: Option<Ty> = None;
        for entry in &map.entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else { return self.fault_at(e, "messages cannot be built here") };
            if entry.optional {
                return self.fault_at(&entry.key, "optional entries are not supported");
            }
            let key = self.ty(&entry.key);
            if !matches!(key, Ty::Str(_) | Ty::Dyn) {
                return self.fault_at(&entry.key, format!("keys are strings, this is {}", article(&key)));
            }
            let value = self.ty(&entry.value);
            self.copy(&entry.value, &value);
            of = Some(match of {
                None => value,
                Some(have) => have.join(&value).unwrap_or(Ty::Dyn),
            });
        }
        Ty::Map(of.unwrap_or(Ty::Dyn).into())
    }

    /// A loop, as the macros `all`, `exists`, `exists_one`, `map` and `filter` write it.
    fn comprehension(&mut self, e: &IdedExpr, c: &ComprehensionExpr) -> Ty {
        let range = self.ty(&c.iter_range);
        let element = match range.non_null() {
            Ty::List(of) => (**of).clone(),
            Ty::Map(_) => Ty::STRING,
            Ty::Object(object) => Ty::Str(Some(object.fields.keys().cloned().collect::<Vec<_>>().into())),
            Ty::Dyn => Ty::Dyn,
            other => {
                let message = format!("{} is not a list or map, so nothing can be looped over", article(other));
                return self.fault_at(e, message);
            }
        };
        if c.iter_var2.is_some() {
            return self.fault_at(e, "loops have one variable");
        }
        if self.variables.iter().any(|(name, _)| *name == c.iter_var) {
            let message = format!("the loop's variable hides the variable `{}`; give it another name", c.iter_var);
            return self.fault_at(e, message);
        }
        if self.loops.len() >= MAX_LOOPS {
            return self.fault_at(e, format!("loops are nested deeper than {MAX_LOOPS}"));
        }
        self.loops.push((c.iter_var.clone(), element.clone()));
        let ty = self.step(e, c, &element);
        self.loops.pop();
        ty
    }

    fn step(&mut self, e: &IdedExpr, c: &ComprehensionExpr, element: &Ty) -> Ty {
        let accu = |e: &IdedExpr| matches!(&e.expr, Expr::Ident(name) if *name == c.accu_var);
        let Expr::Call(call) = &c.loop_step.expr else { return self.fault_at(e, "this loop is not supported") };
        match (call.func_name.as_str(), call.args.as_slice()) {
            (op::LOGICAL_AND | op::LOGICAL_OR, [first, body]) if accu(first) => {
                self.bool(body, "the loop's condition");
                Ty::Bool
            }
            (op::ADD, [first, body]) if accu(first) => self.transform(body, c),
            (op::CONDITIONAL, [guard, step, last]) if accu(last) => {
                self.bool(guard, "the loop's condition");
                match (&c.accu_init.expr, &step.expr) {
                    // exists_one counts
                    (Expr::Literal(LiteralValue::Int(_)), _) => Ty::Bool,
                    (Expr::List(_), Expr::Call(add)) => match (&add.args[..], &c.result.expr) {
                        ([_, IdedExpr { expr: Expr::List(picked), .. }], _) if matches!(picked.elements.as_slice(), [IdedExpr { expr: Expr::Ident(name), .. }] if *name == c.iter_var) => {
                            Ty::list(element.clone())
                        }
                        ([first, body], _) if accu(first) => self.transform(body, c),
                        _ => self.fault_at(e, "this loop is not supported"),
                    },
                    _ => self.fault_at(e, "this loop is not supported"),
                }
            }
            _ => self.fault_at(e, "this loop is not supported"),
        }
    }

    /// What `map` makes of an element: the one expression in the list that is appended.
    fn transform(&mut self, appended: &IdedExpr, c: &ComprehensionExpr) -> Ty {
        let Expr::List(ListExpr { elements, .. }) = &appended.expr else { return self.fault_at(appended, "this loop is not supported") };
        let [body] = elements.as_slice() else { return self.fault_at(appended, "this loop is not supported") };
        let ty = self.ty(body);
        if !self.keeps_size(body, &c.iter_var) {
            self.fault_at(
                body,
                "map() may pick a part of its element or compute a number, bool or short text from it, not build larger values",
            );
        }
        Ty::list(ty)
    }

    /// Requires a bool.
    fn bool(&mut self, e: &IdedExpr, what: &str) {
        let ty = self.ty(e);
        if !matches!(ty.non_null(), Ty::Bool | Ty::Dyn) {
            let message = format!("{what} must be a bool, this is {}", article(&ty));
            self.fault_at(e, message);
        }
    }

    fn fault_at(&mut self, e: &IdedExpr, message: impl Into<String>) -> Ty {
        let at = self.start(e);
        self.fault(at, message)
    }

    /// Notes a fault at an offset in characters.
    fn fault(&mut self, at: usize, message: impl Into<String>) -> Ty {
        let before = &self.text[..at.min(self.text.len())];
        let line = 1 + before.iter().filter(|c| **c == '\n').count();
        let column = 1 + before.iter().rev().take_while(|c| **c != '\n').count();
        self.faults.push(Fault { line, column, message: message.into() });
        Ty::Dyn
    }

    /// Where a node is noted, in characters (the parser counts bytes).
    fn offset(&self, id: u64) -> usize {
        let bytes = self.parsed.source.offset_for(id).and_then(|(start, _)| usize::try_from(start).ok()).unwrap_or(0);
        self.parsed.source.source.char_indices().take_while(|(at, _)| *at < bytes).count()
    }

    /// Where an expression begins: that of its leftmost part.
    fn start(&self, e: &IdedExpr) -> usize {
        let left = match &e.expr {
            Expr::Select(s) => Some(&*s.operand),
            Expr::Call(c) => c.target.as_deref().or_else(|| c.args.first().filter(|_| c.func_name.starts_with('_'))),
            Expr::Comprehension(c) => Some(&c.iter_range),
            _ => None,
        };
        left.map_or_else(|| self.offset(e.id), |left| self.start(left).min(self.offset(e.id)))
    }

    /// Where a name stands at or after an offset; the offset itself when it is not there.
    fn find_after(&self, name: &str, from: usize) -> usize {
        let name: Vec<char> = name.chars().collect();
        let rest = self.text.get(from..).unwrap_or_default();
        let word = |c: Option<&char>| c.is_some_and(|c| c.is_alphanumeric() || *c == '_');
        let found = (0..rest.len())
            .find(|&i| rest[i..].starts_with(&name) && !word(rest.get(i + name.len())) && (i == 0 || !word(rest.get(i - 1))));
        found.map_or(from, |i| from + i)
    }

    /// Where a name stands before an offset.
    fn find_before(&self, name: &str, until: usize) -> usize {
        let name: Vec<char> = name.chars().collect();
        let before = &self.text[..until.min(self.text.len())];
        (0..before.len()).rev().find(|&i| before[i..].starts_with(&name)).unwrap_or(until)
    }
}
