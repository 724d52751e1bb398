//! `receipts erase`: reads its arguments and asks for confirmation. [`crate::control`] writes the
//! event.

use crate::consent::{can_ask, consents};
use crate::control::{self, Tenant};
use anyhow::anyhow;
use clap::Args;
use receipts_event::{Body, Event, UserErased};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::printable;
use receipts_runtime::telemetry;

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
    if !yes && can_ask() {
        let log = receipts_assembly::log_location(settings);
        let question =
            format!("Erase {user:?} of tenant {tenant:?} from all answers, through {log}? This cannot be undone.");
        if !consents(&question)? {
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
