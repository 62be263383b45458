//! The numbered changes of the schema, embedded from `migrations/`. Both databases have the same numbers.

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

/// Brings a database on a server to the newest schema, in one transaction.
pub(crate) async fn run_on_server(client: &mut tokio_postgres::Client) -> Result<(), refinery::Error> {
    embedded_postgres::migrations::runner()
        .set_grouped(true)
        .set_abort_divergent(true)
        .set_abort_missing(true)
        .run_async(client)
        .await
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

mod embedded_postgres {
    refinery::embed_migrations!("migrations/postgres");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_databases_have_the_same_numbers() {
        let numbers = |runner: refinery::Runner| -> Vec<_> {
            runner.get_migrations().iter().map(|m| (m.version(), m.name().to_owned())).collect()
        };
        let postgres = numbers(embedded_postgres::migrations::runner());
        assert_eq!(numbers(embedded::migrations::runner()), postgres);
    }
}
