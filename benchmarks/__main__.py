"python -m benchmarks [topic ...] [--threads N ...] [--quick] [--out FILE]: each topic in a process of its own; its rows replace those that the file has of it."
import argparse
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

from . import topics

parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__)
parser.add_argument('topic', nargs='*', help=f'any of {", ".join(topics)}; default: all')
parser.add_argument('--threads', nargs='+', type=int, default=(1, 2), help='default: 1 and 2, where the topic asks for both')
parser.add_argument('--quick', action='store_true', help='tiny sizes in one process: does it run?')
parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results.csv')


def measure(topic, a):
    import torch
    from medsam_prompts.all import set_quiet
    from . import common
    warnings.filterwarnings('ignore')
    set_quiet()
    if a.quick: common.most = 1
    module, rows = import_module(f'.{topic}', __package__), []
    for n in getattr(module, 'threads', (1,)):
        if n not in a.threads: continue
        torch.set_num_threads(n)
        for r in module.rows(a.quick):
            rows.append(r)
            print(f'{topic:10} {r["what"]:55} {r["size"]!s:10} {n} threads  {r["peer_seconds"]:9.4f} s  {r["ours_seconds"]:9.4f} s  ratio {r["ratio"]:8.2f}  {r["peer_mib"]:6.0f} {r["ours_mib"]:6.0f} MiB  {r["note"]}', flush=True)
    common.write(a.out, topics, common.stamp(topic, rows))


a = parser.parse_args()
chosen = a.topic or topics
if unknown := set(chosen) - set(topics): parser.error(f'no topic {", ".join(unknown)}')
if a.quick or len(chosen) == 1:
    for t in chosen: measure(t, a)
else:
    for t in chosen: subprocess.run([sys.executable, '-m', __package__, t, '--threads', *map(str, a.threads), '--out', a.out], check=True)
