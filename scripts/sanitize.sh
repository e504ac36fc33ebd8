#!/usr/bin/env bash
# sanitize.sh [ARGUMENT…]: the tests of the training kernels under AddressSanitizer, which sees what reads or writes outside its
# buffer, in vector instructions too. Needs a nightly toolchain; some minutes. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Zsanitizer=address ${RUSTFLAGS:-}"
cargo +nightly test --locked -p taper-nn --target "$host" --target-dir target/sanitize "$@"
