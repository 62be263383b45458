//! The numbered changes of the schema, embedded from `migrations/`. Both databases have the same numbers.
//!
//! Whatever is left to do is done in one transaction together with its numbers, so that a process or a server that dies
//! meanwhile leaves the older schema whole.

use refinery::{Migration, Runner};
use rusqlite::Connection;

#[cfg(test)]
mod tests;

/// The changes that lead from nothing to the newest schema, for both databases.
pub(crate) struct Migrations {
    file: Vec<Migration>,
    server: Vec<Migration>,
}

impl Migrations {
    /// Those that this program knows.
    pub(crate) fn embedded() -> Self {
        Self {
            file: embedded::migrations::runner().get_migrations().clone(),
            server: embedded_postgres::migrations::runner().get_migrations().clone(),
        }
    }

    /// Brings a database to the newest schema.
    pub(crate) fn run(&self, connection: &mut Connection) -> Result<(), refinery::Error> {
        runner(&self.file).run(connection).map(|_| ())
    }

    /// Brings a database on a server to the newest schema.
    pub(crate) async fn run_on_server(
        &self,
        client: &mut tokio_postgres::Client,
    ) -> Result<(), refinery::Error> {
        runner(&self.server).run_async(client).await.map(|_| ())
    }

    /// The number of the newest schema.
    pub(crate) fn newest(&self) -> u32 {
        let newest = self.file.iter().map(Migration::version).max().unwrap_or(0);
        u32::try_from(newest).unwrap_or(u32::MAX)
    }
}

fn runner(migrations: &[Migration]) -> Runner {
    Runner::new(migrations).set_grouped(true).set_abort_divergent(true).set_abort_missing(true)
}

mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

mod embedded_postgres {
    refinery::embed_migrations!("migrations/postgres");
}
