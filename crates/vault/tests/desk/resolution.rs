//! Where a value comes from.

use keymoat_core::names::UpstreamName;
use keymoat_core::resolve::{EnvOverride, Order};
use keymoat_vault::{Annotation, Asked, Code, Layer, Put, StepOutcome, Target};

use crate::common::*;

fn asked(order: &[&str], company: bool, variables: &[&str]) -> Asked {
    let upstreams: [UpstreamName; 1] = ["old-vault".parse().unwrap()];
    Asked {
        target: Target::Variable("STRIPE_API_KEY".parse().unwrap()),
        environment: "prod".parse().unwrap(),
        company: company.then(|| "acme".parse().unwrap()),
        variable: None,
        variables_set: variables.iter().map(|name| name.parse().unwrap()).collect(),
        unqualified_variable: false,
        order: Order::parse(order.iter().copied(), &upstreams).unwrap(),
    }
}

const USUAL: [&str; 3] = ["environment", "stored", "company"];
const BY_COMPANY: [&str; 3] = ["environment", "company", "stored"];
const STORED_FIRST: [&str; 3] = ["stored", "environment", "company"];

type Row = (&'static str, bool, bool, EnvOverride, bool, &'static [&'static str], &'static str);

/// A vault with these values, each imported from the variable.
async fn with(stored: bool, own: bool, env_override: EnvOverride) -> Desk {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.vault.put_company(&owner, "acme".parse().unwrap(), String::new()).await.unwrap();
    for (there, path) in [(stored, "prod/shop/stripe"), (own, "prod/acme:shop/stripe")] {
        if there {
            let tags = [("variable.STRIPE_API_KEY".to_owned(), String::new())].into();
            let annotation =
                Annotation { tags: Some(tags), env_override: Some(env_override), ..Annotation::default() };
            desk.vault
                .put(&owner, Put { annotation, ..put(path, &format!("value of {path}")) })
                .await
                .unwrap();
        }
    }
    desk
}

#[tokio::test]
async fn the_table() {
    use EnvOverride::{Allow, Deny, Warn};
    // Variable set, stored, company's own, what a variable may do, company asked for, order, what answers.
    let rows: [Row; 24] = [
        ("STRIPE_API_KEY", true, false, Allow, false, &USUAL, "environment"),
        ("STRIPE_API_KEY", true, false, Warn, false, &USUAL, "environment, warned"),
        ("STRIPE_API_KEY", true, false, Deny, false, &USUAL, "error"),
        ("STRIPE_API_KEY", true, false, Deny, false, &STORED_FIRST, "stored"),
        ("STRIPE_API_KEY", true, false, Warn, false, &STORED_FIRST, "stored"),
        ("STRIPE_API_KEY", false, false, Warn, false, &USUAL, "environment, warned"),
        ("", true, false, Allow, false, &USUAL, "stored"),
        ("", true, false, Deny, false, &USUAL, "stored"),
        ("", true, true, Warn, false, &USUAL, "stored"),
        ("", false, true, Warn, false, &USUAL, "nothing"),
        ("", false, false, Warn, false, &USUAL, "nothing"),
        ("", true, true, Warn, true, &USUAL, "stored"),
        ("", true, true, Warn, true, &BY_COMPANY, "company"),
        ("", false, true, Warn, true, &USUAL, "company"),
        ("", true, false, Warn, true, &BY_COMPANY, "stored"),
        ("", false, false, Warn, true, &USUAL, "nothing"),
        ("STRIPE_API_KEY", true, true, Allow, true, &BY_COMPANY, "company"),
        ("STRIPE_API_KEY__ACME", true, true, Allow, true, &BY_COMPANY, "environment"),
        ("STRIPE_API_KEY__ACME", true, true, Warn, true, &BY_COMPANY, "environment, warned"),
        ("STRIPE_API_KEY__ACME", true, true, Deny, true, &BY_COMPANY, "error"),
        ("STRIPE_API_KEY__ACME", false, true, Deny, true, &USUAL, "error"),
        ("STRIPE_API_KEY__ACME", true, true, Allow, false, &USUAL, "stored"),
        ("STRIPE_API_KEY", true, true, Allow, true, &["company"], "company"),
        ("STRIPE_API_KEY", true, true, Allow, true, &["environment"], "nothing"),
    ];
    for (number, (variable, stored, own, env_override, company, order, expected)) in
        rows.into_iter().enumerate()
    {
        let desk = with(stored, own, env_override).await;
        let variables: Vec<&str> = Some(variable).filter(|name| !name.is_empty()).into_iter().collect();
        let asked = asked(order, company, &variables);
        let owner = desk.owner().await;
        let (answer, revealed) = desk.vault.resolve(&owner, &asked).await.unwrap();
        let winner = answer.winner.map(|step| answer.steps[step].layer.to_string());
        let said = match (&winner, &answer.error) {
            (Some(layer), None) if answer.warns => format!("{layer}, warned"),
            (Some(layer), None) => layer.clone(),
            (None, Some(_)) => "error".to_owned(),
            (None, None) => "nothing".to_owned(),
            both => panic!("{number}: {both:?}"),
        };
        assert_eq!(said, expected, "row {number}");
        let value = revealed.map(|revealed| text(&revealed.value));
        let wanted = match expected {
            "stored" => Some("value of prod/shop/stripe".to_owned()),
            "company" => Some("value of prod/acme:shop/stripe".to_owned()),
            _ => None,
        };
        assert_eq!(value, wanted, "row {number}");
        let which = desk.vault.which(&owner, &asked).await.unwrap();
        assert_eq!(which.winner, answer.winner, "row {number}");
        assert_eq!(which.steps.len(), answer.steps.len());
        assert!(!format!("{which:?}").contains("value of"), "{which:?}");
    }
}

#[tokio::test]
async fn an_unqualified_variable_answers_when_told() {
    let desk = with(true, false, EnvOverride::Allow).await;
    let question = Asked { unqualified_variable: true, ..asked(&USUAL, true, &["STRIPE_API_KEY"]) };
    let answer = desk.vault.which(&desk.owner().await, &question).await.unwrap();
    assert_eq!(answer.steps[answer.winner.unwrap()].layer, Layer::Environment);
}

#[tokio::test]
async fn a_source_that_is_down_is_an_error_that_names_it() {
    let desk = with(true, false, EnvOverride::Allow).await;
    let owner = desk.owner().await;
    let first = asked(&["upstream:old-vault", "stored"], false, &[]);
    let (result, records) = desk.records_of(desk.vault.resolve(&owner, &first)).await;
    let error = coded(result, Code::SourceDown);
    assert!(error.message.contains("old-vault"), "{error}");
    assert_eq!(records.len(), 1);
    let which = desk.vault.which(&owner, &first).await.unwrap();
    assert!(which.error.unwrap().contains("old-vault"));
    assert!(matches!(which.steps[0].outcome, StepOutcome::Fails(_)));
    let last = asked(&["stored", "upstream:old-vault"], false, &[]);
    assert!(desk.vault.resolve(&owner, &last).await.unwrap().1.is_some(), "nobody needs it");
}

#[tokio::test]
async fn who_may_not_look_is_told_so_and_does_not_fall_through() {
    let desk = with(true, true, EnvOverride::Allow).await;
    let own = r#"[{"capabilities":["reveal","inspect"],"environments":["prod"],"companies":["acme"],"paths":["**"]}]"#;
    let acme = desk.service("acme-shop", own).await;
    let (result, records) = desk.records_of(desk.vault.resolve(&acme, &asked(&USUAL, true, &[]))).await;
    refused(result);
    assert_eq!(records.len(), 1);
    refused(desk.vault.which(&acme, &asked(&USUAL, true, &[])).await);
    let order = ["company", "stored"];
    let (result, records) = desk.records_of(desk.vault.resolve(&acme, &asked(&order, true, &[]))).await;
    assert_eq!(text(&result.unwrap().1.unwrap().value), "value of prod/acme:shop/stripe");
    assert_eq!(records.len(), 1, "what is not needed is not refused");
    // Without a company it asks for what all share, and the company's tag does not answer for it.
    refused(desk.vault.resolve(&acme, &asked(&USUAL, false, &[])).await);
    let typo = Asked { environment: "prd".parse().unwrap(), ..asked(&USUAL, false, &[]) };
    let error = refused(desk.vault.which(&acme, &typo).await);
    assert_eq!(error.hint.as_deref(), Some("did you mean `prod`?"));
    coded(desk.vault.which(&desk.owner().await, &typo).await, Code::NotFound);
}

#[tokio::test]
async fn the_stricter_word_on_variables_holds() {
    let desk = with(true, true, EnvOverride::Allow).await;
    let owner = desk.owner().await;
    let deny = Annotation { env_override: Some(EnvOverride::Deny), ..Annotation::default() };
    desk.vault.annotate(&owner, &secret("prod/acme:shop/stripe"), deny).await.unwrap();
    let answer = desk.vault.which(&owner, &asked(&USUAL, true, &["STRIPE_API_KEY__ACME"])).await.unwrap();
    assert!(answer.error.is_some());
}

#[tokio::test]
async fn several_accounts_of_one_provider_stand_side_by_side() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    for path in ["prod/stripe", "prod/stripe/eu", "prod/stripe/us", "prod/stripes", "staging/stripe/eu"] {
        desk.put(&owner, path, "x").await.unwrap();
    }
    let question = Asked {
        target: Target::Secret { path: "stripe".parse().unwrap(), field: None },
        ..asked(&USUAL, false, &[])
    };
    let answer = desk.vault.which(&owner, &question).await.unwrap();
    assert_eq!(answer.accounts, [secret("prod/stripe/eu"), secret("prod/stripe/us")]);
}

