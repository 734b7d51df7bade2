"""The check, in processes of its own: python -m networks [run|table|tune] …

run OUT [--jobs …] [--only PATTERN …] [--workers 2]: all networks; OUT gets a JSON line for each job
table OUT: the tables of what OUT holds, into docs/networks.md too
tune: accuracy after equal fine-tuning at equal FLOPs, into docs/networks.md too

Statuses: works; idle (nothing wrong, but shrinking saved under 2 % of the FLOPs); refuses (TombolaError); crashes (any
other exception); wrong (a check failed); timeout; n/a (the job is not for this network).
"""

from __future__ import annotations

import argparse
import fnmatch
from pathlib import Path

from networks.tables import parts_of, results_in, write_page
from networks.torchvision_beside_cpu import import_torchvision

JOBS = "mask,channels,widths,head,neuron,blocks,tp"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("out", type=Path)
    run.add_argument("--jobs", default=JOBS)
    run.add_argument("--only", nargs="*", default=["*"])
    run.add_argument("--workers", type=int, default=2)
    commands.add_parser("table").add_argument("out", type=Path)
    commands.add_parser("tune")
    given = parser.parse_args()
    import_torchvision()  # before anything that imports transformers
    if given.command == "tune":
        from networks.tuning import tuned

        rows = tuned()
        print(rows)
        write_page("tuning", rows)
    elif given.command == "table":
        results = results_in(given.out)
        for part, text in parts_of(results).items():
            print(text)
            write_page(part, text)
    else:
        from networks.architectures import nets
        from networks.running import run as run_all

        names = [name for pattern in given.only for name in nets() if fnmatch.fnmatch(name, pattern)]
        run_all(names, given.jobs.split(","), given.out, given.workers)


if __name__ == "__main__":
    main()
