//! `portcullis up`: makes what is missing, says what it made, and serves.
//!
//! The config file is written last: while it is missing, a home is unfinished and the next `up` completes it with the
//! keys that are there.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use portcullis_certs::{AltName, Certificate, pem};
use portcullis_pki::trust::{self, TrustRole};
use portcullis_pki::{
    Authority, AuthorityKind, AuthorityRequest, ClientName, ClientRequest, KeyAlgorithm, KeySource, PkiError,
    ServerName, ServerRequest, files, issue_client, issue_server,
};
use portcullis_server::{Config, TEMPLATE};
use time::OffsetDateTime;

use crate::args::UpArgs;
use crate::cmd::{date, maintain, serve, unit};
use crate::home::{self, Home};
use crate::listen::Port;
use crate::names::{self, Typed};
use crate::output;

/// The client that may do everything, and the CA's name in rules.
const ADMIN: &str = "admin";
const CLIENTS: &str = "clients";

pub(crate) fn run(args: &UpArgs) -> anyhow::Result<()> {
    let home = Home::locate(args.home.home.as_deref())?;
    let is_new = !home.config_file().exists();
    let config = if is_new { Config::defaults(home.root()) } else { home.config()? };
    // A port that is taken is found before anything is made, and one below 1024 is opened while we are root.
    let port = Port::bind(args.listen.unwrap_or(config.listen))?;
    home.become_owner()?;
    home.check()?;
    if args.constrain_names && home.server_ca().join("ca.crt").exists() {
        check_constrained(&home)?;
    }
    serve::check_owner(args.data.as_ref().unwrap_or(&config.data))?;
    let lock = home.lock()?;
    if is_new {
        make(&home, args, port.address())?;
    } else if !args.names.is_empty() {
        add_names(&home, &args.names)?;
    }
    drop(lock);
    // What cannot be renewed is no reason not to serve.
    match maintain::maintain(&home, OffsetDateTime::now_utc()) {
        Ok(done) => done.iter().for_each(|line| output::note(line)),
        Err(error) => output::warning(&format!("what is due cannot be renewed: {error:#}")),
    }
    let config = with_overrides(home.config()?, args);
    let greeting = greeting(&home, &config, port.address(), is_new)?;
    maintain::keep_up(home)?;
    serve::serve(config, port, args.log_json, || greeting.iter().for_each(|line| output::line(line)))
}

/// A CA is what it was made as: who asks for the limit must not believe that it is there.
fn check_constrained(home: &Home) -> anyhow::Result<()> {
    let ca = home.server_ca().join("ca.crt");
    if leaf(&ca)?.facts().name_constraints.is_some() {
        return Ok(());
    }
    bail!(
        "--constrain-names: {} has a server CA already, which may certify every name and cannot be limited any more\n  \
         a registry with one that is: portcullis up --constrain-names --home NEW-DIRECTORY",
        home.root().display()
    );
}

/// What `--listen` and `--data` say holds for this run; on the first run it is in the file already.
fn with_overrides(mut config: Config, args: &UpArgs) -> Config {
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if let Some(data) = &args.data {
        config.data.clone_from(data);
    }
    config
}

fn make(home: &Home, args: &UpArgs, listen: SocketAddr) -> anyhow::Result<()> {
    let now = OffsetDateTime::now_utc();
    let names = names::of_this_machine(&args.names, listen);
    let label = names.first().map(ToString::to_string).unwrap_or_default();
    let permitted = if args.constrain_names { names.clone() } else { Vec::new() };
    let server_ca = authority(&home.server_ca(), AuthorityKind::Server, &label, permitted, now)?;
    let client_ca = authority(&home.client_ca(), AuthorityKind::Client, &label, Vec::new(), now)?;
    files::create_dir(&home.trust().pins_dir(), files::PRIVATE_DIR)?;
    trust::add(&home.trust(), &home.client_ca().join("ca.crt"), TrustRole::Ca, Some(CLIENTS), now)?;
    if !home.server().join("server.crt").exists() {
        issue_server_certificate(&server_ca, home, names, now)?;
    }
    let admin = home.client(ADMIN);
    if !admin.join("client.cert").exists() {
        let name: ClientName = ADMIN.parse()?;
        let key = KeySource::at(admin.join("client.key"), KeyAlgorithm::P256);
        let issued = issue_client(&client_ca, &ClientRequest { key, ..ClientRequest::new(name) }, now)?;
        issued.write_client(&admin, server_ca.certificate())?;
    }
    if !home.policy_file().exists() {
        let admin = leaf(&admin.join("client.cert"))?;
        files::write_new(&home.policy_file(), policy(&admin).as_bytes(), 0o644)?;
    }
    files::write_new(home.config_file(), config_text(args)?.as_bytes(), 0o644)?;
    Ok(())
}

