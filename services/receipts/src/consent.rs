//! Asks the operator for consent before a command changes the log. Decides nothing else.

use std::io::{self, BufRead, IsTerminal as _, Write};

/// Returns whether a person can see a question and answer it. A script can do neither.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a question on the terminal; returns true only for the answer yes.
///
/// # Errors
/// If the terminal fails.
pub(crate) fn consents(question: &str) -> io::Result<bool> {
    ask(question, &mut io::stdin().lock(), &mut io::stderr().lock())
}

fn ask(question: &str, input: &mut dyn BufRead, to: &mut dyn Write) -> io::Result<bool> {
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
            let consented = ask("Erase?", &mut answer.as_bytes(), &mut shown).expect("asked");
            assert_eq!((consented, shown.starts_with(b"Erase? ")), (wanted, true), "{answer:?}");
        }
    }
}
