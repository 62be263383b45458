#!/usr/bin/env python3
"""Puts a made-up key into every input position, and looks for it everywhere that no key belongs.

The positions come from the OpenAPI document (path, query, headers, every field of every body) and from the command
line's own help, so that a new one is covered when it is made. The server logs at its most talkative. Each canary looks
like a key of the catalogue: a position that is no value must refuse it or forget it. KEYMOAT_BIN names the program;
without it the debug build is used.
"""

import base64
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("KEYMOAT_BIN", ROOT / "target/debug/keymoat")).resolve()
OPENAPI = json.loads((ROOT / "docs/reference/openapi.json").read_text())
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

#: Operations whose answer gives a value to who may have it.
GIVES = {"/api/v1/reveal/{environment}/{path}", "/api/v1/resolve"}
#: Names in braces and query parameters of requests in which something else is the canary.
USUAL = {"environment": "prod", "path": "shop", "name": "someone", "id": "00000000-0000-7000-8000-000000000000", "seq": "0",
         "company": "acme", "limit": "1", "space": "default"}
HEADERS = ["authorization", "user-agent", "accept", "content-type", "if-match", "if-none-match", "idempotency-key",
           "x-request-id", "x-keymoat-module", "x-keymoat-on-behalf-of", "x-forwarded-for", "forwarded", "cookie", "api-key",
           "traceparent", "x-made-up"]
#: Commands that would not end by themselves, or that take words for others.
NOT_RUN = {"serve", "help", "completions", "man"}
#: What makes a command short that otherwise goes on for minutes.
SHORT = {("selftest",): ["--times", "1", "--only", "tampering"]}


class Canaries:
    """Makes keys that are like no other, and remembers where each was put."""

    def __init__(self):
        self.places = {}

    def new(self, place):
        digest = int.from_bytes(hashlib.sha256(f"made up: {place}".encode()).digest(), "big")
        text = ""
        while len(text) < 32:
            digest, at = divmod(digest, len(ALPHABET))
            text += ALPHABET[at]
        canary = f"sk_live_51{text}"
        self.places[canary] = place
        return canary


