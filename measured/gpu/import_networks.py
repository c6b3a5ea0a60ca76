"""Write networks that a GPU has trained into this machine's cache, under the keys of the CPU.

python .gpu/import_networks.py TAR_OR_FOLDER... [--profile standard] [-p n_seeds_large 3 -p epochs_rfgsm 100]

Into the folder that ROBUSTUTILS_CACHE names. Certificates and tensors stay as they are; what is there already, published or
in the cache, is left. Networks with static sources come after their sources, because their keys hold those of the sources.
"""

import argparse
import io
import tarfile
import tempfile
from pathlib import Path

import common  # noqa: F401
import networks as collecting
from robustutils import storage


def files_of(given, folder):
    for path in given:
        if path.is_dir():
            yield from files_of(sorted([*path.glob("*.tar"), *path.glob("model-*.safetensors")]), folder)
        elif path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar.getmembers():
                    if Path(member.name).name.startswith("model-"):
                        target = folder / Path(member.name).name
                        target.write_bytes(io.BytesIO(tar.extractfile(member).read()).getvalue())
                        yield target
        else:
            yield path


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("given", type=Path, nargs="+")
    ask.add_argument("--profile", default="standard")
    ask.add_argument("-p", nargs=2, action="append", default=[])
    asked = ask.parse_args()
    found = collecting.collected(asked.profile, common.parsed(asked.p) | {"device": "cpu"})
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for path in files_of(asked.given, Path(folder)):
            files[storage.header(path)["key"]] = path  # the GPU's key
        left = dict(files)
        done = True
        waiting = list(found.values())
        while done:  # sources first
            done = False
            for entry in list(waiting):
                label, seed, network = entry
                sources = collecting.sources_of(network)
                if not all(collecting.there(source) for source in sources):
                    continue
                waiting.remove(entry)
                done = True
                twin = type(network)(network.recipe, network.dataset, seed=seed, device="cuda")
                path = files.get(key_on_the_gpu(twin))
                left.pop(key_on_the_gpu(twin), None)
                if path is None or network.is_there():
                    continue
                tensors, about = storage.read(path)
                assert about["certificate"]["device"] != "cpu" or asked.profile == "quick", path
                shapes = {name: t.shape for name, t in network._fresh().state_dict().items()}
                assert shapes == {name: t.shape for name, t in tensors.items()}, f"{label}: other tensors"
                storage.write(network.path, network.cache_key, tensors, **about)
                network()  # it loads
                print(f"{label} seed {seed}: {network.path.name}", flush=True)
    print("not of this chapter and these parameters:", sorted(left))
    print("not there now:", [f"{label}/{seed}" for label, seed, n in found.values() if not collecting.there(n)])


def key_on_the_gpu(network):
    """The key that a network's file has on a GPU of capability 8.0 or more, whose sources have the weights of those here."""
    import torch
    from robustutils import speed

    fast, speed.fast_dtype = speed.fast_dtype, lambda device: torch.bfloat16
    try:
        return network._named(torch.device("cuda"))
    finally:
        speed.fast_dtype = fast


if __name__ == "__main__":
    main()
