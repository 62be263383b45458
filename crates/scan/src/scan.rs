//! One scan: what is searched with, what it may use, and what comes of it.

use std::io::Read;
use std::num::NonZeroUsize;
use std::path::Path;

use keymoat_detect::{Catalogue, Engine};

use crate::finding::{Finding, FingerprintKey, Keeper, Values};
use crate::git::{History, Repository, Scanned, StagedFiles};
use crate::inside::RowsOut;
use crate::look::Looker;
use crate::place::Source;
use crate::progress::Progress;
use crate::text::Searcher;
use crate::tree::Files;
use crate::trouble::Troubles;
use crate::{mysql, postgres};

/// What a scan is made with.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    /// What is searched for.
    pub engine: &'a Engine,
    /// The catalogue behind it, which knows how values may be shown.
    pub catalogue: &'a Catalogue,
    /// Names values.
    pub key: &'a FingerprintKey,
    /// How many threads may work.
    pub threads: NonZeroUsize,
    /// Hears how far it is.
    pub progress: &'a dyn Progress,
    /// Hears what could not be read.
    pub troubles: &'a Troubles,
    /// Hears of values; `&()` keeps none.
    pub keeper: &'a dyn Keeper,
}

impl Scan<'_> {
    /// Searches all that a repository holds: all refs, stashes, reflogs, and what nothing leads to.
    pub fn history(&self, history: &History<'_>) -> (Vec<Finding>, Scanned) {
        let values = Values::new(self);
        let scanned = history.search(self, &values);
        (values.into_findings(), scanned)
    }

    /// Searches what is staged in a repository for values that the files in `HEAD` do not have.
    pub fn staged(&self, repository: &Repository) -> (Vec<Finding>, StagedFiles) {
        let values = Values::new(self);
        let staged = crate::git::search_staged(repository, self, &values);
        (values.into_findings(), staged)
    }

    /// Searches the files of a directory, or one file.
    pub fn tree(&self, root: &Path) -> (Vec<Finding>, Files) {
        let values = Values::new(self);
        let files = crate::tree::search(root, self, &values);
        (values.into_findings(), files)
    }

    /// Searches a stream of any length with everything that is in it; `name` is what places are told by. Where it breaks
    /// off is among the troubles, and what came before is searched.
    pub fn stream(&self, name: &str, stream: impl Read) -> Vec<Finding> {
        let values = Values::new(self);
        let mut searcher = Searcher::new(self.engine, &values);
        Looker::new(self, &mut searcher, &values, Source::Stream(name.to_owned())).stream(stream);
        values.into_findings()
    }

    /// Searches a database that runs, by its address: `postgres://…`, `mysql://…`. It is only read, table by table; what this user may
    /// not read, and whatever else goes wrong, is among the troubles.
    ///
    /// # Errors
    /// When it is no such address; the sentence does not repeat it.
    pub fn database(&self, address: &str) -> Result<Vec<Finding>, String> {
        let values = Values::new(self);
        let mut searcher = Searcher::new(self.engine, &values);
        let mut search = |shown: String, read: &dyn Fn(&mut RowsOut<'_>) -> Result<(), String>| {
            Looker::new(self, &mut searcher, &values, Source::Database(shown)).database(read);
        };
        if is_mysql(address) {
            let address = mysql::Address::parse(address)?;
            search(address.shown(), &|out| mysql::read(&address, out));
        } else {
            let address = postgres::Address::parse(address)?;
            search(address.shown().to_owned(), &|out| postgres::read(&address, out));
        }
        Ok(values.into_findings())
    }
}

/// The address of a database as it may be shown: without user and password.
///
/// # Errors
/// When it is no such address; the sentence does not repeat it.
pub fn shown_address(address: &str) -> Result<String, String> {
    match is_mysql(address) {
        true => mysql::Address::parse(address).map(|address| address.shown()),
        false => postgres::Address::parse(address).map(|address| address.shown().to_owned()),
    }
}

fn is_mysql(address: &str) -> bool {
    address.starts_with("mysql://") || address.starts_with("mariadb://")
}
