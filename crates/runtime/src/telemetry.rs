//! Logs: structured lines on stderr. Metrics are served by `serve`, traces are handed on as headers by who sends.

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            other => Err(format!("log format {other:?} is neither json nor text")),
        }
    }
}

/// What is logged and how.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Format.
    pub format: LogFormat,
    /// Filter as `tracing_subscriber` reads it, e.g. `info,polity=debug`.
    pub filter: String,
}

/// Logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is unreadable.
    #[error("log filter {filter:?}: {message}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong.
        message: String,
    },
    /// Something else took the place.
    #[error("logging was set up before: {0}")]
    Taken(String),
}

/// Sets up logging for the process, once, in `main`.
///
/// # Errors
/// When the filter is unreadable, or logging was set up before.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    let filter =
        EnvFilter::try_new(&config.filter).map_err(|e| LogError::Filter { filter: config.filter.clone(), message: e.to_string() })?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match config.format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Text => registry.with(lines).try_init(),
    }
    .map_err(|e| LogError::Taken(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_format_or_filter_is_named() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert!("xml".parse::<LogFormat>().unwrap_err().contains("xml"));
        let error = init(&LogConfig { format: LogFormat::Text, filter: "polity=loud".to_owned() }).unwrap_err();
        assert!(error.to_string().contains("polity=loud"), "{error}");
    }
}
