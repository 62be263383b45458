//! The public test vectors in `testkit/vectors`: made here with fixed keys and salts, compared with the
//! files, and recomputed from the specification by `check.py` there. `UPDATE=1` writes the files anew.

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::backup::{BackupKey, BackupSealer};
use crate::keys::{DataKey, InstanceKey, MasterKey, Pepper, RootKey};
use crate::sensitive::SecretBytes;
use crate::shamir::{Share, tests::Counting};
use crate::text::{from_hex, to_hex};
use crate::token::{SignInCode, Token, TokenKind, derive_aws_secret};
use crate::{
    Argon2Params, KeyContext, PepperContext, Place, SlotContext, StateDigest, open, seal_with_salt,
    verify_password,
};

/// Reads a file of vectors.
pub(crate) fn read(name: &str) -> Value {
    let text =
        std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}; run with UPDATE=1"));
    serde_json::from_str(&text).unwrap()
}

/// A text field of a row.
pub(crate) fn field<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_else(|| panic!("no text field {name}"))
}

/// A text as a secret.
pub(crate) fn secret(text: &str) -> SecretBytes {
    SecretBytes::from_slice(text.as_bytes())
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("{}/../../testkit/vectors/{name}.json", env!("CARGO_MANIFEST_DIR")))
}

/// Compares what this build makes with the file, or writes it when `UPDATE=1`.
#[allow(clippy::disallowed_methods, reason = "a switch of the test, not of the library")]
fn check(name: &str, made: &Value) {
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(path(name), serde_json::to_string_pretty(made).unwrap() + "\n").unwrap();
    }
    assert_eq!(&read(name), made, "testkit/vectors/{name}.json differs: a format changed");
}

fn text_of(secret: &SecretBytes) -> String {
    secret.expose(|bytes| String::from_utf8(bytes.clone()).unwrap())
}

fn salt(seed: u8) -> [u8; 32] {
    std::array::from_fn(|i| seed.wrapping_mul(7).wrapping_add(i as u8))
}

const INSTANCE: Uuid = Uuid::from_bytes([0x11; 16]);
const SECRET: Uuid = Uuid::from_bytes([0x22; 16]);

#[test]
fn envelope() {
    let long = "x".repeat(61);
    /// Environment, company, path, version, data key, value.
    type Row<'a> = (&'a str, Option<&'a str>, &'a str, u32, u32, &'a str);
    let rows: [Row<'_>; 6] = [
        ("prod", None, "stripe", 1, 1, "sk_test_madeup_madeup_madeup"),
        ("prod", Some("acme"), "stripe", 2, 7, ""),
        ("prod", Some(""), "stripe", 2, 7, "x"),
        (
            "test",
            Some("Müller & Söhne"),
            "a/b/c",
            u32::MAX,
            u32::MAX,
            "sixty bytes: 0123456789012345678901234567890123456789012345",
        ),
        ("test", None, "webhook", 3, 0, &long),
        (
            "dev",
            None,
            "tls",
            4,
            9,
            "{\"cert\":\"made up\",\"key\":\"made up and longer than a block of sixty-four bytes\"}",
        ),
    ];
    let made: Vec<Value> = rows
        .iter()
        .enumerate()
        .map(|(i, (environment, company, path, version, data_key, plain))| {
            let (key_bytes, salt) = (salt(i as u8 + 100), salt(i as u8));
            let key = DataKey::from_bytes(*data_key, &key_bytes);
            let place = Place {
                instance: INSTANCE,
                environment,
                company: *company,
                secret: SECRET,
                path,
                version: *version,
                data_key: *data_key,
            };
            let sealed = seal_with_salt(&key, &place, &secret(plain), &salt);
            assert!(open(&key, &place, &sealed).unwrap().ct_eq(&secret(plain)));
            json!({
                "key": to_hex(&key_bytes), "salt": to_hex(&salt), "plain_hex": to_hex(plain.as_bytes()),
                "instance": INSTANCE.to_string(), "environment": environment, "company": company,
                "secret": SECRET.to_string(), "path": path, "version": version, "data_key": data_key,
                "ciphertext": to_hex(&sealed),
            })
        })
        .collect();
    let content: Vec<u8> = (0..150_000u32).map(|i| (i % 251) as u8).collect();
    let backup_key = BackupKey::from_instance(&InstanceKey::from_bytes(&salt(50)));
    let backups: Vec<Value> = [0, 1, 65536, 65537, 150_000]
        .into_iter()
        .map(|len| {
            let (mut sealer, mut sealed) = BackupSealer::with_salt(&backup_key, b"about", &salt(51));
            sealed.extend(sealer.push(&content[..len]));
            sealed.extend(sealer.finish());
            json!({
                "instance_key": to_hex(&salt(50)), "salt": to_hex(&salt(51)), "about": "about", "length": len,
                "content": "byte i is i mod 251", "sealed_length": sealed.len(),
                "sealed_sha256": to_hex(digest(&SHA256, &sealed).as_ref()),
            })
        })
        .collect();
    check("envelope", &json!({ "secrets": made, "backups": backups }));
}

