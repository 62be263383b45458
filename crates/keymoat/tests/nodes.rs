//! Several nodes on one PostgreSQL database, as an operator runs them.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

#[path = "common/authority.rs"]
mod authority;
#[path = "../../../testkit/cluster.rs"]
mod cluster;
mod common;

use std::path::PathBuf;
use std::process::Command;

use authority::Authority;
use cluster::Cluster;
use common::{Done, Home, Server, done, feed};

/// A machine on which nodes run, each in a data directory of its own.
struct Machine {
    home: Home,
    url: String,
}

impl Machine {
    fn new(url: String) -> Self {
        Self { home: Home::new(), url }
    }

    fn command(&self, node: &str, arguments: &[&str]) -> Command {
        let mut command = self.home.command(&["--data", node]);
        command.args(arguments).env("KEYMOAT_DATABASE", &self.url);
        command
    }

    fn serve(&self, node: &str) -> Server {
        self.serve_with(node, &[])
    }

    fn serve_with(&self, node: &str, environment: &[(&str, &str)]) -> Server {
        std::fs::create_dir_all(self.home.path().join("logs")).unwrap();
        let mut command = self.command(node, &["serve", "--listen", "127.0.0.1:0"]);
        command.envs(environment.iter().copied());
        self.home.start_server_logging(command, &format!("logs/{node}"))
    }

    /// A copy of the master key, for a node that is to lose it.
    fn copy_of_key(&self, name: &str) -> String {
        let key = self.files(".key").pop().unwrap();
        self.home.file(name, &std::fs::read_to_string(key).unwrap()).display().to_string()
    }

    fn run(&self, node: &str, arguments: &[&str]) -> Done {
        done(self.command(node, arguments).output().unwrap())
    }

    #[track_caller]
    fn ok(&self, node: &str, arguments: &[&str]) -> Done {
        let done = self.run(node, arguments);
        assert_eq!(done.code, 0, "{node} {arguments:?}: {done:?}");
        done
    }

    fn put(&self, node: &str, path: &str, value: &str) -> Done {
        feed(self.command(node, &["put", path, "-", "--env", "prod"]), value)
    }

    fn reveal(&self, node: &str, path: &str) -> Done {
        self.run(node, &["reveal", path, "--env", "prod"])
    }

    /// A token that may reveal everything in production.
    fn token(&self, node: &str) -> String {
        self.ok(node, &["policy", "put", "reader", "--allow", "reveal", "--on", "prod/**"]);
        self.ok(node, &["account", "add", "shop", "--kind", "service-account", "--policy", "reader"]);
        self.ok(node, &["token", "create", "shop", "--ttl", "1d"]).stdout.trim().to_owned()
    }

    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.home.config()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.to_str().unwrap().ends_with(ending)).collect()
    }
}

/// What a server answers to a `reveal` with this token.
fn reveal_over_http(server: &Server, token: &str, path: &str) -> (u16, String) {
    common::http(&server.address(), "POST", &format!("/api/v1/reveal/prod/{path}"), token)
}

fn cluster_for(test: &str) -> Option<Cluster> {
    Cluster::start().inspect_err(|why| skip(test, why)).ok()
}

#[allow(clippy::print_stderr, reason = "a test that was left out must be seen")]
fn skip(test: &str, why: &str) {
    eprintln!("SKIP postgres {test}: {why}");
}

#[test]
fn what_one_node_writes_the_other_gives_out_and_refuses_at_once() {
    for notify in ["on", "off"] {
        let Some(cluster) = cluster_for("nodes") else { return };
        let machine = Machine::new(format!("{}?notify={notify}", cluster.url()));
        let _one = machine.serve("one");
        let two = machine.serve("two");
        assert_eq!(machine.put("one", "stripe", "sk_live_made_up_0001").code, 0);
        assert_eq!(machine.reveal("two", "stripe").stdout.trim(), "sk_live_made_up_0001");
        let token = machine.token("one");
        assert_eq!(reveal_over_http(&two, &token, "stripe").0, 200);
        // Not within a second: the very next request is refused, because its record comes after the revocation.
        machine.ok("one", &["account", "update", "shop", "--deactivate"]);
        let (status, body) = reveal_over_http(&two, &token, "stripe");
        assert!(status == 401 || status == 403, "{status} {body}");
        machine.ok("one", &["account", "update", "shop", "--activate"]);
        assert_eq!(reveal_over_http(&two, &token, "stripe").0, 200);
        let id = token_id(&machine, "one");
        machine.ok("one", &["token", "revoke", &id]);
        let (status, body) = reveal_over_http(&two, &token, "stripe");
        assert!(status == 401 || status == 403, "{status} {body}");
        for node in ["one", "two"] {
            assert!(machine.ok(node, &["audit", "verify"]).stdout.contains("intact"), "{node}");
        }
        assert_eq!(machine.files(".checkpoint").len(), 2, "each node keeps a checkpoint of its own");
    }
}