#[tokio::test]
async fn a_planted_tag_takes_no_variable_over() {
    async fn tagged(desk: &Desk, path: &str, variable: &str) {
        let owner = desk.owner().await;
        let annotation = Annotation {
            tags: Some([(format!("variable.{variable}"), String::new())].into()),
            ..Annotation::default()
        };
        desk.vault.put(&owner, Put { annotation, ..put(path, &format!("value of {path}")) }).await.unwrap();
    }
    async fn which(desk: &Desk, variable: &str) -> Result<String, Code> {
        let owner = desk.owner().await;
        let target = Target::Variable(variable.parse().unwrap());
        let answer = desk.vault.which(&owner, &Asked { target, ..asked(&USUAL, false, &[]) }).await;
        answer.map(|answer| answer.path.to_string()).map_err(|error| error.code)
    }
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.vault.put(&owner, put("prod/stripe", "the real one")).await.unwrap();
    assert_eq!(which(&desk, "STRIPE_SECRET_KEY").await, Ok("stripe".to_owned()));
    tagged(&desk, "prod/aaa/planted", "STRIPE_SECRET_KEY").await;
    assert_eq!(
        which(&desk, "STRIPE_SECRET_KEY").await,
        Err(Code::Conflict),
        "the catalogue's place is not taken over"
    );
    tagged(&desk, "prod/shop", "SHOP_SECRET").await;
    assert_eq!(which(&desk, "SHOP_SECRET").await, Ok("shop".to_owned()));
    tagged(&desk, "prod/aaa/planted2", "SHOP_SECRET").await;
    assert_eq!(which(&desk, "SHOP_SECRET").await, Err(Code::Conflict), "two claims are nobody's");
}
