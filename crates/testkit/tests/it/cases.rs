//! Runs every text case of `tests/cases` against the oracle.

use receipts_testkit::{Limits, Oracle, cases, reason};

#[test]
fn the_oracle_answers_every_case_as_reviewed() {
    let cases = cases::load(&cases::folder()).unwrap();
    assert!(cases.len() >= 25, "only {} cases", cases.len());
    let faults: Vec<String> =
        cases.iter().filter_map(|case| case.run(&mut Oracle::new(case.limits.clone())).err()).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_case_asks_a_question_of_its_own() {
    let cases = cases::load(&cases::folder()).unwrap();
    let mut questions: Vec<&str> = cases.iter().map(|case| case.question.as_str()).collect();
    assert!(questions.iter().all(|question| question.ends_with('?')), "{questions:?}");
    questions.sort_unstable();
    questions.dedup();
    assert_eq!(questions.len(), cases.len());
}

#[test]
fn cases_hold_without_memory_of_expired_ids() {
    for case in cases::load(&cases::folder()).unwrap() {
        let limits = Limits { expired_ids_remembered: false, ..case.limits.clone() };
        assert_eq!(case.run(&mut Oracle::new(limits)), Ok(()));
    }
}

#[test]
fn dead_letters_bear_the_codes_of_the_event_format() {
    for code in [reason::NO_ROSTER, reason::PARKED_EXPIRED, reason::PARKED_OVERFLOW, reason::OVER_BUDGET] {
        assert!(receipts_event::Reason::from_code(code).is_some(), "{code}");
    }
}
