//! Exit codes of every command: 0 fine, 1 found or refused, 2 wrong usage or failure; `run` has those of `env`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::Home;

/// A vault with a secret, an account and a backup.
fn shop() -> Home {
    let home = Home::with_vault();
    home.put("prod", "stripe", "secret_key", "sk_live_51MadeUpExample0000KeymoatShop");
    home.ok(&["account", "add", "odoo", "--kind", "service-account"]);
    home.ok(&["backup", "a.backup"]);
    home.file("half.backup", "keymoat-backup-1\n");
    home
}

/// Each line: the code, then the command; `|` before it feeds an empty stdin.
const TABLE: &str = "\
0 status
0 environment list
0 list --env prod
0 get stripe --env prod
0 which STRIPE_SECRET_KEY --env prod
0 audit verify
0 audit verify --read-only
0 policy explain os:root reveal prod/stripe
1 get nope --env prod
1 get stripe --env nope
1 get stripe --env prod --company nope
2 get stripe
2 get Stripe --env prod
2 get stripe --env Prod
2 get
2 nope
1 reveal stripe#nope --env prod
1 reveal stripe --version 9 --env prod
1 reveal stripe --label nope --env prod
1 history nope --env prod
1 delete nope --env prod
1 undelete nope --env prod
1 rollback stripe --to 9 --env prod
1 promote stripe --env prod
1 destroy stripe --env prod
1 put stripe x=- --cas 9 --env prod
1 put stripe x=- --env prod
2 put stripe x --env prod
2 annotate stripe --expires tomorrow --env prod
2 annotate stripe --tag x --env prod
2 annotate stripe --max-versions 0 --env prod
1 which nope --env prod
2 which nope --env prod --order nope
2 import dotenv nope --env prod
2 import json nope --env prod
2 export dotenv
0 export dotenv --env dev
1 provider show nope
2 identify
1 account show nope
1 account remove nope --yes
1 account remove odoo
1 account add odoo --kind service-account
2 account add odoo --kind nope
1 token create nope
2 token create odoo --ttl nope
1 token revoke 0192f0c1-0000-7000-8000-000000000001
1 grant revoke 0192f0c1-0000-7000-8000-000000000001
1 grant add nope --allow reveal --on prod/stripe --for 8h --reason x
1 grant add odoo --allow reveal --on nope/stripe --for 8h --reason x
2 grant add odoo --allow reveal --on prod/stripe --for 900d --reason x
2 grant add odoo --allow nope --on prod/stripe --for 8h --reason x
1 policy show nope
1 policy explain odoo reveal prod/stripe
2 policy put nope.toml
1 audit prove 99999
2 audit query --since yesterday
2 audit query --action nope
1 audit erase-personal --account odoo
2 audit verify --read-only --server http://127.0.0.1:1
0 audit accept-restore --reason x
1 init
1 backup a.backup
2 backup nope/a.backup
1 restore a.backup
2 restore half.backup --data other
2 restore nope --data other
1 rekey remove-slot 9
1 rekey remove-slot 1
1 rekey data-key nope
2 login
2 login --server http://127.0.0.1:1
2 list --env prod --server nope
2 list --env prod --server http://example.com
2 list --env prod --server http://127.0.0.1:1
2 list --env prod --data nothing-there
2 audit verify --data nothing-there
125 run --env prod --map X=nope#y -- true
125 run --env prod --map X -- true
125 run
125 --env prod run --nope -- true
126 run --env prod -- ./half.backup
127 run --env prod -- no-such-program
";

#[test]
fn every_command_ends_as_the_table_says() {
    let home = shop();
    let mut wrong = Vec::new();
    for line in TABLE.lines() {
        let (code, command) = line.split_once(' ').unwrap();
        let user =
            format!("os:{}", nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name);
        let command = command.replace("os:root", &user);
        let done = home.run(&command.split(' ').collect::<Vec<_>>());
        if done.code.to_string() != code {
            wrong.push(format!("{line}: {done:?}"));
        }
        // Whatever fails says so in one sentence, and is not followed by another program's words.
        if done.code == 2 || done.code == 1 && done.stdout.is_empty() {
            let errors = done.stderr.lines().filter(|line| line.starts_with("error: ")).count();
            if errors > 1 || done.stderr.is_empty() || done.stderr.contains("panicked") {
                wrong.push(format!("{line}: {}", done.stderr));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(home.ok(&["audit", "verify"]).stdout.starts_with("intact"));
}

#[test]
fn whoever_may_not_is_refused_with_1_and_what_is_unusable_fails_with_2() {
    let home = shop();
    let token = home.ok(&["token", "create", "odoo"]).stdout;
    #[track_caller]
    fn check(home: &Home, variable: (&str, &str), code: i32, says: &str) {
        let mut command = home.command(&["reveal", "stripe", "--env", "prod"]);
        let done = common::done(command.env(variable.0, variable.1).output().unwrap());
        assert_eq!(done.code, code, "{done:?}");
        assert!(done.stderr.contains(says) && done.stderr.contains("hint: "), "{done:?}");
    }
    check(&home, ("KEYMOAT_TOKEN", token.trim()), 1, "may not reveal");
    check(&home, ("KEYMOAT_TOKEN", "kms_made-up"), 1, "not valid here");
    check(&home, ("KEYMOAT_TOKEN", ""), 2, "set and empty");
    check(&home, ("KEYMOAT_TOKEN_FILE", "nope"), 2, "nope");
    check(&home, ("KEYMOAT_MASTER_KEY", "made up"), 2, "not a master key");
    check(&home, ("KEYMOAT_MASTER_KEY_FILE", "nope"), 2, "nope");
    check(&home, ("KEYMOAT_CONFIG_DIR", "elsewhere"), 2, "no master key");
    check(&home, ("KEYMOAT_DATA_DIR", "elsewhere"), 2, "no vault");
}
