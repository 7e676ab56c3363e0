//! Compiles ../../csrc with $CC (or cc) and $AR (or ar). The crate `cc` would be
//! the only dependency, and the core needs none of its flags.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let csrc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../csrc");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    println!("cargo:rerun-if-changed={}", csrc.display());
    println!("cargo:rerun-if-env-changed=CC");
    println!("cargo:rerun-if-env-changed=AR");

    let mut sources = Vec::new();
    find_sources(&csrc, &mut sources);
    let mut objects = Vec::new();
    for source in &sources {
        let object = out.join(format!("{}.o", objects.len()));
        run(tool("CC", "cc").args(["-std=c11", "-O2", "-fPIC", "-ffp-contract=off", "-I"]).args([
            &csrc,
            Path::new("-c"),
            source,
            Path::new("-o"),
            &object,
        ]));
        objects.push(object);
    }
    let library = out.join("libsqs.a");
    let _ = fs::remove_file(&library); // ar adds to an existing one
    run(tool("AR", "ar").arg("rcs").arg(&library).args(&objects));
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static=sqs");
}

fn find_sources(folder: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("csrc lies beside bindings") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            find_sources(&path, sources);
        } else if path.extension().is_some_and(|e| e == "c") {
            sources.push(path);
        }
    }
}

/// A command from an environment variable, which may also hold arguments.
fn tool(variable: &str, default: &str) -> Command {
    let value = env::var(variable).unwrap_or_else(|_| default.into());
    let mut words = value.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or(default));
    command.args(words);
    command
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?} failed");
}
