//! What the user typed. No environment, no files.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

pub(crate) const HELP: &str = "\
Usage: cargo xtask bench [--quick] [--save DIR] [--only TEXT]... [--peer NAME=ADDRESS:PORT]... [client]

  Measures Portcullis (release build) and, where they are installed, docker-registry and nginx: the same certificates and
  bytes, TLS 1.3, each server on one core and the load on another. Prints server CPU per operation beside throughput and
  latency, and their ratios.

  client         the client instead: pull and push of a 1 GiB image, ours beside skopeo's
  --quick        under two minutes: fewer operations, one round, no large stores
  --only TEXT    only the operations whose name holds TEXT; may be repeated
  --peer N=A:P   another registry, which runs already: with the certificates in target/bench/home (server: pki/server/,
                 clients' CA: trust/cas/), the client's in pki/clients/admin/. On this machine its CPU is measured too
  --save DIR     also write results.txt, results.json and results.svg there [default: target/bench]";

/// A registry that somebody else has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foreign {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Depth {
    Quick,
    #[default]
    Full,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Subject {
    #[default]
    Registries,
    Client,
    Help,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) subject: Subject,
    pub(crate) depth: Depth,
    pub(crate) only: Vec<String>,
    pub(crate) peers: Vec<Foreign>,
    pub(crate) save: Option<PathBuf>,
}

impl Options {
    /// Whether the operation of this name is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| name.contains(text.as_str()))
    }
}

pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Options> {
    let mut options = Options::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{} wants a value", arg.display()));
        match arg.to_str() {
            Some("client") => options.subject = Subject::Client,
            Some("--help" | "-h" | "help") => options.subject = Subject::Help,
            Some("--quick") => options.depth = Depth::Quick,
            Some("--only") => options.only.push(value()?.to_string_lossy().into_owned()),
            Some("--peer") => options.peers.push(foreign(&value()?.to_string_lossy())?),
            Some("--save") => options.save = Some(value()?.into()),
            _ => bail!("argument `{}` is not expected here", arg.display()),
        }
    }
    Ok(options)
}

fn foreign(text: &str) -> anyhow::Result<Foreign> {
    let expected = || format!("--peer wants NAME=ADDRESS:PORT, such as zot=127.0.0.1:5000, not {text:?}");
    let (name, url) = text.split_once('=').with_context(expected)?;
    let address = url.trim_start_matches("https://").trim_end_matches('/');
    Ok(Foreign { name: name.to_owned(), address: address.parse().with_context(expected)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn every_word_is_known() {
        let zot = Foreign { name: "zot".into(), address: "127.0.0.1:5000".parse().unwrap() };
        let expected = Options {
            subject: Subject::Client,
            depth: Depth::Quick,
            only: vec!["blob".into()],
            peers: vec![zot],
            save: Some("docs".into()),
        };
        assert_eq!(parsed("--quick --only blob --peer zot=https://127.0.0.1:5000/ --save docs client"), Ok(expected));
    }

    #[test]
    fn wrong_words_are_named() {
        for (line, named) in
            [("--fast", "--fast"), ("--peer zot", "zot"), ("--peer zot=here", "here"), ("--save", "--save")]
        {
            let error = parsed(line).expect_err(line);
            assert!(error.contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn only_names_parts_of_operations() {
        let options = parsed("--only blob --only push").unwrap();
        assert!(options.wants("blob GET") && options.wants("push of a blob") && !options.wants("handshake"));
        assert!(Options::default().wants("handshake"));
    }
}
