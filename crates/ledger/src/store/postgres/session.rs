//! A connection to Postgres: statements, a transaction, and what is known once the connection is gone.
//!
//! The writer's session also carries its claim: each of its transactions counts up the batch in the claim's own row, and
//! only while that row is the newest. So a writer whose claim was taken over cannot commit, and after a commit that
//! nobody answered the row tells whether it was done.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::ops::ControlFlow;

use futures::StreamExt;
use tokio::runtime::Handle;
use tokio_postgres::error::Severity;
use tokio_postgres::{Client, Row, RowStream, Statement};

use crate::fault::{Fault, Outcome};
use crate::store::postgres::{ANSWER, told};
use crate::store::{StoreError, Value, values};

/// Counts up the batch of a claim that is still the newest.
const COUNT_UP: &str = "UPDATE writers SET batch = batch + 1 WHERE token = ?1 AND batch = ?2 AND n = (SELECT max(n) FROM writers)";

/// The right to write: the newest row of `writers`, and the advisory lock that the session holds.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) token: String,
    /// How many batches were committed under it.
    pub(crate) batch: i64,
}

/// See the module.
pub(crate) struct Session {
    client: Client,
    driver: Handle,
    statements: RefCell<HashMap<String, Statement>>,
    claim: RefCell<Option<Claim>>,
    /// An answer did not come: nothing that comes later can be told apart from it.
    broken: Cell<bool>,
    /// A statement failed in the open transaction: only undoing is possible.
    failed: Cell<bool>,
    /// A verb's savepoint that is to be released with the next one.
    released: Cell<bool>,
}

impl Session {
    pub(super) fn new(client: Client, driver: Handle) -> Self {
        Self {
            client,
            driver,
            statements: RefCell::default(),
            claim: RefCell::default(),
            broken: Cell::new(false),
            failed: Cell::new(false),
            released: Cell::new(false),
        }
    }

    /// Whether the connection is gone.
    pub(crate) fn is_lost(&self) -> bool {
        self.broken.get() || self.client.is_closed()
    }

    /// The writer's claim.
    pub(crate) fn claim(&self) -> Option<Claim> {
        self.claim.borrow().clone()
    }

    pub(super) fn set_claim(&self, claim: Claim) {
        self.claim.replace(Some(claim));
    }

    fn wait<T>(&self, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, StoreError> {
        if self.is_lost() {
            return Err(StoreError::Lost("the connection to Postgres is lost".to_owned()));
        }
        let answer = self.driver.block_on(async { tokio::time::timeout(ANSWER, answer).await });
        let failed = |error: &tokio_postgres::Error| {
            self.failed.set(true);
            match error.as_db_error().and_then(|e| e.parsed_severity()) {
                Some(Severity::Error) => StoreError::Postgres(told(error)),
                _ if error.as_db_error().is_none() && !self.client.is_closed() && !error.is_closed() => StoreError::Postgres(told(error)),
                _ => {
                    self.broken.set(true);
                    StoreError::Lost(told(error))
                }
            }
        };
        match answer {
            Ok(answer) => answer.map_err(|e| failed(&e)),
            Err(_) => {
                self.broken.set(true);
                Err(StoreError::Lost(format!("Postgres did not answer within {} s", ANSWER.as_secs())))
            }
        }
    }

    /// Run statements without parameters.
    pub(crate) fn batch(&self, sql: &str) -> Result<(), StoreError> {
        self.wait(self.client.batch_execute(sql))
    }

    /// The statement, prepared once.
    fn statement(&self, sql: &str) -> Result<Statement, StoreError> {
        if let Some(statement) = self.statements.borrow().get(sql) {
            return Ok(statement.clone());
        }
        // The SQL of both stores numbers its parameters as SQLite does.
        let statement = self.wait(self.client.prepare(&sql.replace('?', "$")))?;
        self.statements.borrow_mut().insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Run a statement. Returns how many rows it changed.
    pub(crate) fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        let statement = self.statement(sql)?;
        self.wait(self.client.execute_raw(&statement, values))
    }

    /// Each row of the answer, until told to break.
    pub(crate) fn each(&self, sql: &str, values: &[Value<'_>], mut read: impl FnMut(&Row) -> Outcome<ControlFlow<()>>) -> Outcome<()> {
        let statement = self.statement(sql)?;
        let mut rows: std::pin::Pin<Box<RowStream>> = Box::pin(self.wait(self.client.query_raw(&statement, values))?);
        while let Some(row) = self.wait(async { rows.next().await.transpose() })? {
            if read(&row)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Begin a transaction. The writer's counts up its batch first, and goes no further if its claim is not the newest.
    pub(crate) fn begin(&self) -> Outcome<()> {
        self.failed.set(false);
        self.released.set(false);
        let Some(claim) = self.claim() else {
            return Ok(self.batch("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")?);
        };
        let count_up = self.statement(COUNT_UP)?;
        let values: &[Value<'_>] = values![&claim.token, claim.batch];
        let counted = self.wait(async {
            // Sent together, answered together.
            let begin = self.client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE");
            let (begun, counted) = futures::join!(begin, self.client.execute_raw(&count_up, values));
            begun?;
            counted
        })?;
        if counted == 1 { Ok(()) } else { Err(StoreError::Taken.into()) }
    }

    /// Begin a transaction that reads one state.
    pub(crate) fn begin_reading(&self) -> Outcome<()> {
        self.failed.set(false);
        Ok(self.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?)
    }

    /// Begin a verb.
    pub(crate) fn savepoint(&self) -> Outcome<()> {
        Ok(self.batch(if self.released.replace(false) { "RELEASE verb; SAVEPOINT verb" } else { "SAVEPOINT verb" })?)
    }

    /// End a verb: told to the server with the next one, or by the commit.
    pub(crate) fn release(&self) {
        self.released.set(true);
    }

    /// Undo what the verb wrote.
    pub(crate) fn undo(&self) -> Outcome<()> {
        self.batch("ROLLBACK TO verb")?;
        self.failed.set(false);
        Ok(())
    }

    /// Commit. [`StoreError::Doubt`] when the answer did not come.
    pub(crate) fn commit(&self) -> Outcome<()> {
        if self.failed.get() {
            // Postgres would answer a commit of it as done, and roll it back.
            self.rollback()?;
            return Err(Fault::Stored("a statement failed before the commit".to_owned()));
        }
        match self.batch("COMMIT") {
            Ok(()) => {
                if let Some(claim) = self.claim.borrow_mut().as_mut() {
                    claim.batch += 1;
                }
                Ok(())
            }
            Err(StoreError::Lost(what)) => Err(StoreError::Doubt(what).into()),
            Err(other) => Err(other.into()),
        }
    }

    /// Undo the transaction. One of a lost connection is undone by the server.
    pub(crate) fn rollback(&self) -> Outcome<()> {
        self.failed.set(false);
        if self.is_lost() { Ok(()) } else { Ok(self.batch("ROLLBACK")?) }
    }

    /// Give up the lock at once, rather than when the server has seen the connection go.
    pub(crate) fn close(self) {
        if !self.is_lost()
            && let Err(error) = self.batch("SELECT pg_advisory_unlock_all()")
        {
            tracing::warn!(%error, "the ledger's lock in Postgres was not given up; it goes with the connection");
        }
    }
}
