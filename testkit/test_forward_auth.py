#!/usr/bin/env python3
"""The real nginx and Caddy with the configurations of `examples/forward-auth`, a running Keymoat and an application.

Only addresses are changed in the configurations. The application tells what it was sent. KEYMOAT_BIN names the program;
without it the debug build is used.
"""

import base64
import http.client
import http.server
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples/forward-auth"
BIN = Path(os.environ.get("KEYMOAT_BIN", ROOT / "target/debug/keymoat")).resolve()
# Debian keeps servers where only root's path leads.
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
OWNER = "odoo:res.users:42"
BASIC = "Basic " + base64.b64encode(b"staging:made up").decode()
IDENTITY = {"Key-Id", "Key-Name", "Owner", "Owner-Kind", "Scopes", "Roles", "Groups", "Company", "Env", "Credits",
            "Deprecated", "Assertion"}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def as_application_sees(name):
    """The one name under which many applications (CGI, WSGI) keep a header."""
    return name.lower().replace("-", "_")


class Application(http.server.ThreadingHTTPServer):
    """Remembers every request that reaches it."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen.append((self.command, self.path, self.headers.items(), body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_):
        pass


class Keymoat:
    """A server with a vault of its own, and an account that may issue keys."""

    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="forward-auth-"))
        self.env = {"PATH": PATH, "HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        self.log = (self.home / "server.log").open("wb+")
        self.server = subprocess.Popen([BIN, "serve", "--listen", "127.0.0.1:0", "--pass-preflights", "default"], stdin=subprocess.DEVNULL, stderr=self.log,
                                       stdout=self.log, env=self.env | {"KEYMOAT_LOG": "trace"}, umask=0o077)
        self.address = self.await_address()
        every = "list,inspect,match,write,rotate,delete,grant"
        self.run("policy", "put", "issuers", "--allow", every, "--on", "sys/**")
        self.run("account", "add", "issuer", "--kind", "service-account", "--policy", "issuers")
        self.token = self.run("token", "create", "issuer", "--ttl", "1h").strip()

    def await_address(self):
        while self.server.poll() is None:
            said = self.said()
            found = re.search(r"listens on +http://(127\.0\.0\.1:\d+)", said)
            if found and "Ctrl-C" in said:
                return found.group(1)
        raise AssertionError(self.said())

    def said(self):
        return (self.home / "server.log").read_text(errors="replace")

    def run(self, *arguments):
        done = subprocess.run([BIN, *arguments], env=self.env, text=True, capture_output=True, cwd=self.home, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.address, timeout=30)
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status < 300, (answer.status, text)
        return json.loads(text) if text else None

    def issue(self, **more):
        made = self.ask("POST", "/api/v1/keys", {"owner": OWNER, "owner_kind": "user", "environment": "prod", "name": "Büro 1"} | more)
        return made["key"], made["about"]["id"]

    def close(self):
        self.server.send_signal(signal.SIGTERM)
        self.server.wait(timeout=60)
        self.log.close()
        shutil.rmtree(self.home)


class Proxy:
    """A running proxy with an example's configuration."""

    def __init__(self, program, keymoat, application):
        self.dir = Path(tempfile.mkdtemp(prefix="proxy-"))
        self.port = free_port()
        addresses = {"127.0.0.1:8200": keymoat, "127.0.0.1:8080": application, "127.0.0.1:8000": f"127.0.0.1:{self.port}"}
        name = "nginx.conf" if program == "nginx" else "Caddyfile"
        text = (EXAMPLES / name).read_text()
        for written, real in addresses.items():
            assert written in text, written
            text = text.replace(written, real)
        config = self.dir / name
        config.write_text(self.around(text) if program == "nginx" else "{\n\tadmin off\n}\n" + text)
        commands = {"nginx": ["nginx", "-p", self.dir, "-c", config], "caddy": ["caddy", "run", "--config", config]}
        self.log = (self.dir / "log").open("wb+")
        self.process = subprocess.Popen(commands[program], env={"PATH": PATH, "HOME": str(self.dir)}, stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log, cwd=self.dir)
        self.await_port()

    def around(self, text):
        """What stands around `http { … }`'s contents on a machine."""
        temporary = "".join(f"{kind}_temp_path {self.dir}/{kind};\n"
                            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return (f"daemon off;\nmaster_process off;\npid {self.dir}/pid;\nerror_log {self.dir}/errors;\n"
                f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{text}\n}}\n")

    def await_port(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.dir / "log").read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except ConnectionRefusedError:
                pass
        raise AssertionError("the proxy does not listen")

    def send(self, headers, method="GET", path="/orders?page=2", body=None):
        """Sends these headers, each as often as it is there."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path)
        for name, value in headers:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=30)
        self.log.close()
        shutil.rmtree(self.dir)


def setUpModule():
    global keymoat, key, key_id
    keymoat = Keymoat()
    unittest.addModuleCleanup(keymoat.close)
    key, key_id = keymoat.issue(scopes=["orders.*"], groups=["shop"])


class Behind:
    """What holds behind every proxy."""

    program = None

    @classmethod
    def setUpClass(cls):
        cls.application = Application()
        cls.addClassCleanup(cls.application.close)
        cls.proxy = cls.start(keymoat.address)

    @classmethod
    def start(cls, keymoat_address):
        proxy = Proxy(cls.program, keymoat_address, "127.0.0.1:%d" % cls.application.server_address[1])
        cls.addClassCleanup(proxy.close)
        return proxy

    def passes(self, headers, **more):
        """Sends a request that has to pass; gives what the application got."""
        before = len(self.application.seen)
        answer = self.proxy.send(headers, **more)
        self.assertEqual(answer.status, 200, headers)
        self.assertEqual(len(self.application.seen), before + 1)
        return self.application.seen[-1]

    def refused(self, status, headers, proxy=None, **more):
        """Sends a request that has to be refused: the application hears nothing, the caller nothing of anybody's key."""
        before = len(self.application.seen)
        answer = (proxy or self.proxy).send(headers, **more)
        self.assertEqual(answer.status, status, headers)
        self.assertEqual(len(self.application.seen), before, "the application was reached")
        for name, value in answer.headers.items():
            self.assertTrue(not name.lower().startswith("x-keymoat-") or name.lower() == "x-keymoat-status", name)
            self.assertNotIn(OWNER, value)
        return answer

    def test_who_passes(self):
        self.refused(401, [])
        self.refused(401, [("API-KEY", "made up key")])
        self.refused(401, [("API-KEY", key[:-1] + ("a" if key[-1] != "a" else "b"))])
        self.refused(401, [("Authorization", BASIC)])
        for name, value in [("API-KEY", key), ("X-API-Key", key), ("Authorization", f"Bearer {key}"),
                            ("Authorization", f"Api-Key {key}")]:
            self.passes([(name, value)])

    def test_a_password_for_the_site_beside_the_key(self):
        _, _, headers, _ = self.passes([("Authorization", BASIC), ("API-KEY", key)])
        self.assertIn(("Authorization", BASIC), headers)

    def test_two_keys_are_none(self):
        self.refused(401, [("API-KEY", key), ("API-KEY", key)])
        self.refused(401, [("API-KEY", key), ("X-API-Key", "made up key")])
        self.refused(401, [("API-KEY", key), ("Authorization", f"Bearer {key}")])

    def test_any_method_and_body(self):
        more = [("API-KEY", key), ("Content-Encoding", "gzip"), ("Idempotency-Key", "made up"), ("If-Match", '"1"')]
        for method in ("POST", "DELETE", "OPTIONS"):
            seen = self.passes(more, method=method, path="/a%20b/../c?token=x", body=b"made up")
            self.assertEqual((seen[0], seen[3]), (method, b"made up"))

    def test_preflights_pass_and_nothing_that_says_it_is_one(self):
        asked = [("Origin", "https://shop.test"), ("Access-Control-Request-Method", "DELETE")]
        _, _, headers, _ = self.passes(asked, method="OPTIONS")
        of_keymoat = [value for name, value in headers if as_application_sees(name).startswith("x_keymoat")]
        self.assertEqual(of_keymoat, ["-"] * len(IDENTITY))
        self.refused(401, [], method="OPTIONS")
        for name in ("X-Forwarded-Method", "X-Original-Method"):
            self.refused(401, [*asked, (name, "OPTIONS")])

    def test_what_is_over_is_refused(self):
        expired, _ = keymoat.issue(expires_secs=1)
        revoked, revoked_id = keymoat.issue()
        self.passes([("API-KEY", revoked)])
        keymoat.ask("POST", f"/api/v1/keys/{revoked_id}/revoke", {"reason": "unused"})
        self.refused(401, [("API-KEY", revoked)])
        deadline = time.monotonic() + 20
        while self.proxy.send([("API-KEY", expired)]).status == 200:
            self.assertLess(time.monotonic(), deadline, "the key does not end")
        self.refused(401, [("API-KEY", expired)])

    def test_limits_reach_the_caller(self):
        limited, _ = keymoat.issue(limits="1/1d")
        self.passes([("API-KEY", limited)])
        answer = self.refused(429, [("API-KEY", limited)])
        self.assertGreater(int(answer.headers["Retry-After"]), 80_000)

    def test_whose_address_counts(self):
        elsewhere, _ = keymoat.issue(networks=["198.51.100.0/24"])
        self.refused(403, [("API-KEY", elsewhere), ("X-Forwarded-For", "198.51.100.7")])
        here, _ = keymoat.issue(networks=["127.0.0.0/8"])
        self.passes([("API-KEY", here), ("X-Forwarded-For", "198.51.100.7")])

    def test_made_up_identities_never_arrive(self):
        spoofed = [(f"X-Keymoat-{name}", "made-up") for name in sorted(IDENTITY)]
        spoofed += [(f"X_Keymoat_{name.replace('-', '_')}", "made-up") for name in sorted(IDENTITY)]
        spoofed += [("x-keymoat_owner", "made-up"), ("X-KEYMOAT-OWNER", "made-up")]
        for some in ([], spoofed):
            _, _, headers, _ = self.passes([("API-KEY", key), *some])
            of_keymoat = [(name, value) for name, value in headers if as_application_sees(name).startswith("x_keymoat")]
            names = sorted(as_application_sees(name) for name, _ in of_keymoat)
            self.assertEqual(names, sorted(as_application_sees(f"X-Keymoat-{name}") for name in IDENTITY))
            values = {as_application_sees(name)[len("x_keymoat_"):]: value for name, value in of_keymoat}
            self.assertNotIn("made-up", values.pop("assertion"))
            self.assertEqual(values, {"key_id": key_id, "key_name": "B%C3%BCro 1", "owner": OWNER, "owner_kind": "user",
                                      "scopes": "orders.*", "roles": "-", "groups": "shop", "company": "-", "env": "prod",
                                      "credits": "-", "deprecated": "-"})

    @unittest.skipUnless(importlib.util.find_spec("cryptography"), "cryptography is not installed")
    def test_the_application_can_check_the_identity(self):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        def decoded(text):
            return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

        _, _, headers, _ = self.passes([("API-KEY", key)])
        token = {as_application_sees(name): value for name, value in headers}["x_keymoat_assertion"]
        head, claims, signature = token.split(".")
        says = json.loads(decoded(claims))
        self.assertEqual((says["aud"], says["sub"], says["key_id"], says["env"]), ("default", OWNER, key_id, "prod"))
        self.assertEqual(says["exp"] - says["iat"], 60)
        known = {one["kid"]: one for one in keymoat.ask("GET", "/.well-known/jwks.json")["keys"]}
        public = Ed25519PublicKey.from_public_bytes(decoded(known[json.loads(decoded(head))["kid"]]["x"]))
        public.verify(decoded(signature), f"{head}.{claims}".encode())

    def test_the_key_never_arrives(self):
        for shown in ([("API-KEY", key)], [("X-API-Key", key)], [("Authorization", f"Bearer {key}")],
                      [("authorization", f"api-key {key}")]):
            _, path, headers, _ = self.passes(shown)
            self.assertNotIn(key, path + repr(headers))
        self.assertNotIn(key, keymoat.said())

    def test_no_answer_is_a_no(self):
        down = self.start(f"127.0.0.1:{free_port()}")
        status = {"nginx": 500, "caddy": 502}[self.program]
        self.refused(status, [("API-KEY", key)], proxy=down)


class Absent:
    """Stands for all of it where the proxy is not installed."""

    def test_the_proxy_is_there(self):
        self.skipTest(f"{self.program} is not installed")


def if_installed(program):
    return Absent if shutil.which(program, path=PATH) is None else Behind


class Nginx(if_installed("nginx"), unittest.TestCase):
    program = "nginx"


class Caddy(if_installed("caddy"), unittest.TestCase):
    program = "caddy"


if __name__ == "__main__":
    unittest.main()