#[test]
fn wrap() {
    let (master_bytes, root_bytes, key_bytes) = (salt(1), salt(2), salt(3));
    let master = MasterKey::from_bytes(&master_bytes);
    let root = RootKey::from_bytes(&root_bytes);
    let slots: Vec<Value> = [(0, "file"), (1, "passphrase"), (u32::MAX, "shamir")]
        .into_iter()
        .map(|(slot, kind)| {
            let context = SlotContext { instance: INSTANCE, slot, kind };
            let wrapped = master.wrap_root_with_salt(&root, context, &salt(4));
            assert!(master.unwrap_root(&wrapped, context).is_ok());
            json!({
                "master": to_hex(&master_bytes), "root": to_hex(&root_bytes), "salt": to_hex(&salt(4)),
                "instance": INSTANCE.to_string(), "slot": slot, "kind": kind, "wrapped": to_hex(&wrapped),
            })
        })
        .collect();
    let data_keys: Vec<Value> = [("prod", None, 1), ("prod", Some("acme"), 2), ("test", Some(""), u32::MAX)]
        .into_iter()
        .map(|(environment, company, id)| {
            let context = KeyContext { instance: INSTANCE, environment, company, id };
            let wrapped =
                root.wrap_data_key_with_salt(&DataKey::from_bytes(id, &key_bytes), context, &salt(5));
            assert!(root.unwrap_data_key(&wrapped, context).is_ok());
            json!({
                "root": to_hex(&root_bytes), "key": to_hex(&key_bytes), "salt": to_hex(&salt(5)),
                "instance": INSTANCE.to_string(), "environment": environment, "company": company, "id": id,
                "wrapped": to_hex(&wrapped),
            })
        })
        .collect();
    let context = PepperContext { instance: INSTANCE, purpose: "token", id: 3 };
    let wrapped = root.wrap_pepper_with_salt(&Pepper::from_bytes(3, &key_bytes), context, &salt(6));
    let peppers = [json!({
        "root": to_hex(&root_bytes), "key": to_hex(&key_bytes), "salt": to_hex(&salt(6)),
        "instance": INSTANCE.to_string(), "purpose": "token", "id": 3, "wrapped": to_hex(&wrapped),
    })];
    let instance_bytes = salt(7);
    let instance = InstanceKey::from_bytes(&instance_bytes);
    let wrapped = root.wrap_instance_key_with_salt(&instance, INSTANCE, &salt(8));
    assert!(root.unwrap_instance_key(&wrapped, INSTANCE).is_ok());
    let instance_keys = [json!({
        "root": to_hex(&root_bytes), "key": to_hex(&instance_bytes), "salt": to_hex(&salt(8)),
        "instance": INSTANCE.to_string(), "wrapped": to_hex(&wrapped),
    })];
    let made = json!({
        "slots": slots, "instance_keys": instance_keys, "data_keys": data_keys, "peppers": peppers,
        "derived": derived(&instance, &instance_bytes),
    });
    check("wrap", &made);
}

fn derived(instance: &InstanceKey, instance_bytes: &[u8]) -> Value {
    let state = instance.state_key();
    let mut digest = StateDigest::default();
    for row in [&[b"label".as_slice(), b"current"][..], &[b"token", b""], &[b"grant"]] {
        digest.add(state.row(row));
    }
    let signer = instance.audit_signer(3);
    json!({
        "instance_key": to_hex(instance_bytes),
        "fingerprint": {
            "provider": "stripe", "value": "sk_test_madeup",
            "fingerprint": instance.fingerprint_key().of("stripe", &secret("sk_test_madeup")).to_string(),
        },
        "state": {
            "rows": [["label", "current"], ["token", ""], ["grant"]],
            "digest": to_hex(&digest.to_bytes()), "commitment": to_hex(&state.commit(&digest)),
        },
        "audit": {
            "generation": 3, "name": "keymoat.example/audit", "message": "made up",
            "public_key": to_hex(&signer.verifying_key().bytes()),
            "verifier": signer.verifying_key().to_verifier("keymoat.example/audit"),
            "signature": to_hex(&signer.sign(b"made up")),
        },
        "mac": [
            { "label": "keymoat/v1/cursor", "parts": ["a", ""], "tag": to_hex(&instance.cursor_key().tag(&[b"a", b""])) },
            { "label": "keymoat/v1/policy", "parts": ["a"], "tag": to_hex(&instance.policy_key().tag(&[b"a"])) },
            {
                "label": "keymoat/v1/personal-data", "parts": [],
                "tag": to_hex(&instance.personal_data_key().tag(&[])),
            },
        ],
        "aws": {
            "access_key_id": "AKIAMADEUPANDOBVIOUS",
            "secret_access_key": text_of(&derive_aws_secret(instance, "AKIAMADEUPANDOBVIOUS")),
        },
    })
}

