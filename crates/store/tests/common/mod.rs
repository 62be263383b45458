//! A vault's store in a directory of its own, for the tests: makes it, copies it, opens it, and edits it from outside.

#![allow(dead_code, reason = "each test binary uses a part of it")]

#[path = "../../../../testkit/cluster.rs"]
pub mod cluster;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use keymoat_core::audit::{Action, Actor, AuditText, Details, Event, Outcome, Personal, PrincipalKind};
use keymoat_core::id::{PrincipalId, RequestId};
use keymoat_crypto::{InstanceKey, MasterKey, RootKey, SecretBytes, SlotContext};
use keymoat_store::{
    Address, Archive, Committed, DataDir, Draft, Durability, Effect, Kept, Kind, LedgerKeys, Observer,
    OpenError, Report, SealedStore, Store, StoreError, Trust, Tx,
};
use tempfile::TempDir;

use cluster::Cluster;

pub struct Vault {
    tmp: TempDir,
    instance: Arc<InstanceKey>,
    /// Where the database is on a server; a file in the directory otherwise.
    url: Option<String>,
    /// The server, where this vault has one to itself.
    cluster: Option<Arc<Cluster>>,
}

impl Vault {
    pub fn new() -> Self {
        Self::in_directory(tempdir())
    }

    /// A vault on a disk, where a kill can tear files.
    pub fn on_disk() -> Self {
        Self::in_directory(tempfile::tempdir().unwrap())
    }

    pub fn in_directory(tmp: TempDir) -> Self {
        std::fs::create_dir(tmp.path().join("outside")).unwrap();
        Self { tmp, instance: Arc::new(InstanceKey::generate()), url: None, cluster: None }
    }

    /// A vault whose database is on a server of its own; none when there can be no server, which is said.
    pub fn on_own_server(test: &str) -> Option<Self> {
        match Cluster::start() {
            Ok(cluster) => {
                let url = cluster.url();
                Some(Self::on_server(Arc::new(cluster), url))
            }
            Err(why) => {
                skip(&format!("postgres {test}"), &why);
                None
            }
        }
    }

    /// A vault whose database is on a server.
    pub fn on_server(cluster: Arc<Cluster>, url: String) -> Self {
        Self { url: Some(url), cluster: Some(cluster), ..Self::new() }
    }

    /// Another node of the same vault.
    pub fn node(&self) -> Self {
        let node = Self::new();
        let (url, cluster) = (self.url.clone(), self.cluster.clone());
        Self { instance: Arc::clone(&self.instance), url, cluster, ..node }
    }

    /// The same node with its database elsewhere.
    pub fn with_url(self, url: String) -> Self {
        Self { url: Some(url), ..self }
    }

    /// The same with these options in the address.
    pub fn with_url_options(self, options: &str) -> Self {
        let url = self.url.as_ref().map(|url| format!("{url}{options}"));
        Self { url, ..self }
    }

    /// Another vault on the same server, in a schema of its own.
    pub fn beside(&self, schema: &str) -> Self {
        let url = self.url.as_ref().map(|url| format!("{url}?notify=off&schema={schema}"));
        Self { url, cluster: self.cluster.clone(), ..Self::new() }
    }

    pub fn is_on_server(&self) -> bool {
        self.url.is_some()
    }

    pub fn data(&self) -> PathBuf {
        self.tmp.path().join("data")
    }

    pub fn database(&self) -> PathBuf {
        keymoat_store::database_in(&self.data())
    }

    pub fn outside(&self) -> PathBuf {
        self.tmp.path().join("outside/checkpoint")
    }

    pub fn keys(&self) -> LedgerKeys {
        keys_of(&self.instance)
    }

    /// The same vault with its files copied to another place.
    pub fn copy(&self) -> Self {
        assert!(self.url.is_none(), "only files are copied");
        let instance = Arc::clone(&self.instance);
        let copy = Self { tmp: tempdir(), instance, url: None, cluster: None };
        for part in ["data", "outside"] {
            copy_dir(&self.tmp.path().join(part), &copy.tmp.path().join(part));
        }
        copy
    }

    /// Puts the database (not the file outside) of another copy here.
    pub fn put_back_database_of(&self, other: &Vault) {
        std::fs::remove_dir_all(self.data()).unwrap();
        copy_dir(&other.data(), &self.data());
    }

    pub fn sealed(&self) -> Result<SealedStore, OpenError> {
        self.sealed_with(Durability::Disk)
    }

