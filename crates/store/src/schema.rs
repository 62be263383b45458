//! Whether the tables are those that Keymoat makes: a trigger or a view could lie to every reader.
//!
//! What should be there is read from a database in memory that has just been made by the same migrations.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::migrations;

/// Forbids what the schema of a database could do to those who use it.
pub(crate) fn distrust(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// What in the schema is not as Keymoat made it, in words.
pub(crate) fn problems(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let expected = expected()?;
    let found = objects(connection)?;
    let mut problems = Vec::new();
    for (object, sql) in &found {
        match expected.get(object) {
            None => problems.push(format!("the database has a {object} that Keymoat did not make")),
            Some(right) if right != sql => {
                problems.push(format!("the {object} of the database is not as Keymoat made it"));
            }
            Some(_) => {}
        }
    }
    let missing = expected.keys().filter(|object| !found.contains_key(object));
    problems.extend(missing.map(|object| format!("the {object} of the database is missing")));
    Ok(problems)
}

/// Removes what does not belong and makes what is missing, as far as no rows are in it.
pub(crate) fn mend(connection: &Connection) -> rusqlite::Result<()> {
    let expected = expected()?;
    let drop_order = ["trigger", "view", "index", "table"];
    for kind in drop_order {
        for object in objects(connection)?.into_keys().filter(|object| object.kind == kind) {
            if !expected.contains_key(&object) && !object.name.starts_with("sqlite_") {
                let name = object.name.replace('"', "\"\"");
                connection.execute_batch(&format!("DROP {kind} IF EXISTS \"{name}\""))?;
            }
        }
    }
    let found = objects(connection)?;
    for (object, sql) in expected {
        if !found.contains_key(&object) && !sql.is_empty() {
            connection.execute_batch(&sql)?;
        }
    }
    Ok(())
}

/// A table, index, trigger or view.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Object {
    kind: String,
    name: String,
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}

fn expected() -> rusqlite::Result<BTreeMap<Object, String>> {
    let mut fresh = Connection::open_in_memory()?;
    migrations::run(&mut fresh).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    objects(&fresh)
}

/// Every object with the text that makes it, empty for those that SQLite makes by itself.
fn objects(connection: &Connection) -> rusqlite::Result<BTreeMap<Object, String>> {
    connection
        .prepare("SELECT type, name, COALESCE(sql, '') FROM sqlite_schema")?
        .query_map([], |row| Ok((Object { kind: row.get(0)?, name: row.get(1)? }, row.get(2)?)))?
        .collect()
}
