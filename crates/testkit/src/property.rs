//! A property put to one seed after the other: where it does not hold, or panics, the history is made small and printed as
//! lines for a case file, with the command that runs the seed again. Knows no property itself.

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use receipts_event::Event;

use crate::compare::{as_case_lines, shrink};
use crate::history::{History, Shape};
use crate::subject::At;

/// Chooses the seeds in place of a test's own.
const SEEDS: &str = "RECEIPTS_TEST_SEEDS";

/// Where set, a failing history is not made small: for who runs many that are to fail, as `tests/tools/mutants/run` does.
const AS_IT_IS: &str = "RECEIPTS_TEST_UNSHRUNK";

/// Some prefix of a log.
pub type Log = [(At, Event<'static>)];

/// The seeds of a test: those of `RECEIPTS_TEST_SEEDS=FROM..TO`, or else its own.
///
/// # Panics
/// Where the variable holds no such range.
pub fn seeds(own: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var(SEEDS) else { return own };
    let range = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or_else(|| panic!("{SEEDS}={text}: FROM..TO is wanted, as in 0..100"))
}

/// How many of something a test takes: what a variable of the environment says, or else its own.
///
/// # Panics
/// Where the variable holds no number.
pub fn number(variable: &str, own: u64) -> u64 {
    let Ok(text) = std::env::var(variable) else { return own };
    text.parse().unwrap_or_else(|_| panic!("{variable}={text}: a number is wanted"))
}

/// Holds the histories of a shape to a property, which gets the seed too, for choices of its own.
///
/// # Panics
/// At the first seed for which it does not hold.
pub fn holds(own: Range<u64>, shape: &Shape, property: impl Fn(u64, &Log) -> Result<(), String>) {
    let seeds = seeds(own);
    let (count, mut events) = (seeds.end.saturating_sub(seeds.start), 0);
    for seed in seeds {
        let history = History::generate(seed, shape);
        events += history.len();
        if let Err(first) = without_panic(|| property(seed, &history)) {
            let fails = |history: &Log| without_panic(|| property(seed, history)).is_err();
            let small = if std::env::var_os(AS_IT_IS).is_some() { history } else { shrink(history, fails) };
            let why = without_panic(|| property(seed, &small)).err().unwrap_or(first);
            panic!(
                "seed {seed}: {why}\n\nThe history made small, as lines for a case file:\n{}\nAgain with:\n  {}\n",
                as_case_lines(&small),
                replay(seed)
            );
        }
    }
    eprintln!("{count} seeds, {events} events");
}

/// What a property says, or the message of its panic, which is not printed: making a history small tries many.
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

/// The command that runs the test of this thread again with one seed, as cargo and the test harness name it.
fn replay(seed: u64) -> String {
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
    let binary = std::env::current_exe().ok().and_then(|path| Some(path.file_stem()?.to_string_lossy().into_owned()));
    let binary = binary.as_deref().and_then(|name| name.rsplit_once('-')).map(|(name, _)| name.to_owned());
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or_default();
    let target = target(&package, &binary.unwrap_or_default());
    format!("{SEEDS}={seed}..{} cargo test -p {package} {target} {test}", seed + 1)
}

/// How cargo is told of a test binary: that of a crate's own unit tests is named as the crate, any other one as its test.
fn target(package: &str, binary: &str) -> String {
    if binary == package.replace('-', "_") { "--lib".into() } else { format!("--test {binary}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_event::Body;

    /// The message of the panic with which a property that never holds ends.
    fn said(property: impl Fn(u64, &Log) -> Result<(), String>) -> String {
        let shape = Shape { events: 40, ..Shape::wild() };
        let panic = catch_unwind(AssertUnwindSafe(|| holds(3..9, &shape, property))).expect_err("it does not hold");
        panic.downcast_ref::<String>().expect("a text").clone()
    }

    fn has_send(log: &Log) -> bool {
        log.iter().any(|(_, event)| matches!(event.body, Body::MessageSent(_)))
    }

    #[test]
    fn a_failing_seed_is_made_small_and_says_how_to_run_it_again() {
        for text in [
            said(|_, log| if has_send(log) { Err("no".into()) } else { Ok(()) }),
            said(|_, log| if has_send(log) { panic!("no") } else { Ok(()) }),
        ] {
            assert!(text.starts_with("seed 3: no\n"), "{text}");
            assert_eq!(text.lines().filter(|line| line.starts_with("at ")).count(), 1, "one send is enough: {text}");
            // These are unit tests of a crate.
            let again = "RECEIPTS_TEST_SEEDS=3..4 cargo test -p receipts-testkit --lib \
                         property::tests::a_failing_seed_is_made_small_and_says_how_to_run_it_again\n";
            assert!(text.contains(again), "{text}");
        }
    }

    #[test]
    fn a_test_of_a_file_of_its_own_is_run_again_by_the_name_of_that_file() {
        assert_eq!(target("receipts-store", "rules"), "--test rules");
        assert_eq!(target("receipts-store", "receipts_store"), "--lib");
    }
}
