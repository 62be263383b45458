#!/usr/bin/env python3
"""Recomputes the test vectors from the specification, independently of the Rust code.

Needs Python 3.10 and `cryptography`. Nothing is imported from Keymoat; the layouts below are the specification.
Exit status 0 when every vector agrees.
"""

import base64
import hashlib
import hmac
import itertools
import json
import pathlib
import struct
import uuid
import zlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

HERE = pathlib.Path(__file__).parent
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
counts = {}


def load(name):
    return json.loads((HERE / f"{name}.json").read_text())


def agree(what, found, expected):
    assert found == expected, f"{what}: {found!r} is not {expected!r}"
    counts[what] = counts.get(what, 0) + 1


# RFC 5869, by hand.
def hkdf(key, salt, info, length):
    prk = hmac.new(salt or bytes(32), key, hashlib.sha256).digest()
    out, block = b"", b""
    for i in range(1, -(-length // 32) + 1):
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha256).digest()
        out += block
    return out[:length]


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def field(data):
    return struct.pack(">I", len(data)) + data


def number(value):
    return field(struct.pack(">I", value))


def option(text):
    return b"\0" if text is None else b"\1" + field(text.encode())


def fields(parts):
    return b"".join(field(part) for part in parts)


def pad(plain):
    framed = struct.pack(">I", len(plain)) + plain
    return framed + bytes(-len(framed) % 64)


def seal(key, label, key_number, aad, salt, plain):
    okm = hkdf(key, salt, label + aad, 64)
    body = AESGCM(okm[:32]).encrypt(bytes(12), pad(plain), None)
    return b"\1" + struct.pack(">I", key_number) + salt + okm[32:] + body


def open_(key, label, key_number, aad, sealed):
    assert sealed[0] == 1 and struct.unpack(">I", sealed[1:5])[0] == key_number
    okm = hkdf(key, sealed[5:37], label + aad, 64)
    if not hmac.compare_digest(okm[32:], sealed[37:69]):
        return None
    try:
        padded = AESGCM(okm[:32]).decrypt(bytes(12), sealed[69:], None)
    except InvalidTag:
        return None
    return padded[4 : 4 + struct.unpack(">I", padded[:4])[0]]


def check_sealed(what, key, label, key_number, aad, salt, plain, sealed):
    agree(what, seal(key, label, key_number, aad, salt, plain), sealed)
    agree(f"{what}, opened", open_(key, label, key_number, aad, sealed), plain)
    altered = sealed[:-1] + bytes([sealed[-1] ^ 1])
    agree(f"{what}, altered", open_(key, label, key_number, aad, altered), None)
    agree(f"{what}, elsewhere", open_(key, label, key_number, aad + b"x", sealed), None)


def envelope():
    vectors = load("envelope")
    for row in vectors["secrets"]:
        aad = (
            field(b"keymoat/place/1")
            + field(uuid.UUID(row["instance"]).bytes)
            + field(row["environment"].encode())
            + option(row["company"])
            + field(uuid.UUID(row["secret"]).bytes)
            + field(row["path"].encode())
            + number(row["version"])
            + number(row["data_key"])
        )
        key, salt, plain, sealed = (bytes.fromhex(row[n]) for n in ("key", "salt", "plain_hex", "ciphertext"))
        check_sealed("secret", key, b"keymoat/v1/secret", row["data_key"], aad, salt, plain, sealed)
    for row in vectors["backups"]:
        key = hkdf(bytes.fromhex(row["instance_key"]), b"", b"keymoat/v1/backup", 32)
        salt = bytes.fromhex(row["salt"])
        aad = field(b"keymoat/backup/1") + field(row["about"].encode())
        okm = hkdf(key, salt, b"keymoat/v1/backup-stream" + aad, 64)
        content = bytes(i % 251 for i in range(row["length"]))
        chunks = [content[i : i + 65536] for i in range(0, len(content), 65536)] or [b""]
        sealed = b"\1" + salt + okm[32:]
        for i, chunk in enumerate(chunks):
            position = struct.pack(">QB", i, i == len(chunks) - 1)
            sealed += AESGCM(okm[:32]).encrypt(bytes(3) + position, chunk, position)
        agree("backup length", len(sealed), row["sealed_length"])
        agree("backup", hashlib.sha256(sealed).hexdigest(), row["sealed_sha256"])


def wrap():
    vectors = load("wrap")
    label = b"keymoat/v1/wrap"
    for row in vectors["slots"]:
        aad = (
            field(b"keymoat/wrap/root/1")
            + field(uuid.UUID(row["instance"]).bytes)
            + number(row["slot"])
            + field(row["kind"].encode())
        )
        master, root, salt, wrapped = (bytes.fromhex(row[n]) for n in ("master", "root", "salt", "wrapped"))
        check_sealed("slot", master, label, row["slot"], aad, salt, root, wrapped)
    for row in vectors["instance_keys"]:
        aad = field(b"keymoat/wrap/instance-key/1") + field(uuid.UUID(row["instance"]).bytes)
        root, key, salt, wrapped = (bytes.fromhex(row[n]) for n in ("root", "key", "salt", "wrapped"))
        check_sealed("instance key", root, label, 0, aad, salt, key, wrapped)
    for row in vectors["data_keys"]:
        aad = (
            field(b"keymoat/wrap/data-key/1")
            + field(uuid.UUID(row["instance"]).bytes)
            + field(row["environment"].encode())
            + option(row["company"])
            + number(row["id"])
        )
        root, key, salt, wrapped = (bytes.fromhex(row[n]) for n in ("root", "key", "salt", "wrapped"))
        check_sealed("data key", root, label, row["id"], aad, salt, key, wrapped)
    for row in vectors["peppers"]:
        aad = (
            field(b"keymoat/wrap/pepper/1")
            + field(uuid.UUID(row["instance"]).bytes)
            + field(row["purpose"].encode())
            + number(row["id"])
        )
        root, key, salt, wrapped = (bytes.fromhex(row[n]) for n in ("root", "key", "salt", "wrapped"))
        check_sealed("pepper", root, label, row["id"], aad, salt, key, wrapped)
    derived(vectors["derived"])


def derived(row):
    instance = bytes.fromhex(row["instance_key"])
    mark = row["fingerprint"]
    key = hkdf(instance, b"", b"keymoat/v1/fingerprint", 32)
    found = mac(key, fields([mark["provider"].encode(), mark["value"].encode()]))[:16]
    agree("fingerprint", found.hex(), mark["fingerprint"])

    key = hkdf(instance, b"", b"keymoat/v1/state", 32)
    rows = [mac(key, b"\1" + fields([part.encode() for part in parts])) for parts in row["state"]["rows"]]
    total = sum(int.from_bytes(r, "big") for r in rows) % 2**256
    digest = struct.pack(">Q", len(rows)) + total.to_bytes(32, "big")
    agree("state digest", digest.hex(), row["state"]["digest"])
    agree("state commitment", mac(key, b"\0" + field(digest)).hex(), row["state"]["commitment"])

    audit = row["audit"]
    seed = hkdf(instance, b"", b"keymoat/v1/audit-signer" + struct.pack(">I", audit["generation"]), 32)
    signer = Ed25519PrivateKey.from_private_bytes(seed)
    public = signer.public_key().public_bytes_raw()
    agree("audit key", public.hex(), audit["public_key"])
    agree("audit signature", signer.sign(audit["message"].encode()).hex(), audit["signature"])
    key_id = hashlib.sha256(audit["name"].encode() + b"\n\1" + public).hexdigest()[:8]
    verifier = f"{audit['name']}+{key_id}+{base64.b64encode(bytes([1]) + public).decode()}"
    agree("audit verifier", verifier, audit["verifier"])

    for entry in row["mac"]:
        key = hkdf(instance, b"", entry["label"].encode(), 32)
        agree("mac", mac(key, fields([part.encode() for part in entry["parts"]])).hex(), entry["tag"])

    aws = row["aws"]
    info = b"keymoat/v1/aws-secret" + field(b"keymoat/aws-secret/1") + field(aws["access_key_id"].encode())
    agree("aws secret", base64.b64encode(hkdf(instance, b"", info, 30)).decode(), aws["secret_access_key"])


def base62(value, digits):
    out = ""
    for _ in range(digits):
        value, digit = divmod(value, 62)
        out = BASE62[digit] + out
    assert value == 0
    return out


def token():
    vectors = load("token")
    for row in vectors["tokens"]:
        kind, _, environment = row["kind"].partition(":")
        prefix = {"service_account": "kms_", "administrator": "kmr_", "issued": f"km_{environment}_"}[kind]
        text = prefix + base62(int(row["entropy"], 16), 43)
        text += base62(zlib.crc32(text.encode()), 6)
        agree("token", text, row["text"])
        agree("token, masked", f"{prefix}…{text[-4:]}", row["masked"])
        agree("token, digest", mac(bytes.fromhex(row["pepper"]), text.encode()).hex(), row["digest"])
    for row in vectors["sign_in_codes"]:
        plain = row["typed"].upper().replace("-", "").translate(str.maketrans("OIL", "011"))
        text = "-".join(plain[i : i + 5] for i in range(0, 20, 5))
        agree("sign-in code", text, row["text"])
        agree("sign-in code, digest", mac(bytes.fromhex(row["pepper"]), text.encode()).hex(), row["digest"])


# GF(2^8) with the polynomial of AES.
def times(a, b):
    product = 0
    while b:
        product ^= a * (b & 1)
        a = (a << 1) ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def inverse(a):
    return next(b for b in range(1, 256) if times(a, b) == 1)


def interpolate(points):
    """The values at zero of the polynomials through the points."""
    weights = []
    for x, _ in points:
        weight = 1
        for other, _ in points:
            if other != x:
                weight = times(weight, times(other, inverse(x ^ other)))
        weights.append(weight)
    out = bytearray(len(points[0][1]))
    for weight, (_, body) in zip(weights, points):
        for i, byte in enumerate(body):
            out[i] ^= times(weight, byte)
    return bytes(out)


def shamir():
    for row in load("shamir")["sets"]:
        points = []
        for text in row["shares"]:
            before, _, checksum = text.rpartition(":")
            agree("share checksum", f"{zlib.crc32(before.encode()):08x}", checksum)
            name, _, needed, index, body = before.split(":")
            agree("share prefix", (name, int(needed)), ("keymoat-share-1", row["needed"]))
            points.append((int(index), base64.urlsafe_b64decode(body + "=")))
        for chosen in itertools.combinations(points, row["needed"]):
            agree("shares combined", interpolate(chosen).hex(), row["key"])
        for chosen in itertools.combinations(points, row["needed"] - 1):
            agree("too few shares", interpolate(chosen).hex() == row["key"], False)


def master_key():
    vectors = load("master_key")
    for row in vectors["texts"]:
        key = bytes.fromhex(row["key"])
        body = base64.urlsafe_b64encode(key).decode().rstrip("=")
        agree("master key", f"keymoat-master-key-1:{body}:{zlib.crc32(key):08x}", row["text"])
    row = vectors["passphrase"]
    params = row["params"]
    stretched = Argon2id(
        salt=bytes.fromhex(params["salt"]),
        length=32,
        iterations=params["iterations"],
        lanes=params["parallelism"],
        memory_cost=params["memory_kib"],
    ).derive(row["passphrase"].encode())
    agree("passphrase", stretched.hex(), row["key"])
    row = vectors["password"]
    Argon2id.verify_phc_encoded(row["password"].encode(), row["phc"])
    counts["password"] = 1


if __name__ == "__main__":
    for check in (envelope, wrap, token, shamir, master_key):
        check()
    for what, count in counts.items():
        print(f"{count:4} {what}")
    print(f"{sum(counts.values())} checks agree")
