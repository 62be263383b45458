#!/usr/bin/env python3
"""Lets system calls of the built program fail, one at a time, and looks at what becomes of the vault.

For every N, the N-th call of a kind fails in a put, a reveal, a change of keys and a backup (`strace -e inject`). What
was answered with success must be there, a value that was given out must be on record, the message must say what is
wrong, and the vault must open and verify afterwards. A disk that says "written" and writes nothing must be found out
when the vault is opened next. What `init` makes must be on the disk when it ends, names and all. `python3 testkit/test_faults.py --all` tries every call, the test run a part of them.
KEYMOAT_BIN names the program; without it the debug build is used.
"""

import collections
import concurrent.futures
import json
import os
import random
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
BIN = Path(os.environ.get("KEYMOAT_BIN", ROOT / "target/debug/keymoat")).resolve()
ALL = "--all" in sys.argv

#: What can fail, and how: with an error, or as a write that takes no byte.
FAULTS = {
    "fdatasync": ["EIO", "ENOSPC"],
    "fsync": ["EIO"],
    "pwrite64": ["EIO", "ENOSPC", "short"],
    "pread64": ["EIO"],
    "openat": ["EMFILE", "EIO"],
    "ftruncate": ["EIO", "ENOSPC"],
    "fallocate": ["ENOSPC"],
    "unlink": ["EIO"],
    "rename": ["EIO", "ENOSPC"],
    "linkat": ["EIO"],
    "flock": ["EIO"],
}
OLD, NEW = "made-up value before", "made-up value after"
#: Cases of each operation in the test run; each takes about a second.
SAMPLE = 7
WORKERS = 2


class Machine:
    """A home directory with a vault that holds one secret; copies of it are for the cases."""

    def __init__(self):
        in_memory = Path("/dev/shm")
        self.root = Path(tempfile.mkdtemp(dir=in_memory if in_memory.is_dir() else None))
        self.whole = self.root / "whole"
        self.whole.mkdir()
        said = run(self.whole, "init")
        assert said.returncode == 0, said
        said = run(self.whole, "put", "shop", "secret_key=-", "--env", "prod", stdin=OLD)
        assert said.returncode == 0, said

    def copy(self, name):
        home = self.root / name
        shutil.copytree(self.whole, home, ignore=shutil.ignore_patterns("*.sock"))
        return home

    def remove(self):
        shutil.rmtree(self.root)


def run(home, *arguments, stdin="", before=()):
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    return subprocess.run([*before, BIN, *arguments], input=stdin, env=environment, cwd=home, capture_output=True, text=True,
                          check=False, timeout=120)


def fault(call, how, number):
    outcome = "retval=0" if how == "short" else f"error={how}"
    return f"inject={call}:{outcome}:when={number}"


def strace(*options):
    return ["strace", "-f", "-qq", *options]


class Operation:
    """A command, and what must hold after it whether it succeeded or not."""

    name = arguments = None
    stdin = ""

    def check(self, test, home, done):
        """Looks at the vault after the command."""


class Put(Operation):
    name, arguments, stdin = "put", ["put", "shop", "secret_key=-", "--env", "prod"], NEW

    def check(self, test, home, done):
        # Success means that it is there; a failure means that it may be.
        value = reveal(test, home)
        test.assertIn(value, [NEW] if done.returncode == 0 else [OLD, NEW])


class Reveal(Operation):
    name, arguments = "reveal", ["reveal", "shop#secret_key", "--env", "prod"]

    def check(self, test, home, done):
        test.assertEqual(done.stdout.strip(), OLD if done.returncode == 0 else "")
        if done.stdout:
            test.assertGreaterEqual(len(records(test, home, "reveal")), 1, "a value was given out without a record")
        test.assertEqual(reveal(test, home), OLD)


class ChangeKeys(Operation):
    name, arguments = "rekey", ["rekey", "data-key", "prod"]

    def check(self, test, home, done):
        test.assertEqual(reveal(test, home), OLD)
        again = run(home, *self.arguments)
        test.assertEqual(again.returncode, 0, again)
        test.assertEqual(reveal(test, home), OLD)


class Backup(Operation):
    name, arguments = "backup", ["backup", "out.backup"]

    def check(self, test, home, done):
        if done.returncode == 0:
            there = home / "there"
            there.mkdir()
            # Restored where nothing is known of the vault but its key.
            config = there / ".config/keymoat"
            config.mkdir(parents=True)
            for key in (home / ".config/keymoat").glob("*.key"):
                shutil.copy(key, config)
            said = run(there, "restore", str(home / "out.backup"))
            test.assertEqual(said.returncode, 0, said)
            test.assertEqual(reveal(test, there), OLD)
        left = [path.name for path in home.iterdir() if path.name.startswith(".out.backup")]
        test.assertEqual(left, [], "half a backup was left behind")


OPERATIONS = [Put(), Reveal(), ChangeKeys(), Backup()]


