#!/usr/bin/env python3
"""Checks an export or a proof of Keymoat's audit log, away from Keymoat and without any of its code.

usage: verify.py export LOG CHECKPOINT KEY     the records of `keymoat audit export`, against a signed checkpoint
       verify.py series KEY LOG [LOG ...]      archives, oldest first, and an export after them, as one log; or one archive
       verify.py proof PROOF KEY               what `keymoat audit prove N` wrote, for one record

LOG         one record a line; lines after those that the checkpoint covers are counted and not checked. In a series
            LOG.proof says where the file begins; one without it begins with the first record, under LOG.checkpoint
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


def check_series(verifier, paths):
    tree, first, count, size = None, 0, 0, 0
    for path in paths:
        start, end, parts, consistency, note = beside(path)
        size, root = signed_head(note, verifier)
        if tree is None:
            tree, first = Tree(), start
            tree.parts = parts
        elif tree.parts != parts:
            raise Wrong(f"{path} does not continue the file in front of it")
        seen = start
        with open(path, "rb") as log:
            for line in log:
                record = line.rstrip(b"\n")
                if seen == end:
                    raise Wrong(f"{path} has more records than its proof covers")
                if json.loads(record)["seq"] != seen:
                    raise Wrong(f"{path}: record {seen} is missing, or another stands in its place")
                tree.add(leaf(record))
                seen += 1
        if seen != end:
            raise Wrong(f"{path} ends before record {seen}, and should before {end}")
        if not begins_with(end, tree.root(), size, root, consistency):
            raise Wrong(f"the records in {path} are not those that were signed")
        count += end - start
    return f"{count} records from {first} on are those that were signed (checkpoint of {size} records)"


def beside(path):
    """Where a file of records begins and ends, what is in front of it, and what ties it to which checkpoint."""
    try:
        proof = json.loads(read(path + ".proof"))
    except FileNotFoundError:
        note = read(path + ".checkpoint")
        return 0, int(note.splitlines()[1]), [], [], note
    start = proof["start"]
    sizes = [1 << bit for bit in reversed(range(start.bit_length())) if start >> bit & 1]
    roots = [base64.b64decode(text, validate=True) for text in proof["frontier"]]
    if len(sizes) != len(roots):
        raise Wrong(f"{path}.proof has another number of hashes than it needs")
    consistency = [base64.b64decode(text, validate=True) for text in proof["consistency"]]
    return start, proof["end"], list(zip(sizes, roots)), consistency, proof["checkpoint"]


def check_proof(proof_path, verifier):
    proof = json.loads(read(proof_path))
    if proof["key"] != verifier.strip():
        raise Wrong("the proof names another key than yours")
    size, root = signed_head(proof["checkpoint"], verifier)
    record = proof["event"]["record"]
    if json.loads(record)["seq"] != proof["seq"]:
        raise Wrong("the record has another number than the proof says")
    path = [base64.b64decode(text, validate=True) for text in proof["proof"]]
    archive = proof.get("archive") or {"end": size, "consistency": []}
    found = root_from_path(leaf(record.encode()), proof["seq"], archive["end"], path)
    consistency = [base64.b64decode(text, validate=True) for text in archive["consistency"]]
    if not begins_with(archive["end"], found, size, root, consistency):
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


def begins_with(old_size, old_root, size, root, path):
    """RFC 9162 section 2.1.4.2: whether the tree begins with the older one."""
    if old_size > size:
        return False
    if old_size == size:
        return not path and old_root == root
    if old_size == 0:
        return not path and old_root == hashlib.sha256(b"").digest()
    if old_size & (old_size - 1) == 0:
        path = [old_root] + path
    if not path:
        return False
    first, last = old_size - 1, size - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    from_old = from_new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            from_old, from_new = node(sibling, from_old), node(sibling, from_new)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            from_new = node(from_new, sibling)
        first, last = first >> 1, last >> 1
    return last == 0 and from_old == old_root and from_new == root


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
        case ["series", key, _, *_]:
            print("ok:", check_series(key, arguments[2:]))
        case ["proof", proof, key]:
            print("ok:", check_proof(proof, key))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InvalidSignature:
        sys.exit("the signature is wrong")
    except (Wrong, ValueError, KeyError, OSError) as error:
        sys.exit(f"{error}")
