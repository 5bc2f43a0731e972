//! Which `registries.conf` counts, and its drop-ins: containers/image `newConfigWrapperWithHomeDir` and `dropInConfigs`,
//! with Podman's two environment variables. What cannot be read is a fault, never an empty configuration.

use crate::engine_files::{NotTaken, RegistriesConf};
use crate::fault::{Fault, WithoutConfig};
use crate::file::{self, FILE_LIMIT};
use crate::finding::{Finding, Severity};
use crate::host_certs::directory::environment;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const SYSTEM_FILE: &str = "/etc/containers/registries.conf";
const USERS_FILE: &str = ".config/containers/registries.conf";

/// Where `registries.conf` is looked for.
#[derive(Debug, Clone, Copy)]
pub enum RegistriesPlace<'a> {
    /// Where Podman finds it for this process: `$CONTAINERS_REGISTRIES_CONF`, `$REGISTRIES_CONFIG_PATH`,
    /// `$HOME/.config/containers/registries.conf`, `/etc/containers/registries.conf`.
    Search,
    /// In the last two places, below another root directory, for the user with this home.
    SearchBelow {
        /// What stands for `/`.
        root: &'a Path,
        /// An absolute path, taken below `root` too.
        home: Option<&'a Path>,
    },
}

/// Reads the file that counts, then the drop-ins of `registries.conf.d` in byte order, the system's before the user's.
/// A user's own file takes the place of all that is the system's.
///
/// # Errors
/// The first file that cannot be read or that Podman would not take.
pub fn read_registries_conf(place: RegistriesPlace<'_>) -> Result<RegistriesConf, Box<Finding>> {
    let Files { main, is_named, directories } = files(place)?;
    let mut read = match file::read(&main, FILE_LIMIT) {
        Ok((bytes, _)) => RegistriesConf::parse(&bytes, &main).map_err(|error| not_taken(&main, error))?,
        Err(fault) if fault.is_absent() && !is_named => RegistriesConf::default(),
        Err(fault) => return Err(fatal(&main, fault).into()),
    };
    for directory in directories {
        for path in drop_ins(&directory)? {
            let (bytes, _) = file::read(&path, FILE_LIMIT).map_err(|fault| fatal(&path, fault))?;
            read.extend(RegistriesConf::parse_drop_in(&bytes, &path).map_err(|error| not_taken(&path, error))?);
        }
    }
    Ok(read)
}

struct Files {
    main: PathBuf,
    /// By the environment: then it has to be there.
    is_named: bool,
    /// Those of drop-ins.
    directories: Vec<PathBuf>,
}

fn files(place: RegistriesPlace<'_>) -> Result<Files, Box<Finding>> {
    let (root, home) = match place {
        RegistriesPlace::Search => (Path::new("/"), environment("HOME")),
        RegistriesPlace::SearchBelow { root, home } => (root, home.map(Path::to_owned)),
    };
    let named = match place {
        RegistriesPlace::Search => {
            environment("CONTAINERS_REGISTRIES_CONF").or_else(|| environment("REGISTRIES_CONFIG_PATH"))
        }
        RegistriesPlace::SearchBelow { .. } => None,
    };
    let of_system = file::below(root, Path::new(SYSTEM_FILE));
    let of_user = home.map(|home| file::below(root, &home.join(USERS_FILE)));
    let is_named = named.is_some();
    if let (None, Some(own)) = (&named, &of_user) {
        match fs::metadata(own).map_err(|error| error.kind()) {
            Ok(_) => return Ok(Files { main: own.clone(), is_named, directories: vec![directory_of(own)] }),
            Err(ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            // Podman would go on with the system's: it may block what that does not.
            Err(error) => return Err(fatal(own, Fault::Unreadable { error }).into()),
        }
    }
    let directories =
        [Some(&of_system), of_user.as_ref()].into_iter().flatten().map(|path| directory_of(path)).collect();
    Ok(Files { main: named.unwrap_or(of_system), is_named, directories })
}

fn directory_of(file: &Path) -> PathBuf {
    file.with_extension("conf.d")
}

/// The directory itself is not looked for behind a link, its files are.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, Box<Finding>> {
    match fs::symlink_metadata(directory).map_err(|error| error.kind()) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) | Err(ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(fatal(directory, Fault::DirectoryUnreadable { error }).into()),
    }
    let names = file::list(directory).map_err(|fault| fatal(directory, fault))?;
    let is_real_directory = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let paths =
        names.iter().filter(|name| name.as_encoded_bytes().ends_with(b".conf")).map(|name| directory.join(name));
    Ok(paths.filter(|path| !is_real_directory(path)).collect())
}

