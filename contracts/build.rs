//! Compiles the contracts with the settings of `foundry.toml` and leaves one JSON artifact per bound contract in
//! `OUT_DIR`: ABI and bytecode, which `bindings/lib.rs` reads. Beside it, for each contract that is deployed, the
//! compiler's input, by which an explorer verifies it.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use foundry_compilers::{
    Project, ProjectBuilder, ProjectPathsConfig,
    artifacts::{Settings, output_selection::OutputSelection, remappings::Remapping},
    solc::{Solc, SolcCompiler, SolcSettings},
};
use serde_json::json;

/// Bound contracts, with the files that hold them.
const BOUND: [(&str, &str); 3] = [
    ("Settlement", "src/Settlement.sol"),
    ("DepositHelper", "src/periphery/DepositHelper.sol"),
    ("TestToken", "test/tokens/TestTokens.sol"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    for path in
        ["foundry.toml", "package.json", "src", "test/tokens", "../scripts/solc", "build.rs"]
    {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    if !root.join("node_modules/@openzeppelin/contracts/package.json").exists() {
        return Err("the contracts' libraries are not installed: run scripts/setup".into());
    }

    let project = project(&root, &out, &profile(&root)?)?;
    println!("cargo::rustc-env=QUITTANCE_SOLC={}", compiler(&project));
    let artifacts = compile(&root, &project)?;
    for (name, file) in BOUND {
        let artifact =
            artifacts.get(name).ok_or_else(|| format!("the compiler left out {name}"))?;
        fs::write(out.join(format!("{name}.json")), artifact)?;
        let input = project.standard_json_input(&root.join(file))?;
        fs::write(out.join(format!("{name}.input.json")), serde_json::to_string(&input)?)?;
    }
    Ok(())
}

/// The default profile of `foundry.toml`.
fn profile(root: &Path) -> Result<toml::Table, Box<dyn Error>> {
    let config: toml::Table = fs::read_to_string(root.join("foundry.toml"))?.parse()?;
    let profile = config
        .get("profile")
        .and_then(|profiles| profiles.get("default"))
        .and_then(toml::Value::as_table)
        .ok_or("foundry.toml has no [profile.default]")?;
    Ok(profile.clone())
}

/// Compiler settings as forge derives them from the same profile.
fn settings(profile: &toml::Table) -> Result<Settings, Box<dyn Error>> {
    let get =
        |key: &str| profile.get(key).ok_or_else(|| format!("foundry.toml does not set {key}"));
    let mut settings: Settings = serde_json::from_value(json!({
        "optimizer": { "enabled": get("optimizer")?, "runs": get("optimizer_runs")? },
        "evmVersion": get("evm_version")?,
        "viaIR": get("via_ir")?,
        "metadata": { "bytecodeHash": get("bytecode_hash")?, "appendCBOR": get("cbor_metadata")? },
    }))?;
    settings.output_selection = OutputSelection::complete_output_selection();
    Ok(settings)
}

fn project(
    root: &Path,
    out: &Path,
    profile: &toml::Table,
) -> Result<Project<SolcCompiler>, Box<dyn Error>> {
    let remappings = profile
        .get("remappings")
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(toml::Value::as_str)
        .map(str::parse::<Remapping>)
        .collect::<Result<Vec<_>, _>>()?;
    let paths = ProjectPathsConfig::builder()
        .sources(root.join("src"))
        .tests(root.join("test/tokens"))
        .lib(root.join("node_modules"))
        .remappings(remappings)
        .artifacts(out.join("artifacts"))
        .cache(out.join("cache.json"))
        .build_infos(out.join("build-info"))
        .build_with_root(root);
    let solc = Solc::new(root.join("../scripts/solc").canonicalize()?)?;
    Ok(ProjectBuilder::<SolcCompiler>::new(Default::default())
        .paths(paths)
        .settings(SolcSettings { settings: settings(profile)?, ..Default::default() })
        .ephemeral()
        .no_artifacts()
        .build(SolcCompiler::Specific(solc))?)
}

/// The compiler's version with its commit, without what tells its build apart: `0.8.37+commit.…`.
fn compiler(project: &Project<SolcCompiler>) -> String {
    let SolcCompiler::Specific(solc) = &project.compiler;
    let version = &solc.version;
    let commit = version.build.as_str().split('.').take(2).collect::<Vec<_>>().join(".");
    format!("{}.{}.{}+{commit}", version.major, version.minor, version.patch)
}

/// ABI and bytecode of each bound contract, by its name.
fn compile(
    root: &Path,
    project: &Project<SolcCompiler>,
) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let output = project.compile_files(BOUND.map(|(_, file)| root.join(file)))?;
    if output.has_compiler_errors() {
        return Err(output.to_string().into());
    }
    let mut artifacts = BTreeMap::new();
    for (id, artifact) in output.into_artifacts() {
        let bound = BOUND.iter().any(|(name, file)| *name == id.name && id.source.ends_with(file));
        if bound {
            let json = json!({
                "abi": artifact.abi, "bytecode": artifact.bytecode,
                "deployedBytecode": artifact.deployed_bytecode,
            });
            artifacts.insert(id.name, serde_json::to_string(&json)?);
        }
    }
    Ok(artifacts)
}
