//! Whatever dies at whichever statement of a migration, what was there before is there afterwards, and the next start goes
//! on. There is one version of the schema so far, so two more are made up here.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::hooks::{AuthAction, Authorization};

use super::*;
use crate::cluster::Cluster;
use crate::db::{Db, postgres, sqlite};
use crate::{Address, Durability, OpenError};

#[test]
fn both_databases_have_the_same_numbers() {
    let numbers = |migrations: &[Migration]| -> Vec<_> {
        migrations.iter().map(|m| (m.version(), m.name().to_owned())).collect()
    };
    let Migrations { file, server } = Migrations::embedded();
    assert_eq!(numbers(&file), numbers(&server));
}

#[test]
fn a_file_is_brought_up_to_date_whatever_is_killed() {
    let newest = with_made_up();
    let mut killed = 0;
    for from in 0..=embedded_newest() + 1 {
        for step in 1.. {
            let dir = tempdir();
            let path = dir.path().join("keymoat.db");
            if from > 0 {
                let old = sqlite::open_with(&path, Durability::Disk, &newest.up_to(from)).unwrap();
                old.execute_batch(A_ROW).unwrap();
            }
            let done = this_test(&path, step);
            let after = sqlite::open_with(&path, Durability::Disk, &newest).unwrap();
            check(&after, &newest, from, &format!("from {from}, killed at {step}"));
            drop(after);
            match sqlite::open_with(&path, Durability::Disk, &newest.up_to(newest.newest() - 1)) {
                Err(OpenError::Newer { found, .. }) => assert_eq!(found, newest.newest()),
                other => panic!("{:?}", other.err()),
            }
            if done {
                break;
            }
            killed += 1;
        }
    }
    // Beginnings, ends, and each statement between them, from each version.
    assert!(killed >= 30, "{killed}");
}

/// What the child does when this binary runs itself: brings the file up to date, and dies before so many statements.
#[test]
fn child_that_migrates() {
    let (Some(path), Some(step)) = (told(CHILD_FILE), told(CHILD_STEP)) else { return };
    let mut left: u32 = step.parse().unwrap();
    let mut connection = sqlite::open_file(Path::new(&path)).unwrap();
    sqlite::prepare(&connection, Durability::Disk).unwrap();
    let each = move |asked: rusqlite::hooks::AuthContext<'_>| {
        let begins_statement = match asked.action {
            AuthAction::CreateTable { .. }
            | AuthAction::CreateIndex { .. }
            | AuthAction::AlterTable { .. }
            | AuthAction::Transaction { .. }
            | AuthAction::Pragma { .. } => true,
            AuthAction::Insert { table_name } | AuthAction::Update { table_name, .. } => {
                !table_name.starts_with("sqlite_")
            }
            _ => false,
        };
        left -= u32::from(begins_statement);
        if left == 0 {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
        }
        Authorization::Allow
    };
    connection.authorizer(Some(each)).unwrap();
    sqlite::migrate(&mut connection, Path::new(&path), &with_made_up()).unwrap();
}

#[test]
fn a_server_is_brought_up_to_date_whatever_is_killed() {
    let cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(why) => return println!("SKIP postgres migrations: {why}"),
    };
    let newest = with_made_up();
    let mut killed = 0;
    for from in 0..=embedded_newest() + 1 {
        for step in 0.. {
            let at = format!("{}?notify=off&schema=s{from}_{step}", cluster.url());
            let address = Address::parse(&at).unwrap();
            if from > 0 {
                let old = postgres::open_with(&address, Durability::Disk, &newest.up_to(from)).unwrap();
                old.execute_batch(A_ROW).unwrap();
            }
            let Some(deadly) = newest.killing_the_server(from, step) else { break };
            assert!(postgres::open_with(&address, Durability::Disk, &deadly).is_err(), "{at}");
            killed += 1;
            let after = until_some(|| postgres::open_with(&address, Durability::Disk, &newest).ok());
            check(&after, &newest, from, &at);
            match postgres::open_with(&address, Durability::Disk, &newest.up_to(newest.newest() - 1)) {
                Err(OpenError::Newer { found, .. }) => assert_eq!(found, newest.newest()),
                other => panic!("{:?}", other.err()),
            }
        }
    }
    assert!(killed >= 20, "{killed}");
}

