//! Bounded evaluation of one rule after the other within one decision. An error is an error of the whole expression; a spent budget outlives it; a panic
//! is caught here and nowhere else.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, ExecutionError, IdedExpr, Value,
    common::{
        ast::{Expr, LiteralValue},
        types::{CelInt, CelString, STRING_TYPE, Type},
        value::{CowVal, Val as CelVal},
    },
    extractors::Arguments,
};

use super::{
    code::{Branch, Code, Fail, Machine, Memo, Part, Slots, val::Val},
    lib::{self, Ext, Fun},
    meter::Meter,
    program::{self, CALL, MATCH, Program, TICK},
};
use crate::past;

const NOT_BOOL: &str = "the expression is not a bool for these arguments";

/// What became of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The expression is true.
    Holds,
    /// The expression is false.
    Fails,
    /// It has no boolean value for these arguments.
    Error(String),
    /// The budget of the decision is spent.
    Spent,
    /// It panicked.
    Panicked,
}

/// Standard functions and ours, the same for every decision.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    // the name is not one of the standard library, so this cannot fail; if it did, rules that use it would be errors and deny
    let _ = env.add_overload("usd", "string_to_micro_usd", vec![STRING_TYPE], usd);
    let _ = env.add_overload("string", "ip_to_string", vec![Type::new_opaque_type("net.IP")], ext_to_string);
    let _ = env.add_overload("string", "cidr_to_string", vec![Type::new_opaque_type("net.CIDR")], ext_to_string);
    Arc::new(env)
});

/// `usd("12.50")`: micro-USD as int.
#[expect(clippy::needless_pass_by_value, reason = "the evaluator's function type")]
fn usd<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = args.first().and_then(|a| a.downcast_ref::<CelString>()).ok_or_else(ExecutionError::missing_argument_or_target)?;
    let micro = polity_api::money::parse_usd(text.inner()).map_err(|e| ExecutionError::function_error("usd", e))?;
    Ok(CowVal::owned(CelInt::from(micro)))
}

/// `string()` of an address or a network.
#[expect(clippy::needless_pass_by_value, reason = "the evaluator's function type")]
fn ext_to_string<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value: Value = args.first().ok_or_else(ExecutionError::missing_argument_or_target)?.as_ref().try_into()?;
    let text = match &value {
        Value::Opaque(opaque) => opaque.downcast_ref::<Ext>().and_then(Ext::text),
        _ => None,
    };
    let text = text.ok_or_else(|| ExecutionError::function_error("string", "it has no text"))?;
    Ok(CowVal::owned(CelString::from(text)))
}

/// Calls a function of the libraries with arguments of the evaluator.
fn library(args: &[Value], meter: &Meter) -> Result<Value, ExecutionError> {
    let [Value::Int(fun), Value::Int(pattern), args @ ..] = args else { return Err(ExecutionError::missing_argument_or_target()) };
    let fun = Fun::numbered(*fun).ok_or_else(ExecutionError::missing_argument_or_target)?;
    let pattern = usize::try_from(*pattern).ok().and_then(|i| meter.pattern(i));
    let refused = |why: Fail<'_>| ExecutionError::function_error(fun.name(), why);
    let args: Option<Vec<Val<'_>>> = args.iter().map(Val::of_cel).collect();
    let args = args.ok_or_else(|| refused(Fail::Type(fun.name())))?;
    lib::call(fun, &args, &lib::With { pattern: pattern.as_ref(), meter }).map(|v| v.to_cel()).map_err(refused)
}

/// Builds what every evaluation shares, so that no decision's budget pays for it.
pub fn prepare() {
    LazyLock::force(&ENV);
}

/// Calls a standard function of the evaluator with one value; None: it has no result.
pub fn standard(name: &str, arg: Value) -> Option<Value> {
    let arg: Box<dyn CelVal> = arg.try_into().ok()?;
    let args = vec![CowVal::Owned(arg)];
    let function = ENV.find_overload(name, &args)?;
    function(args).ok()?.as_ref().try_into().ok()
}

/// Variables and budget of one decision.
pub struct Session<'a> {
    /// The variables.
    pub slots: Slots<'a>,
    meter: Arc<Meter>,
    /// The evaluator `cel`, once a rule needs it.
    oracle: Option<Context<'static, 'static>>,
    /// Values of parts that several rules have.
    memo: Box<Memo<'a>>,
}

impl<'a> Session<'a> {
    /// Starts with a budget and variables.
    pub fn new(meter: Arc<Meter>, slots: Slots<'a>) -> Self {
        Self { slots, meter, oracle: None, memo: Box::default() }
    }

    /// Sets how many parts of expressions several rules have.
    #[must_use]
    pub fn sharing(mut self, parts: usize) -> Self {
        self.memo = std::iter::repeat_with(|| None).take(parts).collect();
        self
    }

