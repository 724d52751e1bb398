#!/usr/bin/env bash
# Distinct readers, counted by HyperLogLog sketches that two languages made and one of them merges.
#
# One would guess: Apache DataSketches promises one binary format for all languages, so a sketch of
# 1,000 user ids made in Rust and one of the same 1,000 ids made in Python merge to about 1,000.
# What happens: the Rust crate hashes a string through Rust's `Hash` trait, which adds a byte 0xFF
# behind the text; Python's binding of the C++ library hashes the text alone. The bytes are read without an error,
# each sketch alone says 1,000, and the union says about 1,994: every reader counts twice.
# Whom it hurts: analysts who sketch readers in a Rust service and merge the sketches in Python.
# Feeding Rust the text through a wrapper whose `Hash` writes its bytes alone gives about
# 1,000 again; this script shows that too.
#
# Seen with: datasketches 0.6.0 (crates.io), datasketches 5.2.0 (PyPI), Rust 1.95, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv venv
venv/bin/pip --quiet install datasketches==5.2.0

mkdir -p sketch/src
cat > sketch/Cargo.toml <<'TOML'
[package]
name = "sketch"
version = "0.1.0"
edition = "2024"

[dependencies]
datasketches = { version = "=0.6.0", features = ["hll"] }

[workspace]
TOML
cat > sketch/src/main.rs <<'RUST'
use datasketches::hll::{HllSketch, HllType};
use std::hash::{Hash, Hasher};

/// Hashes as other languages do: the bytes of the text, and nothing behind them.
struct Text(String);

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.as_bytes());
    }
}

fn main() {
    let mut plain = HllSketch::new(12, HllType::Hll8).unwrap();
    let mut wrapped = HllSketch::new(12, HllType::Hll8).unwrap();
    for i in 0..1000 {
        plain.update(format!("user-{i}"));
        wrapped.update(Text(format!("user-{i}")));
    }
    std::fs::write("plain.hll", plain.serialize()).unwrap();
    std::fs::write("wrapped.hll", wrapped.serialize()).unwrap();
}
RUST
(cd sketch && cargo run --quiet)

venv/bin/python - <<'PY'
from datasketches import hll_sketch, hll_union, tgt_hll_type

own = hll_sketch(12, tgt_hll_type.HLL_8)
for i in range(1000):
    own.update(f"user-{i}")

def merged(path):
    theirs = hll_sketch.deserialize(open(path, "rb").read())
    union = hll_union(12)
    union.update(own)
    union.update(theirs)
    return round(theirs.get_estimate()), round(union.get_estimate())

plain, wrapped = merged("sketch/plain.hll"), merged("sketch/wrapped.hll")
print("Python alone:", round(own.get_estimate()))
print("Rust alone, merged:", *plain)
print("Rust with the text's bytes alone, merged:", *wrapped)
assert 950 < plain[0] < 1050 and plain[1] > 1900, plain
assert 950 < wrapped[1] < 1050, wrapped
PY
echo "as seen: one set of 1,000 ids counts twice across languages"