#[test]
fn token() {
    let pepper = Pepper::from_bytes(1, &salt(9));
    let kinds = [
        ("service_account", TokenKind::ServiceAccount),
        ("administrator", TokenKind::Administrator),
        ("issued:prod", TokenKind::issued("prod").unwrap()),
        ("issued:ab", TokenKind::issued("ab").unwrap()),
        ("issued:twelvechars1", TokenKind::issued("twelvechars1").unwrap()),
    ];
    let mut tokens = Vec::new();
    for (name, kind) in kinds {
        for entropy in [[0; 32], [0xff; 32], salt(10)] {
            let token = Token::from_entropy(kind, &entropy);
            tokens.push(json!({
                "kind": name, "entropy": to_hex(&entropy), "text": text_of(token.text()), "masked": token.masked(),
                "pepper": to_hex(&salt(9)), "digest": to_hex(token.digest(&pepper).as_bytes()),
            }));
        }
    }
    let codes: Vec<Value> = ["01ABC-DEFGH-JKMNP-QRSTV", "olabcdefghjkmnpqrstv"]
        .into_iter()
        .map(|typed| {
            let code = SignInCode::parse(&secret(typed)).unwrap();
            json!({
                "typed": typed, "text": text_of(code.text()), "pepper": to_hex(&salt(9)),
                "digest": to_hex(code.digest(&pepper).as_bytes()),
            })
        })
        .collect();
    check("token", &json!({ "tokens": tokens, "sign_in_codes": codes }));
}

#[test]
fn shamir() {
    let key_bytes = salt(20);
    let key = MasterKey::from_bytes(&key_bytes);
    let sets: Vec<Value> = [(2, 3, 0x00ff), (3, 5, 0xbeef)]
        .into_iter()
        .map(|(needed, count, set)| {
            let shares = key.split_with(needed, count, set, Counting(0)).unwrap();
            let texts: Vec<String> = shares.iter().map(|share| text_of(&share.to_text())).collect();
            json!({ "key": to_hex(&key_bytes), "needed": needed, "count": count, "shares": texts })
        })
        .collect();
    for row in &sets {
        let shares: Vec<Share> = row["shares"]
            .as_array()
            .unwrap()
            .iter()
            .map(|text| Share::parse(&secret(text.as_str().unwrap())).unwrap())
            .collect();
        MasterKey::combine(&shares).unwrap().expose(|back| assert_eq!(*back, key_bytes));
    }
    check("shamir", &json!({ "sets": sets }));
}

#[test]
fn master_key() {
    let texts: Vec<Value> = [[0; 32], [0xff; 32], salt(30)]
        .into_iter()
        .map(|bytes| json!({ "key": to_hex(&bytes), "text": text_of(&MasterKey::from_bytes(&bytes).to_text()) }))
        .collect();
    let params = Argon2Params { memory_kib: 8192, iterations: 1, parallelism: 2, salt: [0x0a; 16] };
    let from_passphrase = MasterKey::from_passphrase(&secret("made up"), &params).unwrap();
    let phc = "$argon2id$v=19$m=8192,t=1,p=1$CgoKCgoKCgoKCgoKCgoKCg$";
    let output = Argon2Params { parallelism: 1, ..params.clone() }.derive(&secret("made up")).unwrap();
    let phc = format!("{phc}{}", base64_unpadded(output.as_slice()));
    assert_eq!(verify_password(&secret("made up"), &phc), Ok(true));
    let made = json!({
        "texts": texts,
        "passphrase": {
            "passphrase": "made up", "params": params, "key": from_passphrase.expose(|key| to_hex(key)),
        },
        "password": { "password": "made up", "phc": phc },
    });
    check("master_key", &made);
}

/// Each vector of the envelope opens from the file alone, and not after the change of one byte.
#[test]
fn the_files_open() {
    for row in read("envelope")["secrets"].as_array().unwrap() {
        let number = |name: &str| u32::try_from(row[name].as_u64().unwrap()).unwrap();
        let bytes = |name: &str| from_hex(field(row, name)).unwrap();
        let key = DataKey::from_bytes(number("data_key"), &bytes("key").try_into().unwrap());
        let place = Place {
            instance: field(row, "instance").parse().unwrap(),
            environment: field(row, "environment"),
            company: row["company"].as_str(),
            secret: field(row, "secret").parse().unwrap(),
            path: field(row, "path"),
            version: number("version"),
            data_key: number("data_key"),
        };
        let mut ciphertext = bytes("ciphertext");
        assert!(open(&key, &place, &ciphertext).unwrap().ct_eq(&SecretBytes::new(bytes("plain_hex"))));
        *ciphertext.last_mut().unwrap() ^= 1;
        assert!(open(&key, &place, &ciphertext).is_err());
    }
}

fn base64_unpadded(bytes: &[u8]) -> String {
    use base64ct::{Base64Unpadded, Encoding};
    Base64Unpadded::encode_string(bytes)
}
