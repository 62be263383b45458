//! Closing and opening: everything is still there, and only the right key opens.

use keymoat_core::audit::{Action, AuditText};
use keymoat_crypto::{Argon2Params, MasterKey};
use keymoat_store::Durability;
use keymoat_vault::entity::SlotSource;
use keymoat_vault::{Code, MasterKeyOffer, NewSlot, NewVault, SealedVault, VaultError};

use crate::common::*;

#[tokio::test]
async fn everything_survives() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.vault.put_company(&owner, "acme".parse().unwrap(), "ACME".to_owned()).await.unwrap();
    for n in 0..20 {
        desk.put(&owner, &format!("prod/s{}", n % 5), &format!("value {n}")).await.unwrap();
    }
    desk.put(&owner, "prod/acme:s0", "own").await.unwrap();
    let shop = desk.service("shop", READS).await;
    desk.vault.create_grant(&owner, new_grant("shop", READS, 5)).await.unwrap();
    let counts = desk.vault.counts();
    let changes = desk.vault.changes(&owner, 0, 1000).await.unwrap().changes.len();
    let mut desk = desk;
    for _ in 0..3 {
        desk = desk.reopened().await;
        assert_eq!(desk.vault.counts(), counts);
        let shop = &shop;
        for n in 15..20 {
            let revealed = desk.reveal(shop, &format!("prod/s{}", n % 5)).await.unwrap();
            assert_eq!((text(&revealed.value), revealed.version), (format!("value {n}"), 4));
        }
        for version in 1..=4 {
            let wanted = keymoat_vault::Wanted::Number(version);
            desk.vault.reveal(shop, &secret("prod/s0"), None, &wanted, None).await.unwrap();
        }
        assert_eq!(text(&desk.reveal(&desk.owner().await, "prod/acme:s0").await.unwrap().value), "own");
        assert_eq!(desk.vault.changes(&desk.owner().await, 0, 1000).await.unwrap().changes.len(), changes);
        let report = desk.vault.verify(&desk.owner().await).await.unwrap();
        assert_eq!(report.problems, []);
    }
}

#[track_caller]
fn sealed_with(result: Result<keymoat_vault::Vault, VaultError>) -> String {
    let error = coded(result.map(drop), Code::Sealed);
    format!("{error} ({})", error.hint.as_deref().unwrap_or_default())
}

#[tokio::test]
async fn only_the_right_key_opens() {
    let desk = Desk::new().await;
    desk.put(&desk.owner().await, "prod/a", "value").await.unwrap();
    let desk = desk
        .closed_then(|shut| {
            let open = |offer| shut.sealed().unwrap().unseal(&offer, shut.surroundings());
            let said = sealed_with(open(MasterKeyOffer::Key(MasterKey::generate().to_text())));
            assert!(
                said.contains("does not fit") && said.contains("01920000-0000") && said.contains("key"),
                "{said}"
            );
            sealed_with(open(MasterKeyOffer::Key(bytes("not a key"))));
            sealed_with(open(MasterKeyOffer::Key(bytes(""))));
            sealed_with(open(MasterKeyOffer::Passphrase(bytes("hush"))));
            sealed_with(open(MasterKeyOffer::Shares(Vec::new())));
            open(shut.offer()).unwrap()
        })
        .await;
    assert_eq!(text(&desk.reveal(&desk.owner().await, "prod/a").await.unwrap().value), "value");
}

async fn made_with(source: SlotSource, master: MasterKey) -> (Desk, Result<(), VaultError>) {
    let desk = Desk::new().await;
    let dir = desk.tmp.path().join("other");
    let empty = SealedVault::open(&dir, Durability::Disk).unwrap().err().unwrap();
    let new = NewVault {
        instance: uuid::Uuid::from_u128(7),
        slot: NewSlot { source, master },
        os_user: "ana".to_owned(),
        environments: vec!["prod".parse().unwrap()],
    };
    let made = empty.create(new, desk.surroundings()).await.map(|(vault, _)| vault);
    match made {
        Ok(vault) => {
            vault.close().await;
            (desk, Ok(()))
        }
        Err(error) => (desk, Err(error)),
    }
}

