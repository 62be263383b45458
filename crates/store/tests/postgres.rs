//! The store on a PostgreSQL server, and several nodes on one.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::sync::Arc;

use common::cluster::Cluster;
use common::{Told, Vault, append_many, draft, put};
use keymoat_store::{Kind, StoreError, Trust};

fn vault(test: &str) -> Option<Vault> {
    match Cluster::start() {
        Ok(cluster) => {
            let url = cluster.url();
            Some(Vault::on_server(Arc::new(cluster), url))
        }
        Err(why) => {
            common::skip(test, &why);
            None
        }
    }
}

#[tokio::test]
async fn a_store_on_a_server_is_made_opened_and_opened_again() {
    let Some(vault) = vault("postgres_store") else { return };
    assert!(vault.sealed().unwrap().is_empty().unwrap());
    let store = vault.open().unwrap();
    let committed = put(&store, 1, Kind::Secret, "prod/a", "{}").await.unwrap();
    assert_eq!((committed.event, committed.change, committed.epoch), (0, 1, 0));
    assert_eq!(store.append(draft(2), None).await.unwrap().event, 1);
    append_many(&store, 3, 700).await;
    assert_eq!(store.verify(|_| {}).await.unwrap().problems, vec![]);
    store.close().await;
    let report = vault.verify().unwrap();
    assert_eq!((report.events, report.rows, report.problems), (699, 1, vec![]));
    let told = Told::default();
    let store = vault.unseal(Trust::Checked, told.observer()).unwrap();
    assert_eq!(told.rows().len(), 1);
    store.close().await;
}

#[tokio::test]
async fn two_nodes_write_one_log_and_hear_of_each_other() {
    for notify in ["on", "off"] {
        let Some(vault) = vault("postgres_nodes") else { return };
        let one = vault.with_url_options(&format!("?notify={notify}"));
        let two = one.node();
        let (told_one, told_two) = (Told::default(), Told::default());
        let first = one.unseal(Trust::Checked, told_one.observer()).unwrap();
        put(&first, 1, Kind::Token, "t", r#"{"n":1}"#).await.unwrap();
        let second = two.unseal(Trust::Checked, told_two.observer()).unwrap();
        assert_eq!(told_two.rows(), told_one.rows());
        let epoch = put(&second, 2, Kind::Token, "t", r#"{"n":2}"#).await.unwrap().epoch;
        // A decision under older rules is taken again, whichever node changed them.
        assert!(matches!(first.append(draft(3), Some(1)).await, Err(StoreError::Stale)));
        first.append(draft(3), Some(epoch)).await.unwrap();
        assert_eq!(told_one.rows(), told_two.rows());
        // What nobody writes after is heard of all the same.
        put(&second, 4, Kind::Secret, "prod/a", "{}").await.unwrap();
        common::until(|| told_one.rows() == told_two.rows()).await;
        let (some, more) = tokio::join!(append_many(&first, 10, 400), append_many(&second, 400, 800));
        let mut numbers: Vec<u64> = some.into_iter().chain(more).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (4..794).collect::<Vec<u64>>());
        assert_eq!(first.verify(|_| {}).await.unwrap().problems, vec![]);
        first.close().await;
        second.close().await;
        for node in [one, two] {
            let report = node.verify().unwrap();
            assert_eq!((report.events, report.problems), (794, vec![]));
        }
    }
}
