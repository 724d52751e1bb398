//! What the cross-crate tests share: where the project lies and its binaries. Says nothing of what
//! the product does, and no crate of the product depends on it. A real Kafka comes from
//! `receipts_log::testing`.

pub mod collector;
pub mod kafka;
pub mod process;
pub mod tables;
pub mod tokens;
pub mod witness;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use receipts_event::token::{Content, shortened};
use receipts_log::testing::left_out;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a test waits for anything before it fails.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The folder of the workspace.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies within the workspace")
}

/// A built binary of the project: from the folder that `RECEIPTS_TEST_BIN_DIR` names, or else from
/// the profile that this test was built with.
///
/// # Panics
/// If it is not built: a test never passes because what it tests is absent.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let built_with_the_test = || {
        let test = std::env::current_exe().expect("a running test has a path");
        test.ancestors().nth(2).expect("tests lie in PROFILE/deps").to_owned()
    };
    let folder = std::env::var_os("RECEIPTS_TEST_BIN_DIR").map_or_else(built_with_the_test, PathBuf::from);
    let path = folder.join(name);
    assert!(path.is_file(), "{} is not built: run tests/run, or first cargo build --workspace --bins", path.display());
    path
}

/// Returns true if this process is root, which may mount disks and cut networks. Otherwise prints a
/// line that `tests/run` counts, and the caller leaves its test out.
///
/// # Panics
/// If this process is not root where `CI=true`, which leaves out no test.
#[must_use]
pub fn may_use_root(what: &str) -> bool {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !is_root {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{what} need root, and CI=true leaves nothing out");
        left_out(&format!("{what} need root"));
    }
    is_root
}

/// Asks again until `is` holds for the answer, and returns that answer.
///
/// # Panics
/// If no answer is right within [`TIMEOUT`].
pub fn eventually<T: std::fmt::Debug>(what: &str, mut ask: impl FnMut() -> T, is: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let answer = ask();
        if is(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}, but still {answer:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The path of the receipt of a message.
#[must_use]
pub fn receipt_path(conversation: &str, message: &str) -> String {
    format!("/v1/conversations/{conversation}/messages/{message}/receipt")
}

/// Returns a token of all partitions without the last bits of its offsets, as of a log with large
/// offsets. Those that the token does not name are at 0.
///
/// # Panics
/// If it is no exact token.
#[must_use]
pub fn rounded(token: &str, partition_count: u32, shift: u32) -> String {
    let exact = Content::read(&URL_SAFE_NO_PAD.decode(token).expect("base64")).expect("a token");
    let mut offsets: Vec<(u32, u64)> = (0..partition_count).map(|partition| (partition, 0)).collect();
    exact.offsets.iter().for_each(|(partition, next)| offsets[*partition as usize].1 = shortened(*next, shift));
    URL_SAFE_NO_PAD.encode(Content { shift, offsets, ..exact }.bytes())
}