#[tokio::test]
async fn a_passphrase_opens() {
    let argon2 = Argon2Params::generate();
    let master = MasterKey::from_passphrase(&bytes("correct horse battery staple"), &argon2).unwrap();
    let (desk, made) = made_with(SlotSource::Passphrase { argon2 }, master).await;
    made.unwrap();
    let dir = desk.tmp.path().join("other");
    let open = |offer| {
        SealedVault::open(&dir, Durability::Disk).unwrap().ok().unwrap().unseal(&offer, desk.surroundings())
    };
    let said = sealed_with(open(MasterKeyOffer::Passphrase(bytes("correct horse battery stapler"))));
    assert!(said.contains("passphrase"), "{said}");
    sealed_with(open(MasterKeyOffer::Key(desk.master.duplicate())));
    open(MasterKeyOffer::Passphrase(bytes("correct horse battery staple"))).unwrap();
}

#[tokio::test]
async fn shares_open() {
    let master = MasterKey::generate();
    let shares = |text: &keymoat_crypto::SecretBytes| MasterKey::parse(text).unwrap().split(3, 5).unwrap();
    let master_text = master.to_text();
    let (desk, made) = made_with(SlotSource::Shamir { needed: 3, count: 5 }, master).await;
    made.unwrap();
    let dir = desk.tmp.path().join("other");
    let open = |offer| {
        SealedVault::open(&dir, Durability::Disk).unwrap().ok().unwrap().unseal(&offer, desk.surroundings())
    };
    sealed_with(open(MasterKeyOffer::Shares(shares(&master_text).into_iter().take(2).collect())));
    sealed_with(open(MasterKeyOffer::Shares(shares(&desk.master).into_iter().take(3).collect())));
    open(MasterKeyOffer::Shares(shares(&master_text).into_iter().skip(2).collect())).unwrap();
}

#[tokio::test]
async fn a_vault_put_back_is_refused_until_it_is_accepted() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/a", "old").await.unwrap();
    let copy = desk.tmp.path().join("copy");
    let desk = desk
        .closed_then(|shut| {
            std::fs::create_dir(&copy).unwrap();
            std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
            for entry in std::fs::read_dir(shut.tmp.path().join("data")).unwrap() {
                let path = entry.unwrap().path();
                std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
            }
            shut.sealed().unwrap().unseal(&shut.offer(), shut.surroundings()).unwrap()
        })
        .await;
    desk.put(&desk.owner().await, "prod/a", "new").await.unwrap();
    let Desk { tmp, clock, master, vault, code } = desk;
    vault.close().await;
    for entry in std::fs::read_dir(&copy).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, tmp.path().join("data").join(path.file_name().unwrap())).unwrap();
    }
    let shut = Shut { tmp, clock, master };
    let error = shut.sealed().unwrap().unseal(&shut.offer(), shut.surroundings()).err().unwrap();
    assert_eq!(error.code, Code::Damaged, "{error}");
    let why = AuditText::new("restored after a disk failure");
    let accepted =
        shut.sealed().unwrap().accept_restore(&shut.offer(), shut.surroundings(), &why, &error.message).await;
    let Shut { tmp, clock, master } = shut;
    let desk = Desk { tmp, clock, master, code, vault: accepted.unwrap() };
    let records = desk.records(|record| record.event.action == Action::AuditAcceptRestore).await;
    assert_eq!(records.len(), 1);
    assert!(format!("{:?}", records[0].event.details).contains("disk failure"));
    assert_eq!(text(&desk.reveal(&desk.owner().await, "prod/a").await.unwrap().value), "old");
    let desk = desk.reopened().await;
    assert_eq!(desk.vault.verify(&desk.owner().await).await.unwrap().problems, []);
}

#[tokio::test]
async fn a_directory_in_use_says_so() {
    let desk = Desk::new().await;
    let error = desk.sealed().err().unwrap();
    assert_eq!(error.code, Code::InUse, "{error}");
    assert!(error.message.contains("in use"), "{error}");
}
