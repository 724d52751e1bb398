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
    /// There is no such bucket or container: create it, or correct its name.
    #[error("{doing}: there is no such bucket or container; create it, or correct its name")]
    NoBucket {
        /// The operation, with the location.
        doing: String,
    },
    /// The environment has no credentials, and the machine has no service that gives some.
    #[error("{doing}: no credentials were found: {advice}")]
    NoCredentials {
        /// The operation, with the location.
        doing: String,
        /// The variables to set.
        advice: String,
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

/// The names by which S3, Google Cloud Storage and Azure call a missing bucket.
const NO_BUCKET: [&str; 2] = ["NoSuchBucket", "ContainerNotFound"];

/// A refusal that object_store does not tell apart: that of Azure's listing.
const REFUSED: [&str; 2] = ["status code: 401", "status code: 403"];

/// The metadata services of the clouds, which give credentials to machines of theirs.
const METADATA: [&str; 2] = ["169.254.", "metadata.google.internal"];

/// What a call asks of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// One object.
    Object,
    /// Nothing that can be missing but the bucket: a write or a listing.
    Bucket,
}

impl Error {
    /// Reads an error of a store. `advice` says what to set, if no credentials were found.
    pub(crate) fn of_store(
        doing: String,
        location: &str,
        asks: Asks,
        advice: Option<&str>,
        error: &object_store::Error,
    ) -> Self {
        use object_store::Error as E;
        let detail = with_causes(error);
        let is_of_bucket = asks == Asks::Bucket || NO_BUCKET.iter().any(|name| detail.contains(name));
        match error {
            E::NotFound { .. } if is_of_bucket => Self::NoBucket { doing },
            E::NotFound { .. } => Self::Missing { location: location.to_owned() },
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Self::Refused { doing, detail },
            _ if NO_BUCKET.iter().any(|name| detail.contains(name)) => Self::NoBucket { doing },
            // Before a refusal: the metadata service may be what refuses.
            _ => match advice.filter(|_| METADATA.iter().any(|address| detail.contains(address))) {
                Some(advice) => Self::NoCredentials { doing, advice: advice.to_owned() },
                None if REFUSED.iter().any(|status| detail.contains(status)) => Self::Refused { doing, detail },
                None => Self::Failed { doing, detail },
            },
        }
    }
}

/// Returns the text of an error with all its causes, on one line.
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
    brief(&text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns a text with the page or the XML that a store answered cut to its code and message.
fn brief(text: &str) -> String {
    let begins = ["<?xml", "<Error", "<html", "<!DOCTYPE"];
    let Some(start) = begins.iter().filter_map(|begin| text.find(begin)).min() else { return text.to_owned() };
    let (head, page) = (&text[..start], &text[start..]);
    let element = |name: &str| {
        let (_, rest) = page.split_once(&format!("<{name}>"))?;
        // Azure puts the id and the time of the request below.
        rest.split('<').next()?.lines().next().map(str::trim).filter(|text| !text.is_empty())
    };
    let said: Vec<&str> = ["Code", "Message"].into_iter().filter_map(element).collect();
    match said.is_empty() {
        true => format!("{head}a page"),
        false => format!("{head}{}", said.join(": ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Azure's listing has no error of its own for a wrong key.
    #[test]
    fn refused_listing_asks_for_credentials() {
        let refused = |status: &str| {
            let source = format!("Server returned non-2xx status code: {status}").into();
            let error = object_store::Error::Generic { store: "MicrosoftAzure", source };
            let error = Error::of_store("listing az://a/b/".into(), "az://a/b/", Asks::Bucket, None, &error);
            matches!(error, Error::Refused { .. })
        };
        assert!(refused("403 Forbidden: AuthorizationFailure") && refused("401 Unauthorized"));
        assert!(!refused("500 Internal Server Error"));
    }

    #[test]
    fn answers_of_stores_are_cut_to_their_message() {
        for (text, wanted) in [
            (
                "Server returned 404: <?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>The specified bucket \
                 does not exist</Message><RequestId>7</RequestId></Error>",
                "Server returned 404: NoSuchBucket: The specified bucket does not exist",
            ),
            (
                "403: \u{feff}<?xml?><Error><Code>AuthenticationFailed</Code><Message>Server failed.\nRequestId:7\nTime:x</Message>",
                "403: \u{feff}AuthenticationFailed: Server failed.",
            ),
            ("502: <html><body>Bad Gateway</body></html>", "502: a page"),
            ("connection refused", "connection refused"),
        ] {
            assert_eq!(brief(text), wanted);
        }
    }
}
