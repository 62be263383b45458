//! The same key in two environments or companies, which is a finding of its own: whoever gets into the lesser one has the
//! other.

use sha2::{Digest as _, Sha256};

use keymoat_detect::Severity;

use super::advice::Fix;
use super::{Reported, Spot};
use crate::finding::Fingerprint;

/// The findings that a value stands in more than one environment, or belongs to more than one company.
pub(super) fn of(finding: &Reported) -> Vec<Reported> {
    if finding.is_test() || finding.provider.is_none() || finding.severity < Severity::High {
        return Vec::new();
    }
    let by = |name: fn(&Spot) -> Option<String>| -> Vec<(String, &Spot)> {
        finding.spots.iter().filter_map(|spot| Some((name(spot)?, spot))).collect()
    };
    let environments = by(|spot| environment(&spot.path).map(str::to_owned));
    let companies = by(|spot| Some(format!("company {}", spot.cell.as_ref()?.company.as_ref()?)));
    [(ENVIRONMENTS_RULE, environments), (COMPANIES_RULE, companies)]
        .into_iter()
        .filter_map(|(rule, named)| between(finding, rule, named))
        .collect()
}

fn between(finding: &Reported, rule: &str, mut named: Vec<(String, &Spot)>) -> Option<Reported> {
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    if names.len() < 2 {
        return None;
    }
    let between = names.join(" and ");
    let mut shared = finding.clone();
    shared.rule = rule.to_owned();
    shared.title = format!("{}: the same in {between}", finding.title);
    shared.fingerprint = fingerprint(&finding.fingerprint, &names);
    shared.fix = Fix {
        change: format!(
            "Make one key for each of {between}, so that a leak in one does not open the others."
        ),
        keep: "Keep each in its own environment of the vault, which refuses the same value in two."
            .to_owned(),
        command: finding.fix.command.clone(),
        link: finding.fix.link.clone(),
    };
    shared.spots = named.into_iter().map(|(_, spot)| spot.clone()).collect();
    shared.weigh();
    Some(shared)
}

/// Another set of names is another finding, also for a baseline.
fn fingerprint(of: &Fingerprint, names: &[&str]) -> Fingerprint {
    let mut digest = Sha256::new();
    digest.update(of.as_bytes());
    for name in names {
        digest.update([0]);
        digest.update(name);
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
    words.rev().find_map(of)
}

const ENVIRONMENTS_RULE: &str = "shared-between-environments";
const COMPANIES_RULE: &str = "shared-between-companies";

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
