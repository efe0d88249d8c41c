//! The loops of compiled rules. Each step is charged before it runs.

use super::{Fail, build::Each, run::Machine, val::Val};

impl<'a> Machine<'a, '_> {
    /// `all` (stop is false) and `exists` (stop is true): one step that gives `stop` decides, whatever errors there were beside it.
    pub(super) fn all(&mut self, each: &'a Each, stop: bool) -> Result<bool, Fail<'a>> {
        let mut pending = None;
        let decided = self.over(each, |machine| match machine.truth(&each.body) {
            Ok(b) => Ok(b == stop),
            Err(Fail::Spent) => Err(Fail::Spent),
            Err(e) => {
                pending = Some(e);
                Ok(false)
            }
        })?;
        match pending {
            _ if decided => Ok(stop),
            Some(e) => Err(e),
            None => Ok(!stop),
        }
    }

    /// `exists_one`: every step runs, and an error in one is an error of all.
    pub(super) fn one(&mut self, each: &'a Each) -> Result<bool, Fail<'a>> {
        let mut found = 0_u64;
        self.over(each, |machine| {
            found += u64::from(machine.truth(&each.body)?);
            Ok(false)
        })?;
        Ok(found == 1)
    }

    /// `map` and `filter`.
    pub(super) fn collect(&mut self, each: &'a Each) -> Result<Val<'a>, Fail<'a>> {
        let mut out = Vec::new();
        self.over(each, |machine| {
            if each.guard.as_ref().map_or(Ok(true), |guard| machine.truth(guard))? {
                out.push(machine.eval(&each.body)?);
            }
            Ok(false)
        })?;
        Ok(Val::List(out.into()))
    }

    /// Runs a step for each element of a list or key of a map until one says that it is decided.
    fn over(&mut self, each: &'a Each, mut step: impl FnMut(&mut Self) -> Result<bool, Fail<'a>>) -> Result<bool, Fail<'a>> {
        let range = self.eval(&each.range)?;
        let keys = range.keys();
        let len = match &keys {
            Some(keys) => keys.len(),
            None => range.list_len().ok_or(Fail::Type("a loop"))?,
        };
        let depth = self.locals.len();
        for i in 0..len {
            self.tick(each.cost)?;
            let item = match &keys {
                Some(keys) => keys.get(i).cloned(),
                None => range.at(i),
            };
            self.locals.push(item.ok_or(Fail::Bounds)?);
            let result = step(self);
            self.locals.truncate(depth);
            if result? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
