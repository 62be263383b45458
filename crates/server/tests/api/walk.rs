//! Every route of the OpenAPI document with no token, a wrong one, an expired one, a revoked one, and one of somebody
//! who may do nothing: refused exactly as the document says, and on record.

use serde_json::{Value, json};

use crate::common::{House, Reply};

/// Who asks.
struct Callers {
    expired: String,
    revoked: String,
    outsider: String,
}

/// Things that are not the outsider's.
struct Things {
    token: String,
    grant: String,
    key: String,
}

#[tokio::test]
async fn every_route_refuses_as_its_entry_says() {
    let house = House::new().await;
    house.put("prod/stripe", VALUE).await;
    let callers = callers(&house).await;
    let things = things(&house).await;
    let document = house.client("GET", "/api/openapi.json", None).send().await.ok();
    let mut walked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let route = Walked { method: method.to_uppercase(), path, operation };
            route.walk(&house, &callers, &things).await;
            // Each in a minute of its own: of one minute not all refusals are recorded.
            house.forward(jiff::SignedDuration::from_mins(1));
            walked += 1;
        }
    }
    assert_eq!(walked, keymoat_server::ROUTES.len());
    println!("FIGURE routes: 0 of {} requests got past their entry", walked * 6);
}

#[tokio::test]
async fn who_is_not_signed_in_has_no_body_read() {
    let house = House::new().await;
    let document = house.client("GET", "/api/openapi.json", None).send().await.ok();
    let things = things(&house).await;
    let nested = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let wide = format!("{{\"a\":[{}0]}}", "{},".repeat(300_000));
    let bodies = [nested.as_str(), wide.as_str(), "{\"a\":", "\u{0}"];
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let route = Walked { method: method.to_uppercase(), path, operation };
            if operation["requestBody"].is_null() || operation["x-keymoat-needs"] == "nobody" {
                continue;
            }
            for (number, body) in bodies.iter().enumerate() {
                let call = house.client(&route.method, &route.target(&things), None);
                let call = call.header("content-type", "application/json");
                let reply = call.body((*body).to_owned()).send().await;
                assert_eq!(reply.status, 401, "{number}: {}", route.about(&reply));
            }
            house.forward(jiff::SignedDuration::from_mins(1));
        }
    }
    // What nobody needs to be signed in for takes a few small forms, and says no to anything else.
    for path in ["/api/v1/sign-in/code", "/api/v1/unseal", "/api/v1/keys/fetch"] {
        for body in bodies {
            let call = house.client("POST", path, None).header("content-type", "application/json");
            let reply = call.body(body.to_owned()).send().await;
            assert!(
                matches!(reply.status.as_u16(), 400 | 409 | 422),
                "{path}: {} {}",
                reply.status,
                reply.text
            );
        }
    }
}

#[tokio::test]
async fn a_sealed_server_answers_nothing_but_what_the_table_says() {
    let house = House::new().await;
    house.put("prod/stripe", VALUE).await;
    let callers = callers(&house).await;
    let things = things(&house).await;
    let document = house.client("GET", "/api/openapi.json", None).send().await.ok();
    assert_eq!(house.owner("POST", "/api/v1/seal").send().await.status, 204);
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let route = Walked { method: method.to_uppercase(), path, operation };
            let answers = !operation["x-keymoat-while-sealed"].is_null();
            for token in [None, Some("kms_nonsense"), Some(&callers.expired), Some(&callers.outsider)] {
                let reply = route.send(&house, &things, token).await;
                assert!(!reply.text.contains(VALUE), "{}", route.about(&reply));
                let is_refused = reply.status == 503 && reply.json["code"] == "sealed";
                assert!(is_refused || answers, "{}", route.about(&reply));
            }
        }
    }
    for (path, expected) in [("/healthz", 200), ("/readyz", 503), ("/api/v1/status", 200), ("/nowhere", 404)]
    {
        assert_eq!(house.client("GET", path, None).send().await.status, expected, "{path}");
    }
}

struct Walked<'d> {
    method: String,
    path: &'d str,
    operation: &'d Value,
}

