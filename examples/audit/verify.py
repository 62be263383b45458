#!/usr/bin/env python3
"""Checks an export or a proof of Keymoat's audit log, away from Keymoat and without any of its code.

usage: verify.py export LOG CHECKPOINT KEY     the records of `keymoat audit export`, against a signed checkpoint
       verify.py proof PROOF KEY               what `keymoat audit prove N` wrote, for one record

LOG         one record a line; lines after those that the checkpoint covers are counted and not checked
CHECKPOINT  LOG.checkpoint, which the export wrote, or what `keymoat audit checkpoint` wrote to stdout: keep one whenever
            you like, as long as you like
KEY         the line `key …` of the same command, noted at a time when you trusted the vault

Written from c2sp.org/signed-note, c2sp.org/tlog-checkpoint, RFC 6962 and RFC 9162. Needs the package `cryptography`.
Ends with 0 and `ok: …`, or with 1 and what is wrong.
"""

import base64
import hashlib
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ED25519 = 1
DASH = "\u2014 "


class Wrong(Exception):
    """What does not fit."""


def check_export(log_path, checkpoint_path, verifier):
    size, root = signed_head(read(checkpoint_path), verifier)
    tree, seen = Tree(), 0
    with open(log_path, "rb") as log:
        for line in log:
            record = line.rstrip(b"\n")
            if json.loads(record)["seq"] != seen:
                raise Wrong(f"record {seen} is missing, or another stands in its place")
            if seen < size:
                tree.add(leaf(record))
            seen += 1
    if seen < size:
        raise Wrong(f"the export ends at record {seen}; the checkpoint covers {size}")
    if tree.root() != root:
        raise Wrong(f"the first {size} records are not those that were signed")
    return f"{size} records are those that were signed; {seen - size} newer ones were not checked"


def check_proof(proof_path, verifier):
    proof = json.loads(read(proof_path))
    if proof["key"] != verifier.strip():
        raise Wrong("the proof names another key than yours")
    size, root = signed_head(proof["checkpoint"], verifier)
    record = proof["event"]["record"]
    if json.loads(record)["seq"] != proof["seq"]:
        raise Wrong("the record has another number than the proof says")
    path = [base64.b64decode(text, validate=True) for text in proof["proof"]]
    if root_from_path(leaf(record.encode()), proof["seq"], size, path) != root:
        raise Wrong("the record is not in the log that was signed")
    return f"record {proof['seq']} is in the log of {size} records that was signed: {record}"


def signed_head(note, verifier):
    """Size and root of a checkpoint, once its signature was found to be by this key."""
    name, key_id, encoded = verifier.strip().split("+", 2)
    body = base64.b64decode(encoded, validate=True)
    expected = hashlib.sha256(name.encode() + b"\n" + body).digest()[:4]
    if len(body) != 33 or body[0] != ED25519 or expected.hex() != key_id:
        raise Wrong("KEY is not an Ed25519 verifier key")
    key = Ed25519PublicKey.from_public_bytes(body[1:])
    split = note.rfind("\n\n")
    if split < 0 or not note.endswith("\n"):
        raise Wrong("the checkpoint is not signed")
    text, signatures = note[: split + 1], note[split + 2 :].splitlines()
    lines = text.splitlines()
    if len(lines) < 3 or lines[0] != name:
        raise Wrong("the checkpoint is of another log")
    for line in signatures:
        signer, _, encoded = line.removeprefix(DASH).partition(" ")
        signature = base64.b64decode(encoded, validate=True)
        if line.startswith(DASH) and signer == name and signature[:4] == expected:
            key.verify(signature[4:], text.encode())
            return int(lines[1]), base64.b64decode(lines[2], validate=True)
    raise Wrong("no signature is by this key")


class Tree:
    """The hash of RFC 6962 section 2.1, grown leaf by leaf."""

    def __init__(self):
        self.parts = []  # (number of leaves, hash), largest first

    def add(self, hashed):
        part = (1, hashed)
        while self.parts and self.parts[-1][0] == part[0]:
            count, left = self.parts.pop()
            part = (2 * count, node(left, part[1]))
        self.parts.append(part)

    def root(self):
        if not self.parts:
            return hashlib.sha256(b"").digest()
        root = self.parts[-1][1]
        for _, left in reversed(self.parts[:-1]):
            root = node(left, root)
        return root


def root_from_path(hashed, index, size, path):
    """RFC 9162 section 2.1.3.2."""
    if index >= size:
        raise Wrong("the record is newer than the checkpoint")
    first, last = index, size - 1
    for sibling in path:
        if last == 0:
            raise Wrong("the path is too long")
        if first & 1 or first == last:
            hashed = node(sibling, hashed)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            hashed = node(hashed, sibling)
        first, last = first >> 1, last >> 1
    if last:
        raise Wrong("the path is too short")
    return hashed


def leaf(record):
    return hashlib.sha256(b"\x00" + record).digest()


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def main(arguments):
    match arguments:
        case ["export", log, checkpoint, key]:
            print("ok:", check_export(log, checkpoint, key))
        case ["proof", proof, key]:
            print("ok:", check_proof(proof, key))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InvalidSignature:
        sys.exit("the signature is wrong")
    except (Wrong, ValueError, KeyError) as error:
        sys.exit(f"{error}")
