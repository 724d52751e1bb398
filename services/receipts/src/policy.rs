//! `receipts policy set`: reads its arguments. [`crate::control`] writes the event.

use crate::control::{self, Tenant};
use clap::{Args, Subcommand};
use receipts_event::{Body, Event, ID_BYTES_MAX, PolicyChanged};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::printable;
use receipts_runtime::telemetry;
use std::borrow::Cow;
use std::collections::HashSet;

pub(crate) const EXAMPLES: &str = "Examples:
  receipts policy set announcement=off channel=off
  receipts policy set work=on '*=off' --tenant acme --kafka-bootstrap localhost:9092
  receipts policy set '*=on' --data-dir /var/lib/receipts --json";

/// The commands of `receipts policy`.
#[derive(Subcommand)]
pub(crate) enum Policy {
    /// Sets which group types support receipts, for messages sent from now on.
    ///
    /// A policy replaces the tenant's previous policy as a whole. Types that it does not name have
    /// the state of '*', or on if it does not name '*' either. Messages sent before do not change.
    /// Direct chats always have receipts.
    ///
    /// The command writes one event into every partition of the event log. Exit code 0 means that
    /// every partition has acknowledged it; after exit code 1 the same command may be run again. If
    /// `receipts serve` uses the data directory, the command writes nothing and prints the request
    /// to send to that service.
    #[command(after_help = EXAMPLES)]
    Set(Set),
}

/// Arguments of `receipts policy set`.
#[derive(Args)]
pub(crate) struct Set {
    /// Group type, on or off; '*' stands for all types that are not named
    #[arg(required = true, value_name = "TYPE=on|off", value_parser = entry)]
    entries: Vec<(String, bool)>,
    #[command(flatten)]
    tenant: Tenant,
}

/// Writes a policy.
///
/// # Errors
/// Wrong usage, or as [`control::write`].
pub(crate) fn set(settings: &Settings, set: &Set, json: bool) -> Result<(), Failure> {
    telemetry::init(&settings.telemetry)?;
    let mut met = HashSet::new();
    if let Some((twice, _)) = set.entries.iter().find(|(group_type, _)| !met.insert(group_type)) {
        return Err(Failure::usage(format!("TYPE=on|off names the type {twice:?} twice: name each type once")));
    }
    let entries = set.entries.iter().map(|(group_type, is_on)| (Cow::from(group_type.as_str()), *is_on));
    let body = Body::PolicyChanged(PolicyChanged { read_receipts: entries.collect(), partition: None });
    let tenant = set.tenant.tenant.as_str();
    let event = Event { tenant: tenant.into(), event_id: None, body };
    control::check(&event, &[("/read_receipts", "TYPE=on|off")])?;
    let shown: Vec<String> = set.entries.iter().map(|(group_type, is_on)| shown(group_type, *is_on)).collect();
    let rest = if met.contains(&"*".to_owned()) { "" } else { ", all others on" };
    let headline =
        format!("policy of tenant {}, which replaces the previous one: {}{rest}", printable(tenant), shown.join(", "));
    control::write(settings, &event, &headline, json)
}

fn shown(group_type: &str, is_on: bool) -> String {
    format!("{}={}", printable(group_type), if is_on { "on" } else { "off" })
}

/// Reads `TYPE=on` or `TYPE=off`. The type may hold an equals sign itself.
fn entry(text: &str) -> Result<(String, bool), String> {
    let (group_type, state) =
        text.rsplit_once('=').ok_or_else(|| format!("it has no '=': write {text}=on or {text}=off"))?;
    let is_on = match state {
        "on" => true,
        "off" => false,
        _ => return Err(format!("{state:?} is neither on nor off")),
    };
    match group_type.len() {
        0 => Err(format!("the type before '=' is empty: write '*={state}' for all types that are not named")),
        1..=ID_BYTES_MAX => Ok((group_type.to_owned(), is_on)),
        bytes => Err(format!("the type has {bytes} bytes, but at most {ID_BYTES_MAX} are allowed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_type_name_is_switched_on_or_off() {
        for (text, wanted) in [("a=on", ("a", true)), ("*=off", ("*", false)), ("a=b=off", ("a=b", false))] {
            assert_eq!(entry(text), Ok((wanted.0.to_owned(), wanted.1)));
        }
        let longest = "x".repeat(ID_BYTES_MAX);
        assert!(entry(&format!("{longest}=on")).is_ok());
        for (text, part) in [
            ("a", "no '='"),
            ("a=", "neither on nor off"),
            ("a=true", "neither on nor off"),
            ("a=ON", "neither on nor off"),
            ("=on", "is empty"),
            (&format!("{longest}x=on"), "129 bytes"),
        ] {
            let sentence = entry(text).expect_err("no entry");
            assert!(sentence.contains(part), "{text}: {sentence}");
        }
    }
}