impl Walked<'_> {
    async fn walk(&self, house: &House, callers: &Callers, things: &Things) {
        let needs = &self.operation["x-keymoat-needs"];
        assert!(!needs.is_null(), "{} {} does not say what it needs", self.method, self.path);
        let strangers =
            [None, Some("kms_nonsense"), Some("not a token"), Some(&callers.expired), Some(&callers.revoked)];
        for token in strangers.map(|token| token.map(|token| token as &str)) {
            let reply = self.send(house, things, token).await;
            self.check_harmless(&reply);
            match needs.as_str() {
                Some("nobody") => assert_ne!(reply.status, 403, "{}", self.about(&reply)),
                _ => {
                    assert_eq!(reply.status, 401, "{}", self.about(&reply));
                    assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"keymoat\"");
                    self.check_recorded(house, &reply).await;
                }
            }
        }
        let reply = self.send(house, things, Some(&callers.outsider)).await;
        self.check_harmless(&reply);
        let has_capability = needs["capability"].is_string() && needs["of"].is_null();
        match has_capability {
            true => {
                assert_eq!(reply.status, 403, "{}", self.about(&reply));
                self.check_recorded(house, &reply).await;
            }
            // Signing in is what a wrong code is refused for, whoever brings it.
            // So is a token that is no issued key.
            false if SHOWN_INSTEAD.contains(&self.path) || self.path.starts_with("/forward-auth/") => {
                assert_eq!(reply.status, 401, "{}", self.about(&reply))
            }
            false => assert!(!matches!(reply.status.as_u16(), 401 | 403), "{}", self.about(&reply)),
        }
    }

    async fn send(&self, house: &House, things: &Things, token: Option<&str>) -> Reply {
        let call = house.client(&self.method, &self.target(things), token);
        match self.operation["requestBody"].is_object() {
            true => call.json(self.body()).send().await,
            false => call.send().await,
        }
    }

    fn target(&self, things: &Things) -> String {
        let name = match self.path.split('/').nth(3).unwrap_or_default() {
            "environments" => "staging",
            "companies" => "acme",
            "key-spaces" => "shop",
            _ => "os:ana",
        };
        let id = match self.path.split('/').nth(3).unwrap_or_default() {
            "tokens" => &things.token,
            "grants" => &things.grant,
            "keys" => &things.key,
            "rekey" => "1",
            _ => "stripe",
        };
        let name = if self.path.contains("/policies/") { "owners" } else { name };
        let path = self
            .path
            .replace("{environment}", "prod")
            .replace("{path}", "stripe")
            .replace("{seq}", "0")
            .replace("{space}", "default");
        let path = path.replace("{name}", name).replace("{id}", id);
        match path.as_str() {
            "/api/v1/secrets" => format!("{path}?environment=prod"),
            "/api/v1/audit/archive" if self.method == "GET" => format!("{path}?before=2020-01-01T00:00:00Z"),
            "/api/v1/audit/archive/personal" => format!("{path}?start=0&end=256"),
            _ => path,
        }
    }

    /// A body that would do something, if it were allowed.
    fn body(&self) -> Value {
        let ask = json!({ "name": "stripe", "environment": "prod" });
        let rule = json!({ "capabilities": ["reveal"], "environments": ["*"], "paths": ["**"] });
        match (self.method.as_str(), self.path) {
            ("POST", "/api/v1/sign-in/code") => json!({ "code": "MADE-UP" }),
            ("POST", "/api/v1/unseal") => json!({ "key": "made-up" }),
            ("PUT", "/api/v1/environments/{name}" | "/api/v1/companies/{name}") => {
                json!({ "description": "taken" })
            }
            ("PUT", "/api/v1/secrets/{environment}/{path}") => json!({ "value": { "text": "made-up" } }),
            ("PATCH", "/api/v1/secrets/{environment}/{path}") => json!({ "description": "taken" }),
            ("POST", "/api/v1/reveal/{environment}/{path}") => json!({}),
            ("POST", "/api/v1/rollback/{environment}/{path}") => json!({ "version": 1 }),
            ("POST", "/api/v1/labels/{environment}/{path}") => json!({ "label": "mine", "version": 1 }),
            ("POST", "/api/v1/undelete/{environment}/{path}" | "/api/v1/destroy/{environment}/{path}") => {
                json!({ "versions": [1] })
            }
            ("POST", "/api/v1/which" | "/api/v1/resolve") => ask,
            ("POST", "/api/v1/match") => json!({ "candidates": [VALUE] }),
            ("POST", "/api/v1/match/sieve") => json!({ "environment": "prod" }),
            ("POST", "/api/v1/accounts") => {
                json!({ "name": "mallory", "kind": "user", "policies": ["owner"] })
            }
            ("PATCH", "/api/v1/accounts/{name}") => json!({ "active": false }),
            ("POST", "/api/v1/accounts/{name}/tokens") => json!({ "ttl_secs": 60 }),
            ("POST", "/api/v1/policies/explain") => {
                json!({ "account": "os:ana", "capability": "reveal", "resource": "prod/stripe" })
            }
            ("PUT", "/api/v1/policies/{name}") => json!({ "rules": [rule] }),
            ("POST", "/api/v1/grants") => {
                json!({ "account": "outsider", "rules": [rule], "lasts_secs": 60, "reason": "made up" })
            }
            ("POST", "/api/v1/audit/archive") => {
                json!({ "end": 256, "root": format!("{}=", "A".repeat(43)) })
            }
            ("POST", "/api/v1/audit/erase-personal") => json!({ "account": "os:ana" }),
            ("POST", "/api/v1/audit/events") => json!({ "action": "made up", "result": "allowed" }),
            ("POST", "/api/v1/providers/identify") => json!({ "value": "made-up" }),
            ("POST", "/api/v1/rekey/slots") => {
                json!({ "kind": "key", "master": "made-up", "proof": { "key": "made-up" } })
            }
            ("POST", "/api/v1/rekey/slots/{id}/remove") => json!({ "key": "made-up" }),
            ("POST", "/api/v1/rekey/root") => {
                json!({ "keep": [{ "slot": 1, "offer": { "key": "made-up" } }], "drop": [] })
            }
            ("POST", "/api/v1/rekey/data-key") => json!({ "environment": "prod" }),
            ("PUT", "/api/v1/key-spaces/{name}") => json!({}),
            ("POST", "/api/v1/keys") => json!({ "owner": "erp", "environment": "prod" }),
            ("POST", "/api/v1/keys/verify") => json!({ "key": "made-up" }),
            ("POST", "/api/v1/keys/verify-batch") => json!({ "keys": [{ "key": "made-up" }] }),
            ("POST", "/api/v1/keys/fetch") => json!({ "code": "MADE-UP" }),
            ("POST", "/api/v1/keys/owners") => json!({ "owner": "erp", "active": false }),
            ("PATCH", "/api/v1/keys/{id}") => json!({ "enabled": false }),
            (
                "POST",
                "/api/v1/keys/self-revoke" | "/api/v1/keys/{id}/reroll" | "/api/v1/keys/{id}/revoke",
            ) => {
                json!({})
            }
            (method, path) => panic!("{method} {path} takes a body, and the walk does not know one for it"),
        }
    }

    /// Whoever asked: never a fault, never the value.
    #[track_caller]
    fn check_harmless(&self, reply: &Reply) {
        assert!(!reply.status.is_server_error(), "{}", self.about(reply));
        assert!(!reply.text.contains(VALUE), "{}", self.about(reply));
    }

    /// The refusal is in the log under the request's number.
    async fn check_recorded(&self, house: &House, reply: &Reply) {
        let record = house.newest_record("result=refused").await;
        assert_eq!(record["request"], reply.header("x-request-id"), "{}: {record}", self.about(reply));
    }

    fn about(&self, reply: &Reply) -> String {
        format!("{} {}: {} {}", self.method, self.path, reply.status, reply.text)
    }
}

