"""Keymoat's scanner on Keymoat's own working tree: whatever it finds has to be made up, and to say so.

Tests and documentation are full of keys that nobody ever had. A value that says so itself (`MadeUp`, `0000`, `Example`,
`Keymoat`) is fine; everything else stands in the list below, with its reason.
"""

import json
import os
import re
import subprocess
import unittest

SAYS_SO = re.compile(rb"made.?up|0000|example|keymoat|xxxx|test|hunter2", re.IGNORECASE)

# Files and directories, and why what stands there is no secret.
ALLOWED = {
    "crates/detect/catalogue/": "examples that the catalogue tries when it is loaded; they are to be made up",
    "crates/detect/examples/measure.rs": "makes keys up to measure with",
    "crates/detect/src/checksum.rs": "made-up values with the right checksums",
    "crates/detect/src/classify.rs": "rows of passwords that nobody has",
    "crates/detect/src/engine/": "rows of keys and passwords that nobody has",
    "crates/detect/src/identify.rs": "addresses with passwords that nobody has",
    "crates/detect/src/question.rs": "made-up halves of a key, in base64 as they travel",
    "crates/detect/src/redact/": "rows of keys, values and addresses that nobody has",
    "crates/detect/src/shape.rs": "addresses with passwords that nobody has",
    "crates/detect/src/variable.rs": "names of variables beside names of keys",
    "crates/scan/tests/": "a planted token in every kind of container",
    "crates/store/src/address.rs": "addresses with passwords that nobody has",
    "docs/": "ids of made-up vaults",
    "fuzz/seeds/": "seeds are made up, and bytes of them are changed",
    "testkit/vectors/": "test vectors with keys and all, for whoever recomputes them",
}


def places():
    """Every place of every finding in the working tree."""
    scan = [os.environ["KEYMOAT_BIN"], "scan", ".", "--no-history", "--format", "json"]
    done = subprocess.run(scan, capture_output=True, timeout=120)
    if done.returncode not in (0, 1, 2):
        raise AssertionError(done.stderr.decode())
    for finding in json.loads(done.stdout)["findings"]:
        for place in finding["places"]:
            yield finding, place


def says_so(place):
    """Whether the value itself, or a line of a key in several lines, says that it is made up."""
    if place["members"] or place["cell"] or not place["line"]:
        return False
    with open(place["path"], "rb") as file:
        lines = file.read().split(b"\n")[place["line"] - 1 :]
    rest = lines[0][(place["column"] or 1) - 1 :]
    if rest.startswith(b"-----BEGIN"):
        return bool(SAYS_SO.search(rest + b"".join(lines[1:5])))
    return bool(SAYS_SO.search(re.match(rb"[^\s\"'`<>]{0,400}", rest).group()))


class OwnKeys(unittest.TestCase):
    def test_no_key_of_anybody_stands_in_this_repository(self):
        seen, real = 0, []
        for finding, place in places():
            seen += 1
            if any(place["path"].startswith(allowed) for allowed in ALLOWED) or says_so(place):
                continue
            real.append(f"{place['path']}:{place['line']}: {finding['title']} {finding['mask']}")
        said = "\n".join(real)
        self.assertFalse(real, f"take these out; if they are made up, let the values say so\n{said}")
        # The scanner finds what is made up as well; if it finds nothing, it has not looked.
        self.assertGreater(seen, 100)


if __name__ == "__main__":
    unittest.main()
