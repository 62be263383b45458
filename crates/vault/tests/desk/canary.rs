//! Unique values through every use-case: none of them comes out anywhere but where it was asked for.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use keymoat_vault::{Asked, NewValue, Put, Target, Wanted};

use crate::common::*;

#[tokio::test]
async fn no_value_is_anywhere_but_in_the_answer() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let canary = |n: u32| format!("sk_live_51Canary{n:04}MadeUpKeymoatTest{n:04}");
    let mut said = String::new();
    let mut say = |what: &dyn std::fmt::Debug| said.push_str(&format!("{what:?}\n"));
    say(&desk.put(&owner, "prod/text", &canary(1)).await);
    say(&desk
        .vault
        .put(&owner, put_fields("prod/json", &[("key", &canary(2)), ("other", &canary(3))]))
        .await);
    say(&desk.vault.put(&owner, put_fields("prod/json", &[("key", &canary(4))])).await);
    say(&desk.vault.put(&owner, Put { pending: true, ..put("prod/text", &canary(5)) }).await);
    say(&desk.vault.promote(&owner, &secret("prod/text")).await);
    say(&desk.put(&owner, "staging/text", &canary(1)).await.unwrap_err());
    say(&desk.put(&owner, "nowhere/text", &canary(6)).await.unwrap_err());
    let broken = NewValue::Whole {
        kind: keymoat_core::secret::ValueKind::Json,
        value: bytes(&format!("{{\"{}", canary(7))),
    };
    say(&desk.vault.put(&owner, Put { value: broken, ..put("prod/bad", "") }).await.unwrap_err());
    let field = format!("{{\"{} !\":1}}", canary(8));
    let broken = NewValue::Whole { kind: keymoat_core::secret::ValueKind::Json, value: bytes(&field) };
    say(&desk.vault.put(&owner, Put { value: broken, ..put("prod/bad", "") }).await.unwrap_err());
    let text_name = secret("prod/text");
    say(&desk.vault.reveal(&owner, &text_name, None, &Wanted::default(), None).await);
    let key = "key".parse().unwrap();
    say(&desk.vault.reveal(&owner, &secret("prod/json"), Some(&key), &Wanted::default(), None).await);
    say(&desk.vault.inspect(&owner, &text_name).await);
    say(&desk.vault.inspect(&owner, &secret("prod/json")).await);
    say(&desk.vault.list(&owner, &"prod".parse().unwrap(), None, None, None, 100).await);
    let question = Asked {
        target: Target::Secret { path: "text".parse().unwrap(), field: None },
        environment: "prod".parse().unwrap(),
        company: None,
        variable: None,
        variables_set: Vec::new(),
        unqualified_variable: false,
        order: keymoat_core::resolve::Order::usual(&[]),
    };
    say(&desk.vault.which(&owner, &question).await);
    say(&desk.vault.resolve(&owner, &question).await);
    say(&desk.vault.rollback(&owner, &text_name, 1).await);
    say(&desk.vault.delete(&owner, &text_name, vec![]).await);
    say(&desk.vault.undelete(&owner, &text_name, vec![]).await);
    say(&desk.vault.changes(&owner, 0, 100).await);
    say(&desk.vault.sign_in_with_token(&bytes(&canary(9)), desk.origin()).await.unwrap_err());
    say(&desk.vault.sign_in_with_code(&bytes(&canary(10)), desk.origin()).await.unwrap_err());
    say(&desk.records(|_| true).await);
    let files = desk.bytes();
    let outside = std::fs::read_dir(desk.tmp.path().join("outside")).unwrap();
    let outside: Vec<u8> = outside.flat_map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    for n in 1..=10 {
        let value = canary(n);
        // The last four characters and the provider's prefix may be shown.
        let body = &value[8..value.len() - 4];
        let hex: String = body.bytes().map(|byte| format!("{byte:02x}")).collect();
        for form in [
            body.to_owned(),
            hex,
            STANDARD.encode(&value)[..40].to_owned(),
            URL_SAFE.encode(&value)[..40].to_owned(),
        ] {
            assert!(!said.contains(&form), "canary {n} was said");
            assert!(
                !files.windows(form.len()).any(|window| window == form.as_bytes()),
                "canary {n} is in a file"
            );
            assert!(
                !outside.windows(form.len()).any(|window| window == form.as_bytes()),
                "canary {n} is outside"
            );
        }
    }
}