async fn callers(house: &House) -> Callers {
    let outsider = house.service("outsider", json!([])).await;
    let (expired, _) = house.token("outsider", 60).await;
    let (revoked, id) = house.token("outsider", 86_400).await;
    house.owner("DELETE", &format!("/api/v1/tokens/{id}")).send().await.ok();
    house.forward(jiff::SignedDuration::from_secs(61));
    Callers { expired, revoked, outsider }
}

async fn things(house: &House) -> Things {
    let (_, token) = house.token("os:ana", 86_400).await;
    let rule = json!({ "capabilities": ["list"], "environments": ["prod"], "paths": ["**"] });
    let grant = json!({ "account": "admin", "rules": [rule], "lasts_secs": 600, "reason": "made up" });
    let grant = house.owner("POST", "/api/v1/grants").json(grant).send().await.ok();
    let key = json!({ "owner": "erp", "environment": "prod" });
    let key = house.owner("POST", "/api/v1/keys").json(key).send().await.ok();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Things { token, grant: text(&grant["id"]), key: text(&key["about"]["id"]) }
}

/// Routes on which something else is shown than a token: a wrong one is refused, whoever brings it.
const SHOWN_INSTEAD: [&str; 4] =
    ["/api/v1/sign-in/code", "/api/v1/keys/fetch", "/api/v1/keys/whoami", "/api/v1/keys/self-revoke"];
const VALUE: &str = "made-up-value-of-the-walk";
