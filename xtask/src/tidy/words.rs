//! Words that must not stand in the repository: the machines it was written on and the addresses of registries.
//!
//! It does not judge prose, and it does not look for secrets; that is what the product does.

use super::Violation;

/// Checks every line of one text file.
pub fn check(file: &str, text: &str) -> Vec<Violation> {
    let words = WORDS.iter().filter(|word| !word.may_stand_in.iter().any(|place| file.starts_with(place)));
    let words: Vec<&Word> = words.collect();
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for word in words.iter().filter(|word| line.contains(word.text)) {
            let advice = format!("`{}` {}", word.text, word.why);
            found.push(Violation::new(file, index + 1, "word", advice));
        }
    }
    found
}

struct Word {
    text: &'static str,
    why: &'static str,
    /// Beginnings of file names where the word belongs.
    may_stand_in: &'static [&'static str],
}

const PATH: &str = "is a path of one machine; name it relative to the repository or a temporary directory";
const REGISTRY: &str = "is the address of a registry; a package is named by its name";
const FOREIGN: &str = "has nothing to do with the project";
/// Package registries are providers too: their tokens are in the catalogue, with the links to their documentation.
const REGISTRY_PLACES: &[&str] = &["Cargo.lock", "fuzz/Cargo.lock", "crates/detect/", "testkit/stubs/"];

// In two pieces each, or this file would break its own rule.
const WORDS: [Word; 10] = [
    Word { text: concat!("/wo", "rk/"), why: PATH, may_stand_in: &[] },
    Word { text: concat!("/tmp/", "brief"), why: PATH, may_stand_in: &[] },
    Word { text: concat!(".lib", "rary/"), why: PATH, may_stand_in: &[] },
    Word { text: concat!("bash", "_jobs"), why: FOREIGN, may_stand_in: &[] },
    Word { text: concat!("Co-Auth", "ored-By"), why: FOREIGN, may_stand_in: &[] },
    Word { text: concat!("crates", ".io"), why: REGISTRY, may_stand_in: REGISTRY_PLACES },
    Word { text: concat!("pypi", ".org"), why: REGISTRY, may_stand_in: REGISTRY_PLACES },
    Word { text: concat!("pythonhosted", ".org"), why: REGISTRY, may_stand_in: REGISTRY_PLACES },
    Word { text: concat!("registry.npmjs", ".org"), why: REGISTRY, may_stand_in: REGISTRY_PLACES },
    Word { text: concat!("proxy.golang", ".org"), why: REGISTRY, may_stand_in: REGISTRY_PLACES },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_and_registries_are_not_named() {
        let path = concat!("see /wo", "rk/notes");
        let registry = concat!("https://pypi", ".org/simple");
        for (file, text, lines) in [
            ("docs/a.md", format!("fine\n{path}\n"), &[2][..]),
            ("docs/a.md", format!("{registry}\n{path}\n"), &[1, 2]),
            ("crates/detect/catalogue/pypi.toml", registry.to_owned(), &[]),
            ("crates/detect/catalogue/pypi.toml", path.to_owned(), &[1]),
            ("Cargo.lock", concat!("crates", ".io").to_owned(), &[]),
            ("docs/a.md", "work/ and the library".to_owned(), &[]),
        ] {
            let found: Vec<usize> = check(file, &text).into_iter().map(|violation| violation.line).collect();
            assert_eq!(found, lines, "{file}: {text}");
        }
    }
}
