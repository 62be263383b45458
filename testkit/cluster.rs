//! A private PostgreSQL cluster from the programs that are installed: made for one test, gone with it.
//!
//! It listens on this machine only, belongs to nobody's real data, and does not sync: nothing in it has to last. Test
//! binaries take it in with `#[path]`.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "a real server is waited for, and found in the PATH")]

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running server with one database, `vault`.
pub struct Cluster {
    programs: PathBuf,
    dir: TempDir,
    port: u16,
    server: Child,
}

impl Cluster {
    /// Makes and starts a cluster.
    ///
    /// # Errors
    /// Why there is none, for the line that says what was left out.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// The same with settings, as `postgresql.conf` writes them.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_with(settings: &[&str]) -> Result<Self, String> {
        let dir = private_dir().map_err(|error| format!("no directory for a cluster: {error}"))?;
        Self::start_in(dir, settings)
    }

    /// The same on a disk, with everything synced as in earnest: for measuring.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_on_disk() -> Result<Self, String> {
        let dir =
            make_private(TempDir::new()).map_err(|error| format!("no directory for a cluster: {error}"))?;
        Self::start_in(dir, &["fsync = on", "shared_buffers = 128MB"])
    }

    fn start_in(dir: TempDir, settings: &[&str]) -> Result<Self, String> {
        let programs = programs().ok_or("no PostgreSQL server is installed (Debian: postgresql)")?;
        let data = dir.path().join("data");
        let mut init = as_other_user(&programs.join("initdb"));
        init.args(["--username=keymoat", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        run(init.arg("--pgdata").arg(&data))?;
        let base =
            ["fsync = off", "synchronous_commit = on", "shared_buffers = 16MB", "max_connections = 60"];
        append(&data.join("postgresql.conf"), &base)?;
        append(&data.join("postgresql.conf"), settings)?;
        let mut cluster = Self::serve(programs, dir)?;
        cluster.sql("postgres", "CREATE DATABASE vault").inspect_err(|_| cluster.kill())?;
        Ok(cluster)
    }

    /// Makes and starts a cluster that takes encrypted connections only, with this certificate and its key (PEM).
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_encrypted(certificate: &str, key: &str) -> Result<Self, String> {
        let mut cluster = Self::start()?;
        let wrong = |error: io::Error| format!("the cluster's certificate cannot be written: {error}");
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = cluster.data().join(name);
            std::fs::write(&path, text).map_err(wrong)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(wrong)?;
            if is_root() {
                chown(&path, Some(NOBODY), Some(NOBODY)).map_err(wrong)?;
            }
        }
        let rules = cluster.data().join("pg_hba.conf");
        std::fs::write(&rules, "local all all trust\nhostssl all all 127.0.0.1/32 trust\n").map_err(wrong)?;
        append(&cluster.data().join("postgresql.conf"), &["ssl = on"])?;
        cluster.kill();
        cluster.start_again()?;
        Ok(cluster)
    }

    /// Makes and starts a standby that follows this server, under this name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn standby(&self, name: &str) -> Result<Self, String> {
        let dir = private_dir().map_err(|error| format!("no directory for a standby: {error}"))?;
        let data = dir.path().join("data");
        let mut copy = as_other_user(&self.programs.join("pg_basebackup"));
        copy.arg("--pgdata").arg(&data).args([
            "--checkpoint=fast",
            "--no-sync",
            "--write-recovery-conf",
            "--dbname",
        ]);
        run(copy.arg(format!("host=127.0.0.1 port={} user=keymoat application_name={name}", self.port)))?;
        Self::serve(self.programs.clone(), dir)
    }

    /// The address of its database.
    pub fn url(&self) -> String {
        format!("postgres://keymoat@127.0.0.1:{}/vault", self.port)
    }

    /// Its port on this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL in a database of it.
    ///
    /// # Errors
    /// What the server said.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
        psql.args(["--host=127.0.0.1", "--username=keymoat"]).arg(format!("--port={}", self.port));
        run(psql.args(["--dbname", database, "--command", sql]))
    }

    /// Changes settings that need no restart.
    ///
    /// # Errors
    /// What the server said.
    pub fn set(&self, settings: &[&str]) -> Result<(), String> {
        for setting in settings {
            self.sql("postgres", &format!("ALTER SYSTEM SET {setting}"))?;
        }
        self.sql("postgres", "SELECT pg_reload_conf()").map(|_| ())
    }

    /// Ends it at once, as a cut of the power would.
    pub fn kill(&mut self) {
        // What has ended already needs no end.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Whether it answers now; a server that was killed starts its processes anew by itself.
    pub fn answers(&self) -> bool {
        let mut ready = Command::new(self.programs.join("pg_isready"));
        ready.args(["--quiet", "--host=127.0.0.1"]).arg(format!("--port={}", self.port));
        ready.status().is_ok_and(|status| status.success())
    }

    /// Starts it again where it was, after [`Cluster::kill`].
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&mut self) -> Result<(), String> {
        // The backends of a killed server take a moment to notice.
        self.server =
            await_server(|| spawn(&self.programs, self.dir.path(), self.port), self.port, &self.programs)?;
        Ok(())
    }

    /// A copy of the files as they are: after a checkpoint, so that it can be put back.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn copy_of_data(&self) -> Result<TempDir, String> {
        let copy = private_dir().map_err(|error| format!("no directory for a copy: {error}"))?;
        let mut command = as_other_user(&self.programs.join("pg_basebackup"));
        command.arg("--pgdata").arg(copy.path().join("data")).args(["--checkpoint=fast", "--no-sync"]);
        command.args(["--dbname", &format!("host=127.0.0.1 port={} user=keymoat", self.port)]);
        run(&mut command)?;
        Ok(copy)
    }

    /// Puts a copy of the files in the place of those of this cluster, which must have been killed.
    ///
    /// # Errors
    /// When a file cannot be moved.
    pub fn put_back(&self, copy: &TempDir) -> Result<(), String> {
        let put = || {
            std::fs::remove_dir_all(self.data())?;
            std::fs::rename(copy.path().join("data"), self.data())
        };
        put().map_err(|error| format!("the copy cannot be put back: {error}"))
    }

    /// Makes a standby the one that writes.
    ///
    /// # Errors
    /// What the server said.
    pub fn promote(&self) -> Result<(), String> {
        self.sql("postgres", "SELECT pg_promote(true, 30)").map(|_| ())
    }

    /// The directory with its files.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn serve(programs: PathBuf, dir: TempDir) -> Result<Self, String> {
        let port = free_port().map_err(|error| format!("no free port: {error}"))?;
        let server = await_server(|| spawn(&programs, dir.path(), port), port, &programs)?;
        Ok(Self { programs, dir, port, server })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(programs: &Path, dir: &Path, port: u16) -> Result<Child, String> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .map_err(|error| format!("no log for the cluster: {error}"))?;
    let mut server = as_other_user(&programs.join("postgres"));
    server.arg("-D").arg(dir.join("data")).arg("-p").arg(port.to_string());
    server.args(["-h", "127.0.0.1", "-k"]).arg(dir);
    server.stdout(Stdio::null()).stderr(log).stdin(Stdio::null());
    server.spawn().map_err(|error| format!("`postgres` does not start: {error}"))
}

