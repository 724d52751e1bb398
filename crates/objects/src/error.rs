//! The errors of a destination: why it cannot be used, and whether a retry may help. Retries
//! nothing.

/// An error of a destination.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text names no destination: change the configuration.
    #[error(
        "{text:?} is not a destination: {detail}; allowed: a directory, file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX \
         or az://CONTAINER/PREFIX"
    )]
    NoDestination {
        /// The text.
        text: String,
        /// The problem.
        detail: String,
    },
    /// There is no object of this name.
    #[error("{location} is not there")]
    Missing {
        /// The location of the object.
        location: String,
    },
    /// The destination refuses the call: only other credentials or permissions help.
    #[error(
        "{doing}: the destination refuses ({detail}): check its permissions and the credentials in the environment"
    )]
    Refused {
        /// The operation, with the location.
        doing: String,
        /// The answer of the destination.
        detail: String,
    },
    /// The destination failed; it may work later.
    #[error("{doing}: {detail}")]
    Failed {
        /// The operation, with the location.
        doing: String,
        /// The problem.
        detail: String,
    },
    /// The local file to upload failed.
    #[error("{doing}: {source}")]
    Local {
        /// The operation, with the path.
        doing: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The caller stopped the operation.
    #[error("stopped")]
    Stopped,
}

impl Error {
    pub(crate) fn of_store(doing: String, location: &str, error: &object_store::Error) -> Self {
        use object_store::Error as E;
        match error {
            E::NotFound { .. } => Self::Missing { location: location.to_owned() },
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                Self::Refused { doing, detail: with_causes(error) }
            }
            _ => Self::Failed { doing, detail: with_causes(error) },
        }
    }
}

/// Returns the text of an error with all its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
