//! From text to a program: caps before and after parsing, patterns compiled, money constants replaced, and a step counter put into every loop.

use std::sync::Arc;

use cel::{
    IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SourceInfo, operators},
    parser::{ParseError, Parser},
};
use regex::{Regex, RegexBuilder};

use super::{
    code::{Code, Unsupported},
    lib::{Fun, On, SPACES, Takes},
    syntax,
};
use crate::past::Reads;

/// Longest expression in bytes.
pub const MAX_TEXT: usize = 4096;
/// Most nodes of the parsed tree.
pub const MAX_NODES: usize = 2000;
/// Deepest parsed tree. The evaluator takes up to 50 KiB of stack a level in a debug build, and runs on the stack of its caller. Chains of `&&` and `||` are
/// balanced by the parser, so that only arithmetic, selections and brackets count.
pub const MAX_DEPTH: usize = 24;
/// Deepest brackets, before the text is parsed at all.
const MAX_BRACKETS: usize = 24;
/// Stack of the parser; only what it uses is ever real memory.
const PARSER_STACK: usize = 64 * 1024 * 1024;
/// Most operators outside of strings, before the text is parsed at all.
const MAX_OPERATORS: usize = 400;
/// Largest compiled pattern in bytes.
const PATTERN_SIZE: usize = 64 * 1024;

/// Charges the steps given as its argument; an error once the budget is spent.
pub const TICK: &str = "@tick";
/// Matches a text with the pattern of that index.
pub const MATCH: &str = "@match";
/// Calls the function of the libraries with the number that comes first, with the pattern of the index that comes second (-1: none).
pub const CALL: &str = "@call";

/// Something wrong at a place of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1; 0: the expression as a whole.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl Fault {
    /// Wrong as a whole.
    #[must_use]
    pub fn whole(message: impl Into<String>) -> Self {
        Self { line: 0, column: 0, message: message.into() }
    }
}

/// A parsed expression, not yet checked.
#[derive(Debug)]
pub struct Parsed {
    /// The tree.
    pub expr: IdedExpr,
    /// Where its nodes are in the text.
    pub source: SourceInfo,
    /// Number of nodes.
    pub nodes: usize,
}

/// A program that can be evaluated within a budget.
#[derive(Debug)]
pub struct Program {
    /// The compiled form; without one `expr` is evaluated by `cel`.
    pub code: Result<Code, Unsupported>,
    /// The tree with counters in its loops.
    pub expr: IdedExpr,
    /// Patterns by index.
    pub patterns: Arc<Vec<Regex>>,
    /// Steps of one evaluation without loops.
    pub cost: u64,
    /// Whether it names `args`.
    pub uses_args: bool,
    /// Whether it names `roles`, which are others for each Org that writes rules.
    pub uses_roles: bool,
    /// What it reads of calls before this one.
    pub reads: Reads,
}

/// Parses an expression within the caps.
///
/// # Errors
/// It is too large or too deep, or is not CEL.
pub fn parse(text: &str) -> Result<Parsed, Fault> {
    measure(text)?;
    let (expr, source) = match with_stack(|| {
        Parser::new().enable_optional_syntax(true).parse_with_source_info(text).map_err(|e| first(e.errors))
    }) {
        Some(Ok(parsed)) => parsed,
        Some(Err(None)) => return Err(Fault::whole("not a CEL expression")),
        Some(Err(Some(first))) => {
            let at = |n: isize| usize::try_from(n).unwrap_or(0);
            let (line, bytes) = (at(first.pos.0), at(first.pos.1).saturating_sub(1));
            let column =
                1 + text.lines().nth(line.saturating_sub(1)).map_or(bytes, |l| l.char_indices().take_while(|(i, _)| *i < bytes).count());
            let at = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>() + bytes;
            return Err(Fault { line, column, message: format!("not a CEL expression: {}", syntax::explain(text, at, &first.msg)) });
        }
        None => return Err(Fault::whole("the parser cannot read this expression")),
    };
    let mut nodes = 0;
    if !count(&expr, 0, &mut nodes) {
        return Err(Fault::whole(format!("the expression has more than {MAX_NODES} parts or is nested deeper than {MAX_DEPTH}")));
    }
    Ok(Parsed { expr, source, nodes })
}

/// What the parser says first, in a form that may change threads.
fn first(errors: Vec<ParseError>) -> Option<Said> {
    errors.into_iter().next().map(|e| Said { pos: e.pos, msg: e.msg })
}

struct Said {
    pos: (isize, isize),
    msg: String,
}