    /// Sets what is known of a part that several rules have.
    #[cfg(test)]
    pub fn know(&mut self, part: usize, value: bool, steps: u64) {
        self.memo[part] = Some((Ok(Val::Bool(value)), steps));
    }

    /// How many parts that several rules have are known.
    #[cfg(test)]
    pub fn known(&self) -> usize {
        self.memo.iter().flatten().count()
    }

    /// Steps charged so far.
    #[cfg(test)]
    pub fn steps(&self) -> u64 {
        self.meter.steps()
    }

    /// Whether the budget is spent.
    #[must_use]
    pub fn spent(&self) -> bool {
        self.meter.spent()
    }

    /// Evaluates a program in its compiled form, or with `cel` if it has none.
    pub fn eval(&mut self, program: &'a Program) -> Outcome {
        self.eval_known(program, &[])
    }

    /// Likewise, where each part of it that other rules have as well has a number.
    pub fn eval_known(&mut self, program: &'a Program, numbers: &'a [Option<u32>]) -> Outcome {
        match &program.code {
            Ok(code) => match self.compiled(program.cost, code, numbers) {
                Ok(Val::Bool(true)) => Outcome::Holds,
                Ok(Val::Bool(false)) => Outcome::Fails,
                Ok(_) => Outcome::Error(NOT_BOOL.to_owned()),
                Err(other) => other,
            },
            Err(_) => self.interpreted(program),
        }
    }

    /// Evaluates a program whose value is an int, as `eval` does.
    ///
    /// # Errors
    /// It has no such value.
    pub fn number(&mut self, program: &'a Program) -> Result<i64, Outcome> {
        let number = match &program.code {
            Ok(code) => match self.compiled(program.cost, code, &[])? {
                Val::Int(i) => Some(i),
                _ => None,
            },
            Err(_) => match self.resolved(program)? {
                Value::Int(i) => Some(i),
                _ => None,
            },
        };
        number.ok_or_else(|| Outcome::Error("the expression is not an int for these arguments".to_owned()))
    }

    fn compiled(&mut self, cost: u64, code: &'a Code, numbers: &'a [Option<u32>]) -> Result<Val<'a>, Outcome> {
        if !self.meter.charge(cost) {
            return Err(Outcome::Spent);
        }
        let mut machine = Machine::new(&self.slots, &self.meter).knowing(numbers, &mut self.memo);
        let result = catch_unwind(AssertUnwindSafe(|| machine.run(code)));
        self.meter.look_again();
        Err(match result {
            Err(_) => Outcome::Panicked,
            Ok(_) if self.meter.spent() => Outcome::Spent,
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(e)) => Outcome::Error(e.to_string()),
        })
    }

    /// Which part of a program decided that it does not hold; None: it has no compiled form, or nothing can be said within the budget.
    pub fn part(&self, program: &'a Program) -> Option<Part> {
        let code = program.code.as_ref().ok()?;
        let mut machine = Machine::new(&self.slots, &self.meter);
        let part = catch_unwind(AssertUnwindSafe(|| code.part(&mut machine))).ok()?;
        (!self.meter.spent()).then_some(part)
    }

    /// Which branches of a program run; None: it has no compiled form, or nothing can be said within the budget.
    pub fn branches(&self, program: &'a Program) -> Option<Vec<Branch>> {
        let code = program.code.as_ref().ok()?;
        let mut machine = Machine::new(&self.slots, &self.meter);
        catch_unwind(AssertUnwindSafe(|| code.branches(&mut machine))).ok()
    }

    /// Evaluates a program with `cel`, whether or not it has a compiled form.
    pub fn interpreted(&mut self, program: &Program) -> Outcome {
        match self.resolved(program) {
            Ok(Value::Bool(true)) => Outcome::Holds,
            Ok(Value::Bool(false)) => Outcome::Fails,
            Ok(_) => Outcome::Error(NOT_BOOL.to_owned()),
            Err(other) => other,
        }
    }

    fn resolved(&mut self, program: &Program) -> Result<Value, Outcome> {
        if !self.meter.charge(program.cost) {
            return Err(Outcome::Spent);
        }
        self.meter.look();
        self.meter.use_patterns(&program.patterns);
        let mut oracle = match self.oracle.take().map_or_else(|| self.context(), Ok) {
            Ok(oracle) => oracle,
            Err(e) => return Err(Outcome::Error(e)),
        };
        self.add_changing(&mut oracle);
        let result = catch_unwind(AssertUnwindSafe(|| Value::resolve(&program.expr, &oracle)));
        self.oracle = Some(oracle);
        self.meter.look();
        Err(match result {
            Err(_) => Outcome::Panicked,
            Ok(_) if self.meter.spent() => Outcome::Spent,
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(e)) => Outcome::Error(explain(&e, program)),
        })
    }

    /// Adds the variables that are others for each Policy. Counters that are not known are null, whatever they were for another Policy.
    fn add_changing(&self, oracle: &mut Context<'static, 'static>) {
        if let Some(roles) = self.slots.roles() {
            oracle.add_variable_from_value("roles", roles.to_cel());
        }
        for (name, value) in [(past::COUNTERS, self.slots.counters()), (past::HISTORY, self.slots.history())] {
            oracle.add_variable_from_value(name, value.map_or(Value::Null, |value| value.to_cel()));
        }
    }

    /// The budget.
    #[cfg(test)]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The evaluator with the variables.
    pub fn context(&self) -> Result<Context<'static, 'static>, String> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        let ticker = Arc::clone(&self.meter);
        let tick = move |steps: i64| -> Result<bool, ExecutionError> {
            if ticker.charge(steps.unsigned_abs()) {
                Ok(true)
            } else {
                Err(ExecutionError::function_error(TICK, "the budget of the decision is spent"))
            }
        };
        let matcher = Arc::clone(&self.meter);
        let matches = move |text: Arc<String>, index: i64| -> Result<bool, ExecutionError> {
            if !matcher.charge(1 + text.len() as u64 / 16) {
                return Err(ExecutionError::function_error("matches", "the budget of the decision is spent"));
            }
            let pattern = usize::try_from(index).ok().and_then(|i| matcher.pattern(i));
            pattern.map(|p| p.is_match(&text)).ok_or_else(|| ExecutionError::function_error("matches", "no such pattern"))
        };
        let caller = Arc::clone(&self.meter);
        let library = move |Arguments(args): Arguments| -> Result<Value, ExecutionError> { library(&args, &caller) };
        context.add_function(CALL, library).map_err(|e| e.to_string())?;
        context.add_function(TICK, tick).map_err(|e| e.to_string())?;
        context.add_function(MATCH, matches).map_err(|e| e.to_string())?;
        for (name, value) in self.slots.to_cel() {
            context.add_variable_from_value(name, value);
        }
        self.add_changing(&mut context);
        Ok(context)
    }
}

