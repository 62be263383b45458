#!/usr/bin/env python3
"""Verifies a signed checkpoint of Keymoat's audit log without any of Keymoat's code.

Written from c2sp.org/signed-note, c2sp.org/tlog-checkpoint and RFC 6962 section 2.1 alone.

usage: verify_checkpoint.py NOTE [LEAVES] VERIFIER_KEY

NOTE          the signed note
LEAVES        the leaf hashes of the log, one a line in hex; the root is made from them and compared
VERIFIER_KEY  name+key id+base64, as the signed-note specification has it

Says `ok: ...` and ends with 0, or says what is wrong and ends with 1.
"""

import base64
import hashlib
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ED25519 = 1
DASH = "\u2014 "


class Wrong(Exception):
    pass


def read_verifier_key(text):
    name, key_id, encoded = text.strip().split("+", 2)
    body = base64.b64decode(encoded, validate=True)
    if len(body) != 33 or body[0] != ED25519:
        raise Wrong("the verifier key is not an Ed25519 key")
    expected = hashlib.sha256(name.encode() + b"\n" + body).digest()[:4]
    if expected.hex() != key_id:
        raise Wrong("the key id of the verifier key does not fit")
    return name, expected, Ed25519PublicKey.from_public_bytes(body[1:])


def check_signature(note, name, key_id, key):
    split = note.rfind("\n\n")
    if split < 0 or not note.endswith("\n"):
        raise Wrong("the note is not signed")
    body, lines = note[: split + 1], note[split + 2 :].splitlines()
    for line in lines:
        if not line.startswith(DASH):
            raise Wrong("a signature line does not begin with a dash")
        signer, encoded = line[len(DASH) :].split(" ", 1)
        signature = base64.b64decode(encoded, validate=True)
        if signer == name and signature[:4] == key_id:
            key.verify(signature[4:], body.encode())
            return body
    raise Wrong("no signature is by this key")


def read_checkpoint(body, name):
    lines = body.splitlines()
    if len(lines) < 3 or lines[0] != name:
        raise Wrong("the checkpoint is of another log")
    if str(int(lines[1])) != lines[1]:
        raise Wrong("the size is not a plain number")
    root = base64.b64decode(lines[2], validate=True)
    if len(root) != 32:
        raise Wrong("the root is not a hash")
    return int(lines[1]), root


def tree_root(leaves):
    """MTH of RFC 6962 section 2.1, over leaves that are hashed already."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + tree_root(leaves[:middle]) + tree_root(leaves[middle:])).digest()


def main(arguments):
    note_path, *leaves_path, verifier = arguments
    with open(note_path, encoding="utf-8", newline="") as file:
        note = file.read()
    name, key_id, key = read_verifier_key(verifier)
    size, root = read_checkpoint(check_signature(note, name, key_id, key), name)
    if leaves_path:
        with open(leaves_path[0], encoding="ascii") as file:
            leaves = [bytes.fromhex(line.strip()) for line in file]
        if len(leaves) != size or tree_root(leaves) != root:
            raise Wrong("the events are not those that were signed")
    print(f"ok: {name}, {size} events, root {root.hex()}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        main(sys.argv[1:])
    except InvalidSignature:
        print("the signature is wrong", file=sys.stderr)
        sys.exit(1)
    except (Wrong, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
