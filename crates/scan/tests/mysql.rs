//! A MariaDB or MySQL server that runs, read as a user who may not read everything.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a real server is waited for, and found in the PATH")]

#[path = "scan/common.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{KEY, searching, told_troubles};
use keymoat_scan::Troubles;

const TOKEN: &str = "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";

struct Server {
    dir: tempfile::TempDir,
    process: Child,
    port: u16,
}

impl Server {
    /// Makes and starts a server with what a script says.
    fn start(script: &str) -> Result<Self, String> {
        let found = |name: &str| {
            let dirs = std::env::var_os("PATH").unwrap_or_default();
            let dirs: Vec<PathBuf> =
                std::env::split_paths(&dirs).chain([PathBuf::from("/usr/sbin")]).collect();
            dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_file())
        };
        let (Some(server), Some(install)) = (found("mariadbd"), found("mariadb-install-db")) else {
            return Err("no MariaDB server is installed (Debian: mariadb-server-core)".to_owned());
        };
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let base = server.ancestors().nth(2).unwrap_or(Path::new("/"));
        let installed = Command::new(install)
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--user=root",
            ])
            .arg(format!("--basedir={}", base.display()))
            .arg(format!("--datadir={}", data.display()))
            .output()
            .unwrap();
        if !installed.status.success() {
            return Err("a MariaDB server is there and makes no database".to_owned());
        }
        std::fs::write(dir.path().join("init.sql"), script).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(&server)
            .args([
                "--no-defaults",
                "--user=root",
                "--bind-address=127.0.0.1",
                "--skip-name-resolve",
                "--max-allowed-packet=64M",
            ])
            .arg(format!("--basedir={}", base.display()))
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", dir.path().join("s").display()))
            .arg(format!("--pid-file={}", dir.path().join("pid").display()))
            .arg(format!("--init-file={}", dir.path().join("init.sql").display()))
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Ok(Self { dir, process, port })
    }

    /// Scans its database as soon as it answers.
    fn scan(&self, user: &str) -> (Vec<String>, Vec<String>) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let troubles = Troubles::default();
            let scan = searching(&troubles);
            let findings = scan.database(&format!("mysql://{user}@127.0.0.1:{}/shop", self.port)).unwrap();
            let troubles = told_troubles(&troubles);
            let is_up = !troubles.iter().any(|why| why.contains("cannot be reached"));
            if is_up || Instant::now() > deadline {
                let token = findings.iter().find(|finding| finding.fingerprint == KEY.of(TOKEN.as_bytes()));
                let mut places: Vec<String> = token
                    .iter()
                    .flat_map(|finding| &finding.places)
                    .map(|place| place.source.to_string())
                    .collect();
                places.sort();
                return (places, troubles);
            }
            // The server says nothing when it is up; whether it answers has to be tried.
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = self.dir.path();
    }
}

#[test]
fn a_running_mysql_database_is_read() {
    let script = format!(
        "CREATE DATABASE shop;
         CREATE TABLE shop.wp_options (option_id bigint AUTO_INCREMENT PRIMARY KEY, option_name varchar(191), option_value longtext);
         INSERT INTO shop.wp_options VALUES (1, 'siteurl', 'http://shop.example'), (2, 'github_token', '{TOKEN}');
         CREATE TABLE shop.`odd``name` (a int, b varchar(10), doc json, n decimal(5,2), PRIMARY KEY (a, b));
         INSERT INTO shop.`odd``name` VALUES (1, 'x', '{{\"deep\": {{\"token\": \"{TOKEN}\"}}}}', 1.5);
         CREATE TABLE shop.file (id int PRIMARY KEY, data longblob);
         INSERT INTO shop.file VALUES (9, CONCAT(REPEAT('x', 17000000), ' {TOKEN} y')), (10, NULL);
         CREATE TABLE shop.hidden (id int PRIMARY KEY, secret text);
         INSERT INTO shop.hidden VALUES (1, '{TOKEN}');
         CREATE USER 'reader'@'%' IDENTIFIED BY 'hunter2';
         GRANT SELECT ON shop.wp_options TO 'reader'@'%';
         GRANT SELECT ON shop.file TO 'reader'@'%';
         GRANT SELECT ON shop.`odd``name` TO 'reader'@'%';
         GRANT INSERT ON shop.hidden TO 'reader'@'%';\n"
    );
    // A file that is run at the start has a statement a line.
    let statements =
        script.split(";\n").map(|statement| statement.split_whitespace().collect::<Vec<_>>().join(" "));
    let script: String = statements.filter(|line| !line.is_empty()).map(|line| line + ";\n").collect();
    let server = match Server::start(&script) {
        Ok(server) => server,
        Err(why) => return println!("SKIP a_running_mysql_database_is_read: {why}"),
    };
    let (places, troubles) = server.scan("reader:hunter2");
    let address = format!("mysql://127.0.0.1:{}/shop", server.port);
    let expected = ["file.data, id 9", "odd`name.doc, a 1, b x", "wp_options.option_value, option_id 2"];
    assert_eq!(places, expected.map(|place| format!("{address} › {place}")), "{troubles:?}");
    assert_eq!(troubles, [format!("{address} › hidden may not be read by this user")]);
    let (places, troubles) = server.scan("reader:wrong");
    assert_eq!(places, [""; 0]);
    assert!(troubles[0].contains("refuses (1045)") && !troubles[0].contains("wrong"), "{troubles:?}");
}