    pub fn sealed_with(&self, durability: Durability) -> Result<SealedStore, OpenError> {
        let address = self.url.as_deref().map(|url| Address::parse(url).unwrap());
        SealedStore::open(DataDir::lock(&self.data())?.with_database(address)?, durability)
    }

    pub fn unseal(&self, trust: Trust, observer: Observer) -> Result<Store, OpenError> {
        self.sealed()?.unseal(self.keys(), &self.outside(), trust, observer)
    }

    pub fn open(&self) -> Result<Store, OpenError> {
        self.unseal(Trust::Checked, Box::new(|_| {}))
    }

    pub fn verify(&self) -> Result<Report, OpenError> {
        self.sealed()?.verify(&self.keys(), &self.outside(), |_| {})
    }

    /// A connection that goes round the store.
    pub fn edit(&self, sql: &str) {
        if let Some(cluster) = &self.cluster {
            let schema = self.url.as_deref().and_then(|url| url.split("schema=").nth(1)).unwrap_or("keymoat");
            cluster.sql("vault", &format!("SET search_path TO {schema}; {sql}")).unwrap();
            return;
        }
        let connection = rusqlite::Connection::open(self.database()).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    /// Leaves the keys in a file, for another process of the test.
    pub fn leave_keys(&self) {
        let master = MasterKey::generate();
        let root = RootKey::generate();
        std::fs::write(self.tmp.path().join("root"), master.wrap_root(&root, SLOT)).unwrap();
        let wrapped = root.wrap_instance_key(&self.instance, SLOT.instance);
        std::fs::write(self.tmp.path().join("instance"), wrapped).unwrap();
        // EXPOSE: a made-up key of a test crosses to its own child.
        master.to_text().expose(|text| std::fs::write(self.tmp.path().join("master"), text)).unwrap();
    }

    /// A connection of somebody else to its server.
    pub async fn client(&self) -> tokio_postgres::Client {
        let url = self.url.as_deref().unwrap().split('?').next().unwrap();
        let (client, link) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(link);
        client
    }

    pub fn dir(&self) -> &Path {
        self.tmp.path()
    }
}

/// In memory where there is such a place: most tests sync a great deal and ask nothing of the disk.
fn tempdir() -> TempDir {
    private(|builder| builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()))
}

/// What [`Vault::leave_keys`] left in this directory.
pub fn keys_left_in(dir: &Path) -> LedgerKeys {
    let master = SecretBytes::new(std::fs::read(dir.join("master")).unwrap());
    let read = |name| std::fs::read(dir.join(name)).unwrap();
    let root = MasterKey::parse(&master).unwrap().unwrap_root(&read("root"), SLOT).unwrap();
    keys_of(&root.unwrap_instance_key(&read("instance"), SLOT.instance).unwrap())
}

const SLOT: SlotContext<'static> = SlotContext { instance: uuid::Uuid::nil(), slot: 1, kind: "file" };

fn keys_of(instance: &InstanceKey) -> LedgerKeys {
    LedgerKeys {
        origin: "keymoat/test".to_owned(),
        signer: instance.audit_signer(1),
        state: instance.state_key(),
    }
}

/// A directory that nobody else can enter.
pub fn private(make: impl FnOnce(&mut tempfile::Builder<'_, '_>) -> std::io::Result<TempDir>) -> TempDir {
    make(tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))).unwrap()
}

pub fn make_private(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
}

