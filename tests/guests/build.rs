//! Compiles the guests, with a cargo of its own, and copies them beside this package's other output: components for
//! wasm32-wasip2; a plain program and two handlers for wasm32-wasip1 as well.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

const COMPONENT: &str = "wasm32-wasip2";
const MODULE: &str = "wasm32-wasip1";
const PROFILE: &str = "guest";
const COMPONENTS: &str = "gristmill-guest-components";
const PROGRAMS: &str = "gristmill-guest-programs";
const PACKAGES: [&str; 5] = [COMPONENTS, "gristmill-plugin-log", "quickstart-orders", "quickstart-receipts", PROGRAMS];
/// What the guests are made of, below the root of the workspace.
const SOURCES: [&str; 8] = [
    "Cargo.toml",
    "Cargo.lock",
    "wit",
    "sdk/rust",
    "plugins",
    "examples/quickstart/handlers",
    "tests/guests/components",
    "tests/guests/programs",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={}", error.replace('\n', "\ncargo::error="));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = here.ancestors().nth(2).ok_or("this package is not in tests/guests")?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    // A directory of its own: the cargo that waits for this build holds the lock of the other.
    let target_dir = target_dir(&out).join("guests");
    compile(root, &target_dir, COMPONENT, &PACKAGES, &["--lib", "--bins", "--examples"])?;
    compile(root, &target_dir, MODULE, &[PROGRAMS], &["--bins"])?;
    compile(root, &target_dir, MODULE, &[COMPONENTS], &["--example", "acker", "--example", "actor"])?;
    let components = target_dir.join(COMPONENT).join(PROFILE);
    let modules = target_dir.join(MODULE).join(PROFILE);
    for (directory, names) in [
        (
            components.join("examples"),
            &[
                ("acker", "acker"),
                ("actor", "actor"),
                ("batcher", "batcher"),
                ("caller", "caller"),
                ("clerk", "clerk"),
                ("clerk_changed", "clerk_changed"),
                ("configured", "configured"),
                ("envoy", "envoy"),
                ("fetcher", "fetcher"),
                ("greeter", "greeter"),
                ("keeper", "keeper"),
                ("messenger", "messenger"),
                ("observer", "observer"),
                ("responder", "responder"),
            ][..],
        ),
        (modules.join("examples"), &[("acker", "acker_module"), ("actor", "actor_module")]),
        (
            components,
            &[
                ("gristmill_plugin_log", "gristmill_plugin_log"),
                ("quickstart_orders", "quickstart_orders"),
                ("quickstart_receipts", "quickstart_receipts"),
                ("program", "program_component"),
                ("visitor", "visitor_component"),
                ("witness", "witness_component"),
            ],
        ),
        (modules, &[("program", "program_module"), ("visitor", "visitor_module"), ("witness", "witness_module")]),
    ] {
        for (from, to) in names {
            let from = directory.join(from).with_extension("wasm");
            let to = out.join(to).with_extension("wasm");
            fs::copy(&from, to).map_err(|error| format!("copying {}: {error}", from.display()))?;
        }
    }
    println!("cargo::rustc-env=GRISTMILL_GUESTS={}", out.display());
    Ok(())
}

fn compile(root: &Path, target_dir: &Path, target: &str, packages: &[&str], kinds: &[&str]) -> Result<(), String> {
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.current_dir(root).args(["build", "--locked", "--quiet"]).args(kinds);
    cargo.args(["--target", target, "--profile", PROFILE]).arg("--target-dir").arg(target_dir);
    for package in packages {
        cargo.args(["--package", package]);
    }
    // What the outer cargo set for native code, and for clippy.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CLIPPY_ARGS", "CARGO_BUILD_TARGET"]
    {
        cargo.env_remove(name);
    }
    let output = cargo.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    if !is_installed(target)? {
        return Err(format!("the guests need the target {target}; install it with: rustup target add {target}"));
    }
    Err(format!("the guests do not compile:\n{}", String::from_utf8_lossy(&output.stderr)))
}

fn is_installed(target: &str) -> Result<bool, String> {
    let output = Command::new(variable("RUSTC")?)
        .args(["--print", "target-libdir", "--target", target])
        .output()
        .map_err(|error| format!("cannot run rustc: {error}"))?;
    Ok(Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

/// The target directory that this build script's output is in: cargo marks it.
fn target_dir(out: &Path) -> &Path {
    out.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file()).unwrap_or(out)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
