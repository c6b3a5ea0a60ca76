"""Run a chapter as plain Python and export what it has measured, also when it is stopped.

python .gpu/chapter.py NAME --profile standard -p n_seeds_large 3 --out FILE [--seconds N] [--wait MARK]
    [--shuffle SEED] [--last TEXT] [--skip TEXT]

--seconds: stop after so many seconds, and export. --wait: networks are trained by others; wait for each until the file
MARK is there, and then go on without those that are missing (give no MARK that never comes). --shuffle: ask for the rows of
a cell in another order (0: as they stand), so that several runs share a cache and the work. --last, --skip: cells with this
text run at the end, or not at all.
"""

import argparse
import os
import random
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import common  # noqa: E402

BEGAN = time.monotonic()


class Stopped(BaseException):
    """Time is up."""


def say(*words):
    print(f"[{time.monotonic() - BEGAN:6.1f}]", *words, flush=True)


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("chapter")
    ask.add_argument("--profile", default="quick")
    ask.add_argument("-p", nargs=2, action="append", default=[])
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--seconds", type=float, default=1e6)
    ask.add_argument("--wait", type=Path)
    ask.add_argument("--shuffle", type=int, default=0)
    ask.add_argument("--last", action="append", default=[])
    ask.add_argument("--skip", action="append", default=[])
    given = ask.parse_args()

    import matplotlib.pyplot as plt
    import IPython.display
    from robustutils import networks, pieces, study as studies

    common.commit_of_the_tree()
    pieces.LIMIT = 1 << 30
    IPython.display.display = studies.display = lambda *_, **__: None  # chapters import it in a cell
    space = {"__name__": "__main__"}
    lock, exported = threading.Lock(), [0.0]

    def export():
        if "study" not in space or not lock.acquire(timeout=20):
            return
        try:
            found = space["study"]
            pieces.export(given.out, found.run.provenance(), found.measured)
            exported[0] = time.monotonic()
            say("exported", len(found.measured), "rows,", given.out.stat().st_size >> 10, "KiB")
        except Exception:
            traceback.print_exc()
        finally:
            lock.release()

    over = threading.Event()

    def stop(*_):
        if not over.is_set():
            over.set()
            raise Stopped

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, stop)
    signal.setitimer(signal.ITIMER_REAL, given.seconds)

    def watch():  # a call into C that does not come back
        while not over.is_set():
            if time.monotonic() - BEGAN > given.seconds + 1:
                break
            time.sleep(0.5)
        time.sleep(6)
        say("stopped from outside the main thread")
        export()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()

    # ---- rows one by one: one that fails does not take the others with it ----

    def measure(self, *ids, by):
        answers = {}

        def ask(at):
            key = repr(sorted(at.items()))
            if key not in answers:
                answers[key] = by(**at)
            return answers[key]

        rows = [row for row in self.claims.rows if row.id in ids and not row.needs]
        if given.shuffle:
            random.Random(given.shuffle).shuffle(rows)
        failed = 0
        for row in rows:
            try:
                self.record(row.id, row.row, studies._found(row, ask))
            except Exception as error:
                failed += 1
                if failed <= 3:
                    say(f"row {row.id} {row.row!r}: {type(error).__name__}: {error}")
                    if not isinstance(error, NotThere):
                        traceback.print_exc()
                if (row.id, row.row) not in self._rows:
                    self.record(row.id, row.row, "failed")
            if time.monotonic() - exported[0] > 60:
                export()
        say(", ".join(ids), f"{len(rows)} rows, {failed} failed")

    studies.Study.measure = measure

    class NotThere(RuntimeError):
        """A network that others have not trained."""

    train = networks.Network.make_sure

    def make_sure(self):
        """Wait until others have trained it; quick and small ones of this chapter alone are trained here."""
        while not self.is_there():
            if given.wait.exists():
                if self.is_there():
                    return
                raise NotThere(self.name)
            time.sleep(0.2)

    if given.wait:
        listed = given.wait.with_suffix(".list")  # the names that networks.py trains

        def waits(self):
            while not listed.exists() and not given.wait.exists():
                time.sleep(0.2)
            if listed.exists() and self.name in listed.read_text():
                make_sure(self)
            else:
                train(self)

        networks.Network.make_sure = waits

    # ---- cells ----

    cells = common.cells(given.chapter)
    assert sum('"parameters"' in head for _, head, _ in cells) == 1
    for texts in (given.last, given.skip):
        for text in texts:
            assert any(text in cell for _, _, cell in cells), f"no cell has {text!r}"
    kept = [cell for cell in cells if not any(text in cell[2] for text in given.skip)]
    late = [cell for cell in kept if any(text in cell[2] for text in given.last)]
    closing = [cell for cell in kept if "study.close(" in cell[2]]
    order = [cell for cell in kept if cell not in late and cell not in closing] + late + closing
    try:
        for line, head, text in order:
            if '"parameters"' in head:
                text = common.with_parameters(text, {"profile": given.profile, **common.parsed(given.p)})
            began = time.monotonic()
            try:
                common.prepare(given.chapter, space, [(line, text)])
            except Exception as error:
                say(f"cell at line {line} failed: {type(error).__name__}: {error}")
                if not isinstance(error, NotThere):
                    traceback.print_exc()
                if "study" not in space and "Study.begin" in text:
                    raise
            plt.close("all")
            spent = time.monotonic() - began
            if spent > 2:
                say(f"cell at line {line} took {spent:.1f} s: {text.strip().splitlines()[0][:60]!r}")
            if time.monotonic() - exported[0] > 30:
                export()
        say("the chapter is done")
    except Stopped:
        say("stopped")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        export()
        sys.stdout.flush()
        os._exit(0)  # whatever threads or workers hang on


if __name__ == "__main__":
    main()
