#!/usr/bin/env python3
"""Runs the README's tour and compares what it prints with what the README says.

UPDATE=1 writes the real output into the README instead. Ids, times, addresses, directories, one-time codes and tokens
are made equal first: they differ every time. KEYMOAT_BIN names the program; without it the debug build is used.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BIN = Path(os.environ.get("KEYMOAT_BIN", ROOT / "target/debug/keymoat")).resolve()

ENV_FILE = """\
# the shop
DEBUG=False
DATABASE_URL=postgres://shop:MadeUp0000Pass@db.example.com:5432/shop
STRIPE_PUBLISHABLE_KEY=pk_live_51MadeUpExample0000KeymoatShop
STRIPE_SECRET_KEY=sk_live_51MadeUpExample0000KeymoatShop
STRIPE_TEST_SECRET_KEY=sk_test_51MadeUpExample0000KeymoatShop
TWILIO_AUTH_TOKEN=0000b1c2d3e4f5061728394a5b6c7d8e
ADYEN_API_KEY=<your Adyen API key>
"""

APP = """\
import os
for name in ("DEBUG", "STRIPE_SECRET_KEY", "TWILIO_AUTH_TOKEN"):
    print(name, "has", len(os.environ[name]), "characters")
"""

#: A repository, commit by commit: when, and what stands in its files from then on. The second takes a key out again.
SHOP = [
    ("2021-03-04T10:00:00Z", "Take payments", {
        "settings.py": 'DEBUG = False\nSTRIPE_SECRET_KEY = "sk_live_51MadeUpExample0000KeymoatShop"\n',
    }),
    ("2023-05-06T10:00:00Z", "Send messages", {
        "settings.py": 'import os\nDEBUG = False\nSTRIPE_SECRET_KEY = os.environ["STRIPE_SECRET_KEY"]\n',
        "sms.py": 'client = Client("AC0000a1b2c3d4e5f60718293a4b5c6d7e", "0000b1c2d3e4f5061728394a5b6c7d8e")\n',
    }),
]

#: What differs from run to run, and what it is made to look like. The order matters.
SAME = [
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "0192f0c1-0000-7000-8000-000000000001"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\dZ?"), "2026-11-22 10:00:00"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "http://127.0.0.1:8200"),
    (re.compile(r"\b[0-9A-Z]{5}(-[0-9A-Z]{5}){3}\b"), "0MADE-UPCDE-0000A-BCDEF"),
    (re.compile(r"km[sr]_[0-9A-Za-z]{49}"), "kms_" + "x" * 49),
    (re.compile(r"km([sr])_…\w{4}"), r"km\1_…xxxx"),
    (re.compile(r"os:[a-z0-9._-]+"), "os:you"),
    (re.compile(r"You \([^)]*\)"), "You (you)"),
]


def same(text, home):
    text = text.replace(str(home), "~").replace("~/data", "~/.local/share/keymoat").replace("~/config", "~/.config/keymoat")
    for pattern, instead in SAME:
        text = pattern.sub(instead, text)
    return "\n".join(line.rstrip() for line in text.splitlines())


class Tour:
    """A home directory of its own, and the server in it."""

    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="tour-"))
        (self.home / "bin").mkdir()
        (self.home / "bin/keymoat").symlink_to(BIN)
        (self.home / ".env").write_text(ENV_FILE)
        (self.home / "app.py").write_text(APP)
        self.env = {
            "PATH": f"{self.home}/bin:{os.environ['PATH']}",
            "HOME": str(self.home),
            "KEYMOAT_DATA_DIR": str(self.home / "data"),
            "KEYMOAT_CONFIG_DIR": str(self.home / "config"),
            "KEYMOAT_LISTEN": "127.0.0.1:0",
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "200",
        }
        self.server = None
        self.make_shop()

    def make_shop(self):
        shop = self.home / "shop"
        shop.mkdir()
        who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "Ann"), ("EMAIL", "ann@acme.test"))}
        for number, (when, title, files) in enumerate(SHOP):
            for name, text in files.items():
                (shop / name).write_text(text)
            env = {**self.env, **who, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
            first = [["init", "-q", "-b", "main"]] if number == 0 else []
            for arguments in [*first, ["add", "-A"], ["commit", "-q", "-m", title]]:
                subprocess.run(["git", *arguments], cwd=shop, env=env, check=True, timeout=60)

    def run(self, command):
        if command == "keymoat serve":
            return self.serve()
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.home, env=self.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
        )
        return done.stdout

    def serve(self):
        log = self.home / "server.log"
        with log.open("w") as out:
            self.server = subprocess.Popen(
                ["keymoat", "serve"], cwd=self.home, env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        deadline = time.monotonic() + 60
        while "Ctrl-C stops it." not in log.read_text():
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not start:\n{log.read_text()}")
            time.sleep(0.02)  # waiting for another process; the deadline above bounds it
        return log.read_text()

    def end(self):
        code = None
        if self.server:
            self.server.send_signal(signal.SIGINT)
            code = self.server.wait(timeout=60)
        shutil.rmtree(self.home)
        return code


BLOCK = re.compile(r"```console\n(.*?)```", re.S)


def commands(block):
    return [line[2:] for line in block.splitlines() if line.startswith("$ ")]


class ReadmeTest(unittest.TestCase):
    maxDiff = None

    def test_the_tour_is_real(self):
        text = README.read_text()
        start, end = text.index("<!-- tour -->"), text.index("<!-- /tour -->")
        for program in ("sqlite3", "git"):
            if not shutil.which(program):
                print(f"SKIP the_tour_is_real: {program} is not installed", file=sys.stderr)
                self.skipTest(f"{program} is not installed")
        tour = Tour()
        code = None
        try:
            def play(match):
                lines = []
                for command in commands(match.group(1)):
                    lines.append(f"$ {command}")
                    output = same(tour.run(command), tour.home)
                    if output:
                        lines.append(output)
                return "```console\n" + "\n".join(lines) + "\n```"

            real = text[:start] + BLOCK.sub(play, text[start:end]) + text[end:]
        finally:
            code = tour.end()
        self.assertEqual(code, 0, "Ctrl-C ends the server with 0")
        if os.environ.get("UPDATE"):
            README.write_text(real)
        else:
            self.assertEqual(text, real, "run with UPDATE=1 to write the real output into the README")


if __name__ == "__main__":
    unittest.main()