fn token_id(machine: &Machine, node: &str) -> String {
    let listed = machine.ok(node, &["token", "list", "--format", "json"]).stdout;
    let tokens: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let first = tokens.pointer("/tokens/0/id").or_else(|| tokens.pointer("/0/id"));
    first.unwrap_or_else(|| panic!("{listed}")).as_str().unwrap().to_owned()
}

#[test]
fn keys_that_one_node_changes_are_taken_over_by_the_other() {
    let Some(cluster) = cluster_for("keys") else { return };
    let machine = Machine::new(cluster.url());
    let _one = machine.serve("one");
    let two = machine.serve("two");
    assert_eq!(machine.put("one", "stripe", "sk_live_made_up_0001").code, 0);
    machine.ok("one", &["environment", "add", "qa"]);
    machine.ok("one", &["rekey", "data-key", "prod"]);
    machine.ok("one", &["rekey", "pepper"]);
    assert_eq!(machine.reveal("two", "stripe").stdout.trim(), "sk_live_made_up_0001");
    assert_eq!(machine.put("two", "stripe", "sk_live_made_up_0002").code, 0);
    assert_eq!(machine.reveal("one", "stripe").stdout.trim(), "sk_live_made_up_0002");
    // A new root key is under the master key, which the other node looks for where it found it; at once and every time.
    for round in 3..5 {
        let value = format!("sk_live_made_up_000{round}");
        machine.ok("one", &["rekey", "root"]);
        assert_eq!(common::http(&two.address(), "GET", "/readyz", "").0, 200);
        assert_eq!(machine.put("two", "stripe", &value).code, 0);
        machine.ok("two", &["environment", "add", &format!("stage{round}")]);
        assert_eq!(machine.reveal("two", "stripe").stdout.trim(), value);
        assert_eq!(machine.reveal("one", "stripe").stdout.trim(), value);
    }
    machine.ok("two", &["rekey", "root"]);
    assert_eq!(machine.put("one", "mail", "made up").code, 0);
    for node in ["one", "two"] {
        assert!(machine.ok(node, &["audit", "verify"]).stdout.contains("intact"), "{node}");
    }
}

