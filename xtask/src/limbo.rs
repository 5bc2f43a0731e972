//! `cargo xtask limbo`: what Go says of the cases of C2SP/x509-limbo, written down again for the test that holds our
//! verdicts beside it. Not part of the tests: it needs Go (Debian: golang-go), and another Go may say something else.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

/// The cases lie beside the repository, as the test expects them.
const CASES: &str = "../shared/testdata/x509-limbo.json";
const PROGRAM: &str = "xtask/limbo/main.go";
const VERDICTS: &str = "crates/portcullis-tls/tests/it/limbo-go.json";

pub(crate) fn run(root: &Path) -> anyhow::Result<bool> {
    let cases = root.join(CASES);
    ensure!(cases.is_file(), "{CASES} is not there: it is limbo.json of https://github.com/C2SP/x509-limbo");
    let ran = Command::new("go").args(["run", PROGRAM]).arg(&cases).current_dir(root).output();
    let ran = ran.context("go cannot be started; on Debian: apt-get install golang-go")?;
    if !ran.status.success() {
        bail!("{PROGRAM} failed:\n{}", String::from_utf8_lossy(&ran.stderr));
    }
    fs::write(root.join(VERDICTS), &ran.stdout).with_context(|| format!("cannot write {VERDICTS}"))?;
    println!("wrote {VERDICTS}; what changed shows in `git diff`");
    Ok(true)
}