/// Makes it, completes it, or opens it: whatever an interrupted run left to do.
fn authority(
    dir: &Path,
    kind: AuthorityKind,
    label: &str,
    permitted: Vec<ServerName>,
    now: OffsetDateTime,
) -> Result<Authority, PkiError> {
    let request = AuthorityRequest { kind, label, algorithm: KeyAlgorithm::P256, permitted };
    match Authority::create_as(dir, &request, now) {
        Err(PkiError::AuthorityExists { .. }) => Authority::open(dir),
        made => made,
    }
}

pub(crate) fn issue_server_certificate(
    ca: &Authority,
    home: &Home,
    names: Vec<ServerName>,
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    let key = KeySource::at(home.server().join("server.key"), KeyAlgorithm::P256);
    let issued = issue_server(ca, &ServerRequest { key, ..ServerRequest::new(names) }, now)?;
    issued.write_server(&home.server())?;
    Ok(())
}

/// Issues the server's certificate again with `added` among its names: same CA, same key. Says whether that was needed.
pub(crate) fn add_names(home: &Home, added: &[ServerName]) -> anyhow::Result<bool> {
    let path = home.server().join("server.crt");
    let now = OffsetDateTime::now_utc();
    let mut names = server_names(&leaf(&path)?);
    let missing: Vec<ServerName> = added.iter().filter(|name| !names.contains(name)).cloned().collect();
    if missing.is_empty() {
        return Ok(false);
    }
    names.extend(missing);
    issue_server_certificate(&Authority::open(&home.server_ca())?, home, names, now)?;
    Ok(true)
}

/// The names that a server certificate is for.
pub(crate) fn server_names(certificate: &Certificate) -> Vec<ServerName> {
    let name = |name: &AltName| match name {
        AltName::Dns(dns) => dns.parse().ok(),
        AltName::Ip(ip) => Some(ServerName::from(*ip)),
        AltName::Email(_) | AltName::Uri(_) | AltName::Other(_) => None,
    };
    certificate.facts().alt_names.iter().filter_map(name).collect()
}

/// The first certificate of a file of ours.
pub(crate) fn leaf(path: &Path) -> anyhow::Result<Certificate> {
    let (certificates, findings) = pem::read_certificates(path);
    let told = || findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ");
    certificates
        .into_iter()
        .next()
        .with_context(|| format!("there is no certificate in {}\n  {}", path.display(), told()))
}

fn policy(admin: &Certificate) -> String {
    format!(
        "# Who may do what. Nothing is allowed that no rule allows; the first rule that allows it decides.\n\
         # A rule is for a `ca` (its file's name in trust/cas), a `pin` (its file's name in trust/pins) or a\n\
         # `fingerprint`, or goes by the names that a CA vouches for: `spiffe`, `uri`, `dns`, `email`, `cn`, `o`, `ou`;\n\
         # all that are given must match. `*` stands for any part of a name, `**` in `repositories` for any number of\n\
         # path components. `allow`: pull, push, delete. All of it, with examples: docs/policy.md.\n\
         # Ask what it says: portcullis policy check --cert FILE push NAME\n\
         \n\
         # {ADMIN}: pki/clients/{ADMIN}\n\
         [[rule]]\n\
         fingerprint = \"{}\"\n\
         repositories = [\"**\"]\n\
         allow = [\"pull\", \"push\", \"delete\"]\n\
         \n\
         # every client of our own CA\n\
         [[rule]]\n\
         ca = \"{CLIENTS}\"\n\
         repositories = [\"**\"]\n\
         allow = [\"pull\", \"push\"]\n\
         \n\
         # every certificate that was pinned\n\
         [[rule]]\n\
         pin = \"*\"\n\
         repositories = [\"**\"]\n\
         allow = [\"pull\", \"push\"]\n",
        admin.fingerprint()
    )
}

