//! Runs the text cases of `crates/fold/tests/cases`, which reviewers read: a question, a short log,
//! the answers. Knows no rule of the fold.
//!
//! One statement per line. Blank lines and `#` comments are for the reader. The first line is a
//! comment, the question:
//!
//! ```text
//! # Does a late joiner count?
//! limits {"retention_ms":1000,"parked_count":2,"parked_age_ms":500}     optional, before the first record; also
//!                                              parked_bytes, erasures_max, policy_types_max, candidates_max, read_times
//! at 1000 {"type":"members.changed","conversation_id":"g1","joined":["ann","bob"]}
//! pass 1500                                    a record without an event, which only moves the partition's time
//! updates g1 m1 {"bob":2000}                   the last record changed m1 itself, with new readers and their times
//! mark-update g1 bob {"up_to_sent_at_ms":1000}
//! dead-letter 7 no-roster m1                   the last record made the record at offset 7 a dead letter, with these ids
//! receipt g1 m1 -> {"status":"ok","read_count":1}
//! find m1 -> {"conversation_id":"g1"}
//! members g1 m1 unread -> ["bob",{"user_id":"ann","left":true}]
//! members g1 m1 read -> recalled               no list: the status instead
//! mark g1 bob -> {"up_to_message_id":"m1"}
//! mark g1 bob -> none
//! tenant acme                                  the tenant of the questions below
//! ```
//!
//! Offsets count the records (`at` and `pass`) from 0. A receipt, a mark or a member may have more
//! fields than the case names; `null` requires absence. A list is complete, in any order. A case
//! names all dead letters of a record below it. If it names one update, it names all; `updates
//! none` says that there is none.

use std::path::{Path, PathBuf};

use receipts_event::{Event, TENANT_DEFAULT};
use receipts_fold::view::{MemberFilter, Status};
use serde_json::{Map, Value, json};

use crate::oracle::Limits;
use crate::subject::{At, OracleEffect, Subject};

/// One case file.
#[derive(Debug)]
pub struct Case {
    /// The file's name without its extension.
    pub name: String,
    /// The first comment line.
    pub question: String,
    /// The limits of the subject.
    pub limits: Limits,
    steps: Vec<(usize, Step)>,
}

#[derive(Debug)]
enum Step {
    At(u64, Box<Event<'static>>),
    Pass(u64),
    Tenant(String),
    NoUpdates,
    Updates { conversation: String, message: String, newly_read: Value },
    MarkUpdate { conversation: String, reader: String, mark: Value },
    DeadLetter { offset: u64, reason: String, ids: Vec<String> },
    Receipt { conversation: String, message: String, wanted: Value },
    Find { message: String, wanted: Value },
    Members { conversation: String, message: String, filter: MemberFilter, wanted: Result<Vec<Value>, Status> },
    Mark { conversation: String, user: String, wanted: Option<Value> },
}

/// Returns the folder of the case files.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fold/tests/cases")
}

/// Reads every `.txt` file of a folder, by name.
///
/// # Errors
/// A file that cannot be read, or the first bad line of each file.
pub fn load(folder: &Path) -> Result<Vec<Case>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "txt"));
    paths.sort();
    let (mut cases, mut faults) = (vec![], vec![]);
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        match Case::parse(&name, &text) {
            Ok(case) => cases.push(case),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(cases) } else { Err(faults.join("\n")) }
}

impl Case {
    /// Reads a case.
    ///
    /// # Errors
    /// `name:line: why`, for the first bad line.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let question = text.lines().next().and_then(|line| line.strip_prefix("# "));
        let question = question.ok_or_else(|| format!("{name}:1: the first line is the question: `# …`"))?.to_owned();
        let mut case = Self { name: name.into(), question, limits: Limits::default(), steps: vec![] };
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.strip_prefix("limits ") {
                Some(limits) => case.limits = limits_of(limits).map_err(|why| format!("{name}:{}: {why}", i + 1))?,
                None => case.steps.push((i + 1, step(line).map_err(|why| format!("{name}:{}: {why}", i + 1))?)),
            }
        }
        Ok(case)
    }

    /// Folds the log into the subject, which must have the limits of this case, and compares every
    /// answer.
    ///
    /// # Errors
    /// All differences, one per line: `name:line: why`.
    pub fn run(&self, subject: &mut impl Subject) -> Result<(), String> {
        let mut run = Run { subject, tenant: TENANT_DEFAULT.into(), offset: 0, pending: None };
        let mut faults = vec![];
        for (line, step) in &self.steps {
            let found = run.step(*line, step);
            faults.extend(found.into_iter().map(|(line, why)| format!("{}:{line}: {why}", self.name)));
        }
        faults.extend(run.finish_record().into_iter().map(|(line, why)| format!("{}:{line}: {why}", self.name)));
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
    }
}

