//! What needs neither a vault nor a server: the catalogue, completions, the manual page.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::Home;

#[test]
fn values_are_identified_without_a_vault() {
    let home = Home::new();
    let check = |value: &str, code: i32, says: &str| {
        let done = home.run_with_stdin(&["identify"], value);
        assert_eq!(done.code, code, "{done:?}");
        assert!(done.stdout.starts_with(says), "{says}: {done:?}");
        assert!(value.trim().is_empty() || !done.stdout.contains(value.trim()), "{done:?}");
    };
    check("sk_live_51MadeUpExample0000KeymoatShop", 0, "stripe secret live");
    check("sk_test_51MadeUpExample0000KeymoatShop\n", 0, "stripe secret test");
    check("pk_live_51MadeUpExample0000KeymoatShop\r\n", 0, "stripe publishable live");
    check("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", 0, "shopify token");
    check("made up words", 1, "unknown");
    let done =
        home.run_with_stdin(&["identify", "--format", "json"], "sk_live_51MadeUpExample0000KeymoatShop");
    let answer: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&answer["known"], &answer["provider"]), (&true.into(), &"stripe".into()));
    assert_eq!(home.run(&["identify"]).code, 2);
}

#[test]
fn providers_are_shown_without_a_vault() {
    let home = Home::new();
    let listed = home.ok(&["provider", "list"]);
    for provider in ["stripe", "twilio", "mollie", "adyen", "paypal", "openai", "aws"] {
        assert!(listed.stdout.contains(provider), "{provider}: {listed:?}");
    }
    let shown = home.ok(&["provider", "show", "stripe"]);
    assert!(shown.stdout.contains("sk_live_") && shown.stdout.contains("STRIPE_SECRET_KEY"), "{shown:?}");
    let typo = home.run(&["provider", "show", "strype"]);
    assert!(typo.code == 1 && typo.stderr.contains("`stripe`"), "{typo:?}");
}

#[test]
fn shells_and_readers_are_served() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = home.ok(&["completions", shell]);
        assert!(script.stdout.contains("rekey"), "{shell}");
    }
    assert_eq!(home.run(&["completions", "dos"]).code, 2);
    let page = home.ok(&["man"]);
    assert!(page.stdout.contains(".TH") && page.stdout.contains("keymoat policy explain"), "{page:?}");
}
