#!/usr/bin/env python3
"""Runs what the files in `examples/` say, from the files themselves.

There is no Docker daemon, no systemd and no runner of GitHub here: the commands and environments are taken out of the
files and started as those would start them, with the absolute directories moved below a temporary one. What their own
checkers can say of the form (`docker compose config`, `systemd-analyze verify`) they are asked. KEYMOAT_BIN names the
program; without it the debug build is used.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
BIN = Path(os.environ.get("KEYMOAT_BIN", ROOT / "target/debug/keymoat")).resolve()
STRIPE = "sk_live_51MadeUpExample0000KeymoatShop"
TWILIO = "0000b1c2d3e4f5061728394a5b6c7d8e"
KEYS_ARRIVED = f"STRIPE_SECRET_KEY: {len(STRIPE)} characters\nTWILIO_AUTH_TOKEN: {len(TWILIO)} characters\n"


class Machine:
    """A root directory of its own, into which the absolute paths of an example are moved."""

    PLACES = ["/var/lib/keymoat-config", "/var/lib/keymoat-backup", "/var/lib/keymoat", "/usr/local/bin",
              "/run/secrets", "/run/credentials", "/etc/shop", "/opt/shop"]

    def __init__(self):
        self.root = Path(tempfile.mkdtemp(prefix="examples-"))
        for place in self.PLACES:
            (self.root / place[1:]).mkdir(parents=True, mode=0o700)
        (self.root / "usr/local/bin/keymoat").symlink_to(BIN)
        self.home = self.root / "home"
        self.home.mkdir(mode=0o700)
        self.server = None

    def moved(self, text):
        for place in self.PLACES:
            text = re.sub(rf"(?<![\w/.]){re.escape(place)}\b", str(self.root) + place, text)
        return text

    def environment(self, own):
        path = f"{self.root}/usr/local/bin:{os.environ['PATH']}"
        moved = {name: self.moved(value) for name, value in own.items()}
        return {"PATH": path, "HOME": str(self.home), "LC_ALL": "C.UTF-8"} | moved

    def run(self, argv, own, cwd=None, stdin=None):
        argv = [self.moved(argument) for argument in argv]
        return subprocess.run(argv, env=self.environment(own), cwd=cwd or self.home, input=stdin, text=True,
                              capture_output=True, timeout=60, umask=0o077)

    def serve(self, argv, own):
        """Starts the server on a free port instead of the one of the example; returns its address."""
        argv = [self.moved(argument).replace("127.0.0.1:8200", "127.0.0.1:0") for argument in argv]
        if "--listen" not in argv:
            argv += ["--listen", "127.0.0.1:0"]
        self.server = subprocess.Popen(argv, env=self.environment(own), cwd=self.home, text=True, stderr=subprocess.PIPE)
        for line in self.server.stderr:
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                return found.group()
        raise AssertionError("the server ended")

    def close(self):
        code = None
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            self.server.stderr.read()
            code = self.server.wait(timeout=30)
            self.server.stderr.close()
        shutil.rmtree(self.root)
        return code


class Example(unittest.TestCase):
    def setUp(self):
        self.machine = Machine()
        self.addCleanup(lambda: self.machine.server is None and self.machine.close())

    def ok(self, finished):
        self.assertEqual(finished.returncode, 0, finished.stderr)
        return finished.stdout

    def keymoat(self, own, *arguments, stdin=None):
        return self.ok(self.machine.run(["keymoat", *arguments], own, stdin=stdin))

    def fill(self, own, environment="prod"):
        self.keymoat(own, "put", "stripe", "secret_key=-", "--env", environment, stdin=STRIPE)
        self.keymoat(own, "put", "twilio", "auth_token=-", "--env", environment, stdin=TWILIO)

    def stopped(self):
        self.assertEqual(self.machine.close(), 0)


def commands_in_head(file):
    """The commands in the comment at the top of a file."""
    head = re.match(r"(?:#.*\n)+", file.read_text()).group()
    return re.findall(r"^#   (\S.*)$", head, re.M)


def image(dockerfile):
    """What an image starts with: entry point and command, and its environment."""
    text = dockerfile.read_text()
    final = text[text.rindex("\nFROM"):]
    argv = [json.loads(re.search(rf"^{word} (\[.*\])$", final, re.M).group(1)) for word in ("ENTRYPOINT", "CMD")]
    environment = dict(pair.split("=", 1) for line in re.findall(r"^ENV (.*)$", final, re.M) for pair in line.split())
    return argv, environment


def has_compose():
    return shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0


class Compose(Example):
    def test_the_server_beside_the_program(self):
        service = (EXAMPLES / "compose/compose.yaml").read_text()
        (entry, usual), own = image(EXAMPLES / "compose/Dockerfile")
        self.assertEqual(usual, ["serve"])
        command = json.loads(re.search(r"^    command: (\[.*\])$", service, re.M).group(1))
        address = self.machine.serve(entry + command, own)
        self.fill(own)
        health = json.loads(re.search(r"^      test: (\[.*\])$", service, re.M).group(1))
        self.ok(self.machine.run(health[1:], own))
        inside = [line for line in commands_in_head(EXAMPLES / "compose/compose.yaml") if " exec " in line]
        self.assertEqual(len(inside), 3)
        for line in inside:
            line = line.replace("docker compose exec -T keymoat ", "").replace("docker compose exec keymoat ", "")
            line = line.replace("shop.token", "/run/secrets/keymoat_token")
            self.ok(self.machine.run(["sh", "-c", line], own))
        (entry, command), own = image(EXAMPLES / "compose/Dockerfile.shop")
        shop = dict(re.findall(r"^      (KEYMOAT_\w+): (.+)$", service, re.M)) | {"KEYMOAT_ADDR": address}
        finished = self.machine.run(entry + command, own | shop, cwd=EXAMPLES / "compose")
        self.assertEqual(self.ok(finished), KEYS_ARRIVED)
        self.stopped()

    def test_keymoat_on_the_host(self):
        own = {}
        self.machine.serve(["keymoat", "serve"], own)
        self.fill(own)
        head = next(line for line in commands_in_head(EXAMPLES / "compose/compose.host.yaml") if "keymoat run" in line)
        argv = shlex.split(head)
        at = argv.index("--")
        finished = self.machine.run(argv[: at + 1] + ["python3", "app.py"], own, cwd=EXAMPLES / "compose")
        self.assertEqual(self.ok(finished), KEYS_ARRIVED)
        self.stopped()

    def test_compose_takes_the_files(self):
        if not has_compose():
            self.skipTest("docker compose is not installed")
        compose = ["docker", "compose", "--file"]
        self.ok(self.machine.run([*compose, "compose.yaml", "config", "--quiet"], {}, cwd=EXAMPLES / "compose"))
        keys = {"STRIPE_SECRET_KEY": STRIPE, "TWILIO_AUTH_TOKEN": TWILIO}
        asked = [*compose, "compose.host.yaml", "config", "--format", "json"]
        passed = self.machine.run(asked, keys, cwd=EXAMPLES / "compose")
        self.assertEqual(json.loads(self.ok(passed))["services"]["shop"]["environment"], keys)
        alone = self.machine.run(asked, {}, cwd=EXAMPLES / "compose")
        self.assertNotEqual(alone.returncode, 0)
        self.assertIn("start compose with keymoat run", alone.stderr)


class Unit:
    """A unit file: what it starts, and with which environment."""

    def __init__(self, name):
        self.file = EXAMPLES / "systemd" / name
        self.lines = [line.strip() for line in self.file.read_text().splitlines()]

    def all(self, name):
        return [line.split("=", 1)[1] for line in self.lines if line.startswith(f"{name}=")]

    def environment(self):
        pairs = [pair for line in self.all("Environment") for pair in shlex.split(line)]
        return {name: value.replace("%d", "/run/credentials") for name, value in (pair.split("=", 1) for pair in pairs)}

    def argv(self):
        return [word.replace("%%", "%") for word in shlex.split(self.all("ExecStart")[0])]


class Systemd(Example):
    def test_server_program_and_backup(self):
        server, shop, backup = Unit("keymoat.service"), Unit("shop.service"), Unit("keymoat-backup.service")
        own = server.environment()
        address = self.machine.serve(server.argv(), own)
        self.fill(own)
        self.keymoat(own, "policy", "put", "shop", "--allow", "reveal", "--on", "prod/**")
        self.keymoat(own, "account", "add", "shop", "--kind", "service-account", "--policy", "shop")
        token = self.keymoat(own, "token", "create", "shop", "--ttl", "90d")
        credential = re.fullmatch(r"([\w.]+):.*", shop.all("LoadCredential")[0]).group(1)
        held = self.machine.root / "run/credentials" / credential
        held.write_text(token)
        held.chmod(0o400)
        shutil.copy(EXAMPLES / "compose/env.keymoat", self.machine.root / "etc/shop/env.keymoat")
        program = self.machine.root / "opt/shop"
        (program / "bin").mkdir()
        (program / "bin/python").symlink_to(shutil.which("python3"))
        shutil.copy(EXAMPLES / "compose/app.py", program)
        started = self.machine.run(shop.argv(), shop.environment() | {"KEYMOAT_ADDR": address}, cwd=program)
        self.assertEqual(self.ok(started), KEYS_ARRIVED)
        self.ok(self.machine.run(backup.argv(), backup.environment()))
        kept = list((self.machine.root / "var/lib/keymoat-backup").iterdir())
        self.assertRegex([file.name for file in kept][0], r"^\d{4}-\d\d-\d\d\.backup$")
        self.stopped()

    def test_systemd_takes_the_units(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("systemd-analyze is not installed")
        for unit in sorted((EXAMPLES / "systemd").iterdir()):
            # The programs of the units stand where the units say only on a machine that was set up.
            text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.M)
            copy = self.machine.root / unit.name
            copy.write_text(re.sub(r"^WorkingDirectory=.*", "WorkingDirectory=/", text, flags=re.M))
        units = [str(self.machine.root / unit.name) for unit in sorted((EXAMPLES / "systemd").iterdir())]
        said = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], text=True, capture_output=True)
        ours = [line for line in said.stderr.splitlines() if str(self.machine.root) in line]
        self.assertEqual(ours, [])


class GitHub(Example):
    def test_the_last_step_runs_the_tests_with_keys(self):
        text = (EXAMPLES / "github/keymoat.yml").read_text()
        step = text[text.rindex("- name: Tests"):]
        command = re.search(r"^        run: (.+)$", step, re.M).group(1)
        own = {}
        address = self.machine.serve(["keymoat", "serve"], own)
        self.fill(own, "staging")
        self.keymoat(own, "policy", "put", "ci", "--allow", "reveal", "--on", "staging/**")
        self.keymoat(own, "account", "add", "ci", "--kind", "service-account", "--policy", "ci")
        token = self.keymoat(own, "token", "create", "ci", "--ttl", "1h").strip()
        given = {"${{ vars.KEYMOAT_ADDR }}": address, "${{ secrets.KEYMOAT_TOKEN }}": token}
        pairs = dict(re.findall(r"^          (KEYMOAT_\w+): (.+)$", step, re.M))
        environment = {name: given.get(value, value) for name, value in pairs.items()}
        (self.machine.home / "keymoat/bin").mkdir(parents=True)
        (self.machine.home / "keymoat/bin/keymoat").symlink_to(BIN)
        work = self.machine.root / "work"
        work.mkdir()
        (work / "env.keymoat").write_text("STRIPE_SECRET_KEY=keymoat:stripe#secret_key\n")
        (work / "test_shop.py").write_text(
            "import os, unittest\n\nclass Shop(unittest.TestCase):\n    def test_it_has_its_key_and_nothing_else(self):\n"
            f"        self.assertEqual(len(os.environ['STRIPE_SECRET_KEY']), {len(STRIPE)})\n"
            "        self.assertNotIn('KEYMOAT_TOKEN', os.environ)\n")
        # The socket of this home is not for the step: it comes from another machine.
        environment |= {"KEYMOAT_DATA_DIR": str(self.machine.root / "elsewhere")}
        finished = self.machine.run(["bash", "-e", "-c", command], environment, cwd=work)
        self.ok(finished)
        self.assertIn("Ran 1 test", finished.stderr)
        self.stopped()


if __name__ == "__main__":
    unittest.main()