fn not_taken(path: &Path, error: NotTaken) -> Finding {
    let fault = Fault::ConfigNotTaken { reason: error.reason, then: WithoutConfig::Refused };
    Finding::at(path, error.line, Severity::Fatal, fault)
}

fn fatal(path: &Path, fault: Fault) -> Finding {
    Finding::new(path, Severity::Fatal, fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(root: &Path) -> Result<RegistriesConf, Box<Finding>> {
        read_registries_conf(RegistriesPlace::SearchBelow { root, home: Some(Path::new("/home/u")) })
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn registry(prefix: &str, location: &str) -> String {
        format!("[[registry]]\nprefix = \"{prefix}\"\nlocation = \"{location}\"\n")
    }

    fn location(read: &RegistriesConf, name: &str) -> Option<String> {
        Some(read.find(name)?.location.clone())
    }

    #[test]
    fn which_files_count_and_in_what_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(read(root).unwrap(), RegistriesConf::default());
        write(root, "etc/containers/registries.conf", &(registry("a.test", "main") + &registry("b.test", "main")));
        write(root, "etc/containers/registries.conf.d/10-x.conf", &registry("a.test", "ten"));
        write(root, "etc/containers/registries.conf.d/2-x.conf", &registry("a.test", "two"));
        write(root, "etc/containers/registries.conf.d/3-x.conf.bak", "not toml");
        write(root, "etc/containers/registries.conf.d/dir.conf/x.conf", "not toml");
        let found = read(root).unwrap();
        assert_eq!((location(&found, "a.test"), location(&found, "b.test")), (Some("two".into()), Some("main".into())));
        assert!(found.find("a.test").unwrap().at.file.ends_with("2-x.conf"));

        write(root, "home/u/.config/containers/registries.conf.d/1.conf", &registry("a.test", "users"));
        assert_eq!(location(&read(root).unwrap(), "a.test"), Some("users".into()));
        write(root, "home/u/.config/containers/registries.conf", &registry("c.test", "own"));
        let found = read(root).unwrap();
        assert_eq!(
            ["a.test", "b.test", "c.test"].map(|name| location(&found, name)).map(Option::unwrap_or_default),
            ["users", "", "own"]
        );
    }

    #[test]
    fn what_cannot_be_read_is_no_empty_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let drop_in = "etc/containers/registries.conf.d/1.conf";
        for (path, text, line) in [
            ("etc/containers/registries.conf", "a = 1\n[[registry", Some(2)),
            ("etc/containers/registries.conf", "[[registry]]\nlocation = 5\n", Some(2)),
            (drop_in, "[registries.block]\nregistries = [\"x\"]\n", Some(1)),
            (drop_in, "x", Some(1)),
        ] {
            write(root, path, text);
            let finding = read(root).unwrap_err();
            assert_eq!((&finding.path, finding.line, finding.severity), (&root.join(path), line, Severity::Fatal));
            fs::remove_file(root.join(path)).unwrap();
        }
        std::os::unix::fs::symlink("nowhere", root.join(drop_in)).unwrap();
        assert_eq!(read(root).unwrap_err().fault, Fault::DanglingLink);
        fs::remove_file(root.join(drop_in)).unwrap();
        fs::create_dir_all(root.join("etc/containers/registries.conf")).unwrap();
        assert_eq!(read(root).unwrap_err().fault, Fault::NotAFile);
        write(root, "home/u/.config/containers/registries.conf", &"#".repeat(usize::try_from(FILE_LIMIT).unwrap()));
        assert_eq!(read(root).unwrap().files, [root.join("home/u/.config/containers/registries.conf")]);
        write(root, "home/u/.config/containers/registries.conf", &"#".repeat(usize::try_from(FILE_LIMIT).unwrap() + 1));
        assert_eq!(read(root).unwrap_err().fault, Fault::TooLarge { limit: FILE_LIMIT });
    }
}