struct Run<'a, S> {
    subject: &'a mut S,
    tenant: String,
    offset: u64,
    /// The effects of the last record that no line has named yet.
    pending: Option<Pending>,
}

struct Pending {
    line: usize,
    effects: Vec<OracleEffect>,
    updates_named: bool,
}

type Fault = (usize, String);

impl<S: Subject> Run<'_, S> {
    fn step(&mut self, line: usize, step: &Step) -> Vec<Fault> {
        let fault = match step {
            Step::At(timestamp_ms, event) => {
                return self.record(line, *timestamp_ms, |subject, at| subject.apply(at, event));
            }
            Step::Pass(timestamp_ms) => return self.record(line, *timestamp_ms, S::pass),
            Step::Tenant(tenant) => {
                self.tenant.clone_from(tenant);
                None
            }
            Step::NoUpdates => {
                self.pending.iter_mut().for_each(|pending| pending.updates_named = true);
                None
            }
            Step::Updates { conversation, message, newly_read } => self.take_update(conversation, message, newly_read),
            Step::MarkUpdate { conversation, reader, mark } => self.take_mark(conversation, reader, mark),
            Step::DeadLetter { offset, reason, ids } => {
                let wanted = ids;
                let is = |effect: &OracleEffect| {
                    matches!(effect, OracleEffect::DeadLetter { offset: of, reason: why, ids }
                    if of == offset && why == reason && ids == wanted)
                };
                self.name(false, is).err().map(|others| format!("no such dead letter; the record caused {others}"))
            }
            Step::Receipt { conversation, message, wanted } => {
                let receipt = self.subject.receipt(&self.tenant, conversation, message);
                differs(wanted, &json!(receipt))
            }
            Step::Find { message, wanted } => differs(wanted, &json!(self.subject.find(&self.tenant, message))),
            Step::Members { conversation, message, filter, wanted } => {
                self.list_differs(conversation, message, *filter, wanted)
            }
            Step::Mark { conversation, user, wanted } => {
                let mark = self.subject.read_mark(&self.tenant, conversation, user);
                match (wanted, mark) {
                    (None, None) => None,
                    (Some(wanted), Some(mark)) => differs(wanted, &json!(mark)),
                    (_, mark) => Some(format!("the mark is {}", json!(mark))),
                }
            }
        };
        fault.map(|why| (line, why)).into_iter().collect()
    }

    fn record(
        &mut self,
        line: usize,
        timestamp_ms: u64,
        fold: impl FnOnce(&mut S, At) -> Vec<OracleEffect>,
    ) -> Vec<Fault> {
        let faults = self.finish_record();
        let at = At { partition: 0, offset: self.offset, timestamp_ms };
        self.offset += 1;
        self.pending = Some(Pending { line, effects: fold(self.subject, at), updates_named: false });
        faults
    }

    /// Returns faults for effects of the last record that the case should have named.
    fn finish_record(&mut self) -> Vec<Fault> {
        let Some(pending) = self.pending.take() else { return vec![] };
        let due = |effect: &&OracleEffect| matches!(effect, OracleEffect::DeadLetter { .. }) || pending.updates_named;
        pending.effects.iter().filter(due).map(|effect| (pending.line, format!("not named: {effect:?}"))).collect()
    }

    /// Takes one effect of the last record; the error shows the others.
    fn name(&mut self, update: bool, is: impl Fn(&OracleEffect) -> bool) -> Result<OracleEffect, String> {
        let pending = self.pending.as_mut().ok_or("no record")?;
        pending.updates_named |= update;
        let found = pending.effects.iter().position(is).ok_or_else(|| format!("{:?}", pending.effects))?;
        Ok(pending.effects.remove(found))
    }

    fn take_update(&mut self, conversation: &str, message: &str, wanted: &Value) -> Option<String> {
        let tenant = self.tenant.clone();
        let taken = self.name(true, |effect| {
            matches!(effect, OracleEffect::Changed { tenant: t, conversation_id, message_id, .. }
            if *t == tenant && conversation_id == conversation && message_id == message)
        });
        match taken {
            Ok(OracleEffect::Changed { newly_read, .. }) => {
                let newly_read: Map<String, Value> =
                    newly_read.into_iter().map(|(user, at)| (user, json!(at))).collect();
                (Value::Object(newly_read.clone()) != *wanted).then(|| format!("newly read is {}", json!(newly_read)))
            }
            Ok(other) => Some(format!("{other:?}")),
            Err(others) => Some(format!("no such update; the record caused {others}")),
        }
    }

    fn take_mark(&mut self, conversation: &str, reader: &str, wanted: &Value) -> Option<String> {
        let tenant = self.tenant.clone();
        let taken = self.name(true, |effect| {
            matches!(effect, OracleEffect::MarkMoved { tenant: t, conversation_id, mark }
            if *t == tenant && conversation_id == conversation && mark.reader_id == reader)
        });
        match taken {
            Ok(OracleEffect::MarkMoved { mark, .. }) => differs(wanted, &json!(mark)),
            Ok(other) => Some(format!("{other:?}")),
            Err(others) => Some(format!("no such mark moved; the record caused {others}")),
        }
    }

    fn list_differs(
        &self,
        c: &str,
        m: &str,
        filter: MemberFilter,
        wanted: &Result<Vec<Value>, Status>,
    ) -> Option<String> {
        let found = self.subject.members(&self.tenant, c, m, filter);
        match (wanted, found) {
            (Err(wanted), Err(found)) if *wanted == found => None,
            (Ok(wanted), Ok(found)) => {
                let mut rest: Vec<Value> = found.iter().map(|member| json!(member)).collect();
                for member in wanted {
                    match rest.iter().position(|found| differs(member, found).is_none()) {
                        Some(i) => _ = rest.remove(i),
                        None => return Some(format!("{member} is not in the list {}", json!(found))),
                    }
                }
                (!rest.is_empty()).then(|| format!("the list has also {}", json!(rest)))
            }
            (_, found) => Some(format!("the list is {found:?}")),
        }
    }
}

