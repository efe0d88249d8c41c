//! MCP servers of others: what they list of a tool, by digest; what in it looks as if it were meant for a model and hidden from people; and a
//! small client to speak with them.
//!
//! The client connects with the HTTP client that it is given, which its owner holds to an address; nothing here resolves a name, follows a
//! redirect or retries. Nothing here decides, and nothing that a server says is believed beyond its own answer.

pub mod client;
mod definition;
mod flags;
pub mod looks;
mod names;
mod schema;

pub use definition::{Definition, DefinitionError, MAX_DEFINITION};
pub use flags::{Flag, of_definition};
pub use names::look_alike;
pub use schema::differences;