/// Runs the parser on a stack of its own: it recurses through every level of the grammar for each bracket, and what calls us may have little left.
/// None: it panicked, or there is no thread to be had.
fn with_stack<T: Send>(parse: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| std::thread::Builder::new().stack_size(PARSER_STACK).spawn_scoped(scope, parse).ok()?.join().ok())
}

/// Refuses by text alone what could exhaust the parser.
fn measure(text: &str) -> Result<(), Fault> {
    if text.len() > MAX_TEXT {
        return Err(Fault::whole(format!("the expression has {} bytes; at most {MAX_TEXT} are accepted", text.len())));
    }
    let (mut depth, mut operators) = (0_usize, 0_usize);
    for b in text.bytes() {
        match b {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'!' | b'<' | b'>' | b'=' | b'?' | b'.' => operators += 1,
            _ => {}
        }
        if depth > MAX_BRACKETS {
            return Err(Fault::whole(format!("brackets are nested deeper than {MAX_BRACKETS}")));
        }
    }
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    operators += words.filter(|w| *w == "in").count();
    if operators > MAX_OPERATORS {
        return Err(Fault::whole(format!("the expression has more than {MAX_OPERATORS} operators; split it into several rules")));
    }
    Ok(())
}

/// Children of a node, in order.
pub fn children(expr: &IdedExpr) -> Vec<&IdedExpr> {
    match &expr.expr {
        Expr::Call(call) => call.target.iter().map(AsRef::as_ref).chain(&call.args).collect(),
        Expr::Comprehension(c) => vec![&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => entries(&map.entries),
        Expr::Struct(s) => entries(&s.entries),
        Expr::Select(s) => vec![&s.operand],
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

fn entries(list: &[cel::common::ast::IdedEntryExpr]) -> Vec<&IdedExpr> {
    list.iter()
        .flat_map(|e| match &e.expr {
            EntryExpr::MapEntry(e) => vec![&e.key, &e.value],
            EntryExpr::StructField(f) => vec![&f.value],
        })
        .collect()
}

/// Counts nodes; false when there are too many or they are too deep.
fn count(expr: &IdedExpr, depth: usize, nodes: &mut usize) -> bool {
    *nodes += 1;
    *nodes <= MAX_NODES && depth <= MAX_DEPTH && children(expr).into_iter().all(|child| count(child, depth + 1, nodes))
}

/// Number of nodes of a tree.
pub fn nodes(expr: &IdedExpr) -> u64 {
    1 + children(expr).into_iter().map(nodes).sum::<u64>()
}

/// Compiles a pattern within its size.
///
/// # Errors
/// It is not a regular expression, or too large.
pub fn pattern(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text).size_limit(PATTERN_SIZE).dfa_size_limit(4 * PATTERN_SIZE).build().map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => "the pattern is too large when compiled".to_owned(),
        other => format!(
            "not a regular expression: {}",
            other.to_string().lines().last().unwrap_or_default().trim().trim_start_matches("error: ")
        ),
    })
}

/// Turns a parsed and checked expression into a program.
///
/// # Errors
/// A pattern does not compile (the check has said so before, with its place), or counters or history are read in a way that is not known.
pub fn finish(parsed: Parsed) -> Result<Program, String> {
    let reads = Reads::of(&parsed.expr)?;
    let code = Code::new(&parsed.expr);
    let mut rewrite = Rewrite { patterns: Vec::new(), loops: Vec::new(), uses_args: false, uses_roles: false };
    let expr = rewrite.expr(parsed.expr)?;
    Ok(Program {
        code,
        expr,
        patterns: Arc::new(rewrite.patterns),
        cost: parsed.nodes as u64,
        uses_args: rewrite.uses_args,
        uses_roles: rewrite.uses_roles,
        reads,
    })
}

/// The function of the libraries that a call names; `is_loop` says whether a name is that of a loop's variable.
pub fn function(call: &CallExpr, is_loop: impl Fn(&str) -> bool) -> Option<Fun> {
    match call.target.as_deref() {
        None => Fun::of(On::Nothing, &call.func_name),
        Some(target) => match space(target).filter(|space| !is_loop(space)) {
            Some(space) => Fun::of(On::Space(space), &call.func_name),
            None => Fun::of(On::Value(Takes::Element), &call.func_name),
        },
    }
}

/// The library that a name in front of a function is.
pub fn space(target: &IdedExpr) -> Option<&'static str> {
    match &target.expr {
        Expr::Ident(name) => SPACES.into_iter().find(|space| space == name),
        _ => None,
    }
}

struct Rewrite {
    patterns: Vec<Regex>,
    /// Variables of the loops around.
    loops: Vec<String>,
    uses_args: bool,
    uses_roles: bool,
}

