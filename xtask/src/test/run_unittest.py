"""Runs the unittest suite of one file or directory and writes what became of it as JSON.

Usage: run_unittest.py PATH RESULT [PART OF THE NAMES]. Not a test framework: counts and names, nothing else.
"""

import importlib.util
import json
import pathlib
import sys
import unittest


class Result(unittest.TextTestResult):
    """Counts what passed; unittest itself counts what was started, which a skipped class is not."""

    passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.passed += 1


def load(path):
    sys.path.insert(0, str(path.parent))
    loader = unittest.defaultTestLoader
    if path.is_dir():
        is_package = (path / "__init__.py").exists()
        return loader.discover(str(path), top_level_dir=str(path.parent if is_package else path))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return loader.loadTestsFromModule(module)


def main():
    path, result_path = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    unittest.defaultTestLoader.testNamePatterns = [f"*{part}*" for part in sys.argv[3:]] or None
    sys.argv = [str(path)]
    result = unittest.TextTestRunner(verbosity=2, buffer=True, resultclass=Result).run(load(path))
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skips = [[test.id(), reason] for test, reason in result.skipped]
    result_path.write_text(json.dumps({"passed": result.passed, "failed": failed, "skips": skips}))


main()
