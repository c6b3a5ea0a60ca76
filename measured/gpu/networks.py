"""Train the networks of a chapter in parallel processes, each once, within a time box.

python .gpu/networks.py DEVICE WORKERS SECONDS MARK [--profile standard] [-p NAME VALUE]...

MARK.list gets the names at the beginning, MARK is made at the end: chapter.py --wait MARK waits for them.
"""

import argparse
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import common
import torch
from torch.multiprocessing import get_context

CHAPTER = "ensemble_adversarial_training"
# By a text of the cell: where its execution ends (None: at its end).
MARKERS = {
    "from robustutils.study import Study": "\nfront(",
    "Study.begin(": "describe(run)",
    "train = data.some(": "test = data.some(",
    "RECIPES = {": None,
    "nets = networks.Family(": None,
    "fgsm, rfgsm = attacks.FGSM(": "WHITE_BOX = {",
    "between = () if": None,
    "nets.train({f\"{a}_adv-{kind}\"": None,
    "nets.train({f\"{a}_adv-input-dropout\"": "def cost(",
    "nets.train({\"R+FGSM\": [first]}": "pgd20 = ",
    "on_rounded = networks.Family(": "core_net = ",
}


def collected(profile, parameters):
    """All networks that the chapter needs, by name; nothing is trained or measured."""
    from robustutils import networks, study as studies

    common.commit_of_the_tree()
    studies.Study.criteria = studies.Study.table = lambda *_, **__: None
    networks.Network.make_sure = _refuse
    try:
        cells = common.cells(CHAPTER)
        space = {"__name__": "collected"}
        (head,) = [c for c in cells if '"parameters"' in c[1]]
        common.prepare(CHAPTER, space, [(head[0], common.with_parameters(head[2], parameters | {"profile": profile}))])
        for marker, end in MARKERS.items():
            chosen = [(line, text) for line, _, text in cells if marker in text]
            assert len(chosen) == 1, f"{len(chosen)} cells have {marker!r}"
            line, text = chosen[0]
            if end:
                assert text.count(end) == 1, f"{end!r} is not once in the cell of {marker!r}"
                text = text[: text.index(end)]
            common.prepare(CHAPTER, space, [(line, text)])
    finally:
        networks.Network.make_sure = TRAIN
    nets = [*space["nets"]._networks.items(), *space["on_rounded"]._networks.items()]
    found = {}
    for (label, seed), network in nets:
        network.siblings = ()
        for source in sources_of(network):
            source.siblings = ()
        found.setdefault(network.name, (label, seed, network))
    return found


def _refuse(self):
    raise AssertionError("collecting trains nothing")


def sources_of(network):
    return [s for s in getattr(network.recipe.objective, "sources", ()) if hasattr(s, "recipe")]


def urgency(label, network):
    """What begins first: the longest training, then static sources, then the larger adversarial ones."""
    if label == "R+FGSM":
        return 0
    if label == "Madry net":
        return 3
    if "_" not in label and label != "core":
        return 1
    if label in ("A_adv", "B_adv"):
        return 2
    return 4 + ("input-dropout" in label) + ("epoch" in label)


def there(network):
    """Whether it is there, without training its sources in passing."""
    return all(there(source) for source in sources_of(network)) and network.is_there()


def work(profile, parameters, tasks, reports):
    """A worker: collects the same networks, and trains those whose names it is given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    from robustutils import networks

    try:
        found = collected(profile, parameters)
        networks._one_thread(False)
        for name in iter(tasks.get, None):
            began = time.monotonic()
            try:
                found[name][2].make_sure()
                reports.put((name, time.monotonic() - began, ""))
            except Exception as error:
                traceback.print_exc()
                reports.put((name, time.monotonic() - began, f"{type(error).__name__}: {error}"))
                if "CUDA" in str(error):
                    return  # its context is of no use any more
    except Exception as error:
        traceback.print_exc()
        reports.put((None, 0.0, f"{type(error).__name__}: {error}"))


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("device")
    ask.add_argument("workers", type=int)
    ask.add_argument("seconds", type=float)
    ask.add_argument("mark", type=Path)
    ask.add_argument("--profile", default="standard")
    ask.add_argument("-p", nargs=2, action="append", default=[])
    given = ask.parse_args()
    began = time.monotonic()

    def say(*words):
        print(f"[{time.monotonic() - began:6.1f}]", *words, flush=True)

    def stop(*_):
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    processes = []
    given.mark.unlink(missing_ok=True)
    try:
        context = get_context("spawn")
        tasks, reports = context.Queue(), context.Queue()
        parameters = common.parsed(given.p) | {"device": given.device}
        processes = [
            context.Process(target=work, args=(given.profile, parameters, tasks, reports), daemon=True)
            for _ in range(given.workers)
        ]
        for process in processes:
            process.start()
        found = collected(given.profile, parameters)
        waiting = sorted(
            (name for name in found if not there(found[name][2])),
            key=lambda name: urgency(found[name][0], found[name][2]),
        )
        given.mark.with_suffix(".list").write_text("\n".join(found))
        say(len(found), "networks,", len(waiting), "to train:", ", ".join(f"{found[n][0]}/{found[n][1]}" for n in waiting))
        running, failed = set(), set()
        while (waiting or running) and time.monotonic() - began < given.seconds:
            ready = [n for n in waiting if all(there(s) for s in sources_of(found[n][2]))]
            alive = sum(process.is_alive() for process in processes)
            for name in ready[: max(0, alive - len(running))]:
                waiting.remove(name)
                running.add(name)
                tasks.put(name)
            if not running:
                say("their sources failed:", waiting)
                break
            try:
                name, seconds, problem = reports.get(timeout=1)
            except Exception:
                if not any(process.is_alive() for process in processes):
                    say("all workers are gone")
                    break
                continue
            if name is None:
                say("a worker could not begin:", problem)
                continue
            running.discard(name)
            label, seed, _ = found[name]
            say(f"{label} seed {seed}: {seconds:.1f} s", problem)
            if problem and name not in failed:  # once more
                failed.add(name)
                waiting.append(name)
        say("unfinished:", [f"{found[n][0]}/{found[n][1]}" for n in {*running, *waiting, *(n for n in found if not there(found[n][2]))}])
    except KeyboardInterrupt:
        say("stopped")
    finally:
        given.mark.touch()
        for process in processes:
            if process.is_alive():
                process.terminate()
        sys.stdout.flush()
        os._exit(0)


from robustutils.networks import Network  # noqa: E402

TRAIN = Network.make_sure

if __name__ == "__main__":
    main()