def forms(canary):
    """What a text may look like after encoding."""
    raw = canary.encode()
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for shift in range(3):
        # Whatever stands around it, the encoding of these whole groups is the same.
        inner = raw[shift:]
        inner = inner[: len(inner) // 3 * 3]
        yield base64.b64encode(inner)
        yield base64.urlsafe_b64encode(inner)


def schema_of(reference):
    while "$ref" in reference:
        reference = OPENAPI["components"]["schemas"][reference["$ref"].rsplit("/", 1)[1]]
    return reference


def positions(schema, depth=0):
    """Every way to put a text into a body: functions from a text to a body, each with its name."""
    schema = schema_of(schema)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if depth > 5:
        return
    for alternative in schema.get("oneOf", []) + schema.get("anyOf", []) + schema.get("allOf", []):
        yield from positions(alternative, depth + 1)
    if "string" in kinds or not (kinds or "oneOf" in schema or "anyOf" in schema or "allOf" in schema):
        yield "", lambda text: text
    if "array" in kinds:
        for name, make in positions(schema.get("items", {}), depth + 1):
            yield f"[]{name}", lambda text, make=make: [make(text)]
    if "object" in kinds:
        needed = {name: usual(schema["properties"][name]) for name in schema.get("required", [])}
        for field, inner in schema.get("properties", {}).items():
            for name, make in positions(inner, depth + 1):
                yield f".{field}{name}", lambda text, field=field, make=make: needed | {field: make(text)}
        if isinstance(schema.get("additionalProperties"), dict):
            yield "{}", lambda text: {text: "x"}
            for name, make in positions(schema["additionalProperties"], depth + 1):
                yield f"{{}}{name}", lambda text, make=make: {"name": make(text)}
        yield ".made-up", lambda text: needed | {"made_up": text}
        yield ".made-up name", lambda text: needed | {text: 1}


def usual(schema):
    """A value that fits a schema, where something else of the body is the canary."""
    schema = schema_of(schema)
    kinds = schema.get("type", "object")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    if schema.get("enum"):
        return schema["enum"][0]
    simple = {"string": "stripe", "integer": 1, "number": 1, "boolean": False, "array": []}
    if kind in simple:
        return simple[kind]
    return {name: usual(schema["properties"][name]) for name in schema.get("required", [])} or {"text": "made up"}


class Vault:
    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="canary-"))
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8", "COLUMNS": "120",
                    "TMPDIR": str(self.home / "tmp")}
        (self.home / "tmp").mkdir()
        self.log = (self.home / "server.log").open("wb+")
        self.server = subprocess.Popen([BIN, "serve", "--listen", "127.0.0.1:0"], stdin=subprocess.DEVNULL, stderr=self.log,
                                       stdout=self.log, env=self.env | {"KEYMOAT_LOG": "trace"})
        self.address = self.await_address()

    def await_address(self):
        while self.server.poll() is None:
            found = re.search(r"listens on +http://(127\.0\.0\.1:\d+)", (self.home / "server.log").read_text(errors="replace"))
            if found and "Ctrl-C" in (self.home / "server.log").read_text(errors="replace"):
                return found.group(1)
        raise AssertionError("the server ended")

    def run(self, *arguments, stdin="", **more):
        return subprocess.run([BIN, *arguments], env=self.env | more, input=stdin, text=True, capture_output=True,
                              cwd=self.home, timeout=60)

    def ask(self, method, target, headers, body=None):
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request(method, target, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, str(answer.headers).encode() + answer.read()
        except (http.client.HTTPException, ConnectionError) as error:
            return 0, repr(error).encode()
        finally:
            connection.close()

    def stop(self):
        self.server.send_signal(signal.SIGTERM)
        code = self.server.wait(timeout=60)
        self.log.close()
        return code


class Canary(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.vault = Vault()
        cls.canaries = Canaries()
        cls.addClassCleanup(shutil.rmtree, cls.vault.home)
        vault = cls.vault
        # Only an owner may do everything, and he is the owner of the socket; over TCP somebody with all capabilities.
        every = "list,inspect,match,reveal,use,write,rotate,delete,grant"
        made = vault.run("policy", "put", "everything", "--allow", every, "--on", "*/**", "--on", "sys/**")
        assert made.returncode == 0, made.stderr
        made = vault.run("account", "add", "tester", "--kind", "service-account", "--policy", "everything")
        assert made.returncode == 0, made.stderr
        cls.token = vault.run("token", "create", "tester", "--ttl", "1h").stdout.strip()
        assert cls.token, "no token"
        vault.run("put", "shop", "-", "--env", "prod", stdin="made up")

    def test_no_canary_is_anywhere(self):
        seen = []
        self.over_http(seen)
        self.on_the_command_line(seen)
        stored = self.as_values(seen)
        metrics = self.vault.ask("GET", "/metrics", {"authorization": f"Bearer {self.token}"})
        seen.append(("metrics", metrics[1]))
        backup = self.vault.run("backup", str(self.vault.home / "all.backup"))
        self.assertEqual(backup.returncode, 0, backup.stderr)
        exported = self.vault.run("audit", "export", "--output", str(self.vault.home / "log.jsonl"))
        self.assertEqual(exported.returncode, 0, exported.stderr)
        seen.append(("command lines", self.command_lines()))
        for canary, place in stored.items():
            given = self.vault.run("reveal", place, "--env", "prod")
            self.assertEqual(given.stdout.strip(), canary, "the stored canaries are there: the search is for something")
        seen.extend(self.files())
        self.assertEqual(self.vault.stop(), 0)
        seen.extend(self.files())
        found = sorted({(self.canaries.places[canary], where) for canary, where in self.search(seen)})
        lines = "\n".join(f"  {place}: {where}" for place, where in found)
        self.assertFalse(found, f"{len(found)} of {len(self.canaries.places)} canaries came out:\n{lines}")
        # Past the runner, which keeps what a test that passes prints; and on a line of its own, behind the test's name.
        print(f"\nFIGURE canaries: 0 of {len(self.canaries.places)} canaries came out", file=sys.__stdout__, flush=True)

    def over_http(self, seen):
        usual = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        for path, operations in OPENAPI["paths"].items():
            for method, operation in operations.items():
                for name, target, headers, body in self.requests(path, operation, usual):
                    place = f"{method.upper()} {path} {name}"
                    canary = self.canaries.new(place)
                    asked = {header: value.replace("CANARY", canary) for header, value in (usual | headers).items()}
                    status, answer = self.vault.ask(method.upper(), target.replace("CANARY", canary), asked,
                                                    body(canary) if body else None)
                    if path not in GIVES or status >= 300:
                        seen.append((f"the answer {status}", answer))

    def requests(self, path, operation, usual):
        plain = re.sub(r"\{(\w+)\}", lambda name: USUAL.get(name.group(1), "x"), path)
        schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        fits = (lambda _: json.dumps(usual_body)) if schema else None
        usual_body = usual_of(schema) if schema else None
        for name in re.findall(r"\{(\w+)\}", path):
            target = re.sub(r"\{(\w+)\}", lambda n: "CANARY" if n.group(1) == name else USUAL.get(n.group(1), "x"), path)
            yield f"{{{name}}}", target, {}, fits
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "query":
                yield f"?{parameter['name']}", f"{plain}?{parameter['name']}=CANARY", {}, fits
        yield "?made-up", f"{plain}?made_up=CANARY", {}, fits
        for header in HEADERS:
            value = "Bearer CANARY" if header == "authorization" else "CANARY"
            yield header, plain, {header: value}, fits
        if schema:
            yield "body", plain, {}, lambda text: text
            yield "cut body", plain, {}, lambda text: '{"' + text + '": "' + text
            for name, make in positions(schema):
                yield name, plain, {}, lambda text, make=make: json.dumps(make(text))

    def on_the_command_line(self, seen):
        for command, arguments in self.commands():
            for argument in arguments:
                canary = self.canaries.new(f"keymoat {' '.join(command)} {argument}")
                words = [*command, argument, canary] if argument.startswith("--") else [*command, canary]
                done = self.vault.run(*words, "--env", "prod", *SHORT.get(command, []), stdin="")
                # Words on the command line are the caller's own; that the program repeats them is what counts.
                seen.append((f"`keymoat {' '.join(command)}` says", (done.stdout + done.stderr).encode()))
        for variable in ("KEYMOAT_TOKEN", "KEYMOAT_MASTER_KEY", "KEYMOAT_ENV", "KEYMOAT_COMPANY", "KEYMOAT_ADDR", "KEYMOAT_LOG",
                         "KEYMOAT_MODULE"):
            canary = self.canaries.new(f"${variable}")
            done = self.vault.run("list", "--env", "prod", **{variable: canary})
            seen.append((f"with ${variable}", (done.stdout + done.stderr).encode()))

    def commands(self, command=()):
        """Every command with its options and arguments, out of its help."""
        said = self.vault.run(*command, "--help").stdout
        inner = re.search(r"^Commands:\n((?:  .*\n)+)", said, re.M)
        if inner:
            for name in re.findall(r"^  ([a-z][\w-]*) ", inner.group(1), re.M):
                if name not in NOT_RUN:
                    yield from self.commands((*command, name))
            return
        options = re.findall(r"^ +(?:-\w, )?(--[a-z][\w-]*) <", said, re.M)
        arguments = re.findall(r"^  ([<\[][A-Z_]+[>\]])", said, re.M)
        # A directory or an address of that name would be made or asked.
        yield command, [option for option in options if option not in ("--data", "--server")] + arguments

    def as_values(self, seen):
        stored = {}
        for number, arguments in enumerate([["-"], ["secret_key=-"]]):
            canary, path = self.canaries.new(f"value {number}"), f"values/n{number}"
            done = self.vault.run("put", path, *arguments, "--env", "prod", stdin=canary)
            seen.append(("`put`", (done.stdout + done.stderr).encode()))
            stored[canary] = path if number == 0 else f"{path}#secret_key"
            for command in (["get", path], ["history", path], ["list"], ["which", path], ["export", "--help"]):
                done = self.vault.run(*command, "--env", "prod")
                seen.append((f"`{' '.join(command)}`", (done.stdout + done.stderr).encode()))
        canary = self.canaries.new("a line of .env")
        (self.vault.home / "in.env").write_text(f"STRIPE_SECRET_KEY={canary}\n")
        done = self.vault.run("import", "dotenv", "in.env", "--env", "staging")
        seen.append(("`import`", (done.stdout + done.stderr).encode()))
        (self.vault.home / "in.env").unlink()
        return stored

    def command_lines(self):
        lines = b""
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdigit() and (process / "exe").resolve() == BIN:
                    lines += (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            except OSError:
                continue
        return lines

    def files(self):
        for file in sorted(self.vault.home.rglob("*")):
            if file.is_file() and not file.is_symlink():
                yield f"the file {file.relative_to(self.vault.home)}", file.read_bytes()

    def search(self, seen):
        wanted = {form: canary for canary in self.canaries.places for form in forms(canary)}
        # All forms begin with one of a few starts: looking at these places only makes the search linear.
        starts = {form[:8] for form in wanted}
        pattern = re.compile(b"|".join(re.escape(start) for start in starts))
        by_start = {}
        for form, canary in wanted.items():
            by_start.setdefault(form[:8], []).append((form, canary))
        for where, content in seen:
            for text in {content, urllib.parse.unquote_to_bytes(content)}:
                for match in pattern.finditer(text):
                    for form, canary in by_start[match.group()]:
                        if text.startswith(form, match.start()):
                            yield canary, where


def usual_of(schema):
    return usual(schema)


if __name__ == "__main__":
    unittest.main()
