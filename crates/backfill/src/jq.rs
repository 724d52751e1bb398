//! jq expressions of a mapping file, through `jaq`. An expression sees one row and nothing else: no
//! file, no environment, no other row.

use jaq_core::load::{Arena, File, Loader, lex, parse};
use jaq_core::{Compiler, Ctx, Vars, compile, data, load};
use jaq_json::Val;
use serde_json::Value;

/// A compiled expression.
pub(crate) struct Jq(jaq_core::Filter<data::JustLut<Val>>);

impl Jq {
    /// Compiles an expression.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it, and where.
    pub(crate) fn compile(code: &str) -> Result<Self, String> {
        let is_allowed = |name: &str| !matches!(name, "env" | "now");
        let definitions = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        let functions = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
        let arena = Arena::default();
        let modules = Loader::new(definitions)
            .load(&arena, File { code, path: () })
            .map_err(|errors| errors.into_iter().map(|(file, error)| of_loading(file.code, error)).collect::<Vec<_>>())
            .map_err(|all| all.join("; "))?;
        let compiled = Compiler::default().with_funs(functions.filter(|(name, ..)| is_allowed(name))).compile(modules);
        compiled.map(Self).map_err(|errors| {
            let all = errors.into_iter().flat_map(|(_, errors)| errors).map(|(name, what)| of_compiling(name, &what));
            all.collect::<Vec<_>>().join("; ")
        })
    }

    /// Returns all values that the expression yields for a row.
    ///
    /// # Errors
    /// jq's own sentence, if the expression fails on this row.
    pub(crate) fn run(&self, row: &Val) -> Result<Vec<Val>, String> {
        let context = Ctx::<data::JustLut<Val>>::new(&self.0.lut, Vars::new([]));
        let sentence = |exception: jaq_core::Exn<Val>| match exception.get_err() {
            Ok(error) => error.to_string(),
            Err(_) => "stops jq instead of giving a value".to_owned(),
        };
        self.0.id.run((context, row.clone())).map(|value| value.map_err(sentence)).collect()
    }
}

/// Returns a JSON value as jq's.
pub(crate) fn val(value: &Value) -> Result<Val, String> {
    serde_json::from_value(value.clone()).map_err(|error| error.to_string())
}

/// Returns a value of jq as JSON.
///
/// # Errors
/// If it has no JSON form: a number beyond JSON's, or an object whose keys are no text.
pub(crate) fn json(value: &Val) -> Result<Value, String> {
    serde_json::from_str(&value.to_string()).map_err(|_| format!("gives {value}, which is not JSON"))
}

fn of_loading(code: &str, error: load::Error<&str>) -> String {
    let at = |found: &str| match found {
        "" => "at its end".to_owned(),
        found => {
            format!("at {:?} (byte {})", found.chars().take(20).collect::<String>(), load::span(code, found).start + 1)
        }
    };
    let lexical = |(expected, found): lex::Error<&str>| format!("expected {} {}", expected.as_str(), at(found));
    let grammatical = |(expected, found): parse::Error<&str>| format!("expected {} {}", expected.as_str(), at(found));
    let all: Vec<String> = match error {
        load::Error::Io(errors) => {
            errors.into_iter().map(|(path, _)| format!("{path}: modules are not read")).collect()
        }
        load::Error::Lex(errors) => errors.into_iter().map(lexical).collect(),
        load::Error::Parse(errors) => errors.into_iter().map(grammatical).collect(),
    };
    all.join("; ")
}

fn of_compiling(name: &str, what: &compile::Undefined) -> String {
    match what {
        compile::Undefined::Filter(arity) => format!("there is no function {name}/{arity}"),
        what => format!("there is no {} {name}", what.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_expression_sees_its_row() {
        let row =
            val(&json!({"u": {"_id": "u1"}, "n": 9_007_199_254_740_993_u64, "t": "d", "ids": ["a", "b"]})).unwrap();
        for (code, wanted) in [
            (".u._id", json!(["u1"])),
            (".n", json!([9_007_199_254_740_993_u64])),
            (".nothing.at.all", json!([null])),
            (".ids[]", json!(["a", "b"])),
            (".ids[] | select(. == \"c\")", json!([])),
            ("if .t == \"d\" then \"direct\" else \"group\" end", json!(["direct"])),
            ("(.t | test(\"^[dD]$\"))", json!([true])),
        ] {
            let values = Jq::compile(code).unwrap().run(&row).unwrap();
            assert_eq!(values.iter().map(|value| json(value).unwrap()).collect::<Value>(), wanted, "{code}");
        }
        for code in [".t[0].x | error", "halt", ".t.x"] {
            assert!(Jq::compile(code).unwrap().run(&row).is_err(), "{code}");
        }
    }

    #[test]
    fn a_mistake_in_an_expression_names_its_place() {
        for (code, part) in [
            (".u._id |", "expected"),
            ("(.u", "expected"),
            (".a | lenght", "there is no function lenght/0"),
            ("$x", "$x"),
            ("env", "there is no function env/0"),
            ("input", "there is no function input/0"),
        ] {
            let sentence = Jq::compile(code).err().unwrap();
            assert!(sentence.contains(part), "{code}: {sentence}");
        }
    }
}