#[test]
fn a_node_that_cannot_take_up_a_new_root_key_seals_itself() {
    let Some(cluster) = cluster_for("lost root") else { return };
    let machine = Machine::new(cluster.url());
    let _one = machine.serve("one");
    assert_eq!(machine.put("one", "stripe", "sk_live_made_up_0001").code, 0);
    let token = machine.token("one");
    let text = std::fs::read_to_string(machine.files(".key").pop().unwrap()).unwrap();
    let gone = machine.copy_of_key("gone.key");
    // The environment's own key is forgotten after the start; a file may be taken away; a command may fail.
    let command = format!("cat {}", machine.copy_of_key("failing.key"));
    let nodes = [
        ("two", "KEYMOAT_MASTER_KEY", text.trim()),
        ("three", "KEYMOAT_MASTER_KEY_FILE", gone.as_str()),
        ("four", "KEYMOAT_MASTER_KEY_COMMAND", command.as_str()),
    ]
    .map(|(node, variable, value)| (node, machine.serve_with(node, &[(variable, value)])));
    for (node, server) in &nodes {
        assert_eq!(reveal_over_http(server, &token, "stripe").0, 200, "{node}");
    }
    std::fs::remove_file(&gone).unwrap();
    std::fs::remove_file(machine.home.path().join("failing.key")).unwrap();
    let kept = machine.home.path().join("kept.key");
    let key = machine.files(".key").pop().unwrap();
    std::fs::rename(&key, &kept).unwrap();
    let mut rekey = machine.command("one", &["rekey", "root"]);
    rekey.env("KEYMOAT_MASTER_KEY_FILE", &kept);
    let rekeyed = done(rekey.output().unwrap());
    assert_eq!(rekeyed.code, 0, "{rekeyed:?}");
    for (node, server) in &nodes {
        let (status, body) = reveal_over_http(server, &token, "stripe");
        assert_eq!(status, 503, "{node} {body}");
        common::until(|| {
            let (status, body) = common::http(&server.address(), "GET", "/readyz", "");
            assert_eq!(status, 503, "{node} {body}");
            body.contains("the root key was changed on another node, and what opens it is not at hand")
        });
        assert!(!body.contains(".key"), "{node} {body}");
        assert!(server.log().contains("the server seals itself"), "{node}: {}", server.log());
        let said = machine.run(node, &["status"]);
        assert!(said.stdout.contains("sealed: the root key was changed"), "{said:?}");
        // Whoever brings what opens it goes on with the same process.
        let mut unseal = machine.command(node, &["unseal"]);
        unseal.env("KEYMOAT_MASTER_KEY_FILE", &kept);
        let unsealed = done(unseal.output().unwrap());
        assert_eq!(unsealed.code, 0, "{node} {unsealed:?}");
        assert_eq!(reveal_over_http(server, &token, "stripe").0, 200, "{node}");
    }
}

#[test]
fn a_sign_in_code_is_known_and_used_up_on_every_node_at_once() {
    // Nobody tells the nodes of changes here, and they look by themselves four times a second only.
    let Some(cluster) = cluster_for("codes") else { return };
    let machine = Machine::new(format!("{}?notify=off", cluster.url()));
    let (one, two) = (machine.serve("one"), machine.serve("two"));
    let (mut new, mut used, mut revoked) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..4 {
        let (here, there) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let code =
            || machine.ok(if round % 2 == 0 { "one" } else { "two" }, &["login", "--new-code", "admin"]);
        let sign_in = |server: &Server, code: &str| {
            let body = format!("{{\"code\":\"{code}\"}}");
            common::http_with(&server.address(), "POST", "/api/v1/sign-in/code", "", &body).0
        };
        let first = code().stdout.trim().to_owned();
        new.push(sign_in(there, &first));
        used.push((sign_in(here, &first), sign_in(there, &first)));
        let second = code().stdout.trim().to_owned();
        machine.ok("one", &["account", "update", "admin", "--deactivate"]);
        revoked.push((sign_in(&two, &second), sign_in(&one, &second)));
        machine.ok("one", &["account", "update", "admin", "--activate"]);
    }
    assert_eq!(new, [200; 4]);
    assert_eq!(used, [(401, 401); 4]);
    assert_eq!(revoked, [(401, 401); 4]);
}

#[test]
fn without_its_database_a_node_answers_nothing_and_comes_back_by_itself() {
    let Some(mut cluster) = cluster_for("outage") else { return };
    let machine = Machine::new(cluster.url());
    let one = machine.serve("one");
    assert_eq!(machine.put("one", "stripe", "sk_live_made_up_0001").code, 0);
    let token = machine.token("one");
    assert_eq!(reveal_over_http(&one, &token, "stripe").0, 200);
    cluster.kill();
    let (status, body) = reveal_over_http(&one, &token, "stripe");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("cannot be reached") && !body.contains("sk_live"), "{body}");
    assert_eq!(common::http(&one.address(), "GET", "/readyz", "").0, 503);
    let refused = machine.reveal("one", "stripe");
    assert!(refused.code != 0 && refused.stderr.contains("cannot be reached"), "{refused:?}");
    cluster.start_again().unwrap();
    common::until(|| reveal_over_http(&one, &token, "stripe").0 == 200);
    common::until(|| common::http(&one.address(), "GET", "/readyz", "").0 == 200);
    assert!(machine.ok("one", &["audit", "verify"]).stdout.contains("intact"));
}

