#!/usr/bin/env python3
"""The public test vectors, recomputed from the specification by a program that shares no code with Keymoat."""

import importlib.util
import subprocess
import sys
import unittest
from pathlib import Path

CHECK = Path(__file__).resolve().parent / "vectors/check.py"
SIGNED = Path(__file__).resolve().parent / "vectors/make_sigv4.py"


class VectorsTest(unittest.TestCase):
    def test_every_vector_agrees(self):
        if importlib.util.find_spec("cryptography") is None:
            print("SKIP every_vector_agrees: the Python package cryptography is not installed", file=sys.stderr)
            self.skipTest("the Python package cryptography is not installed")
        done = subprocess.run([sys.executable, str(CHECK)], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("checks agree", done.stdout)

    def test_requests_to_aws_are_signed_as_botocore_does(self):
        if importlib.util.find_spec("botocore") is None:
            print("SKIP requests_to_aws_are_signed_as_botocore_does: the Python package botocore is not installed", file=sys.stderr)
            self.skipTest("the Python package botocore is not installed")
        done = subprocess.run([sys.executable, str(SIGNED), "--check"], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("signatures agree", done.stdout)


if __name__ == "__main__":
    unittest.main()
