//! Checks a property over many seeds. For a seed that fails it prints the smallest failing history,
//! as lines for a case file, and the command that replays the seed. Knows no property itself.

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use receipts_event::Event;

use crate::compare::{as_case_lines, shrink};
use crate::history::{History, Shape};
use crate::subject::At;

/// The environment variable that replaces the seeds of a test: `FROM..TO`.
const SEEDS: &str = "RECEIPTS_TEST_SEEDS";

/// Says how often tests repeat themselves: `short`, or `long` as `tests/run --long` sets it.
const SCALE: &str = "RECEIPTS_TEST_SCALE";
/// Under the long scale, [`holds`] takes this many times a test's own seeds.
const LONG_FACTOR: u64 = 10;

/// The environment variable that keeps failing histories unshrunk, for many failures as in
/// `tests/tools/mutants/run`.
const UNSHRUNK: &str = "RECEIPTS_TEST_UNSHRUNK";

/// A prefix of a log.
pub type Log = [(At, Event<'static>)];

/// Returns the seeds of a test: those of `RECEIPTS_TEST_SEEDS=FROM..TO`, or its own.
///
/// # Panics
/// If the variable is not a range.
pub fn seeds(own: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var(SEEDS) else { return own };
    let range = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or_else(|| panic!("{SEEDS}={text} is not a range FROM..TO, such as 0..100"))
}

/// Returns a number of a test: that of an environment variable, or its own.
///
/// # Panics
/// If the variable is not a number.
pub fn number(variable: &str, own: u64) -> u64 {
    let Ok(text) = std::env::var(variable) else { return own };
    text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number"))
}

/// Returns the repetitions of a test: `short` in every run, `long` where
/// `RECEIPTS_TEST_SCALE=long`.
///
/// # Panics
/// If the variable holds another word.
pub fn scaled(short: u64, long: u64) -> u64 {
    match std::env::var(SCALE).as_deref() {
        Err(_) | Ok("short") => short,
        Ok("long") => long,
        Ok(text) => panic!("{SCALE}={text}: set it to short or long"),
    }
}

/// Prints the command that runs this test again, if the test panics while the value lives.
#[derive(Debug)]
pub struct Replay(String);

impl Replay {
    /// The command sets these variables, as in `RECEIPTS_TEST_KILLS=3`.
    pub fn with(variables: &str) -> Self {
        Self(command(variables))
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Replay with:\n  {}", self.0);
        }
    }
}

/// Checks a property on the histories of a shape, one per seed. The property gets the seed too, for
/// choices of its own.
///
/// # Panics
/// At the first seed that fails.
pub fn holds(own: Range<u64>, shape: &Shape, property: impl Fn(u64, &Log) -> Result<(), String>) {
    let own_count = own.end.saturating_sub(own.start);
    let seeds = seeds(own.start..own.start + scaled(own_count, LONG_FACTOR * own_count));
    let (count, mut events) = (seeds.end.saturating_sub(seeds.start), 0);
    for seed in seeds {
        let history = History::generate(seed, shape);
        events += history.len();
        if let Err(first) = without_panic(|| property(seed, &history)) {
            let fails = |history: &Log| without_panic(|| property(seed, history)).is_err();
            let small = if std::env::var_os(UNSHRUNK).is_some() { history } else { shrink(history, fails) };
            let why = without_panic(|| property(seed, &small)).err().unwrap_or(first);
            panic!(
                "seed {seed}: {why}\n\nThe shrunk history, as lines for a case file:\n{}\nReplay with:\n  {}\n",
                as_case_lines(&small),
                command(&replay_seed(seed))
            );
        }
    }
    eprintln!("{count} seeds, {events} events");
}

/// Runs a test for each of its seeds. Prints the command that replays a failing seed.
///
/// # Panics
/// With the panic of the first seed that fails.
pub fn each_seed(own: Range<u64>, mut test: impl FnMut(u64)) {
    for seed in seeds(own) {
        let _replay = Replay::with(&replay_seed(seed));
        test(seed);
    }
}

/// Returns the variable that chooses one seed.
fn replay_seed(seed: u64) -> String {
    format!("{SEEDS}={seed}..{}", seed + 1)
}

/// Returns the result of a property, or the message of its panic. Prints no panic, because
/// shrinking causes many.
fn without_panic(property: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    thread_local!(static SILENT: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !SILENT.get() {
                before(info);
            }
        }));
    });
    SILENT.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(property));
    SILENT.set(false);
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or("a panic".into()))
    })
}

/// Returns the whole command that replays the test of this thread. The cross-crate tests run
/// binaries, which the command builds first.
fn command(variables: &str) -> String {
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
    let binary = std::env::current_exe().ok().and_then(|path| Some(path.file_stem()?.to_string_lossy().into_owned()));
    let binary = binary.as_deref().and_then(|name| name.rsplit_once('-')).map(|(name, _)| name.to_owned());
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or_default();
    let target = target(&package, &binary.unwrap_or_default());
    let build = if package == "receipts-tests" { "cargo build --workspace --bins && " } else { "" };
    format!("{build}{variables} cargo test -p {package} {target} {test}")
}

/// Returns the option that selects a test program. The program of the unit tests has the name of
/// its crate.
fn target(package: &str, binary: &str) -> String {
    if binary == package.replace('-', "_") { "--lib".into() } else { format!("--test {binary}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_event::Body;

    /// Returns the panic message of a failing property.
    fn failure_of(property: impl Fn(u64, &Log) -> Result<(), String>) -> String {
        let shape = Shape { events: 40, ..Shape::wild() };
        let panic = catch_unwind(AssertUnwindSafe(|| holds(3..9, &shape, property))).expect_err("the property fails");
        panic.downcast_ref::<String>().expect("a text").clone()
    }

    fn has_send(log: &Log) -> bool {
        log.iter().any(|(_, event)| matches!(event.body, Body::MessageSent(_)))
    }

    #[test]
    fn failing_seed_shrinks_and_prints_its_command() {
        for text in [
            failure_of(|_, log| if has_send(log) { Err("no".into()) } else { Ok(()) }),
            failure_of(|_, log| if has_send(log) { panic!("no") } else { Ok(()) }),
        ] {
            assert!(text.starts_with("seed 3: no\n"), "{text}");
            assert_eq!(text.lines().filter(|line| line.starts_with("at ")).count(), 1, "one send suffices: {text}");
            let command = "RECEIPTS_TEST_SEEDS=3..4 cargo test -p receipts-testkit --lib \
                         property::tests::failing_seed_shrinks_and_prints_its_command\n";
            assert!(text.contains(command), "{text}");
        }
    }

    #[test]
    fn replay_command_names_the_test_program() {
        assert_eq!(target("receipts-fold", "rules"), "--test rules");
        assert_eq!(target("receipts-store", "receipts_store"), "--lib");
    }
}
