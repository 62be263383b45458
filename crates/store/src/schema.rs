//! Whether the tables are those that Keymoat makes: a trigger or a view could lie to every reader.
//!
//! What should be there is read from a database in memory that has just been made by the same migrations; on a server
//! it is a list.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::db::{Db, DbResult};
use crate::migrations::Migrations;

/// Forbids what the schema of a database could do to those who use it.
pub(crate) fn distrust(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// What in the schema is not as Keymoat made it, in words.
pub(crate) fn problems(db: &Db) -> DbResult<Vec<String>> {
    match db.file() {
        Some(connection) => Ok(problems_of_file(connection)?),
        None => problems_on_server(db),
    }
}

/// Removes what does not belong and makes what is missing, as far as no rows are in it. On a server it is left to its
/// administrator.
pub(crate) fn mend(db: &Db) -> DbResult<()> {
    match db.file() {
        Some(connection) => Ok(mend_file(connection)?),
        None => Ok(()),
    }
}

fn problems_of_file(connection: &Connection) -> rusqlite::Result<Vec<String>> {
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

fn mend_file(connection: &Connection) -> rusqlite::Result<()> {
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

/// Tables, indexes and columns in the schema, and what may lie: triggers, rules, policies.
fn problems_on_server(db: &Db) -> DbResult<Vec<String>> {
    let found = db.query(ON_SERVER, &[], |row| row.text(0))?;
    let mut problems = Vec::new();
    for object in found.iter().filter(|object| !EXPECTED_ON_SERVER.contains(&object.as_str())) {
        problems.push(format!("the database has a {object} that Keymoat did not make"));
    }
    for object in EXPECTED_ON_SERVER.iter().filter(|object| !found.iter().any(|found| found == *object)) {
        problems.push(format!("the {object} of the database is missing"));
    }
    Ok(problems)
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
    Migrations::embedded()
        .run(&mut fresh)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    objects(&fresh)
}

/// Every object with the text that makes it, empty for those that SQLite makes by itself.
fn objects(connection: &Connection) -> rusqlite::Result<BTreeMap<Object, String>> {
    connection
        .prepare("SELECT type, name, COALESCE(sql, '') FROM sqlite_schema")?
        .query_map([], |row| Ok((Object { kind: row.get(0)?, name: row.get(1)? }, row.get(2)?)))?
        .collect()
}

/// What is in the present schema, as the system's catalogue has it (PostgreSQL manual, chapter 53). Texts must be compared
/// by their bytes: under another collation a range of keys is another one, and a walk in pieces passes rows over.
const ON_SERVER: &str = "
    SELECT CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'view'
               WHEN 'f' THEN 'foreign table' ELSE 'relation' END || ' `' || c.relname || '`'
           || CASE WHEN c.relrowsecurity THEN ' with row security' ELSE '' END
           || CASE WHEN c.relpersistence <> 'p' THEN ' that is not kept' ELSE '' END
           || CASE WHEN EXISTS (SELECT 1 FROM pg_inherits h WHERE c.oid IN (h.inhparent, h.inhrelid))
              THEN ' with relatives' ELSE '' END
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = current_schema() AND c.relkind <> 'i' AND c.relname NOT LIKE 'refinery%'
    UNION ALL
    SELECT 'index `' || c.relname || '`'
           || replace(substr(pg_get_indexdef(c.oid), strpos(pg_get_indexdef(c.oid), ' ON ')),
                      ' ON ' || quote_ident(n.nspname) || '.', ' on ')
           || CASE WHEN i.indisunique THEN ', unique' ELSE '' END
           || CASE WHEN i.indisvalid AND i.indisready THEN '' ELSE ', not ready' END
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = current_schema() AND c.relname NOT LIKE 'refinery%'
    UNION ALL
    SELECT 'column `' || c.relname || '.' || a.attname || '` ' || format_type(a.atttypid, NULL)
           || CASE WHEN a.attcollation = 0 THEN '' ELSE ' collate ' || coalesce((SELECT quote_ident(l.collname)
                FROM pg_collation l WHERE l.oid = a.attcollation), '?') END
           || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
           || coalesce((SELECT ' default ' || pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d
                WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum), '')
           || CASE WHEN a.attidentity <> '' OR a.attgenerated <> '' THEN ' generated' ELSE '' END
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = current_schema() AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
       AND c.relname NOT LIKE 'refinery%'
    UNION ALL
    SELECT 'constraint `' || k.conname || '` ' || pg_get_constraintdef(k.oid)
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = current_schema() AND k.contype NOT IN ('n', 't') AND c.relname NOT LIKE 'refinery%'
    UNION ALL
    SELECT 'trigger `' || t.tgname || '`'
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = current_schema() AND NOT t.tgisinternal
    UNION ALL
    SELECT 'rule `' || rulename || '`' FROM pg_rules WHERE schemaname = current_schema()
    UNION ALL
    SELECT 'policy `' || policyname || '`' FROM pg_policies WHERE schemaname = current_schema()";
const EXPECTED_ON_SERVER: [&str; 36] = [
    "table `state`",
    "table `events`",
    "table `tiles`",
    "table `checkpoint`",
    "index `state_pkey` on state USING btree (kind, key), unique",
    "index `state_seq` on state USING btree (seq), unique",
    "index `events_pkey` on events USING btree (seq), unique",
    "index `events_actor` on events USING btree (actor, seq)",
    "index `events_path` on events USING btree (environment, path, seq)",
    "index `tiles_pkey` on tiles USING btree (level, number), unique",
    "index `checkpoint_pkey` on checkpoint USING btree (id), unique",
    "constraint `state_pkey` PRIMARY KEY (kind, key)",
    "constraint `events_pkey` PRIMARY KEY (seq)",
    "constraint `tiles_pkey` PRIMARY KEY (level, number)",
    "constraint `checkpoint_pkey` PRIMARY KEY (id)",
    "constraint `checkpoint_id_check` CHECK ((id = 1))",
    "column `state.kind` text collate \"C\" not null",
    "column `state.key` text collate \"C\" not null",
    "column `state.seq` bigint not null",
    "column `state.body` text collate \"C\"",
    "column `state.blob` bytea",
    "column `events.seq` bigint not null",
    "column `events.time` bigint not null",
    "column `events.actor` text collate \"C\" not null",
    "column `events.environment` text collate \"C\"",
    "column `events.path` text collate \"C\"",
    "column `events.record` bytea not null",
    "column `events.personal` bytea",
    "column `tiles.level` bigint not null",
    "column `tiles.number` bigint not null",
    "column `tiles.hashes` bytea not null",
    "column `checkpoint.id` bigint not null",
    "column `checkpoint.note` text collate \"C\" not null",
    "column `checkpoint.frontier` bytea not null",
    "column `checkpoint.change` bigint not null",
    "column `checkpoint.digest` bytea not null",
];
