//! `portcullis convert`: what one engine has for a registry, put where another reads it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use portcullis_certs::{Endpoint, EngineUser, Outcome, Prediction, Situation, predict};
use portcullis_pki::install::{self, ClientFiles, Engine, InstallRequest, OtherPairs, Scope};
use time::OffsetDateTime;

use super::install::{engine_of, next, prove, put_in_place, record, tell};
use crate::args::{ConvertArgs, EngineWord};
use crate::output;

pub(crate) fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    let now = OffsetDateTime::now_utc();
    let (from, to) = (one(args.from)?, one(args.to)?);
    ensure!(from != to, "--from and --to are the same engine");
    let scope = if args.root.is_some() { Scope::System } else { Scope::of_this_process()? };
    let files = files_of(from, &scope, args, now)?;
    let record = record(args.root.as_deref(), &scope);
    let request = InstallRequest {
        host: &args.host,
        from: Path::new(""),
        engine: to,
        scope: &scope,
        root: args.root.as_deref(),
        record: &record,
        pairs: OtherPairs::Stop,
    };
    let plan = install::plan_files(&request, files)?;
    tell(&plan, args.dry_run);
    if args.dry_run {
        output::line("nothing was written (--dry-run)");
        return Ok(());
    }
    put_in_place(&plan, now)?;
    next(&args.host, &[to]);
    if args.root.is_none() && !args.no_proof { prove(&args.host, &plan.directory) } else { Ok(()) }
}

fn one(word: EngineWord) -> anyhow::Result<Engine> {
    engine_of(word).context("`all` is no engine: name one")
}

/// The files that the engine uses for the registry now, by its own rules.
fn files_of(engine: Engine, scope: &Scope, args: &ConvertArgs, now: OffsetDateTime) -> anyhow::Result<ClientFiles> {
    let mut situation = Situation::here(args.root.as_deref().unwrap_or(Path::new("/")), now);
    if let Scope::User { home, config_home } = scope {
        situation.user = EngineUser::Rootless { home, config_home: config_home.as_deref() };
    }
    let made = predict(engine.profile(), &situation, &args.host);
    let endpoint = endpoint(engine, &made)?;
    ensure!(
        !endpoint.roots.is_empty(),
        "{engine} has no root of its own for {}: there is no ca.crt to give",
        args.host
    );
    let Some(pair) = endpoint.pairs.first() else { bail!("{engine} has no client certificate for {}", args.host) };
    for other in endpoint.pairs.iter().skip(1) {
        output::warning(&format!("{} is left out: the first pair is the one taken", other.cert_path.display()));
    }
    let mut paths: Vec<PathBuf> = endpoint.roots.iter().map(|root| root.path.clone()).collect();
    paths.dedup();
    let read = |path: &Path| read(args.root.as_deref(), path);
    let roots = paths.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(ClientFiles { ca: roots.join(&b'\n'), key: read(&pair.key_path)?, cert: read(&pair.cert_path)? })
}

fn endpoint(engine: Engine, made: &Prediction) -> anyhow::Result<&Endpoint> {
    match (&made.outcome, made.registry()) {
        (Outcome::Loaded, Some(endpoint)) => Ok(endpoint),
        (Outcome::Fails { at, text }, _) => bail!("{engine} does not take its own files: {}: {text}", at.display()),
        _ => {
            let places: Vec<String> = made.tried.iter().map(|tried| tried.path.display().to_string()).collect();
            bail!("{engine} has no files for this registry; looked at: {}", places.join(", "))
        }
    }
}

/// What an image's configuration names is the image's: the host's key must not come into it.
fn read(root: Option<&Path>, path: &Path) -> anyhow::Result<Vec<u8>> {
    if let Some(root) = root {
        install::refuse_outside(root, path)?;
    }
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_file_of_the_host_comes_into_an_image() {
        let host = tempfile::tempdir().unwrap();
        let image = host.path().join("image");
        fs::create_dir_all(image.join("etc")).unwrap();
        let key = host.path().join("client.key");
        fs::write(&key, "the host's").unwrap();
        fs::write(image.join("etc/own.key"), "the image's").unwrap();
        symlink(&key, image.join("etc/client.key")).unwrap();
        symlink(host.path(), image.join("etc/dir")).unwrap();
        let of_image = |name: &str| read(Some(&image), &image.join(name));
        assert_eq!(of_image("etc/own.key").unwrap(), b"the image's");
        for stray in ["etc/client.key", "etc/dir/client.key", "../client.key", "etc/../../client.key"] {
            assert!(of_image(stray).is_err(), "{stray}");
        }
        assert!(read(Some(&image), &key).is_err(), "a path of the host");
        assert_eq!(
            read(None, &image.join("etc/client.key")).unwrap(),
            b"the host's",
            "without an image links are right"
        );
    }
}
