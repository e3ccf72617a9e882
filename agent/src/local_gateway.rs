//! Finds the gateway that `runcastd dev` runs on this machine, where `RUNCAST_URL` is not set.
//!
//! While it runs, `runcastd dev` keeps two files in its data folder: `url`, the address of its
//! gateway, and `token`, an admin token. The program `runcast` looks for them in
//! `RUNCAST_DATA_DIR`, else in `.local` of the current folder and of each folder above it, up to
//! the root of the repository, the home folder, or a folder of another user. The first folder with
//! a `url` counts.
//!
//! What a stranger could have put there is refused: a file of another user, a link, a file that
//! others can write, a token that others can read, and an address that is not on this machine. So a
//! repository that holds a `.local` of its own cannot send output elsewhere. A token is never used
//! for a `RUNCAST_URL` that is set. Programs that link the publisher do not look, and neither does
//! `runcast` where `RUNCAST_ENV` is `production`.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use runcast_common::config::Env;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::console::print_message;

/// Longest content of a file; an address and a token are far shorter.
const MAX_FILE_BYTES: u64 = 4096;

/// The data folder of `runcastd dev`, unless `RUNCAST_DATA_DIR` is set.
const DATA_FOLDER: &str = ".local";

/// Permissions that others must not have.
const OTHERS_READ_OR_WRITE_MODE: u32 = 0o066;
const OTHERS_WRITE_MODE: u32 = 0o022;

/// An environment, completed by the gateway on this machine.
#[derive(Debug)]
pub struct LocalEnv<E> {
    env: E,
    gateway: Option<LocalGateway>,
}

/// What the data folder says.
#[derive(Debug)]
struct LocalGateway {
    folder: PathBuf,
    url: String,
    token: SecretString,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
#[error("{} is not used: {reason}", path.display())]
struct RefusedFile {
    path: PathBuf,
    reason: &'static str,
}

impl<E: Env> LocalEnv<E> {
    /// Looks for the gateway, and says on stderr which one is used, or why one is not.
    pub fn new(env: E) -> Self {
        let current = std::env::current_dir().unwrap_or_default();
        let gateway = match find(&env, &current) {
            Ok(gateway) => gateway,
            Err(refused) => {
                print_message(format_args!("{refused}"));
                None
            }
        };
        if let Some(LocalGateway { folder, url, .. }) = &gateway {
            print_message(format_args!(
                "RUNCAST_URL is not set: using the local gateway {url}, found in {}",
                folder.display()
            ));
        }
        Self { env, gateway }
    }
}

impl<E: Env> Env for LocalEnv<E> {
    fn get(&self, name: &str) -> Option<String> {
        // Address and token belong together: a token of another installation stays away from here.
        match (name, &self.gateway) {
            ("RUNCAST_URL", Some(gateway)) => Some(gateway.url.clone()),
            ("RUNCAST_TOKEN", Some(gateway)) => Some(gateway.token.expose_secret().to_owned()),
            _ => self.env.get(name),
        }
    }
}

fn find(env: &impl Env, current: &Path) -> Result<Option<LocalGateway>, RefusedFile> {
    let is_production = env.get("RUNCAST_ENV").as_deref() == Some("production");
    if is_production || env.get("RUNCAST_URL").is_some() {
        return Ok(None);
    }
    let folders = match env.get("RUNCAST_DATA_DIR") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => data_folders(current, env.get("HOME").map(PathBuf::from).as_deref()),
    };
    for folder in folders {
        let Some(url) = read_own_file(folder.join("url"), OTHERS_WRITE_MODE)? else {
            continue;
        };
        if !is_on_this_machine(&url) {
            let reason = "its address is not on this machine; set RUNCAST_URL to use it";
            let path = folder.join("url");
            return Err(RefusedFile { path, reason });
        }
        let token = read_own_file(folder.join("token"), OTHERS_READ_OR_WRITE_MODE)?;
        return Ok(token.map(|token| LocalGateway {
            folder,
            url,
            token: token.into(),
        }));
    }
    Ok(None)
}

/// `.local` of the current folder, and of those above it that belong to the same user and project.
fn data_folders(current: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let user = geteuid().as_raw();
    let mut folders = Vec::new();
    for folder in current.ancestors() {
        let is_own = folder
            .metadata()
            .is_ok_and(|metadata| metadata.uid() == user);
        if !is_own {
            break;
        }
        folders.push(folder.join(DATA_FOLDER));
        if folder.join(".git").exists() || Some(folder) == home {
            break;
        }
    }
    folders
}

