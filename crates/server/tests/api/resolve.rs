//! Where a value comes from.

use serde_json::{Value, json};

use crate::common::House;

fn ask(name: &str) -> Value {
    json!({ "name": name, "environment": "prod" })
}

#[tokio::test]
async fn names_lead_to_values() {
    let house = House::new().await;
    let value = json!({ "value": { "fields": { "secret_key": "sk_live_51MadeUpExample0000KeymoatTest" } } });
    house.owner("PUT", "/api/v1/secrets/prod/stripe").json(value).send().await.ok();
    for name in [
        "stripe#secret_key",
        "keymoat:stripe#secret_key",
        "keymoat://prod/stripe#secret_key",
        "STRIPE_SECRET_KEY",
    ] {
        let which = house.owner("POST", "/api/v1/which").json(ask(name)).send().await;
        assert!(!which.text.contains("51MadeUpExample"), "{}", which.text);
        let which = which.ok();
        assert!(which["winner"].is_number() && which["revealed"].is_null(), "{name}: {which}");
        let resolved = house.owner("POST", "/api/v1/resolve").json(ask(name)).send().await.ok();
        assert_eq!(resolved["revealed"]["value"]["text"], "sk_live_51MadeUpExample0000KeymoatTest", "{name}");
    }
}

#[tokio::test]
async fn a_reference_elsewhere_is_refused() {
    let house = House::new().await;
    house.put("staging/stripe", "made-up").await;
    let reply = house.owner("POST", "/api/v1/resolve").json(ask("keymoat://staging/stripe")).send().await;
    reply.refused(422, "invalid", "points to `staging`");
}

#[tokio::test]
async fn a_variable_of_the_caller_answers_without_the_value() {
    let house = House::new().await;
    house.put("prod/token", "made-up").await;
    let mut asked = ask("TOKEN");
    asked["variables_set"] = json!(["TOKEN", "PATH", "not a name"]);
    let answer = house.owner("POST", "/api/v1/resolve").json(asked).send().await.ok();
    assert_eq!(answer["steps"][0]["layer"], "environment");
    assert_eq!((&answer["winner"], &answer["steps"][0]["outcome"]), (&json!(1), &json!("answers")));
    assert!(answer["revealed"].is_null(), "{answer}");
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_says_so() {
    let house = House::new().await;
    house.put("prod/stripe", "made-up").await;
    let nothing = house.owner("POST", "/api/v1/resolve").json(ask("nothing")).send().await.ok();
    assert!(nothing["winner"].is_null() && nothing["revealed"].is_null(), "{nothing}");
    let outsider = house.service("outsider", json!([])).await;
    let refused = house.client("POST", "/api/v1/resolve", Some(&outsider)).json(ask("stripe")).send().await;
    refused.refused(403, "refused", "may not reveal");
    let unknown = json!({ "name": "stripe", "environment": "pord" });
    house.owner("POST", "/api/v1/resolve").json(unknown).send().await.refused(404, "not_found", "pord");
    let mut upside_down = ask("stripe");
    upside_down["order"] = json!(["nowhere"]);
    house.owner("POST", "/api/v1/which").json(upside_down).send().await.refused(422, "invalid", "");
}
