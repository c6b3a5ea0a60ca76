"""Freed blocks stay with the process."""

import platform
import subprocess
import sys

import pytest

MEASURE = """
import resource, sys, torch
from robustutils import memory
if sys.argv[1] == "keep":
    assert memory.keep_freed_blocks()
for _ in range(20):  # until it has what it needs
    torch.ones(16 * 2**20)  # 64 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    """Pages fetched anew while ten large tensors come and go."""
    done = subprocess.run([sys.executable, "-c", MEASURE, mode], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_large_blocks_are_fetched_once():
    assert faults("keep") * 10 < faults("return")