/// Starts a server and waits until it answers.
fn await_server(
    start: impl Fn() -> Result<Child, String>,
    port: u16,
    programs: &Path,
) -> Result<Child, String> {
    let until = Instant::now() + START_WITHIN;
    let mut server = start()?;
    loop {
        let mut ready = Command::new(programs.join("pg_isready"));
        ready.args(["--quiet", "--host=127.0.0.1"]).arg(format!("--port={port}"));
        if ready.status().is_ok_and(|status| status.success()) {
            return Ok(server);
        }
        // One that is still being left by a killed one's backends is started again.
        if matches!(server.try_wait(), Ok(Some(_))) {
            server = start()?;
        }
        if Instant::now() > until {
            // It has failed anyway.
            let _ = server.kill();
            return Err(format!("the cluster did not answer within {} s", START_WITHIN.as_secs()));
        }
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
}

/// The newest server's programs.
fn programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    versions.sort();
    let in_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|dir| dir.join("initdb").exists() && dir.join("postgres").exists())
    };
    versions.pop().or_else(in_path)
}

/// A command that ends with this process, and that is not root, since no server is started as root.
fn as_other_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=KILL");
    if is_root() {
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
    }
    command.arg(program);
    command.env_remove("PGPASSWORD").env("LC_ALL", "C");
    command
}

fn private_dir() -> io::Result<TempDir> {
    let in_memory = tempfile::Builder::new().prefix("keymoat-pg-").tempdir_in("/dev/shm");
    make_private(in_memory.or_else(|_| TempDir::new()))
}

fn make_private(made: io::Result<TempDir>) -> io::Result<TempDir> {
    let dir = made?;
    if is_root() {
        chown(dir.path(), Some(NOBODY), Some(NOBODY))?;
    }
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700))?;
    Ok(dir)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn append(path: &Path, lines: &[&str]) -> Result<(), String> {
    let write = || {
        let mut text = std::fs::read_to_string(path)?;
        lines.iter().for_each(|line| {
            text.push_str(line);
            text.push('\n');
        });
        std::fs::write(path, text)
    };
    write().map_err(|error| format!("`{}`: {error}", path.display()))
}

fn run(command: &mut Command) -> Result<String, String> {
    let name = format!("{command:?}");
    let done = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned()),
        false => Err(format!("{name}: {}", String::from_utf8_lossy(&done.stderr).trim())),
    }
}

/// The user and group `nobody` of every Linux.
const NOBODY: u32 = 65534;
const START_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);