/// Returns why `found` does not have all `wanted` fields; `null` requires absence.
fn differs(wanted: &Value, found: &Value) -> Option<String> {
    let wanted = wanted.as_object()?;
    let wrong = wanted.iter().find(|(key, value)| found.get(key.as_str()).unwrap_or(&Value::Null) != *value)?;
    Some(format!("wanted {}: {}, found {found}", wrong.0, wrong.1))
}

fn limits_of(text: &str) -> Result<Limits, String> {
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let mut limits = Limits::default();
    for (key, value) in &object {
        match (key.as_str(), value.as_u64(), value.as_bool()) {
            ("retention_ms", Some(n), _) => limits.retention_ms = n,
            ("parked_count", Some(n), _) => limits.parked_count = n as usize,
            ("parked_bytes", Some(n), _) => limits.parked_bytes = n,
            ("parked_age_ms", Some(n), _) => limits.parked_age_ms = n,
            ("erasures_max", Some(n), _) => limits.erasures_max = n,
            ("policy_types_max", Some(n), _) => limits.policy_types_max = n,
            ("candidates_max", Some(n), _) => limits.candidates_max = n as usize,
            ("read_times", _, Some(on)) => limits.read_times = on,
            _ => return Err(format!("no such limit: {key}: {value}")),
        }
    }
    Ok(limits)
}

