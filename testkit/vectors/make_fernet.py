#!/usr/bin/env python3
"""Makes fernet.json with Python's `cryptography`, the implementation most Fernet tokens come from.

Keys, times and initialisation vectors are fixed, so the file is the same each time. Every good token is decrypted
again, and every bad one refused, by `cryptography` itself before it is written.
"""

import base64
import hashlib
import hmac
import json
import pathlib

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SPEC_KEY = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
OTHER = base64.urlsafe_b64encode(bytes(range(1, 33))).decode()


def token(key, plain, time=1_700_000_000, iv=bytes(range(16))):
    return Fernet(key)._encrypt_from_parts(plain, time, iv).decode()


def signed(key, message):
    """A token with a right signature over whatever is inside."""
    mac = hmac.new(base64.urlsafe_b64decode(key)[:16], message, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(message + mac).decode()


def raw_cbc(key, padded, iv=bytes(16)):
    cipher = Cipher(algorithms.AES(base64.urlsafe_b64decode(key)[16:]), modes.CBC(iv)).encryptor()
    return cipher.update(padded) + cipher.finalize()


def flipped(text, position):
    raw = bytearray(base64.urlsafe_b64decode(text))
    raw[position] ^= 1
    return base64.urlsafe_b64encode(bytes(raw)).decode()


def good_rows():
    rows = [
        ("the specification's own example", SPEC_KEY, b"hello", 499162800, bytes(range(16))),
        ("empty", KEY, b"", 1_700_000_000, bytes(16)),
        ("one byte", KEY, b"x", 0, bytes(16)),
        ("15 bytes", KEY, b"x" * 15, 2**63 - 1, b"\xff" * 16),
        ("16 bytes", KEY, b"x" * 16, 1_700_000_000, bytes(range(16))),
        ("17 bytes", KEY, b"x" * 17, 1_700_000_000, bytes(range(16))),
        ("all byte values", OTHER, bytes(range(256)), 1_700_000_000, bytes(range(16))),
        ("made-up provider key", OTHER, b"sk_test_madeup_madeup", 1_700_000_000, bytes(range(16))),
        ("100,000 bytes", KEY, b"made up " * 12500, 1_700_000_000, bytes(range(16))),
    ]
    for about, key, plain, time, iv in rows:
        text = token(key, plain, time, iv)
        assert Fernet(key).decrypt(text) == plain
        yield {"about": about, "key": key, "token": text, "plain_hex": plain.hex()}
    text = token(KEY, b"space around")
    yield {"about": "white space around", "key": KEY, "token": f" {text}\n", "plain_hex": b"space around".hex()}


def bad_rows():
    text = token(KEY, b"made up, and longer than one block")
    head = b"\x80" + (1_700_000_000).to_bytes(8, "big") + bytes(16)
    rows = [
        ("another key", "refused", OTHER, text),
        ("changed time", "refused", KEY, flipped(text, 8)),
        ("changed iv", "refused", KEY, flipped(text, 9)),
        ("changed ciphertext", "refused", KEY, flipped(text, 30)),
        ("changed signature", "refused", KEY, flipped(text, -1)),
        ("signature of zeroes", "refused", KEY, base64.urlsafe_b64encode(head + bytes(16 + 32)).decode()),
        ("version 0x81", "version", KEY, flipped(text, 0)),
        ("version 0x00, rightly signed", "version", KEY, signed(KEY, b"\x00" + head[1:] + raw_cbc(KEY, b"\x10" * 16))),
        ("empty", "shape", KEY, ""),
        ("no base64", "shape", KEY, "made up!"),
        ("standard alphabet", "shape", KEY, "gA+/"),
        ("padding left out", "shape", KEY, token(KEY, b"x" * 16).rstrip("=")),
        ("cut after the head", "shape", KEY, base64.urlsafe_b64encode(head).decode()),
        ("no ciphertext, rightly signed", "shape", KEY, signed(KEY, head)),
        ("broken block, rightly signed", "shape", KEY, signed(KEY, head + bytes(15))),
        ("cut by a block", "refused", KEY, base64.urlsafe_b64encode(base64.urlsafe_b64decode(text)[:-16]).decode()),
        ("padding of 0, rightly signed", "refused", KEY, signed(KEY, head + raw_cbc(KEY, b"\x00" * 16))),
        ("padding of 17, rightly signed", "refused", KEY, signed(KEY, head + raw_cbc(KEY, b"\x11" * 16))),
        ("uneven padding, rightly signed", "refused", KEY, signed(KEY, head + raw_cbc(KEY, b"x" * 14 + b"\x01\x02"))),
    ]
    for about, error, key, text in rows:
        try:
            Fernet(key).decrypt(text)
        except InvalidToken:
            pass
        else:
            # `cryptography` skips foreign characters and tolerates them; Keymoat does not.
            raise AssertionError(about)
        yield {"about": about, "error": error, "key": key, "token": text}


def bad_keys():
    return [
        {"about": "empty", "key": ""},
        {"about": "31 bytes", "key": base64.urlsafe_b64encode(bytes(31)).decode()},
        {"about": "33 bytes", "key": base64.urlsafe_b64encode(bytes(33)).decode()},
        {"about": "64 bytes", "key": base64.urlsafe_b64encode(bytes(64)).decode()},
        {"about": "padding left out", "key": KEY.rstrip("=")},
        {"about": "standard alphabet", "key": base64.b64encode(b"\xff" * 32).decode()},
        {"about": "a passphrase", "key": "made up and obviously so"},
    ]


if __name__ == "__main__":
    vectors = {"good": list(good_rows()), "bad": list(bad_rows()), "bad_keys": bad_keys()}
    path = pathlib.Path(__file__).with_name("fernet.json")
    path.write_text(json.dumps(vectors, indent=2, ensure_ascii=False) + "\n")
    print(f"{len(vectors['good'])} good, {len(vectors['bad'])} bad, {len(vectors['bad_keys'])} bad keys")
