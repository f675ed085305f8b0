"python -m benchmarks [topic ...] [--quick] [--out FILE]: each topic in a process of its own; its rows replace those that the file has of it."
import argparse
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

from . import topics

parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__)
parser.add_argument('topic', nargs='*', help=f'any of {", ".join(topics)}; default: all')
parser.add_argument('--quick', action='store_true', help='tiny sizes in one process: does it run?')
parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results.csv')


def measure(topic, quick, out):
    from medsam_prompts.all import set_quiet
    from . import common
    warnings.filterwarnings('ignore')
    set_quiet()
    if quick: common.most = 1
    rows = []
    for r in import_module(f'.{topic}', __package__).rows(quick):
        rows.append(r)
        print(f'{topic:10} {r["what"]:55} {r["size"]!s:10} {r["threads"]} threads  {r["peer_seconds"]:9.4f} s  {r["ours_seconds"]:9.4f} s  ratio {r["ratio"]:8.2f}  {r["note"]}', flush=True)
    common.write(out, topics, common.stamp(topic, rows))


a = parser.parse_args()
chosen = a.topic or topics
if unknown := set(chosen) - set(topics): parser.error(f'no topic {", ".join(unknown)}')
if a.quick or len(chosen) == 1:
    for t in chosen: measure(t, a.quick, a.out)
else:
    for t in chosen: subprocess.run([sys.executable, '-m', __package__, t, '--out', a.out], check=True)