fn step(line: &str) -> Result<Step, String> {
    let (head, answer) = match line.split_once(" -> ") {
        Some((head, answer)) => (head, Some(answer.trim())),
        None => (line, None),
    };
    let value = |text: &str| serde_json::from_str::<Value>(text).map_err(|e| format!("{text}: {e}"));
    let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
    let (verb, rest) = head.split_once(' ').unwrap_or((head, ""));
    if verb == "at" {
        let (timestamp_ms, event) = rest.split_once(' ').ok_or("at TIMESTAMP EVENT")?;
        let event = receipts_event::decode(event.as_bytes()).map_err(|e| e.to_string())?;
        return Ok(Step::At(number(timestamp_ms)?, Box::new(event.into_owned())));
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    match (verb, words.as_slice(), answer) {
        ("pass", [timestamp_ms], None) => Ok(Step::Pass(number(timestamp_ms)?)),
        ("tenant", [tenant], None) => Ok(Step::Tenant((*tenant).into())),
        ("updates", ["none"], None) => Ok(Step::NoUpdates),
        ("updates", [c, m, newly], None) => {
            Ok(Step::Updates { conversation: (*c).into(), message: (*m).into(), newly_read: value(newly)? })
        }
        ("mark-update", [c, reader, mark], None) => {
            Ok(Step::MarkUpdate { conversation: (*c).into(), reader: (*reader).into(), mark: object(value(mark)?)? })
        }
        ("dead-letter", [offset, reason, ids @ ..], None) => {
            let ids = ids.iter().map(|id| (*id).to_owned()).collect();
            Ok(Step::DeadLetter { offset: number(offset)?, reason: (*reason).into(), ids })
        }
        ("receipt", [c, m], Some(wanted)) => {
            Ok(Step::Receipt { conversation: (*c).into(), message: (*m).into(), wanted: object(value(wanted)?)? })
        }
        ("find", [m], Some(wanted)) => Ok(Step::Find { message: (*m).into(), wanted: object(value(wanted)?)? }),
        ("members", [c, m, filter], Some(wanted)) => {
            let filter = serde_json::from_value(json!(filter)).map_err(|e| e.to_string())?;
            let wanted = match value(wanted) {
                Ok(Value::Array(list)) => {
                    let named = |member| if Value::is_string(&member) { json!({ "user_id": member }) } else { member };
                    Ok(list.into_iter().map(|member| object(named(member))).collect::<Result<_, _>>()?)
                }
                _ => Err(serde_json::from_value(json!(wanted)).map_err(|e| e.to_string())?),
            };
            Ok(Step::Members { conversation: (*c).into(), message: (*m).into(), filter, wanted })
        }
        ("mark", [c, user], Some(wanted)) => {
            let wanted = if wanted == "none" { None } else { Some(object(value(wanted)?)?) };
            Ok(Step::Mark { conversation: (*c).into(), user: (*user).into(), wanted })
        }
        _ => Err(format!("unknown statement: {line}")),
    }
}

fn object(value: Value) -> Result<Value, String> {
    if value.is_object() { Ok(value) } else { Err(format!("{value} is not an object")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Oracle;

    const LOG: &str = r#"# Is this so?
at 1000 {"type":"members.changed","conversation_id":"g1","joined":["ann","bob"]}
at 2000 {"type":"message.sent","conversation_id":"g1","message_id":"m1","sender_id":"ann","sent_at_ms":2000,"need_read_receipt":true}
"#;

    /// Returns the faults of the log with these lines at its end.
    fn faults(lines: &str) -> String {
        let case = Case::parse("case", &format!("{LOG}{lines}")).expect("the case makes sense");
        case.run(&mut Oracle::new(case.limits.clone())).err().unwrap_or_default()
    }

    #[test]
    fn every_kind_of_answer_can_be_wrong() {
        for wrong in [
            r#"receipt g1 m1 -> {"unread_count":2}"#,
            r#"receipt g1 m1 -> {"version":null}"#,
            r#"find m1 -> {"conversation_id":"g2"}"#,
            r#"members g1 m1 unread -> []"#,
            r#"members g1 m1 unread -> ["ann"]"#,
            r#"members g1 m1 unread -> ["bob","bob"]"#,
            r#"members g1 m1 unread -> [{"user_id":"bob","left":true}]"#,
            r#"members g1 m1 unread -> recalled"#,
            r#"mark g1 bob -> {}"#,
            r#"updates none"#,
            r#"updates g1 m1 {"bob":1}"#,
            r#"updates g1 m2 {}"#,
            r#"mark-update g1 bob {}"#,
            r#"dead-letter 1 no-roster m1"#,
        ] {
            assert!(faults(wrong).starts_with("case:"), "{wrong}");
        }
        assert_eq!(faults("updates g1 m1 {}"), "");
    }

    #[test]
    fn unexpected_dead_letter_is_a_fault() {
        let send = r#"at 3000 {"type":"message.sent","conversation_id":"g9","message_id":"m1","sender_id":"a","sent_at_ms":1}"#;
        assert!(faults(send).contains("not named: DeadLetter"));
        assert_eq!(faults(&format!("{send}\ndead-letter 2 no-roster m1")), "");
    }

    #[test]
    fn nonsense_line_is_reported_by_number() {
        for (line, at) in [("receipts g1 m1 -> {}", 4), ("at 1 {}", 4), ("members g1 m1 unread -> [7]", 4)] {
            let fault = Case::parse("case", &format!("{LOG}{line}")).expect_err(line);
            assert!(fault.starts_with(&format!("case:{at}: ")), "{fault}");
        }
        assert!(Case::parse("case", "at 1 {}").is_err());
    }
}
