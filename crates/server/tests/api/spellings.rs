//! A path has one spelling. Every other one is refused, and none leads to another secret.

use http::Uri;
use serde_json::json;

use crate::common::House;

#[tokio::test]
async fn no_other_spelling_leads_to_a_secret() {
    let house = House::new().await;
    for path in ["prod/stripe", "prod/a/stripe", "staging/stripe"] {
        house.put(path, &format!("made-up-value-of-{}", path.replace('/', "-"))).await;
    }
    let mut refused = 0;
    for spelling in SPELLINGS {
        let target = format!("/api/v1/reveal/{spelling}");
        // What is no address at all the HTTP parser refuses.
        if target.parse::<Uri>().is_err() {
            refused += 1;
            continue;
        }
        let reply = house.owner("POST", &target).json(json!({})).send().await;
        assert!(matches!(reply.status.as_u16(), 400 | 404), "{spelling}: {} {}", reply.status, reply.text);
        assert!(!reply.text.contains("made-up-value"), "{spelling}: {}", reply.text);
        refused += 1;
    }
    println!("FIGURE spellings: 0 of {refused} spellings led to a secret");
    house.owner("POST", "/api/v1/reveal/prod/stripe").json(json!({})).send().await.ok();
}

#[rustfmt::skip]
const SPELLINGS: &[&str] = &[
    "prod/stripe/", "prod//stripe", "/prod/stripe", "prod/stripe//", "prod/./stripe", "prod/../staging/stripe",
    "prod/stripe/.", "prod/stripe/..", "prod/a/../stripe", "./prod/stripe", "../reveal/prod/stripe",
    "prod/%73tripe", "prod/strip%65", "%70rod/stripe", "prod%2fstripe", "prod%2Fstripe", "prod/a%2fstripe",
    "prod/..%2fstaging%2fstripe", "prod/..%2f..%2fstaging/stripe", "prod/%2e/stripe", "prod/%2e%2e/staging/stripe",
    "prod/.%2e/staging/stripe", "prod/%252e%252e/stripe", "prod/stripe%00", "prod/stripe%00.json", "prod/%00stripe",
    "prod/stripe%20", "prod/%20stripe", "prod/stripe%0a", "prod/stripe%0d%0a", "prod/stripe%09", "prod\\stripe",
    "prod/a\\stripe", "prod%5cstripe", "prod/a%5Cstripe", "prod/stripe;", "prod/stripe;version=1", "prod;/stripe",
    "prod/STRIPE", "prod/Stripe", "PROD/stripe", "Prod/stripe", "prod/stripe.", "prod/stripe,", "prod/stripe+",
    "prod/+stripe", "prod/stripe*", "prod/*", "*/stripe", "prod/stripe%23secret_key", "prod/stripe@1", "prod/stripe:1",
    "prod/stripe$", "prod/stripe!", "prod/'stripe'", "prod/(stripe)", "prod/~stripe", "prod/stripe~", "prod/str\u{131}pe",
    "prod/stripe\u{200b}", "prod/\u{ff53}tripe", "prod/strip\u{435}", "prod/%c0%ae%c0%ae/stripe", "prod/%ff", "prod/%",
    "prod/%zz", "prod/%u0073tripe", "sys/audit", "secret/stripe", "auth/stripe", "prod", "prod/",
];
