"""python -m benchmarks [topic ...] [--threads N ...] [--quick] [--out FILE] [--since REV]

Each topic in a process of its own; its rows replace those that the file has of it."""
import argparse
import csv
import os
import shutil
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from . import topics

parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__)
parser.add_argument('topic', nargs='*', help=f'any of {", ".join(topics)}; default: all')
parser.add_argument('--threads', nargs='+', type=int, default=(1, 2), help='default: 1 and 2, where the topic asks for both')
parser.add_argument('--quick', action='store_true', help='tiny sizes in one process: does it run?')
parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results.csv')
parser.add_argument('--since', metavar='REV', help='time the package of this commit first, and compare')
here = Path(__file__).parent


def earlier(rev, options):
    "Rows of the package at a commit, with the benchmarks as they are now."
    git = lambda *words: subprocess.run(['git', *words], cwd=here, check=True, stdout=subprocess.DEVNULL)
    with TemporaryDirectory() as folder:
        tree, out = Path(folder)/'tree', Path(folder)/'rows.csv'
        git('worktree', 'add', '--quiet', '--detach', tree, rev)
        try:
            shutil.copytree(here, tree/'benchmarks', dirs_exist_ok=True)
            env = os.environ | dict(PYTHONPATH=str(tree))
            subprocess.run([sys.executable, '-m', __package__, *options, '--out', out], cwd=tree, env=env, check=True)
            return by_row(out)
        finally: git('worktree', 'remove', '--force', tree)


def by_row(path):
    rows = csv.DictReader(path.open())
    return {tuple(r[k] for k in ('topic', 'what', 'size', 'peer', 'threads')): r for r in rows}


def compare(then, now):
    "Seconds of both and their ratio, and that of both beside their peers, in which the drift of the machine cancels."
    for key in [k for k in now if k in then]:
        (old, was), (new, ratio) = ((float(r[key]['ours_seconds']), float(r[key]['ratio'])) for r in (then, now))
        what, faster = ', '.join(filter(None, key[:3])), f'{old/new:6.2f} times as fast, {ratio/was:6.2f} beside {key[3]}'
        print(f'{what:45} {old:9.4f} s before  {new:9.4f} s now  {faster}')


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
options = [*chosen, '--threads', *map(str, a.threads), *['--quick']*a.quick]
if unknown := set(chosen) - set(topics): parser.error(f'no topic {", ".join(unknown)}')
then = earlier(a.since, options) if a.since else None
if a.quick or len(chosen) == 1:
    for t in chosen: measure(t, a)
else:
    for t in chosen: subprocess.run([sys.executable, '-m', __package__, t, '--threads', *map(str, a.threads), '--out', a.out], check=True)
if then: compare(then, {k: r for k, r in by_row(a.out).items() if k[0] in chosen})
