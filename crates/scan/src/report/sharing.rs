//! The same key in two environments, which is a finding of its own: whoever gets into the lesser one has the other.

use sha2::{Digest as _, Sha256};

use keymoat_detect::Severity;

use super::advice::Fix;
use super::{Reported, Spot};
use crate::finding::Fingerprint;

/// The finding that a value stands in more than one environment, if it does.
pub(super) fn of(finding: &Reported) -> Option<Reported> {
    if finding.is_test() || finding.provider.is_none() || finding.severity < Severity::High {
        return None;
    }
    let mut named: Vec<(&'static str, &Spot)> =
        finding.spots.iter().filter_map(|spot| Some((environment(&spot.path)?, spot))).collect();
    named.sort_by_key(|(environment, _)| *environment);
    let mut environments: Vec<&str> = named.iter().map(|(environment, _)| *environment).collect();
    environments.dedup();
    if environments.len() < 2 {
        return None;
    }
    let between = environments.join(" and ");
    let mut shared = finding.clone();
    shared.rule = RULE.to_owned();
    shared.title = format!("{} used in {between}", finding.title);
    shared.spots = named.into_iter().map(|(_, spot)| spot.clone()).collect();
    shared.fingerprint = fingerprint(&finding.fingerprint, &environments);
    shared.fix = Fix {
        change: format!("Make one key for each of {between}, so that a leak in one does not open the others."),
        keep: "Keep each in its own environment of the vault, which refuses the same value in two.".to_owned(),
        command: finding.fix.command.clone(),
        link: finding.fix.link.clone(),
    };
    shared.weigh();
    Some(shared)
}

/// Another set of environments is another finding, also for a baseline.
fn fingerprint(of: &Fingerprint, environments: &[&str]) -> Fingerprint {
    let mut digest = Sha256::new();
    digest.update(of.as_bytes());
    for environment in environments {
        digest.update([0]);
        digest.update(environment);
    }
    Fingerprint::from_bytes(digest.finalize().into())
}

/// The environment that a path names: `.env.production`, `deploy/staging/values.yaml`.
fn environment(path: &str) -> Option<&'static str> {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let of = |word: &str| {
        let word = word.to_ascii_lowercase();
        ENVIRONMENTS.iter().find(|(_, words)| words.contains(&word.as_str())).map(|(name, _)| *name)
    };
    // The last word counts: `production/docker-compose.staging.yml` is of staging.
    words.filter_map(of).last()
}

const RULE: &str = "shared-between-environments";

/// Names of environments as people use them in paths. `test` is none: most such paths are tests.
const ENVIRONMENTS: [(&str, &[&str]); 3] = [
    ("dev", &["dev", "devel", "develop", "development"]),
    ("prod", &["prod", "production"]),
    ("staging", &["staging", "stage", "stg", "preprod", "uat"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_of_paths() {
        for (path, expected) in [
            (".env.production", Some("prod")),
            ("deploy/staging/values.yaml", Some("staging")),
            ("config/PROD.env", Some("prod")),
            ("production/compose.stage.yml", Some("staging")),
            ("src/development.py", Some("dev")),
            ("products/list.py", None),
            ("tests/test_settings.py", None),
            ("", None),
        ] {
            assert_eq!(environment(path), expected, "{path}");
        }
    }
}
