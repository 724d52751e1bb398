//! Why a destination cannot be used, and whether that may pass.

/// A destination's failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What names the destination is none: configuration.
    #[error(
        "{text:?} is no destination: {detail}; allowed: a directory, file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX \
         or az://CONTAINER/PREFIX"
    )]
    NoDestination {
        /// What was given.
        text: String,
        /// What is wrong with it.
        detail: String,
    },
    /// There is no object of that name.
    #[error("{place} is not there")]
    Missing {
        /// The object's address.
        place: String,
    },
    /// The destination refuses: only other credentials or permissions help.
    #[error(
        "{doing}: the destination refuses ({detail}): check its permissions and the credentials in the environment"
    )]
    Refused {
        /// What was being done, with the address.
        doing: String,
        /// What it said.
        detail: String,
    },
    /// The destination failed; it may work later.
    #[error("{doing}: {detail}")]
    Failed {
        /// What was being done, with the address.
        doing: String,
        /// What went wrong.
        detail: String,
    },
    /// The local file that was to be sent failed.
    #[error("{doing}: {source}")]
    Local {
        /// What was being done, with the path.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Given up because it was asked to.
    #[error("stopped")]
    Stopped,
}

impl Error {
    pub(crate) fn of_store(doing: String, place: &str, error: &object_store::Error) -> Self {
        use object_store::Error as E;
        match error {
            E::NotFound { .. } => Self::Missing { place: place.to_owned() },
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Self::Refused { doing, detail: whole(error) },
            _ => Self::Failed { doing, detail: whole(error) },
        }
    }
}

/// An error with all its causes.
fn whole(error: &dyn std::error::Error) -> String {
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
