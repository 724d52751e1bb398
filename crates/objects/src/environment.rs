//! Translates the environment of the clouds' own tools into the options of the client: variables,
//! and profiles of AWS.
//!
//! It must not show a secret, nor guess: it says which variable to change.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Variables by name. Empty ones count as not set.
pub(crate) type Variables = BTreeMap<String, String>;

/// What the client of a cloud gets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) pairs: Vec<(String, String)>,
    /// What to set, if no credentials were found: then the client asks the metadata service of the
    /// machine.
    pub(crate) advice: Option<&'static str>,
}

/// Returns the options for a URL of this scheme. `read` reads a file.
///
/// # Errors
/// A sentence that names the variable to change.
pub(crate) fn options(
    scheme: &str,
    variables: &Variables,
    read: impl Fn(&Path) -> io::Result<String>,
) -> Result<Options, String> {
    let set: Variables = variables
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    match scheme {
        "s3" | "s3a" => aws(&set, &read),
        "gs" => google(&set, &read),
        _ => azure(&set),
    }
}

fn own(set: &Variables, prefix: &str) -> Vec<(String, String)> {
    set.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn first<'v>(set: &'v Variables, names: &[&'static str]) -> Option<(&'static str, &'v str)> {
    names.iter().find_map(|name| set.get(*name).map(|value| (*name, value.as_str())))
}

/// Refuses an endpoint without TLS, unless `allow` permits it: credentials would go over the
/// network in the open.
fn check_endpoint(set: &Variables, name: &str, endpoint: &str, allow: &str) -> Result<(), String> {
    let is_allowed =
        set.get(allow).is_some_and(|value| ["1", "true", "on", "yes", "y"].contains(&value.to_lowercase().as_str()));
    match endpoint.to_lowercase().starts_with("http://") && !is_allowed {
        true => Err(format!("{name} is {endpoint}: set {allow}=true for an endpoint without TLS, or use https://")),
        false => Ok(()),
    }
}

fn aws(set: &Variables, read: &impl Fn(&Path) -> io::Result<String>) -> Result<Options, String> {
    const ADVICE: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE";
    let mut pairs = own(set, "AWS_");
    let has_keys = set.contains_key("AWS_ACCESS_KEY_ID");
    let others = [
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_SKIP_SIGNATURE",
    ];
    let has_others = first(set, &others).is_some();
    let named = first(set, &["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]);
    let mut is_found = has_keys || has_others;
    if named.is_some() || !is_found {
        let profile = Profile::read(set, named, read)?;
        let keys = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
        let has_profile = profile.entries.contains_key(keys[0]) && profile.entries.contains_key(keys[1]);
        if !has_keys && has_profile {
            let value = |key: &str| Some((key.to_owned(), profile.entries.get(key)?.clone()));
            pairs.extend(keys.into_iter().filter_map(value));
            is_found = true;
        } else if let (false, Some((variable, name))) = (has_keys, named) {
            return Err(format!(
                "the profile {name:?} of {variable} has no aws_access_key_id and aws_secret_access_key ({}): set the variables \
                 that `aws configure export-credentials --profile {name} --format env` prints",
                profile.files()
            ));
        }
        if first(set, &["AWS_REGION", "AWS_DEFAULT_REGION"]).is_none() {
            pairs.extend(profile.entries.get("region").map(|region| ("aws_region".to_owned(), region.clone())));
        }
        if let Some(endpoint) = profile.entries.get("endpoint_url")
            && first(set, &AWS_ENDPOINTS).is_none()
        {
            check_endpoint(set, "endpoint_url of the profile", endpoint, "AWS_ALLOW_HTTP")?;
            pairs.push(("aws_endpoint_url".to_owned(), endpoint.clone()));
        }
    }
    if let Some((name, endpoint)) = first(set, &AWS_ENDPOINTS) {
        check_endpoint(set, name, endpoint, "AWS_ALLOW_HTTP")?;
    }
    Ok(Options { pairs, advice: Some(ADVICE).filter(|_| !is_found) })
}

const AWS_ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];

/// A profile of AWS's own tools, from both of their files.
struct Profile {
    entries: Variables,
    credentials: PathBuf,
    config: PathBuf,
}

impl Profile {
    fn read(
        set: &Variables,
        named: Option<(&str, &str)>,
        read: &impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, String> {
        let file = |variable: &str, name: &str| match set.get(variable) {
            Some(path) => (PathBuf::from(path), true),
            None => (Path::new(set.get("HOME").map_or("", String::as_str)).join(".aws").join(name), false),
        };
        let name = named.map_or("default", |(_, name)| name);
        let (credentials, config) =
            (file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), file("AWS_CONFIG_FILE", "config"));
        let (mut entries, mut is_there) = (Variables::new(), false);
        // The first file wins.
        for ((path, is_named), section, variable) in [
            (&credentials, name.to_owned(), "AWS_SHARED_CREDENTIALS_FILE"),
            (&config, if name == "default" { name.to_owned() } else { format!("profile {name}") }, "AWS_CONFIG_FILE"),
        ] {
            let text = match read(path) {
                Ok(text) => text,
                Err(error) if *is_named => return Err(format!("{variable} names {}: {error}", path.display())),
                Err(_) => continue,
            };
            if let Some(found) = section_of(&text, &section) {
                is_there = true;
                for (key, value) in found {
                    entries.entry(key).or_insert(value);
                }
            }
        }
        let profile = Self { entries, credentials: credentials.0, config: config.0 };
        match named {
            Some((variable, name)) if !is_there && !set.contains_key("AWS_ACCESS_KEY_ID") => {
                Err(format!("there is no profile {name:?} of {variable} ({})", profile.files()))
            }
            _ => Ok(profile),
        }
    }

    fn files(&self) -> String {
        format!("{} and {}", self.credentials.display(), self.config.display())
    }
}

/// Returns the entries of a section of an INI file. Indented lines belong to the entry above them,
/// so they are none of their own.
fn section_of(text: &str, section: &str) -> Option<Variables> {
    let (mut found, mut is_inside) = (None::<Variables>, false);
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name) {
            is_inside = name.split_whitespace().eq(section.split_whitespace());
            if is_inside {
                found.get_or_insert_default();
            }
        } else if let Some((key, value)) = line.split_once('=').filter(|_| is_inside && !line.starts_with([' ', '\t']))
        {
            found.get_or_insert_default().insert(key.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    found
}

fn google(set: &Variables, read: &impl Fn(&Path) -> io::Result<String>) -> Result<Options, String> {
    const ADVICE: &str = "set GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT to a file of credentials";
    let mut pairs = own(set, "GOOGLE_");
    if let Some((name, base)) = first(set, &["GOOGLE_BASE_URL"]) {
        check_endpoint(set, name, base, "GOOGLE_ALLOW_HTTP")?;
    }
    if let Some(host) = set.get("STORAGE_EMULATOR_HOST") {
        // As in Google's own clients: a host or a URL, and no credentials.
        let base = if host.contains("://") { host.clone() } else { format!("http://{host}") };
        let emulator = [("base_url", base.trim_end_matches('/')), ("skip_signature", "true"), ("allow_http", "true")];
        pairs.extend(emulator.map(|(name, value)| (format!("google_{name}"), value.to_owned())));
    }
    let found = [
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_BEARER_TOKEN",
        "GOOGLE_SKIP_SIGNATURE",
        "STORAGE_EMULATOR_HOST",
    ];
    let of_gcloud = Path::new(set.get("HOME").map_or("", String::as_str))
        .join(".config/gcloud/application_default_credentials.json");
    let is_found = first(set, &found).is_some() || read(&of_gcloud).is_ok();
    Ok(Options { pairs, advice: Some(ADVICE).filter(|_| !is_found) })
}

/// The advice for a missing account or missing credentials of Azure.
pub(crate) const AZURE_ADVICE: &str =
    "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING";

fn azure(set: &Variables) -> Result<Options, String> {
    let mut pairs = own(set, "AZURE_");
    if let Some((name, endpoint)) = first(set, &["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"]) {
        check_endpoint(set, name, endpoint, "AZURE_ALLOW_HTTP")?;
    }
    // The names of Azure's command line.
    for (name, option) in
        [("AZURE_STORAGE_ACCOUNT", "azure_storage_account_name"), ("AZURE_STORAGE_KEY", "azure_storage_account_key")]
    {
        pairs.extend(set.get(name).map(|value| (option.to_owned(), value.clone())));
    }
    if let Some(text) = set.get("AZURE_STORAGE_CONNECTION_STRING") {
        pairs.extend(connection(text)?);
    }
    let found = [
        "azure_storage_account_key",
        "azure_storage_access_key",
        "azure_storage_master_key",
        "azure_storage_sas_key",
        "azure_storage_sas_token",
        "azure_storage_token",
        "azure_storage_client_secret",
        "azure_client_secret",
        "azure_federated_token_file",
        "azure_use_azure_cli",
        "azure_storage_use_emulator",
        "azure_msi_endpoint",
        "azure_identity_endpoint",
        "azure_skip_signature",
    ];
    let is_found = pairs.iter().any(|(name, _)| found.contains(&name.to_lowercase().as_str()));
    Ok(Options { pairs, advice: Some(AZURE_ADVICE).filter(|_| !is_found) })
}

/// Reads a connection string of Azure. It wins over other variables, as in Azure's own tools.
fn connection(text: &str) -> Result<Vec<(String, String)>, String> {
    let entries: Variables = text
        .split(';')
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
        .collect();
    let entry = |name: &str| entries.get(name).filter(|value| !value.is_empty());
    let option = |name: &str, value: &str| (format!("azure_{name}"), value.to_owned());
    if entry("usedevelopmentstorage").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(vec![option("storage_use_emulator", "true")]);
    }
    let endpoint = entry("blobendpoint").map(|url| url.trim_end_matches('/').to_owned());
    let host = endpoint.as_ref().and_then(|url| url.split("://").nth(1)?.split(['/', ':', '.']).next());
    let account = entry("accountname").map(String::as_str).or(host).ok_or_else(|| {
        "AZURE_STORAGE_CONNECTION_STRING has neither AccountName nor BlobEndpoint: copy it whole".to_owned()
    })?;
    let protocol = entry("defaultendpointsprotocol").map_or("https", String::as_str);
    let suffix = entry("endpointsuffix").map_or("core.windows.net", String::as_str);
    let endpoint = endpoint.clone().unwrap_or_else(|| format!("{protocol}://{account}.blob.{suffix}"));
    let mut pairs = vec![option("storage_account_name", account)];
    pairs.extend(entry("accountkey").map(|key| option("storage_account_key", key)));
    pairs.extend(entry("sharedaccesssignature").map(|key| option("storage_sas_key", key.trim_start_matches('?'))));
    // The string itself says that there is no TLS.
    if endpoint.starts_with("http://") {
        pairs.push(option("allow_http", "true"));
    }
    pairs.push(option("storage_endpoint", &endpoint));
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(scheme: &str, set: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Options, String> {
        let variables = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        options(scheme, &variables, |path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        })
    }

    fn value<'o>(options: &'o Options, name: &str) -> Option<&'o str> {
        // The last one wins in the client.
        let found = options.pairs.iter().rev().find(|(option, _)| option.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    const CREDENTIALS: &str = "# mine\n[default]\naws_access_key_id = D1\naws_secret_access_key=D2\n\n[work]\n\
        aws_access_key_id=W1\nAWS_SECRET_ACCESS_KEY = W2=\naws_session_token = W3\n  nested = no\n[role]\nrole_arn = arn:x\n";
    const CONFIG: &str =
        "[profile work]\nregion = eu-west-1\nendpoint_url = http://127.0.0.1:1\n[default]\nregion=us-west-2\n";

    #[test]
    fn profiles_of_aws_are_read() {
        let files = [("/h/.aws/credentials", CREDENTIALS), ("/h/.aws/config", CONFIG), ("/other", "[work]\n")];
        let default = told("s3", &[("HOME", "/h")], &files).expect("options");
        assert_eq!(
            (value(&default, "aws_access_key_id"), value(&default, "aws_region")),
            (Some("D1"), Some("us-west-2"))
        );
        assert_eq!((value(&default, "aws_session_token"), default.advice), (None, None));
        let work = [("HOME", "/h"), ("AWS_PROFILE", "work")];
        let refused = told("s3", &work, &files).expect_err("no TLS");
        assert!(refused.contains("AWS_ALLOW_HTTP=true") && refused.contains("http://127.0.0.1:1"), "{refused}");
        let work = told("s3", &[&work[..], &[("AWS_ALLOW_HTTP", "TRUE")]].concat(), &files).expect("options");
        for (name, wanted) in [
            ("aws_secret_access_key", "W2="),
            ("aws_session_token", "W3"),
            ("aws_region", "eu-west-1"),
            ("aws_endpoint_url", "http://127.0.0.1:1"),
        ] {
            assert_eq!(value(&work, name), Some(wanted), "{name}");
        }
        let keys =
            [("HOME", "/h"), ("AWS_ACCESS_KEY_ID", "E1"), ("AWS_SECRET_ACCESS_KEY", "E2"), ("AWS_PROFILE", "role")];
        let keys = told("s3", &keys, &files).expect("keys of the environment win");
        assert_eq!((value(&keys, "aws_access_key_id"), keys.advice), (Some("E1"), None));
        for (set, part) in [
            (&[("AWS_PROFILE", "role")][..], "export-credentials --profile role"),
            (&[("AWS_PROFILE", "none")], "there is no profile \"none\" of AWS_PROFILE (/h/.aws/credentials"),
            (&[("AWS_SHARED_CREDENTIALS_FILE", "/gone")], "AWS_SHARED_CREDENTIALS_FILE names /gone"),
            (&[("AWS_SHARED_CREDENTIALS_FILE", "/other"), ("AWS_PROFILE", "work")], "/other"),
        ] {
            let refused = told("s3", &[&[("HOME", "/h")][..], set].concat(), &files).expect_err("refused");
            assert!(refused.contains(part) && !refused.contains("W2"), "{refused}");
        }
    }

    #[test]
    fn missing_credentials_are_told_by_cloud() {
        for (scheme, part) in
            [("s3", "AWS_PROFILE"), ("gs", "GOOGLE_APPLICATION_CREDENTIALS"), ("az", "CONNECTION_STRING")]
        {
            let options = told(scheme, &[("HOME", "/h"), ("AWS_PROFILE", "")], &[]).expect("options");
            assert!(options.advice.is_some_and(|advice| advice.contains(part)), "{scheme}");
        }
        for (scheme, name) in [
            ("s3", "AWS_WEB_IDENTITY_TOKEN_FILE"),
            ("s3a", "AWS_ACCESS_KEY_ID"),
            ("gs", "GOOGLE_SERVICE_ACCOUNT"),
            ("abfss", "AZURE_STORAGE_KEY"),
            ("az", "AZURE_STORAGE_ACCESS_KEY"),
        ] {
            assert_eq!(told(scheme, &[("HOME", "/h"), (name, "x")], &[]).expect("options").advice, None, "{name}");
        }
    }

    #[test]
    fn endpoints_without_tls_need_a_permission() {
        for (scheme, name, allow) in [
            ("s3", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP"),
            ("s3", "AWS_ENDPOINT_URL_S3", "AWS_ALLOW_HTTP"),
            ("gs", "GOOGLE_BASE_URL", "GOOGLE_ALLOW_HTTP"),
            ("az", "AZURE_STORAGE_ENDPOINT", "AZURE_ALLOW_HTTP"),
        ] {
            let endpoint = (name, "http://127.0.0.1:9000");
            let refused = told(scheme, &[endpoint], &[]).expect_err(name);
            assert!(refused.contains(name) && refused.contains(&format!("{allow}=true")), "{refused}");
            assert!(told(scheme, &[endpoint, (allow, "false")], &[]).is_err());
            assert!(told(scheme, &[endpoint, (allow, "1")], &[]).is_ok());
            assert!(told(scheme, &[(name, "https://store.example")], &[]).is_ok());
        }
    }

    #[test]
    fn names_of_other_tools_are_taken() {
        let cli = told("az", &[("AZURE_STORAGE_ACCOUNT", "acme"), ("AZURE_STORAGE_KEY", "k=")], &[]).expect("options");
        assert_eq!(value(&cli, "azure_storage_account_name"), Some("acme"));
        assert_eq!(value(&cli, "azure_storage_account_key"), Some("k="));
        let connected = |text: &str| {
            told("az", &[("AZURE_STORAGE_CONNECTION_STRING", text), ("AZURE_STORAGE_ACCOUNT_NAME", "other")], &[])
        };
        let plain = connected(
            "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=ab==;EndpointSuffix=core.windows.net",
        );
        let plain = plain.expect("options");
        for (name, wanted) in [
            ("azure_storage_account_name", Some("acme")),
            ("azure_storage_account_key", Some("ab==")),
            ("azure_storage_endpoint", Some("https://acme.blob.core.windows.net")),
            ("azure_allow_http", None),
        ] {
            assert_eq!(value(&plain, name), wanted, "{name}");
        }
        let signed =
            connected("BlobEndpoint=http://127.0.0.1:1/dev/;AccountName=dev;SharedAccessSignature=?sv=1&sig=x%3D");
        let signed = signed.expect("options");
        assert_eq!(value(&signed, "azure_storage_sas_key"), Some("sv=1&sig=x%3D"));
        assert_eq!(value(&signed, "azure_storage_endpoint"), Some("http://127.0.0.1:1/dev"));
        assert_eq!(value(&signed, "azure_allow_http"), Some("true"));
        let emulator = connected("UseDevelopmentStorage=true").expect("options");
        assert_eq!(value(&emulator, "azure_storage_use_emulator"), Some("true"));
        let cut = connected("AccountKey=secret").expect_err("cut");
        assert!(cut.contains("AZURE_STORAGE_CONNECTION_STRING") && !cut.contains("secret"), "{cut}");
        let google = told("gs", &[("STORAGE_EMULATOR_HOST", "127.0.0.1:4443")], &[]).expect("options");
        assert_eq!(value(&google, "google_base_url"), Some("http://127.0.0.1:4443"));
        assert_eq!((value(&google, "google_skip_signature"), google.advice), (Some("true"), None));
    }
}