/// The template, with what was asked for on the command line filled in.
fn config_text(args: &UpArgs) -> anyhow::Result<String> {
    let mut text = TEMPLATE.to_owned();
    if let Some(listen) = args.listen {
        text = text.replacen("# listen = \"[::]:5443\"", &format!("listen = \"{listen}\""), 1);
    }
    if let Some(data) = &args.data {
        let data = std::path::absolute(data).context("the working directory is gone")?;
        let data = data.to_str().context("--data: a path that is not UTF-8 cannot be written into config.toml")?;
        text = text.replacen("# data = \"data\"", &format!("data = {}", serde_json::to_string(data)?), 1);
    }
    Ok(text)
}

/// What was made, until when it is valid, and what to type next.
fn greeting(home: &Home, config: &Config, listen: SocketAddr, is_new: bool) -> anyhow::Result<Vec<String>> {
    let server = leaf(&config.certificate)?;
    let names = server_names(&server);
    let typed = names::to_type(&names, listen);
    let all: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut lines = Vec::new();
    if is_new {
        let ca = leaf(&home.server_ca().join("ca.crt"))?;
        lines.push(format!("made a registry in {}", home.root().display()));
        lines.push(format!("  server CA and client CA   until {}", date(ca.facts().not_after)));
        lines.push(format!("  server certificate        until {}", date(server.facts().not_after)));
        lines.push(format!("    for {}", all.join(", ")));
        lines.push(format!("  client {ADMIN}              {}", home.client(ADMIN).display()));
        lines.push("  config.toml, policy.toml  who may do what".to_owned());
        lines.push(format!(
            "keep {} secret: whoever has it can become any client",
            home.client_ca().join("ca.key").display()
        ));
    } else {
        lines.push(format!("serving {}", home.root().display()));
        lines.push(format!("  server certificate until {}, for {}", date(server.facts().not_after), all.join(", ")));
    }
    lines.push(String::new());
    lines.extend(next_commands(home, &typed));
    if is_new && rustix::process::geteuid().is_root() {
        lines
            .push("as a service that starts with the machine, without root's rights (stop this one first):".to_owned());
        lines.extend(unit::commands(home, config));
    }
    lines.push(String::new());
    lines.push(format!("listening on {listen}, mutual TLS only"));
    Ok(lines)
}

fn next_commands(home: &Home, typed: &Typed) -> Vec<String> {
    let mut lines = vec!["on a host that pulls and pushes (copy the client's directory there first):".to_owned()];
    if let Some(line) = &typed.hosts_line {
        lines.push(format!("  # it is known by its address there; for its name, /etc/hosts needs: {line}"));
    }
    lines.push(format!("  {}", home::install_command(&typed.host, &home.client(ADMIN))));
    if typed.host.starts_with("localhost") {
        lines.push(
            "  # Docker never sends certificates to localhost; podman, skopeo and `portcullis pull` do".to_owned(),
        );
        lines.push(format!("  podman pull {}/NAME", typed.host));
    } else {
        lines.push(format!("  docker pull {}/NAME", typed.host));
    }
    lines.push("another client:".to_owned());
    lines.push(format!("  {}", home.command(&["cert", "new", "client", "ci-7"])));
    lines.push("a client with a certificate of its own:".to_owned());
    lines.push(format!("  {}", home.command(&["trust", "add", "client.cert", "--as", "pin", "--name", "alice"])));
    lines
}
