//! The trees. A tree is spelled as `NAME` or `NAME=PART` of the world's parts, separated by spaces.

mod elsewhere;
mod roots_and_pairs;
mod server_certificates;
mod whole_directories;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::observed::Engine;
use super::world::World;

/// One tree, and who is asked for what.
pub(crate) struct Case {
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    /// The registry as it is typed.
    pub(crate) host: &'static str,
    pub(crate) engines: &'static [Engine],
    /// `skopeo --cert-dir`.
    pub(crate) cert_dir: Option<&'static str>,
    pub(crate) build: fn(&Tree<'_, '_>),
}

/// Where a case writes its files.
pub(crate) struct Tree<'w, 'm> {
    pub(crate) world: &'w World<'m>,
    pub(crate) host: &'static str,
}

/// The registry that most trees are for.
const HOST: &str = "registry.test:5443";
const WHOLE: &str = "ca.crt client.cert=good.cert client.key=good.key";
const MOST: &[Engine] = &[Engine::Dockerd, Engine::Skopeo, Engine::Ctr];
const EVERY: &[Engine] = &[Engine::Dockerd, Engine::Skopeo, Engine::Podman, Engine::Ctr, Engine::Curl];
const WITH_PODMAN: &[Engine] = &[Engine::Dockerd, Engine::Skopeo, Engine::Podman, Engine::Ctr];
const CTR: &[Engine] = &[Engine::Ctr];
const SKOPEO: &[Engine] = &[Engine::Skopeo];
const CONTAINERS: &[Engine] = &[Engine::Skopeo, Engine::Podman];

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = whole_directories::cases();
    cases.extend(roots_and_pairs::cases());
    cases.extend(server_certificates::cases());
    cases.extend(elsewhere::cases());
    cases
}

const fn case(group: &'static str, name: &'static str, build: fn(&Tree<'_, '_>)) -> Case {
    Case { group, name, host: HOST, engines: MOST, cert_dir: None, build }
}

impl Case {
    const fn host(self, host: &'static str) -> Self {
        Self { host, ..self }
    }

    const fn engines(self, engines: &'static [Engine]) -> Self {
        Self { engines, ..self }
    }

    const fn cert_dir(self, dir: &'static str) -> Self {
        Self { cert_dir: Some(dir), engines: SKOPEO, ..self }
    }
}

impl Tree<'_, '_> {
    /// The files of the host's own directory.
    fn files(&self, spelled: &str) {
        self.at("docker", self.host, spelled);
    }

    /// The files of a directory below one of the roots.
    fn at(&self, whose: &str, directory: &str, spelled: &str) {
        let directory = self.world.root(whose).join(directory);
        fs::create_dir_all(&directory).unwrap();
        for word in spelled.split_whitespace() {
            let (name, part) = word.split_once('=').unwrap_or((word, word));
            fs::write(directory.join(name), self.world.part(part)).unwrap();
        }
    }

    /// A path in the host's own directory, which is made.
    fn path(&self, name: &str) -> PathBuf {
        let directory = self.world.root("docker").join(self.host);
        fs::create_dir_all(&directory).unwrap();
        directory.join(name)
    }

    fn text(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn link(&self, name: &str, to: &str) {
        symlink(to, self.path(name)).unwrap();
    }

    fn subdirectory(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
    }
}
