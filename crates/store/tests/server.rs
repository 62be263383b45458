//! What a PostgreSQL server, its administrator and other nodes may do to a node that runs, and what it makes of that.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::cluster::Cluster;
use common::{Told, Vault, change, put};
use keymoat_store::{Kind, StoreError, Trust};

fn vault(test: &str) -> Option<Vault> {
    Vault::on_own_server(test)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_runs_after_what_other_nodes_have_committed() {
    let Some(vault) = vault("members") else { return };
    let one = vault.with_url_options("?notify=off");
    let two = one.node();
    let told = Told::default();
    let first = one.unseal(Trust::Checked, told.observer()).unwrap();
    let second = two.open().unwrap();
    for n in 0..30 {
        put(&second, n, Kind::Token, "t", &format!("{{\"n\":{n}}}")).await.unwrap();
        let told = told.clone();
        let compared = change(&first, n, move |tx| {
            let in_memory = told.rows().remove(&(Kind::Token, "t".to_owned())).map(|(_, body)| body);
            let stored = tx.row(Kind::Token, "t")?.map(|row| row.body);
            if in_memory == stored { Ok(()) } else { Err(StoreError::Refused("memory was behind")) }
        });
        compared.await.unwrap();
    }
    first.close().await;
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_met_another_is_run_again() {
    let Some(vault) = vault("meetings") else { return };
    let one = vault.beside("meetings");
    let store = one.open().unwrap();
    put(&store, 0, Kind::Secret, "before", "{}").await.unwrap();
    let mut events = 1;
    for (times, is_written) in [(1, true), (10, true), (11, false)] {
        // A sequence is not rolled back, so it counts the attempts.
        one.edit(&format!(
            "CREATE SEQUENCE attempts;
             CREATE FUNCTION meet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
               IF nextval(''meetings.attempts'') <= {times} THEN
                 RAISE EXCEPTION ''could not serialize access'' USING ERRCODE = ''40001'';
               END IF;
               RETURN NEW;
             END';
             CREATE TRIGGER meet BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION meet()"
        ));
        let ran = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&ran);
        let key = format!("met {times}");
        let written = change(&store, 1, move |tx| {
            counted.fetch_add(1, Ordering::Relaxed);
            tx.put(Kind::Secret, &key, "{}", None)
        })
        .await;
        assert_eq!(written.is_ok(), is_written, "{times}: {written:?}");
        assert_eq!(ran.load(Ordering::Relaxed), (times + 1).min(11), "{times}");
        assert_eq!(store.stopped(), None);
        one.edit("DROP TRIGGER meet ON events; DROP FUNCTION meet; DROP SEQUENCE attempts");
        events += u64::from(is_written);
        let found = store.read(|r| Ok((r.events_len()?, r.rows_with_prefix(Kind::Secret, "", 99)?.len())));
        assert_eq!(found.await.unwrap(), (events, usize::try_from(events).unwrap()), "{times}");
    }
    put(&store, 2, Kind::Secret, "after", "{}").await.unwrap();
    store.close().await;
    assert_eq!(one.verify().unwrap().problems, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_from_a_server_that_is_behind() {
    let mut cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(why) => return common::skip("postgres behind", &why),
    };
    let vault = Vault::new().with_url(format!("{}?notify=off", cluster.url()));
    let store = vault.open().unwrap();
    put(&store, 1, Kind::Secret, "before", "{}").await.unwrap();
    let older = cluster.copy_of_data().unwrap();
    put(&store, 2, Kind::Secret, "after", "{}").await.unwrap();
    assert_eq!(store.read(|r| r.events_len()).await.unwrap(), 2);
    cluster.kill();
    cluster.put_back(&older).unwrap();
    cluster.start_again().unwrap();
    common::until_async(|| async {
        match store.read(|r| r.events_len()).await {
            Ok(events) => panic!("{events} events were read"),
            Err(error) => error.to_string().contains("behind what this node has seen"),
        }
    })
    .await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_while_the_tables_are_swept() {
    let Some(vault) = vault("sweep") else { return };
    let one = vault.beside("sweep");
    let store = one.open().unwrap();
    put(&store, 1, Kind::Secret, "a", "{}").await.unwrap();
    // Lets everybody write and nobody sweep.
    let holder = one.client().await;
    holder.batch_execute("BEGIN; LOCK TABLE sweep.state IN SHARE UPDATE EXCLUSIVE MODE").await.unwrap();
    let sweeping = tokio::spawn({
        let store = store.clone();
        async move { store.scrub().await }
    });
    let looker = one.client().await;
    common::until_async(|| async {
        let waits = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted";
        looker.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
    for n in 2..20 {
        put(&store, n, Kind::Secret, "a", "{}").await.unwrap();
    }
    assert!(!sweeping.is_finished());
    holder.batch_execute("COMMIT").await.unwrap();
    sweeping.await.unwrap().unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_not_as_it_was_made_is_refused() {
    let Some(vault) = vault("schema") else { return };
    let mut number = 0;
    let mut check = async |sql: &str, part: &str| {
        number += 1;
        let one = vault.beside(&format!("schema{number}"));
        let store = one.open().unwrap();
        put(&store, 1, Kind::Secret, "a", "{}").await.unwrap();
        store.close().await;
        one.open().unwrap().close().await;
        one.edit(sql);
        let refused = one.open().err().map(|error| error.to_string()).unwrap_or_default();
        let report = format!("{:?}", one.verify().unwrap().problems);
        assert!(refused.contains(part) && report.contains(part), "{sql}: {refused} {report}");
    };
    // Where texts are not compared by their bytes, a range of keys is another one.
    check("ALTER TABLE state ALTER COLUMN key TYPE TEXT COLLATE \"ucs_basic\"", "collate ucs_basic").await;
    check("ALTER TABLE events ALTER COLUMN path TYPE TEXT COLLATE \"default\"", "`events.path` text collate")
        .await;
    check("ALTER TABLE events ALTER COLUMN actor TYPE VARCHAR", "character varying").await;
    check("ALTER TABLE events ALTER COLUMN personal SET DEFAULT 'x'", "default").await;
    check("ALTER TABLE events ALTER COLUMN record DROP NOT NULL", "`events.record` bytea").await;
    check("ALTER TABLE tiles ADD COLUMN more BIGINT GENERATED ALWAYS AS (level) STORED", "generated").await;
    check("ALTER TABLE checkpoint DROP CONSTRAINT checkpoint_id_check", "checkpoint_id_check").await;
    check("ALTER TABLE tiles ADD CONSTRAINT few CHECK (number < 100)", "constraint `few`").await;
    check("DROP INDEX state_seq; CREATE INDEX state_seq ON state (seq)", "index `state_seq`").await;
    check("DROP INDEX events_path; CREATE INDEX events_path ON events (path, seq)", "`events_path`").await;
    check(
        "DROP INDEX events_actor; CREATE INDEX events_actor ON events (actor, seq) WHERE seq > 9",
        "WHERE (seq > 9)",
    )
    .await;
    check("DROP INDEX events_actor", "`events_actor`").await;
}
