//! The numbered changes of the schema, embedded from `migrations/sqlite`.

use rusqlite::Connection;

/// Brings a database to the newest schema, in one transaction.
pub(crate) fn run(connection: &mut Connection) -> Result<(), refinery::Error> {
    embedded::migrations::runner()
        .set_grouped(true)
        .set_abort_divergent(true)
        .set_abort_missing(true)
        .run(connection)
        .map(|_| ())
}

/// The number of the newest schema that this program knows.
pub(crate) fn newest() -> u32 {
    let runner = embedded::migrations::runner();
    let newest = runner.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0);
    u32::try_from(newest).unwrap_or(u32::MAX)
}

mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}