#[test]
fn a_vault_moves_to_a_server_and_back() {
    let Some(cluster) = cluster_for("move") else { return };
    let machine = Machine::new(cluster.url());
    let home = &machine.home;
    home.ok(&["init"]);
    for n in 0..5 {
        home.put("prod", "stripe", "key", &format!("made up value {n}"));
    }
    home.put("dev", "mail", "password", "made up password");
    home.ok(&["backup", "first.backup"]);
    let events = |text: &str| text.split_whitespace().find_map(|word| word.parse::<u64>().ok()).unwrap();
    let before = events(&home.ok(&["audit", "verify"]).stdout);

    machine.ok("node", &["restore", "first.backup"]);
    let again = machine.run("other", &["restore", "first.backup"]);
    assert!(again.code != 0 && again.stderr.contains("already a vault"), "{again:?}");
    let _node = machine.serve("node");
    let history = machine.ok("node", &["history", "stripe", "--env", "prod"]).stdout;
    assert_eq!(
        history.lines().filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit())).count(),
        5,
        "{history}"
    );
    assert_eq!(
        machine.run("node", &["reveal", "stripe", "key", "--env", "prod"]).stdout.trim(),
        "made up value 4"
    );
    let old = machine.run("node", &["reveal", "stripe", "key", "--env", "prod", "--version", "2"]);
    assert_eq!(old.stdout.trim(), "made up value 1");
    let verified = machine.ok("node", &["audit", "verify"]).stdout;
    assert!(verified.contains("intact") && events(&verified) > before, "{verified}");
    machine.ok("node", &["backup", "second.backup"]);

    let back = home.command(&["--data", "back", "restore", "second.backup"]).output().unwrap();
    assert!(back.status.success(), "{back:?}");
    let value = done(
        home.command(&["--data", "back", "reveal", "mail", "password", "--env", "dev"]).output().unwrap(),
    );
    assert_eq!(value.stdout.trim(), "made up password", "{value:?}");
    let verified = done(home.command(&["--data", "back", "audit", "verify"]).output().unwrap());
    assert!(verified.stdout.contains("intact"), "{verified:?}");
}

#[test]
fn a_database_that_went_back_is_refused() {
    let Some(mut cluster) = cluster_for("rollback") else { return };
    let machine = Machine::new(cluster.url());
    let one = machine.serve("one");
    assert_eq!(machine.put("one", "stripe", "sk_live_made_up_0001").code, 0);
    let token = machine.token("one");
    let yesterday = cluster.copy_of_data().unwrap();
    assert_eq!(machine.put("one", "stripe", "sk_live_made_up_0002").code, 0);
    cluster.kill();
    cluster.put_back(&yesterday).unwrap();
    cluster.start_again().unwrap();
    // The node that runs notices as soon as it hears of it again, and stops for good.
    common::until(|| {
        let (status, body) = reveal_over_http(&one, &token, "stripe");
        assert_ne!(status, 200, "{body}");
        body.contains("put back to an older copy")
    });
    drop(one);
    let mut start = machine.command("one", &["serve", "--listen", "127.0.0.1:0"]);
    let refused = done(start.output().unwrap());
    assert!(refused.code != 0 && refused.stderr.contains("put back to an older copy"), "{refused:?}");
    let accepted = machine.ok("one", &["audit", "accept-restore", "--reason", "a test"]);
    assert!(accepted.stderr.contains("accepted") || accepted.stdout.contains("accepted"), "{accepted:?}");
    let _one = machine.serve("one");
    assert_eq!(machine.reveal("one", "stripe").stdout.trim(), "sk_live_made_up_0001");
}

