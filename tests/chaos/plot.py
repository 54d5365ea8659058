"""`python -m tests.chaos.plot soak.json soak.png`: the soak's samples as curves. Needs matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(source: str, target: str) -> int:
    """Draw one panel for each quantity."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    samples = json.loads(Path(source).read_text())["samples"]
    names = [name for name in samples[0] if name != "seconds"]
    figure, panels = pyplot.subplots(len(names), 1, sharex=True, figsize=(8, 2 * len(names)), layout="constrained")
    for panel, name in zip(panels, names, strict=True):
        panel.plot([sample["seconds"] for sample in samples], [sample[name] for sample in samples])
        panel.set_ylabel(name)
        panel.set_ylim(bottom=0)
    panels[-1].set_xlabel("seconds")
    figure.savefig(target, dpi=120)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
