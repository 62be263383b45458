//! The catalogue: all providers together, checked against each other, with the indexes for look-ups.
//!
//! There is no table of providers in code; what is not in a file is not known. Files of the user are
//! read by the binary and handed in as text.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::classify::Classification;
use crate::file;
use crate::identify::Identification;
use crate::provider::{Key, Provider};

/// All providers that Keymoat knows. A clone is the same catalogue, not a copy.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// Sorted by id.
    providers: Arc<[Provider]>,
    /// Keys that their shape alone tells, the most telling first.
    by_shape: Arc<[KeyIndex]>,
    /// Keys by the exact name of a variable, in the order of the files.
    by_variable: Arc<HashMap<String, Vec<KeyIndex>>>,
}

/// Positions of a provider and of a key in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyIndex {
    pub(crate) provider: usize,
    pub(crate) key: usize,
}

impl Catalogue {
    /// The catalogue that is part of the program.
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<Catalogue> = LazyLock::new(|| {
            Catalogue::with_extra(&[]).expect("the embedded files are valid: a test checks them")
        });
        &BUILTIN
    }

    /// The catalogue of the program with the user's own files, each a file name and its text. A file
    /// whose `id` is already known replaces that provider, any other adds one.
    ///
    /// # Errors
    /// The first thing found wrong: in one file (syntax, an unknown key, a pattern) or between files
    /// (an id or a variable claimed twice, an example that is taken for something else).
    pub fn with_extra(extra: &[(String, String)]) -> Result<Self, CatalogueError> {
        let mut providers = Vec::new();
        providers.append(&mut file::parse_own(OWN)?);
        let mut own = parsed(extra)?;
        providers.retain(|known| own.iter().all(|provider| provider.id != known.id));
        let theirs: Vec<String> = own.iter().map(|provider| provider.id.clone()).collect();
        providers.append(&mut own);
        if theirs.is_empty() {
            return Ok(Self::index(providers));
        }
        check_claims(&providers)?;
        let catalogue = Self::index(providers);
        catalogue.check_examples_beside(&theirs)?;
        Ok(catalogue)
    }

    /// The catalogue of these files alone, each a name and its text.
    ///
    /// # Errors
    /// As [`Catalogue::with_extra`].
    pub fn of(files: &[(String, String)]) -> Result<Self, CatalogueError> {
        Self::checked(parsed(files)?)
    }

    fn checked(providers: Vec<Provider>) -> Result<Self, CatalogueError> {
        check_claims(&providers)?;
        let catalogue = Self::index(providers);
        catalogue.check_examples()?;
        Ok(catalogue)
    }

    /// All providers, by id.
    pub fn providers(&self) -> &[Provider] {
        &self.providers
    }

    /// The provider with this id.
    pub fn provider(&self, id: &str) -> Option<&Provider> {
        self.providers
            .binary_search_by(|provider| provider.id.as_str().cmp(id))
            .ok()
            .map(|at| &self.providers[at])
    }

    pub(crate) fn at(&self, index: KeyIndex) -> (&Provider, &Key) {
        let provider = &self.providers[index.provider];
        (provider, &provider.keys[index.key])
    }

    pub(crate) fn by_shape(&self) -> &[KeyIndex] {
        &self.by_shape
    }

    pub(crate) fn by_variable(&self) -> &HashMap<String, Vec<KeyIndex>> {
        &self.by_variable
    }

    fn index(mut providers: Vec<Provider>) -> Self {
        providers.sort_by(|a, b| a.id.cmp(&b.id));
        let mut by_shape = Vec::new();
        let mut by_variable: HashMap<String, Vec<KeyIndex>> = HashMap::new();
        for (p, provider) in providers.iter().enumerate() {
            for (k, key) in provider.keys.iter().enumerate() {
                let index = KeyIndex { provider: p, key: k };
                if !key.needs_context {
                    by_shape.push(index);
                }
                for variable in &key.variables {
                    by_variable.entry(variable.clone()).or_default().push(index);
                }
            }
        }
        // The order of specificity: a checksum proves, a longer literal says more than a shorter one.
        // The sort is stable, so the order of the files decides the rest.
        let rank = |index: &KeyIndex| {
            let key = &providers[index.provider].keys[index.key];
            let literal = key.prefixes.iter().map(String::len).min().unwrap_or(0);
            (!key.checksum.proves(), std::cmp::Reverse(literal))
        };
        by_shape.sort_by_key(rank);
        Self { providers: providers.into(), by_shape: by_shape.into(), by_variable: Arc::new(by_variable) }
    }

    /// Every example is its own key and nobody else's, every counter-example is not.
    fn check_examples(&self) -> Result<(), CatalogueError> {
        self.providers.iter().try_for_each(|provider| self.check_examples_of(provider))
    }

    /// The same for the providers named; of all others, which a test has checked, that none of those takes an example.
    fn check_examples_beside(&self, theirs: &[String]) -> Result<(), CatalogueError> {
        for provider in self.providers.iter() {
            if theirs.contains(&provider.id) {
                self.check_examples_of(provider)?;
                continue;
            }
            for key in provider.keys.iter().filter(|key| !key.needs_context) {
                for (i, example) in key.examples.iter().enumerate() {
                    let first = self.by_shape.iter().map(|&index| self.at(index)).find(|(other, found)| {
                        std::ptr::eq(*found, key)
                            || (theirs.contains(&other.id) && found.matches(example.as_bytes()))
                    });
                    if first.is_some_and(|(_, found)| !std::ptr::eq(found, key)) {
                        self.check_example(provider, key, i, example)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn check_examples_of(&self, provider: &Provider) -> Result<(), CatalogueError> {
        for key in &provider.keys {
            for (i, example) in key.examples.iter().enumerate() {
                self.check_example(provider, key, i, example)?;
            }
            for (i, counter) in key.counter_examples.iter().enumerate() {
                if self.found_as(key, counter).is_some_and(|(_, found)| std::ptr::eq(found, key)) {
                    let what = format!("counter-example {} of `{}/{}` matches", i + 1, provider.id, key.id);
                    let hint = "narrow the pattern or raise `min_entropy`";
                    return Err(CatalogueError::of(&provider.file, key.line, &what, hint));
                }
            }
        }
        Ok(())
    }

    fn check_example(
        &self,
        provider: &Provider,
        key: &Key,
        i: usize,
        example: &str,
    ) -> Result<(), CatalogueError> {
        let name = format!("example {} of `{}/{}`", i + 1, provider.id, key.id);
        match self.found_as(key, example) {
            Some((_, found)) if std::ptr::eq(found, key) => Ok(()),
            Some((other, found)) => {
                let what = format!("{name} is taken for `{}/{}` of `{}`", other.id, found.id, other.file);
                Err(CatalogueError::of(
                    &provider.file,
                    key.line,
                    &what,
                    "narrow the broader of the two patterns",
                ))
            }
            None => {
                let what = format!("{name} does not match");
                let hint = "look at prefixes, pattern, min_entropy and checksum";
                Err(CatalogueError::of(&provider.file, key.line, &what, hint))
            }
        }
    }

    /// What `text` is taken for where `key` would be looked for.
    fn found_as(&self, key: &Key, text: &str) -> Option<(&Provider, &Key)> {
        if !key.needs_context {
            return match self.identify(text.as_bytes()) {
                Identification::Known(known) => Some((known.provider, known.key)),
                Identification::Unknown => None,
            };
        }
        match self.identify_named(key.variables.first()?, text.as_bytes()) {
            Classification::Key(found) | Classification::NotSensitive(found) => {
                Some((found.provider, found.key))
            }
            _ => None,
        }
    }
}

/// What is wrong with a catalogue file, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CatalogueError {
    /// Name of the file.
    pub file: String,
    /// Line in it, from 1, where one can be named.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

impl CatalogueError {
    fn of(file: &str, line: Option<usize>, what: &str, hint: &str) -> Self {
        Self { file: file.to_owned(), line, what: what.to_owned(), hint: hint.to_owned() }
    }
}

impl fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "catalogue file `{}`", self.file)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {} (hint: {})", self.what, self.hint)
    }
}

fn parsed(files: &[(String, String)]) -> Result<Vec<Provider>, CatalogueError> {
    let mut providers = Vec::with_capacity(files.len());
    for (name, text) in files {
        add(&mut providers, file::parse(name, text)?)?;
    }
    Ok(providers)
}

fn add(providers: &mut Vec<Provider>, provider: Provider) -> Result<(), CatalogueError> {
    if let Some(known) = providers.iter().find(|known| known.id == provider.id) {
        let what = format!("the provider `{}` is already in `{}`", provider.id, known.file);
        return Err(CatalogueError::of(
            &provider.file,
            None,
            &what,
            "give it another id or merge the two files",
        ));
    }
    providers.push(provider);
    Ok(())
}

/// A variable stands for the keys of one provider; who comes later in the list is the one to blame.
fn check_claims(providers: &[Provider]) -> Result<(), CatalogueError> {
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for provider in providers {
        for key in &provider.keys {
            for variable in &key.variables {
                let owner = *owners.entry(variable).or_insert(&provider.id);
                if owner != provider.id {
                    let what = format!("the variable `{variable}` already belongs to `{owner}`");
                    let hint = "drop it, or replace that provider by a file with its id";
                    return Err(CatalogueError::of(&provider.file, key.line, &what, hint));
                }
            }
        }
    }
    Ok(())
}

/// The files of the program, as the build script writes them.
const OWN: &str = include_str!(concat!(env!("OUT_DIR"), "/catalogue.json"));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Check;
    use crate::question::Question;
    use include_dir::{Dir, include_dir};

    static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/catalogue");

    #[test]
    fn the_embedded_files_are_valid() {
        let files: Vec<_> = FILES
            .files()
            .map(|file| {
                (file.path().to_string_lossy().into_owned(), file.contents_utf8().unwrap().to_owned())
            })
            .collect();
        assert!(files.iter().all(|(name, _)| name.ends_with(".toml")));
        let catalogue = Catalogue::of(&files).map_err(|error| error.to_string()).unwrap();
        let ids = |catalogue: &Catalogue| -> Vec<String> {
            catalogue.providers().iter().map(|provider| provider.id.clone()).collect()
        };
        assert_eq!(ids(&catalogue), ids(Catalogue::builtin()));
        // Loading has tried every example. A lost file is noticed by the names of those that must be there.
        for id in FIRST_CLASS.split_whitespace() {
            assert!(catalogue.provider(id).is_some(), "{id}");
        }
        for provider in catalogue.providers() {
            let calls = !provider.checks.is_empty() || !provider.send.is_empty();
            // What can be asked is run against `testkit/stubs/providers.toml`.
            let is_asked = |check: &Check| {
                let key = provider.keys.iter().find(|key| key.field == check.field);
                key.is_some_and(|key| Question::about(provider, key).is_ok())
            };
            let is_run = !provider.checks.is_empty() && provider.checks.iter().all(is_asked);
            assert_eq!(provider.shape_only, calls && !is_run, "{}", provider.id);
            assert_eq!(provider.file, format!("{}.toml", provider.id));
            assert!(catalogue.provider(&provider.id).is_some());
        }
        assert!(catalogue.provider("nobody").is_none());
    }

    /// Providers that a shop is likely to have, and the forms that belong to nobody; the rest is breadth.
    const FIRST_CLASS: &str = "adyen amazon-sp-api anthropic authorize-net avalara aws azure basic-auth bigcommerce \
        braintree cloudflare cohere database datadog dhl digitalocean discord django docker easypost elevenlabs \
        fedex github gitlab google hubspot huggingface jwt keymoat klarna klaviyo mailchimp mailgun mistral \
        mollie npm odoo openai paypal private-key pypi quickbooks salesforce sendcloud sendgrid sentry \
        shipstation shopify slack square stripe taxjar telegram twilio ups usps woocommerce xero zendesk";

    const ACME: &str = r#"
id = "acme"
name = "Acme"
[links]
docs = "https://acme.test/docs"
[[key]]
id = "secret"
kind = "secret"
field = "secret_key"
prefixes = ["acme_"]
pattern = "acme_[a-z]{8}"
variables = ["ACME_KEY"]
examples = ["acme_abcdefgh"]
counter_examples = ["acme_abc"]
"#;

    fn load(texts: &[&str]) -> Result<Catalogue, CatalogueError> {
        let files: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(i, text)| (format!("extra{i}.toml"), (*text).to_owned()))
            .collect();
        Catalogue::with_extra(&files)
    }

    #[test]
    fn a_user_adds_and_replaces_providers() {
        let catalogue = load(&[ACME]).unwrap();
        assert_eq!(catalogue.providers().len(), Catalogue::builtin().providers().len() + 1);
        assert!(
            matches!(catalogue.identify(b"acme_abcdefgh"), Identification::Known(known) if known.provider.id == "acme")
        );

        let own_stripe = ACME.replace("\"acme\"", "\"stripe\"");
        let catalogue = load(&[&own_stripe]).unwrap();
        assert_eq!(catalogue.providers().len(), Catalogue::builtin().providers().len());
        assert_eq!(catalogue.provider("stripe").unwrap().name, "Acme");
        assert_eq!(catalogue.identify(b"sk_live_51MadeUpExample0000KeymoatTest"), Identification::Unknown);
    }

    #[test]
    fn wrong_files_are_refused_with_place_and_hint() {
        let check = |from: &str, to: &str, line: Option<usize>, what: &str| {
            let text = ACME.replace(from, to);
            assert_ne!(text, ACME, "the row changes nothing: {from}");
            let error = load(&[&text]).unwrap_err();
            assert!(error.what.contains(what), "{error}");
            assert_eq!(error.line, line, "{error}");
            assert!(!error.hint.is_empty() && error.file == "extra0.toml", "{error}");
        };
        check("[a-z]{8}", "[a-z", Some(11), "does not compile");
        check("[a-z]{8}", r"(a)\\1", Some(11), "does not compile");
        check("[a-z]{8}", "([a-z]{1,1000}){1,1000}", Some(11), "does not compile");
        check("acme_[a-z]{8}", ".*", Some(11), "matches nothing at all");
        check("acme_abcdefgh", "acme_abc", Some(7), "does not match");
        check("\"acme_abc\"", "\"acme_abcdefgh\"", Some(7), "counter-example 1");
        check("kind = \"secret\"", "kind = \"sekret\"", Some(8), "unknown variant");
        check("prefixes", "prefix", Some(10), "unknown field");
        check("id = \"acme\"", "id = \"Acme\"", Some(2), "not an id");
        check("id = \"acme\"", "", Some(1), "missing field");
        check("name = \"Acme\"", "name = ", Some(3), "");
        check("https://", "http://", Some(2), "not the address");
        check("ACME_KEY", "acme key", Some(7), "not the name of a variable");
        check("ACME_KEY", "STRIPE_SECRET_KEY", Some(7), "already belongs to `stripe`");
        check("counter_examples = [\"acme_abc\"]", "counter_examples = []", Some(7), "no examples");
        check("field =", "min_entropy = 9.0\nfield =", Some(7), "min_entropy");
        check("field =", "needs_context = true\nvariables = []\nfield =", Some(14), "duplicate key");
        check(
            "kind = \"secret\"",
            "kind = \"client_id\"\nseverity = \"high\"",
            Some(7),
            "not secret but has a severity",
        );
        let other = ACME.replace("\"acme\"", "\"acme2\"").replace("ACME_KEY", "ACME2_KEY");
        assert!(load(&[ACME, &other]).unwrap_err().what.contains("is taken for"), "two claim one shape");
        assert!(load(&[ACME, ACME]).unwrap_err().what.contains("already in"));
        assert!(load(&[&"#".repeat(300_000)]).unwrap_err().what.contains("bytes"));
        let call = "[[send]]\nhow = { scheme = \"bearer\", token = \"{nothing}\" }\nbase_url = \"https://a.test\"\nhosts = [\"a.test\"]\nsource = \"https://a.test\"\n";
        assert!(load(&[&format!("{ACME}{call}")]).unwrap_err().what.contains("{nothing}"));
        let call = call.replace("nothing", "secret_key");
        assert!(load(&[&format!("{ACME}{call}")]).is_ok());
        assert!(
            load(&[&format!("{ACME}{}", call.replace("[\"a.test\"]", "[]"))])
                .unwrap_err()
                .what
                .contains("hosts")
        );
        let anywhere = call.replace("[\"a.test\"]", "[\"*\"]");
        let error = load(&[&format!("{ACME}{anywhere}")]).unwrap_err();
        assert!(error.what.contains("`*` in `hosts`"), "{error}");
        let check = "[[check]]\nfield = \"secret_key\"\nrequest = { kind = \"call\", method = \"GET\", url = \"https://a.test/me\" }\nalive = [200]\ndead = [401]\nsource = \"https://a.test\"\n";
        let with_check = |from: &str, to: &str| load(&[&format!("{ACME}{call}{}", check.replace(from, to))]);
        assert!(with_check("", "").is_ok());
        for (from, to, what) in [
            ("[401]", "[]", "needs answers"),
            ("[401]", "[200]", "takes 200 for alive and for dead"),
            ("[200]", "[302]", "leads elsewhere"),
            ("[200]", "[200]\nalive_if = [{ at = \"ok\", is = [\"true\"] }]", "no JSON pointer"),
            ("a.test/me", "{shop}/me", "{shop}"),
        ] {
            let error = with_check(from, to).unwrap_err();
            assert!(error.what.contains(what), "{error}");
        }
        let told = "[200]\ndead_if = [{ at = \"/ok\", is = [\"false\"] }]\nalive_if = [{ status = 200, at = \"/ok\", is = [\"true\"] }]";
        assert!(with_check("[401]", told).is_ok());
        let place = "[odoo]\ncolumns = [{ name = \"a.b\", field = \"other\" }]\n";
        assert!(load(&[&format!("{ACME}{place}")]).unwrap_err().what.contains("`other`"));
    }

    #[test]
    fn an_error_reads_as_one_line() {
        let error = CatalogueError::of("acme.toml", Some(3), "x is wrong", "do y");
        assert_eq!(error.to_string(), "catalogue file `acme.toml`, line 3: x is wrong (hint: do y)");
    }
}