fn copy_dir(from: &Path, to: &Path) {
    make_private(to);
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// An event that stands for nothing in particular, at second `n`.
pub fn draft(n: u64) -> Draft {
    let mut random = [7; 10];
    random[..8].copy_from_slice(&n.to_be_bytes());
    let event = Event {
        seq: 0,
        time: Timestamp::from_second(1_800_000_000 + i64::try_from(n).unwrap()).unwrap(),
        request: RequestId::from_parts(n, &random),
        actor: Actor::Principal { id: PrincipalId::from_parts(n % 3, &[1; 10]), kind: PrincipalKind::User },
        on_behalf_of: None,
        module: None,
        action: Action::Inspect,
        scope: Some("prod".parse::<keymoat_core::names::Environment>().unwrap().into()),
        company: None,
        path: Some(["stripe", "stripe/live", "stripelike", "other"][(n % 4) as usize].parse().unwrap()),
        field: None,
        version: None,
        result: Outcome::Allowed,
        reason: None,
        decided_by: None,
        personal: None,
        details: Details::new(),
        rows: Vec::new(),
    };
    Draft { event, personal: None }
}

/// The same with a name beside it.
pub fn personal_draft(n: u64) -> Draft {
    let personal = Personal { actor_name: Some(AuditText::new("ana")), ..Personal::default() };
    Draft { personal: Some(personal), ..draft(n) }
}

/// Writes one row with its event.
pub async fn put(store: &Store, n: u64, kind: Kind, key: &str, body: &str) -> Result<Committed, StoreError> {
    let (key, body) = (key.to_owned(), body.to_owned());
    change(store, n, move |tx| tx.put(kind, &key, &body, Some(b"ciphertext"))).await
}

/// Removes one row with its event.
pub async fn remove(store: &Store, n: u64, kind: Kind, key: &str) -> Result<Committed, StoreError> {
    let key = key.to_owned();
    change(store, n, move |tx| tx.remove(kind, &key).map(|_| ())).await
}

pub async fn change(
    store: &Store,
    n: u64,
    mut work: impl FnMut(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static,
) -> Result<Committed, StoreError> {
    let work = move |tx: &mut Tx<'_>| {
        tx.append(draft(n));
        work(tx)
    };
    store.run_tx("test", work).await.map(|((), committed)| committed)
}

/// Appends events `from..to`, many at once.
pub async fn append_many(store: &Store, from: u64, to: u64) -> Vec<u64> {
    let mut tasks = tokio::task::JoinSet::new();
    for n in from..to {
        let store = store.clone();
        tasks.spawn(async move { store.append(draft(n), None).await.unwrap().event });
    }
    tasks.join_all().await
}

/// Says that the records below `end` are archived.
pub async fn archive(store: &Store, n: u64, end: u64) -> Result<Committed, StoreError> {
    change(store, n, move |tx| {
        let old = tx.archive()?;
        let mark = Archive {
            end,
            thinned: old.as_ref().map_or(0, |old| old.thinned),
            kept: old.map(|old| old.kept).unwrap_or_default(),
            until: Timestamp::UNIX_EPOCH,
            at: Timestamp::UNIX_EPOCH,
            by: "ana".to_owned(),
        };
        tx.put_archive(&mark)
    })
    .await
}

/// Takes out what was archived, and says which stay.
pub async fn thin(store: &Store, n: u64) -> Kept {
    let mark = store.read(|reader| reader.archive()).await.unwrap().unwrap();
    let keep = store.keepers(|_| None).await.unwrap().below(mark.end);
    store.drop_archived(mark.end, keep).await.unwrap();
    finish(store, n).await
}

/// Says that everything is out that goes.
pub async fn finish(store: &Store, n: u64) -> Kept {
    let work = move |tx: &mut Tx<'_>| {
        tx.append(draft(n));
        let mark = tx.archive()?.unwrap();
        let kept = tx.kept_below(mark.end)?;
        tx.put_archive(&Archive { thinned: mark.end, kept: kept.clone(), ..mark })?;
        Ok::<_, StoreError>(kept)
    };
    store.run_tx("finish", work).await.unwrap().0
}

/// What an observer has been told, as the rows that it takes to be live.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Rows>>);

/// The number and the body of each live row.
pub type Rows = BTreeMap<(Kind, String), (u64, String)>;

impl Told {
    pub fn observer(&self) -> Observer {
        let told = self.clone();
        Box::new(move |effects| {
            let mut rows = told.0.lock().unwrap();
            for effect in effects {
                match effect {
                    Effect::Written(row) | Effect::Counted(row) => {
                        drop(rows.insert((row.kind, row.key), (row.seq, row.body)))
                    }
                    Effect::Removed { kind, key, .. } => drop(rows.remove(&(kind, key))),
                }
            }
        })
    }

    pub fn rows(&self) -> Rows {
        self.0.lock().unwrap().clone()
    }
}

/// Waits for what a real server has to bring about.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    let by = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !is_so() {
        assert!(std::time::Instant::now() < by, "it did not come about within 10 s");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// As [`until`], for what has to be asked for.
pub async fn until_async<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    let by = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !is_so().await {
        assert!(std::time::Instant::now() < by, "it did not come about within 30 s");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Leaves a figure behind for the table of what is promised.
#[allow(clippy::print_stdout, reason = "the test command collects it")]
pub fn figure(text: &str) {
    println!("FIGURE {text}");
}

#[allow(clippy::print_stderr, reason = "a test that was left out must be seen")]
pub fn skip(test: &str, reason: &str) {
    eprintln!("SKIP {test}: {reason}");
}

/// Each test, which takes a new vault, on either database.
#[macro_export]
macro_rules! on_both_databases {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test($crate::common::Vault::new()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                if let Some(vault) = $crate::common::Vault::on_own_server(stringify!($test)) {
                    super::$test(vault).await;
                }
            })*
        }
    };
}