def reveal(test, home):
    said = run(home, "reveal", "shop#secret_key", "--env", "prod")
    test.assertEqual(said.returncode, 0, said)
    return said.stdout.strip()


def records(test, home, action):
    said = run(home, "audit", "query", "--action", action, "--format", "json")
    test.assertEqual(said.returncode, 0, said)
    return json.loads(said.stdout)


def calls(machine, operation):
    """How often each call is made at most by one thread: that is what `when=N` counts."""
    home = machine.copy(f"count-{operation.name}")
    log = home / "calls"
    done = run(home, *operation.arguments, stdin=operation.stdin,
               before=strace("-o", str(log), "-e", "trace=" + ",".join(FAULTS)))
    assert done.returncode == 0, done
    made = collections.defaultdict(list)
    for line in log.read_text().splitlines():
        found = re.match(r"(\d+) +(\w+)\(.*= (-?\d+)", line)
        if found:
            made[found[2], found[1]].append(int(found[3]))
    shutil.rmtree(home)
    longest = {}
    for (call, _), results in made.items():
        if len(results) > len(longest.get(call, [])):
            longest[call] = results
    return longest


def chosen(cases, count):
    """All of them, or a part that has something of every kind."""
    if ALL:
        return cases
    kinds = collections.defaultdict(list)
    for case in cases:
        kinds[case[0]].append(case)
    dice, picked = random.Random(7), []
    for group in kinds.values():
        dice.shuffle(group)
    while len(picked) < count and any(kinds.values()):
        for group in kinds.values():
            if group and len(picked) < count:
                picked.append(group.pop())
    return picked