/// The trimmed content of a file of this user; none if the file does not exist.
fn read_own_file(path: PathBuf, forbidden_mode: u32) -> Result<Option<String>, RefusedFile> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(&path);
    let refused = |reason| Err(RefusedFile { path, reason });
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(_unreadable) => return refused("it cannot be read, or is a link"),
    };
    let Ok(metadata) = file.metadata() else {
        return refused("it cannot be read");
    };
    if !metadata.is_file() {
        return refused("it is not a file");
    }
    if metadata.uid() != geteuid().as_raw() {
        return refused("it belongs to another user");
    }
    if metadata.mode() & forbidden_mode != 0 {
        return refused("other users can read or write it; run `chmod 600` on it");
    }
    let mut text = String::new();
    match file.take(MAX_FILE_BYTES).read_to_string(&mut text) {
        Ok(_bytes) => Ok(Some(text.trim().to_owned())),
        Err(_unreadable) => refused("it cannot be read as text"),
    }
}

fn is_on_this_machine(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else {
        return false;
    };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    host == "localhost" || is_loopback
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tempfile::TempDir;

    use super::*;

    const URL: &str = "http://127.0.0.1:7070";

    fn data_folder(parent: &Path) -> PathBuf {
        let folder = parent.join(DATA_FOLDER);
        fs::create_dir(&folder).expect("a folder");
        write(&folder.join("url"), URL, 0o600);
        write(&folder.join("token"), "rct_token", 0o600);
        folder
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, format!("{text}\n")).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    }

    fn found_in(env: &[(&str, &str)], current: &Path) -> Option<PathBuf> {
        let env: HashMap<&str, &str> = env.iter().copied().collect();
        let gateway = find(&env, current).expect("nothing is refused");
        gateway.map(|gateway| gateway.folder)
    }

    #[test]
    fn url_and_token_come_from_the_nearest_data_folder_in_the_repository() {
        let outside = TempDir::new().expect("a folder");
        data_folder(outside.path());
        let repository = outside.path().join("repository");
        let deep = repository.join("a/b");
        fs::create_dir_all(&deep).expect("folders");
        fs::create_dir(repository.join(".git")).expect("a folder");
        assert_eq!(found_in(&[], &deep), None, "not above the repository");
        let folder = data_folder(&repository);
        assert_eq!(found_in(&[], &deep), Some(folder));
        let gateway = find(&HashMap::<&str, &str>::new(), &deep);
        let gateway = gateway.expect("nothing is refused");
        let env = LocalEnv {
            env: HashMap::from([
                ("REDIS_URL", "redis://host"),
                ("RUNCAST_TOKEN", "of another installation"),
            ]),
            gateway,
        };
        assert_eq!(env.get("RUNCAST_URL").as_deref(), Some(URL));
        assert_eq!(env.get("RUNCAST_TOKEN").as_deref(), Some("rct_token"));
        assert_eq!(env.get("REDIS_URL").as_deref(), Some("redis://host"));
        assert_eq!(env.get("RUNCAST_SPOOL"), None);
        assert!(!format!("{env:?}").contains("rct_token"));
    }

    #[test]
    fn the_search_stops_at_the_home_folder() {
        let outside = TempDir::new().expect("a folder");
        data_folder(outside.path());
        let home = outside.path().join("home");
        let deep = home.join("a");
        fs::create_dir_all(&deep).expect("folders");
        let variable = home.to_str().expect("UTF-8");
        assert_eq!(found_in(&[("HOME", variable)], &deep), None);
        assert!(found_in(&[("HOME", "/nowhere")], &deep).is_some());
    }

    #[test]
    fn settings_come_before_files_and_production_never_looks() {
        let project = TempDir::new().expect("a folder");
        let folder = data_folder(project.path());
        let set = ("RUNCAST_URL", "http://runcast:7070");
        assert_eq!(found_in(&[set], project.path()), None);
        let production = ("RUNCAST_ENV", "production");
        assert_eq!(found_in(&[production], project.path()), None);
        let data = ("RUNCAST_DATA_DIR", folder.to_str().expect("UTF-8"));
        assert_eq!(found_in(&[data], Path::new("/")), Some(folder));
        let elsewhere = ("RUNCAST_DATA_DIR", "/nowhere");
        assert_eq!(found_in(&[elsewhere], project.path()), None);
    }

    #[test]
    fn files_that_others_could_read_or_write_are_refused() {
        for (name, text, mode) in [
            ("token", "rct_token", 0o640),
            ("token", "rct_token", 0o604),
            ("url", URL, 0o620),
            ("url", "http://example.com:7070", 0o600),
            ("url", "http://127.0.0.1.example.com", 0o600),
            ("url", "nonsense", 0o600),
        ] {
            let project = TempDir::new().expect("a folder");
            let path = data_folder(project.path()).join(name);
            write(&path, text, mode);
            let found = find(&HashMap::<&str, &str>::new(), project.path());
            let refused = found.expect_err(text).to_string();
            assert!(refused.contains(path.to_str().expect("UTF-8")), "{refused}");
            assert!(!refused.contains("rct_token"), "{refused}");
        }
        let project = TempDir::new().expect("a folder");
        let folder = data_folder(project.path());
        fs::rename(folder.join("token"), folder.join("other")).expect("renamed");
        symlink(folder.join("other"), folder.join("token")).expect("a link");
        let found = find(&HashMap::<&str, &str>::new(), project.path());
        found.expect_err("a link");
    }
}