/// Evaluates a program with these variables and no others.
pub fn alone<const N: usize>(program: &Program, variables: [(&str, Value); N], meter: &Arc<Meter>) -> Outcome {
    let mut session = Session::new(Arc::clone(meter), Slots::default());
    let mut oracle = match session.context() {
        Ok(oracle) => oracle,
        Err(e) => return Outcome::Error(e),
    };
    for (name, value) in variables {
        oracle.add_variable_from_value(name, value);
    }
    session.oracle = Some(oracle);
    session.interpreted(program)
}

/// An evaluation error in words that hold no argument's value.
fn explain(e: &ExecutionError, program: &Program) -> String {
    match e {
        // a key that is computed is a value of the call
        ExecutionError::NoSuchKey(name) if !writes(&program.expr, name) => Fail::NoKey.to_string(),
        ExecutionError::NoSuchKey(name) => format!("`{name}` is absent; guard with has(…)"),
        ExecutionError::NoSuchOverload(e) => e.to_string(),
        ExecutionError::UndeclaredReference(name) => format!("`{name}` is not known here"),
        ExecutionError::FunctionError { function, .. } => format!("{function}() cannot be computed for these arguments"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "division by zero".to_owned(),
        ExecutionError::Overflow(op, ..) => format!("overflow in {op}"),
        ExecutionError::IndexOutOfBounds(_) => "index out of bounds".to_owned(),
        ExecutionError::UnexpectedType { got, want } => format!("{want} expected, {got} found"),
        ExecutionError::ValuesNotComparable(..) => "values of different types cannot be ordered".to_owned(),
        ExecutionError::DuplicateKey(_) => "a map has the same key twice".to_owned(),
        ExecutionError::UnsupportedBinaryOperator(op, ..) => format!("{op} does not go with these types"),
        _ => "it cannot be computed for these arguments".to_owned(),
    }
}

/// Whether an expression has a name itself, as a field or a text.
fn writes(expr: &IdedExpr, name: &str) -> bool {
    let here = match &expr.expr {
        Expr::Select(select) => select.field == name,
        Expr::Literal(LiteralValue::String(text)) => text.inner() == name,
        _ => false,
    };
    here || program::children(expr).into_iter().any(|child| writes(child, name))
}

/// Whether a conversion of a constant has a value.
#[must_use]
pub fn constant(expr: &cel::IdedExpr) -> bool {
    let context = Context::with_env(Arc::clone(&ENV));
    matches!(catch_unwind(AssertUnwindSafe(|| Value::resolve(expr, &context))), Ok(Ok(_)))
}
