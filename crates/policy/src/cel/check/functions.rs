//! Functions of the libraries: which there are for a type, with which arguments, and what literals stand for.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};

use super::{Checker, article};
use crate::{
    cel::{
        code,
        lib::{self, Fun, Gives, On, TABLE, Takes},
        ty::Ty,
    },
    suggest,
};

/// Names of the functions that are called in one way.
pub fn named(on: On) -> impl Iterator<Item = &'static str> {
    TABLE.iter().filter(move |sig| sig.on == on).map(|sig| sig.fun.name())
}

/// Names of the functions that values of a type have.
pub fn on(ty: &Ty) -> Vec<&'static str> {
    let has = |on: On| match on {
        On::Value(takes) => {
            *ty == Ty::Dyn || takes.fits(ty) || (takes != Takes::Text && matches!((takes, ty), (_, Ty::List(_))) && of_list(takes))
        }
        _ => false,
    };
    let mut names: Vec<_> = TABLE.iter().filter(|sig| has(sig.on)).map(|sig| sig.fun.name()).collect();
    names.dedup();
    names
}

/// Whether it is one of the kinds of lists.
fn of_list(takes: Takes) -> bool {
    matches!(takes, Takes::List | Takes::Texts | Takes::Numbers | Takes::Ordered)
}

impl Checker<'_> {
    /// `sets.contains(a, b)` and its like.
    pub(super) fn of_space(&mut self, e: &IdedExpr, call: &CallExpr, space: &'static str) -> Ty {
        let args: Vec<Ty> = call.args.iter().map(|a| self.ty(a)).collect();
        match Fun::of(On::Space(space), &call.func_name) {
            Some(fun) => self.library(e, fun, None, call, &args),
            None => {
                let hint = suggest::among("functions of it", &call.func_name, named(On::Space(space)));
                self.fault_call(e, &call.func_name, format!("{space} has no function `{}`; {hint}", call.func_name))
            }
        }
    }

    /// A function of the libraries on a type, with arguments of these types.
    pub(super) fn library(&mut self, e: &IdedExpr, fun: Fun, on: Option<&Ty>, call: &CallExpr, args: &[Ty]) -> Ty {
        let name = fun.name();
        let here = |sig: &&lib::Sig| match (sig.on, on) {
            (On::Value(takes), Some(on)) => takes.fits(on),
            _ => true,
        };
        let element = match on {
            Some(Ty::List(of)) => (**of).clone(),
            _ => Ty::Dyn,
        };
        let fits = |sig: &&lib::Sig| {
            let pairs = sig.takes.iter().zip(args);
            sig.takes.len() == args.len() && pairs.clone().all(|(t, ty)| t.fits(ty) && (*t != Takes::Element || element.comparable(ty)))
        };
        let Some(sig) = fun.signatures().filter(here).find(fits) else {
            let takes: Vec<String> = fun.signatures().filter(here).map(lib::Sig::shown).collect();
            let given: Vec<String> = args.iter().map(ToString::to_string).collect();
            let behind = on.map(|on| format!(" on {}", article(on))).unwrap_or_default();
            let message = if takes.is_empty() {
                let mut needs: Vec<String> =
                    fun.signatures().filter_map(|s| if let On::Value(t) = s.on { Some(t.to_string()) } else { None }).collect();
                needs.dedup();
                format!("{name}() is called on a {}, not{behind}", needs.join(" or a "))
            } else {
                format!("{name}() takes {}{behind}, not ({})", takes.join(" or "), given.join(", "))
            };
            return self.fault_call(e, name, message);
        };
        if fun.has_pattern()
            && let Some(pattern) = call.args.first()
        {
            self.pattern(pattern, name);
        }
        let before = usize::from(on.is_some());
        for (at, arg) in call.args.iter().enumerate() {
            if let Expr::Literal(LiteralValue::String(text)) = &arg.expr
                && let Some(Err(why)) = lib::literal(fun, at + before, text.inner())
            {
                self.fault_at(arg, why);
            }
        }
        let ty = match sig.gives {
            Gives::Bool => Ty::Bool,
            Gives::Int => Ty::Int,
            Gives::Double => Ty::Double,
            Gives::Text => Ty::STRING,
            Gives::Texts => Ty::list(Ty::STRING),
            Gives::Query => Ty::Map(Ty::list(Ty::STRING).into()),
            Gives::Element => element,
            Gives::Of(kind) => Ty::Of(kind),
        };
        // what may be larger than what it is made of
        if matches!(fun, Fun::Quote | Fun::Replace | Fun::Join | Fun::Split | Fun::FindAll | Fun::GetQuery) {
            self.copy(e, &ty);
        }
        ty
    }

    /// A time zone that is written in the rule is one.
    pub(super) fn zone(&mut self, e: &IdedExpr) {
        if let Expr::Literal(LiteralValue::String(text)) = &e.expr
            && !code::is_zone(text.inner())
        {
            self.fault_at(e, format!("{:?} is not a time zone such as Europe/Berlin or +02:00", text.inner()));
        }
    }
}
