//! Where a repository is pushed to, as its configuration says, and whether anybody may read there.
//!
//! Whether a repository is public only its host knows, and nobody is asked: the host's name has to do.

use std::fs;

use crate::git::Repository;

/// Where a repository is pushed to, without user and password.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remote {
    /// The host.
    pub host: String,
    /// The path there, without `.git`.
    pub path: String,
}

impl Remote {
    /// All remotes of a repository.
    pub fn all_of(repository: &Repository) -> Vec<Self> {
        let text = fs::read(repository.common_dir.join("config")).unwrap_or_default();
        remotes(&String::from_utf8_lossy(&text))
    }

    /// Whether the host is one where most repositories may be read by anybody.
    pub fn looks_public(&self) -> bool {
        PUBLIC_HOSTS.contains(&self.host.as_str())
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

fn remotes(config: &str) -> Vec<Remote> {
    let mut in_remote = false;
    let mut found = Vec::new();
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            in_remote = line.to_ascii_lowercase().starts_with("[remote ");
        } else if in_remote
            && let Some((key, value)) = line.split_once('=')
            && matches!(key.trim().to_ascii_lowercase().as_str(), "url" | "pushurl")
        {
            found.extend(parse(value.trim().trim_matches('"')));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Reads `https://host/path`, `ssh://git@host:22/path` and `git@host:path`; a path on this machine is no remote.
fn parse(address: &str) -> Option<Remote> {
    let (host, path) = match address.split_once("://") {
        Some(("file", _)) => return None,
        Some((_, rest)) => rest.split_once('/')?,
        None => {
            let (host, path) = address.split_once(':')?;
            (!host.contains('/')).then_some((host, path))?
        }
    };
    let host = host.rsplit('@').next()?.split(':').next()?.to_ascii_lowercase();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if host.is_empty() || !host.chars().all(is_name) {
        return None;
    }
    let path = path.split(['?', '#']).next()?.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    Some(Remote { host, path: path.chars().filter(|c| !c.is_control()).collect() })
}

const PUBLIC_HOSTS: [&str; 7] = [
    "github.com",
    "gist.github.com",
    "gitlab.com",
    "bitbucket.org",
    "codeberg.org",
    "git.sr.ht",
    "sourceforge.net",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (address, expected) in [
            ("https://github.com/acme/shop.git", Some("github.com/acme/shop")),
            ("https://user:MadeUp0000Pass@github.com/acme/shop", Some("github.com/acme/shop")),
            ("git@GitHub.com:acme/shop.git", Some("github.com/acme/shop")),
            ("ssh://git@git.acme.test:2222/acme/shop.git/", Some("git.acme.test/acme/shop")),
            ("../shop", None),
            ("/srv/git/shop.git", None),
            ("/srv/a:b/shop.git", None),
            ("file:///srv/git/shop.git", None),
            ("", None),
        ] {
            assert_eq!(parse(address).map(|remote| remote.to_string()).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn remotes_of_a_configuration() {
        let config = "[core]\n\turl = https://github.com/not/this\n[remote \"origin\"]\n\turl = git@github.com:a/b.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n[Remote \"in\"]\n\tURL = \"https://git.acme.test/a/b\"\n[branch \"main\"]\n\tremote = origin\n";
        let found = remotes(config);
        let shown: Vec<String> = found.iter().map(Remote::to_string).collect();
        assert_eq!(shown, ["git.acme.test/a/b", "github.com/a/b"]);
        assert_eq!(found.iter().map(Remote::looks_public).collect::<Vec<_>>(), [false, true]);
    }
}
