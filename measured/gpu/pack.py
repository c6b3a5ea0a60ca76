"""Pack what a cache holds into $OUT: python .gpu/pack.py models|outcomes CACHE [--parts 7] [--since EPOCH] [--more FILE...]

outcomes: files of --more first, then all small files of the cache that are no networks. models: networks, the dearest per
byte first, and whole (no checkpoints). Each part-N.tar has less than 15.5 MiB. What was packed is noted in CACHE.sent and
not packed again by the next call.
"""

import argparse
import json
import os
import tarfile
from pathlib import Path

from safetensors import safe_open

LIMIT = int(15.4 * 2**20)
SMALL = 1 << 20


def seconds(path):
    """What a network cost to train; 0 where the file does not say."""
    try:
        with safe_open(path, framework="pt") as file:
            return float(json.loads(file.metadata()["about"])["certificate"]["seconds"])
    except Exception:
        return 0.0


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("what", choices=["models", "outcomes"])
    ask.add_argument("cache", type=Path)
    ask.add_argument("--parts", type=int, default=7)
    ask.add_argument("--since", type=float, default=0.0)
    ask.add_argument("--more", type=Path, nargs="*", default=[])
    ask.add_argument("--name", default="part")
    given = ask.parse_args()
    note = Path(f"{given.cache}.sent")
    sent = set(note.read_text().splitlines()) if note.exists() else set()
    here = [p for p in given.cache.glob("*.safetensors") if p.stat().st_mtime >= given.since and p.name not in sent]
    if given.what == "models":
        files = sorted((p for p in here if p.name.startswith("model-")), key=lambda p: -seconds(p) / p.stat().st_size)
    else:
        small = [p for p in here if not p.name.startswith("model-") and p.stat().st_size <= SMALL]
        files = [p for p in given.more if p.exists()] + sorted(small, key=lambda p: p.stat().st_size)
    parts, left = [], []  # first fit: [size, files]
    for path in files:
        size = path.stat().st_size // 512 * 512 + 1536
        for part in parts:
            if part[0] + size <= LIMIT:
                break
        else:
            if len(parts) == given.parts or size > LIMIT:
                left.append(path)
                continue
            parts.append(part := [10240, []])
        part[0] += size
        part[1].append(path)
    out = Path(os.environ["OUT"])
    for number, (_, chosen) in enumerate(parts, 1):
        with tarfile.open(out / f"{given.name}-{number}.tar", "w") as tar:
            for path in chosen:
                tar.add(path, path.name)
    packed = [p for _, chosen in parts for p in chosen]
    with note.open("a") as file:
        file.writelines(f"{p.name}\n" for p in packed if p.parent == given.cache)
    total = sum(p.stat().st_size for p in packed)
    print(f"{given.what}: {len(packed)} files, {total / 2**20:.1f} MiB in {len(parts)} parts; left out: {len(left)} files,")
    print(f"{sum(p.stat().st_size for p in left) / 2**20:.1f} MiB: {' '.join(p.name for p in left[:40])}", flush=True)


if __name__ == "__main__":
    main()
