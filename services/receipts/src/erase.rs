//! `receipts erase`: reads its arguments and asks for confirmation. [`crate::control`] writes the
//! event.

use crate::control::{self, Tenant};
use anyhow::anyhow;
use clap::Args;
use receipts_event::{Body, Event, UserErased};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::printable;
use receipts_runtime::telemetry;
use std::io::{self, BufRead, IsTerminal as _, Write};

pub(crate) const EXAMPLES: &str = "Examples:
  receipts erase bob
  receipts erase bob --yes --tenant acme --kafka-bootstrap localhost:9092
  receipts erase bob --data-dir /var/lib/receipts --json
  receipts erase -- -an-id-that-begins-with-a-dash";

/// Arguments of `receipts erase`.
#[derive(Args)]
pub(crate) struct Erase {
    /// The person's id, as in events
    #[arg(value_name = "USER")]
    user: String,
    #[command(flatten)]
    tenant: Tenant,
    /// Asks for no confirmation; without a terminal the command never asks.
    #[arg(short, long)]
    yes: bool,
}

/// Erases a person.
///
/// # Errors
/// Wrong usage, no consent, or as [`control::write`].
pub(crate) fn run(settings: &Settings, erase: &Erase, json: bool) -> Result<(), Failure> {
    telemetry::init(&settings.telemetry)?;
    let Erase { user, tenant: Tenant { tenant }, yes } = erase;
    let body = Body::UserErased(UserErased { user_id: user.into(), partition: None });
    let event = Event { tenant: tenant.into(), event_id: None, body };
    control::check(&event, &[("/user_id", "USER")])?;
    let (input, errors) = (io::stdin(), io::stderr());
    // Ask only if a person can see the question and answer it: a script can do neither.
    if !yes && input.is_terminal() && errors.is_terminal() {
        let log = receipts_assembly::log_location(settings);
        let question =
            format!("Erase {user:?} of tenant {tenant:?} from all answers, through {log}? This cannot be undone.");
        if !consents(&question, &mut input.lock(), &mut errors.lock())? {
            return Err(anyhow!("not confirmed, so nothing was written").into());
        }
    }
    let headline = format!(
        "{} of tenant {} is erased: no answer names this person from now on, and counts stay",
        printable(user),
        printable(tenant)
    );
    control::write(settings, &event, &headline, json)
}

/// Asks a question, and returns true only for the answer yes.
fn consents(question: &str, input: &mut dyn BufRead, to: &mut dyn Write) -> io::Result<bool> {
    write!(to, "{question} Type yes to continue: ")?;
    to.flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_confirms_the_question() {
        for (answer, wanted) in [("yes\n", true), ("Yes \r\n", true), ("y\n", false), ("\n", false), ("", false)] {
            let mut shown = Vec::new();
            let consented = consents("Erase?", &mut answer.as_bytes(), &mut shown).expect("asked");
            assert_eq!((consented, shown.starts_with(b"Erase? ")), (wanted, true), "{answer:?}");
        }
    }
}