@unittest.skipUnless(shutil.which("strace"), "strace is not installed")
class SystemCallsFail(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        probe = subprocess.run(strace("-e", "inject=fsync:error=EIO:when=1", "true"), capture_output=True, text=True,
                               check=False)
        if probe.returncode != 0:
            raise unittest.SkipTest(f"strace may not trace here: {probe.stderr.strip()}")
        cls.machine = Machine()
        cls.addClassCleanup(cls.machine.remove)

    def each(self, cases, work):
        """Tries the cases, a few at a time, and names each that fails."""
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            tried = [(case, pool.submit(work, *case)) for case in cases]
            for case, outcome in tried:
                with self.subTest(" ".join(map(str, case))):
                    outcome.result()
        if ALL:
            print(f"  {len(tried)} calls failed on purpose")

    def fail_one(self, operation, call, how, number):
        home = self.machine.copy(f"{operation.name}-{call}-{how}-{number}")
        done = run(home, *operation.arguments, stdin=operation.stdin,
                   before=strace("-o", "/dev/null", "-e", fault(call, how, number)))
        self.assertNotIn("panicked", done.stderr)
        is_ours = "error while loading shared libraries" not in done.stderr
        if is_ours:
            self.assertIn(done.returncode, (0, 1, 2), done)
            self.assertEqual(done.returncode == 0, "error: " not in done.stderr, done)
        verified = run(home, "audit", "verify")
        self.assertEqual(verified.returncode, 0, (done, verified))
        operation.check(self, home, done)
        shutil.rmtree(home)

    def fail_each(self, operation):
        made = calls(self.machine, operation)
        cases = [(call, how, number) for call, ways in FAULTS.items() for how in ways
                 for number in range(1, len(made.get(call, [])) + 1)]
        self.assertGreater(len(cases), 30)
        self.each(chosen(cases, SAMPLE), lambda *case: self.fail_one(operation, *case))

    def test_of_a_put(self):
        self.fail_each(OPERATIONS[0])

    def test_of_a_reveal(self):
        self.fail_each(OPERATIONS[1])

    def test_of_a_change_of_keys(self):
        self.fail_each(OPERATIONS[2])

    def test_of_a_backup(self):
        self.fail_each(OPERATIONS[3])

    def test_a_write_that_never_came_is_found_out(self):
        put = OPERATIONS[0]
        made = calls(self.machine, put)["pwrite64"]
        cases = [("pwrite64", number, size) for number, size in enumerate(made, 1)]
        self.each(chosen(cases, SAMPLE // 2), self.lose_one)

    def lose_one(self, call, number, size):
        home = self.machine.copy(f"lost-{number}")
        done = run(home, *OPERATIONS[0].arguments, stdin=NEW,
                   before=strace("-o", "/dev/null", "-e", f"inject={call}:retval={size}:when={number}"))
        self.assertNotIn("panicked", done.stderr)
        later = run(home, "reveal", "shop#secret_key", "--env", "prod")
        if later.returncode == 0:
            # Whoever was told of success must not silently be given what was there before.
            self.assertIn(later.stdout.strip(), [NEW] if done.returncode == 0 else [OLD, NEW])
        else:
            self.assertRegex(later.stderr, "error: .")
        shutil.rmtree(home)

    def test_a_server_stops_itself_after_a_failed_sync(self):
        home = self.machine.copy("server")
        log = home / "server.log"
        # Each thread counts its own: the one that commits, and the one that keeps the checkpoint file outside.
        fault = "inject=fdatasync:error=EIO:when=4+"
        environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
        with log.open("w") as out:
            server = subprocess.Popen([*strace("-o", "/dev/null", "-e", fault), BIN, "serve", "--listen", "127.0.0.1:0"],
                                      env=environment, cwd=home, stdout=out, stderr=out, start_new_session=True)
        try:
            deadline = time.monotonic() + 60
            while "Ctrl-C stops it." not in log.read_text():
                self.assertIsNone(server.poll(), log.read_text())
                self.assertLess(time.monotonic(), deadline)
            acknowledged, refused = [], None
            for number in range(10):
                done = run(home, "put", f"n{number}", "secret_key=-", "--env", "prod", stdin=f"made-up value {number}")
                if done.returncode != 0:
                    refused = done
                    break
                acknowledged.append(number)
            self.assertIsNotNone(refused, "no sync failed")
            self.assertIn("the store has stopped itself", refused.stderr)
            # It does not get better by itself: nothing is answered any more, and the reason stays.
            for arguments in (["reveal", "shop#secret_key", "--env", "prod"], ["put", "later", "secret_key=-", "--env", "prod"]):
                done = run(home, *arguments, stdin="made-up later")
                self.assertEqual((done.returncode, done.stdout), (2, ""), done)
                self.assertIn("the store has stopped itself", done.stderr)
            self.assertIn("the store stops itself", log.read_text())
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        verified = run(home, "audit", "verify")
        self.assertEqual(verified.returncode, 0, verified)
        for number in acknowledged:
            said = run(home, "reveal", f"n{number}#secret_key", "--env", "prod")
            self.assertEqual((said.returncode, said.stdout.strip()), (0, f"made-up value {number}"))
        self.assertEqual(reveal(self, home), OLD)


class Disk:
    """What a program has put on the disk, as its system calls tell it, and what a power cut would take."""

    def __init__(self):
        self.known, self.unlisted, self.unsynced = set(), set(), set()

    def see(self, call, arguments, result):
        if result < 0:
            return
        names = re.findall(r'"([^"]*)"', arguments)
        file = (re.match(r"\d+<([^>]*)>", arguments) or [None, None])[1]
        if call in ("mkdir", "mkdirat") or (call in ("open", "openat") and "O_CREAT" in arguments):
            if names[0] not in self.known:
                self.appears(names[0])
        elif call in ("rename", "renameat", "renameat2", "link", "linkat"):
            self.appears(names[1])
            if names[0] in self.unsynced:
                self.unsynced.add(names[1])
        elif call in ("write", "pwrite64", "ftruncate", "fallocate"):
            self.unsynced.add(file)
        elif call in ("fsync", "fdatasync"):
            self.unsynced.discard(file)
            self.unlisted = {name for name in self.unlisted if os.path.dirname(name) != file}

    def appears(self, name):
        self.known.add(name)
        self.unlisted.add(name)


#: The calls by which something comes to a disk and stays there.
WRITES = ("mkdir,mkdirat,open,openat,rename,renameat,renameat2,link,linkat,write,pwrite64,ftruncate,fallocate,fsync,"
          "fdatasync")
#: Says who works here, for as long as he does.
PASSING = {"lock"}


@unittest.skipUnless(shutil.which("strace"), "strace is not installed")
class WhatIsMadeStays(unittest.TestCase):
    def test_what_init_makes_is_on_the_disk_names_and_all(self):
        home = Path(tempfile.mkdtemp()).resolve()
        self.addCleanup(shutil.rmtree, home)
        log = home / "calls"
        done = run(home, "init", before=strace("-y", "-o", str(log), "-e", f"trace={WRITES}"))
        if done.returncode != 0 and "ptrace" in done.stderr:
            self.skipTest(f"strace may not trace here: {done.stderr.strip()}")
        self.assertEqual(done.returncode, 0, done)
        disk, begun = Disk(), {}
        for line in log.read_text().splitlines():
            thread, text = line.split(maxsplit=1)
            if text.endswith("<unfinished ...>"):
                begun[thread] = text.removesuffix("<unfinished ...>")
                continue
            resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", text)
            text = begun.pop(thread) + resumed[1] if resumed else text
            found = re.match(r"(\w+)\((.*)\) += (-?\d+)", text)
            if found:
                disk.see(found[1], found[2], int(found[3]))
        there = {str(path) for path in home.rglob("*") if path != log and path.name not in PASSING}
        self.assertGreaterEqual(len(there & disk.known), 8, there)
        self.assertEqual(sorted(disk.unlisted & there), [], "names that a power cut takes")
        self.assertEqual(sorted(disk.unsynced & there), [], "content that a power cut takes")


if __name__ == "__main__":
    unittest.main(argv=[argument for argument in sys.argv if argument != "--all"])