#[test]
fn what_is_not_this_vaults_database_is_left_alone() {
    let Some(cluster) = cluster_for("foreign") else { return };
    let machine = Machine::new(cluster.url());
    let refused = |sql: &str, part: &str| {
        cluster.sql("vault", sql).unwrap();
        let refused = done(machine.command("one", &["serve", "--listen", "127.0.0.1:0"]).output().unwrap());
        assert!(refused.code != 0 && refused.stderr.contains(part), "{sql}: {refused:?}");
    };
    refused("CREATE SCHEMA keymoat; CREATE TABLE keymoat.recipes (name TEXT)", "not a Keymoat database");
    cluster.sql("vault", "DROP SCHEMA keymoat CASCADE; CREATE TABLE public.recipes (name TEXT)").unwrap();
    drop(machine.serve("one"));
    // Nobody else's master key opens it.
    let other = Machine::new(cluster.url());
    let stranger = done(other.command("two", &["serve", "--listen", "127.0.0.1:0"]).output().unwrap());
    assert!(stranger.code != 0 && stranger.stderr.contains("master key"), "{stranger:?}");
    refused("UPDATE keymoat.refinery_schema_history SET version = 99 WHERE version = 1", "newer Keymoat");
    cluster.sql("vault", "UPDATE keymoat.refinery_schema_history SET version = 1").unwrap();
    refused("CREATE RULE lie AS ON INSERT TO keymoat.events DO INSTEAD NOTHING", "rule `lie`");
    cluster.sql("vault", "DROP RULE lie ON keymoat.events").unwrap();
    // A directory keeps to its database.
    let without = done(machine.home.command(&["--data", "one", "status"]).output().unwrap());
    assert!(without.code != 0 && without.stderr.contains("KEYMOAT_DATABASE"), "{without:?}");
    // A database that was emptied is not begun anew by a node that knew it.
    cluster.sql("vault", "DROP SCHEMA keymoat CASCADE").unwrap();
    refused("SELECT 1", "gone");
}

#[test]
fn a_node_keeps_to_its_vault_wherever_that_is() {
    let Some(cluster) = cluster_for("another vault") else { return };
    let url = |host: &str, schema: &str| {
        format!("postgres://keymoat@{host}:{}/vault?schema={schema}", cluster.port())
    };
    let mut machine = Machine::new(url("127.0.0.1", "first"));
    drop(machine.serve("one"));
    // Another vault whose master key is at hand, too; and a place where there is none.
    machine.url = url("127.0.0.1", "second");
    drop(machine.serve("two"));
    for (schema, part) in [("second", "has worked with the vault `keymoat/"), ("third", "and is gone")] {
        machine.url = url("127.0.0.1", schema);
        let refused = machine.run("one", &["serve", "--listen", "127.0.0.1:0"]);
        assert!(refused.code != 0 && refused.stderr.contains(part), "{schema}: {refused:?}");
    }
    // Hosts change; the vault is the same.
    for host in ["localhost", "127.0.0.1,localhost"] {
        machine.url = url(host, "first");
        drop(machine.serve("one"));
        let node = std::fs::read_to_string(machine.home.path().join("one/node")).unwrap();
        assert!(node.contains("localhost"), "{node}");
    }
}

#[test]
fn the_way_to_the_database_is_encrypted_and_the_server_checked() {
    let authority = Authority::new();
    let pair = authority.issue(jiff::SignedDuration::from_hours(24));
    let cluster = match Cluster::start_encrypted(&pair.cert, &pair.key) {
        Ok(cluster) => cluster,
        Err(why) => return skip("encrypted", &why),
    };
    let roots = |home: &Home, name: &str, authority: &Authority| {
        home.file(name, &authority.pem).display().to_string()
    };
    let machine = Machine::new(String::new());
    let right = roots(&machine.home, "right.pem", &authority);
    let wrong = roots(&machine.home, "wrong.pem", &Authority::new());
    let at = |options: &str| Machine { url: format!("{}?{options}", cluster.url()), home: Home::new() };
    let good = at(&format!("sslmode=verify-full&sslrootcert={right}"));
    let _server = good.serve("one");
    assert_eq!(good.put("one", "stripe", "sk_live_made_up_0001").code, 0);
    assert_eq!(good.reveal("one", "stripe").stdout.trim(), "sk_live_made_up_0001");
    let check = |options: &str, part: &str| {
        let refused = at(options).run("one", &["serve", "--listen", "127.0.0.1:0"]);
        assert!(refused.code != 0 && refused.stderr.contains(part), "{options}: {refused:?}");
    };
    check(&format!("sslmode=verify-full&sslrootcert={wrong}"), "certificate");
    check("sslmode=verify-full", "certificate");
    check("sslmode=disable", "pg_hba.conf");
    check("sslmode=prefer", "protects nothing");
    check("sslrootcert=/nowhere", "/nowhere");
}