/// That the schema is the newest, whole, and that what was there is there still.
fn check(db: &Db, newest: &Migrations, from: u32, how: &str) {
    let number = |sql: &str| db.number(sql, &[]).unwrap();
    let versions = "SELECT CAST(version AS BIGINT) FROM refinery_schema_history ORDER BY version";
    let numbers = db.query(versions, &[], |row| row.int(0));
    assert_eq!(numbers.unwrap(), (1..=i64::from(newest.newest())).collect::<Vec<_>>(), "{how}");
    assert_eq!(number("SELECT COUNT(*) FROM state"), i64::from(from > 0), "{how}");
    let blue = i64::from(0 < from && from <= embedded_newest());
    assert_eq!(number("SELECT COUNT(*) FROM state WHERE colour = 'blue' AND body = '{}'"), blue, "{how}");
    assert_eq!(number("SELECT COUNT(*) FROM notes WHERE text = 'made up'"), 1, "{how}");
    let checkpoints = i64::from(db.server().is_some());
    assert_eq!(number("SELECT COUNT(*) FROM checkpoint"), checkpoints, "{how}");
    // It can be written as before.
    db.execute_batch("UPDATE state SET seq = seq + 1; INSERT INTO tiles VALUES (0, 0, '')").unwrap();
}

impl Migrations {
    fn up_to(&self, version: u32) -> Self {
        let known = |all: &[Migration]| {
            all.iter().filter(|m| u32::try_from(m.version()).unwrap() <= version).cloned().collect()
        };
        Self { file: known(&self.file), server: known(&self.server) }
    }

    /// The same, but that the server's own process is killed after so many statements of those that are beyond `from`.
    fn killing_the_server(&self, from: u32, statement: usize) -> Option<Self> {
        let mut server = self.up_to(from).server;
        let mut left = Some(statement);
        for migration in &self.server[server.len()..] {
            let sql = migration.sql().unwrap();
            let lines = sql.lines().filter(|line| !line.trim_start().starts_with("--"));
            let text = lines.collect::<Vec<_>>().join("\n");
            let mut statements: Vec<&str> = text.split(';').filter(|sql| !sql.trim().is_empty()).collect();
            match left {
                Some(here) if here <= statements.len() => {
                    statements.insert(here, KILL);
                    left = None;
                }
                Some(further) => left = Some(further - statements.len() - 1),
                None => {}
            }
            let name = format!("V{}__{}", migration.version(), migration.name());
            server.push(Migration::unapplied(&name, &statements.join(";")).unwrap());
        }
        left.is_none().then(|| Self { file: self.file.clone(), server })
    }
}

/// The embedded changes and two more.
fn with_made_up() -> Migrations {
    let mut all = Migrations::embedded();
    let next = all.newest() + 1;
    for (number, sql) in (next..).zip(MADE_UP) {
        for list in [&mut all.file, &mut all.server] {
            list.push(Migration::unapplied(&format!("V{number}__made_up_{number}"), sql).unwrap());
        }
    }
    all
}

fn embedded_newest() -> u32 {
    Migrations::embedded().newest()
}

/// Runs [`child_that_migrates`]; whether it came to its end.
fn this_test(path: &Path, step: u32) -> bool {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "migrations::tests::child_that_migrates", "--nocapture"])
        .env(CHILD_FILE, path)
        .env(CHILD_STEP, step.to_string())
        .stdout(Stdio::null())
        .output()
        .unwrap();
    use std::os::unix::process::ExitStatusExt as _;
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() || child.status.signal() == Some(9), "{said}");
    child.status.success()
}

#[allow(
    clippy::disallowed_methods,
    reason = "this binary runs itself, whose arguments are the test runner's"
)]
fn told(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[allow(clippy::disallowed_methods, reason = "a server tells nobody when it is back")]
fn until_some<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let by = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < by, "it did not come about within 30 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

const CHILD_FILE: &str = "KEYMOAT_TEST_CHILD_FILE";
const CHILD_STEP: &str = "KEYMOAT_TEST_CHILD_STEP";
const A_ROW: &str = "INSERT INTO state (kind, key, seq, body) VALUES ('setting', 'made up', 1, '{}')";
/// Each with statements that both databases know.
const MADE_UP: [&str; 2] = [
    "ALTER TABLE state ADD COLUMN colour TEXT;
     UPDATE state SET colour = 'blue';
     CREATE INDEX state_colour ON state (colour)",
    "CREATE TABLE notes (id BIGINT PRIMARY KEY, text TEXT NOT NULL);
     INSERT INTO notes VALUES (1, 'made up')",
];
/// The parent of the shell is the process that works for this connection.
const KILL: &str = "COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'";
