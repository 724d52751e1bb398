//! Tells variables that Kubernetes sets for a Service from settings: a Service whose name is
//! `receipts`, or begins with `receipts-`, sets variables with this program's prefix in every pod.
//!
//! Must not take a misspelled setting for one of them, so it looks at values too.

use std::net::IpAddr;

/// Whether Kubernetes sets such a variable for a Service. `name` has no prefix:
/// `SERVICE_HOST`, `PORT_8080_TCP_ADDR`, or of the Service `receipts-query` `QUERY_PORT`.
pub(super) fn is_of_a_service(name: &str, value: &str) -> bool {
    // The settings' names have two underscores between section and key; those of a Service one.
    if name.contains("__") {
        return false;
    }
    let is_below = |last: &str| name == last || name.strip_suffix(last).is_some_and(|rest| rest.ends_with('_'));
    let is_number = |text: &str| text.parse::<u16>().is_ok();
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    if is_below("SERVICE_HOST") {
        return is_address(value);
    }
    if is_below("PORT") && is_url(value) || is_below("SERVICE_PORT") && is_number(value) {
        return true;
    }
    // A named port: SERVICE_PORT_HTTP.
    if name.starts_with("SERVICE_PORT_") || name.contains("_SERVICE_PORT_") {
        return is_number(value);
    }
    // PORT_8080_TCP, and the same with _PROTO, _PORT or _ADDR.
    let Some((_, port)) = name.rsplit_once("PORT_").filter(|(before, _)| before.is_empty() || before.ends_with('_'))
    else {
        return false;
    };
    let mut parts = port.split('_');
    parts.next().is_some_and(is_number)
        && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
        && match (parts.next(), parts.next()) {
            (None, _) => is_url(value),
            (Some("PROTO"), None) => matches!(value, "tcp" | "udp" | "sctp"),
            (Some("PORT"), None) => is_number(value),
            (Some("ADDR"), None) => is_address(value),
            _ => false,
        }
}

/// Whether a text is `tcp://ADDRESS:PORT`, or of another transport.
fn is_url(text: &str) -> bool {
    let address = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "tcp" | "udp" | "sctp"));
    address.and_then(|(_, address)| address.rsplit_once(':')).is_some_and(|(host, port)| {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host.parse::<IpAddr>().is_ok() && port.parse::<u16>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_services_are_recognized_by_name_and_value() {
        for (name, value) in [
            ("SERVICE_HOST", "10.96.7.1"),
            ("SERVICE_HOST", "fd00::1"),
            ("SERVICE_PORT", "8080"),
            ("SERVICE_PORT_HTTP", "8080"),
            ("PORT", "tcp://10.96.7.1:8080"),
            ("PORT_8080_TCP", "tcp://[fd00::1]:8080"),
            ("PORT_8080_TCP_PROTO", "tcp"),
            ("PORT_8080_TCP_PORT", "8080"),
            ("PORT_8080_TCP_ADDR", "10.96.7.1"),
            ("QUERY_SERVICE_HOST", "10.96.7.2"),
            ("QUERY_SERVICE_PORT", "80"),
            ("QUERY_SERVICE_PORT_HTTP_WEB", "80"),
            ("QUERY_PORT", "tcp://10.96.7.2:80"),
            ("HTTP_EDGE_PORT_53_UDP", "udp://10.96.7.2:53"),
            ("PORT_PORT_8080_TCP_ADDR", "10.96.7.2"),
        ] {
            assert!(is_of_a_service(name, value), "{name}={value}");
        }
    }

    #[test]
    fn misspelled_settings_are_not_taken_for_services() {
        for (name, value) in [
            ("HTTP_LISTEN", "127.0.0.1:8080"),
            ("PORT", "8080"),
            ("HTTP_PORT", "8080"),
            ("HTTP__PORT", "tcp://10.96.7.1:8080"),
            ("KAFKA__SERVICE_HOST", "10.96.7.1"),
            ("SERVICE_HOST", "receipts"),
            ("SERVICE_PORT", "http"),
            ("SERVICE", "10.96.7.1"),
            ("PORT_8080_TCP", "8080"),
            ("PORT_HTTP_TCP", "tcp://10.96.7.1:8080"),
            ("PORT_8080_TCP_NAME", "x"),
            ("PORT_8080_TCP_ADDR_MORE", "10.96.7.1"),
            ("REPORT", "tcp://10.96.7.1:8080"),
            ("XSERVICE_HOST", "10.96.7.1"),
        ] {
            assert!(!is_of_a_service(name, value), "{name}={value}");
        }
    }
}