impl Rewrite {
    fn expr(&mut self, node: IdedExpr) -> Result<IdedExpr, String> {
        let id = node.id;
        let expr = match node.expr {
            Expr::Ident(name) => {
                self.uses_args |= name == "args";
                self.uses_roles |= name == "roles";
                Expr::Ident(name)
            }
            Expr::Call(call) => self.call(call)?,
            Expr::Comprehension(c) => Expr::Comprehension(Box::new(self.comprehension(*c)?)),
            Expr::List(mut list) => {
                list.elements = list.elements.into_iter().map(|e| self.expr(e)).collect::<Result<_, _>>()?;
                Expr::List(list)
            }
            Expr::Map(mut map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(e) = &mut entry.expr {
                        e.key = self.expr(std::mem::take(&mut e.key))?;
                        e.value = self.expr(std::mem::take(&mut e.value))?;
                    }
                }
                Expr::Map(map)
            }
            Expr::Select(mut select) => {
                *select.operand = self.expr(std::mem::take(&mut *select.operand))?;
                Expr::Select(select)
            }
            other @ (Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified) => other,
        };
        Ok(IdedExpr { id, expr })
    }

    fn call(&mut self, mut call: CallExpr) -> Result<Expr, String> {
        if call.func_name == "matches"
            && let (Some(target), [IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }]) =
                (&mut call.target, call.args.as_slice())
        {
            let index = i64::try_from(self.patterns.len()).map_err(|e| e.to_string())?;
            self.patterns.push(pattern(text.inner())?);
            let text = self.expr(std::mem::take(&mut **target))?;
            return Ok(Expr::Call(CallExpr { func_name: MATCH.to_owned(), target: None, args: vec![text, int(index)] }));
        }
        if let Some(fun) = function(&call, |name| self.loops.iter().any(|l| l == name)) {
            return self.library(fun, call);
        }
        if let Some(target) = call.target.as_mut() {
            **target = self.expr(std::mem::take(&mut **target))?;
        }
        call.args = call.args.into_iter().map(|a| self.expr(a)).collect::<Result<_, _>>()?;
        Ok(Expr::Call(call))
    }

    fn library(&mut self, fun: Fun, call_: CallExpr) -> Result<Expr, String> {
        let mut given = call_.args;
        let mut pattern_index = -1;
        if fun.has_pattern()
            && let Some(IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }) = given.first()
        {
            pattern_index = i64::try_from(self.patterns.len()).map_err(|e| e.to_string())?;
            self.patterns.push(pattern(text.inner())?);
            given.remove(0);
        }
        let target = call_.target.filter(|_| !matches!(fun.on(), On::Space(_))).map(|t| *t);
        let mut args = vec![int(fun.number()), int(pattern_index)];
        for arg in target.into_iter().chain(given) {
            args.push(self.expr(arg)?);
        }
        Ok(Expr::Call(CallExpr { func_name: CALL.to_owned(), target: None, args }))
    }

    /// Puts the counter into a loop: into the guard of `map` and `filter` (that keeps their in-place append), into the condition of all others. In both
    /// places a spent budget is an error of the whole loop, which nothing inside can absorb.
    fn comprehension(&mut self, mut c: ComprehensionExpr) -> Result<ComprehensionExpr, String> {
        let cost = i64::try_from(nodes(&c.loop_step)).unwrap_or(i64::MAX);
        let tick = || call(TICK, vec![int(cost)]);
        c.iter_range = self.expr(c.iter_range)?;
        c.accu_init = self.expr(c.accu_init)?;
        self.loops.push(c.iter_var.clone());
        c.loop_step = self.expr(c.loop_step)?;
        self.loops.pop();
        let accu = IdedExpr { id: 0, expr: Expr::Ident(c.accu_var.clone()) };
        let appends = matches!(c.accu_init.expr, Expr::List(_)) && matches!(c.loop_cond.expr, Expr::Literal(_));
        if !appends {
            let no = IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::Boolean(false.into())) };
            c.loop_cond = call(operators::CONDITIONAL, vec![tick(), c.loop_cond, no]);
            return Ok(c);
        }
        c.loop_step = match c.loop_step.expr {
            Expr::Call(CallExpr { func_name, target: None, mut args }) if func_name == operators::CONDITIONAL && args.len() == 3 => {
                let no = IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::Boolean(false.into())) };
                let guard = std::mem::take(&mut args[0]);
                args[0] = call(operators::CONDITIONAL, vec![tick(), guard, no]);
                call(operators::CONDITIONAL, args)
            }
            other => call(operators::CONDITIONAL, vec![tick(), IdedExpr { id: 0, expr: other }, accu]),
        };
        Ok(c)
    }
}

fn call(name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }) }
}

fn int(n: i64) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::Int(n.into())) }
}
