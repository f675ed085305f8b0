"Two ways to do the same, timed in turns; rows of one form."
import csv
import ctypes
import gc
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

from medsam_prompts.all import checkpoint_state, keep_freed_memory, load_segmenter

here = Path(__file__).parent
columns = 'topic what size peer threads peer_seconds ours_seconds ratio peer_cpu_seconds ours_cpu_seconds aim peer_mib ours_mib note machine versions commit date'.split()
most = 7  # rounds; 1 in a quick run
libraries = {'torch': 'torch', 'pillow': 'PIL', 'pydicom': 'pydicom', 'SimpleITK': 'SimpleITK', 'segment-anything': 'segment_anything', 'monai': 'monai', 'transformers': 'transformers', 'pydensecrf2': 'pydensecrf', 'grad-cam': 'pytorch_grad_cam', 'open_clip_torch': 'open_clip'}


def clocked(f):
    "Seconds and processor seconds of a call, its subprocesses included."
    cpu = lambda: time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    t, c = time.perf_counter(), cpu()
    f()
    return time.perf_counter() - t, cpu() - c


def _status(key): return next(int(line.split()[1])/1024 for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(key))


def with_peak(f):
    "The same, and the MiB that are in use at the peak above those before; NaN where the system is not Linux."
    if not sys.platform.startswith('linux'): return *clocked(f), math.nan
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')  # the peak counts from here
    before = _status('VmRSS')
    return *clocked(f), _status('VmHWM') - before


def installed(f):
    "A peer as a user would have it: the C library gives freed memory back to the system."
    f.installed = True
    return f


def settle(f):
    "Let freed memory stay, or not, as the way about to be timed has it."
    keep_freed_memory(not hasattr(f, 'installed'))


def in_turns(*ways, budget=8.):
    "Median seconds, processor seconds and peak MiB of each way. The first round only warms up, unless it takes twice the budget (seconds)."
    spent = lambda rounds: sum(t for r in rounds for t, *_ in r)
    def turn(how):
        for f in ways:
            settle(f)
            yield how(f)

    first = [*turn(with_peak)]
    slow = spent([first]) > 2*budget
    peaks, rounds = (first, [[o[:2] for o in first]]) if slow else ([*turn(with_peak)], [])
    while len(rounds) < most and (not rounds or spent(rounds) < budget): rounds.append([*turn(clocked)])
    return [(*map(statistics.median, zip(*of)), mib) for of, (*_, mib) in zip(zip(*rounds), peaks)]


def row(what, size, peer, theirs, ours, aim='', note=''):
    "A row from what `in_turns` says of both ways; a ratio above 1 means that ours is faster."
    return dict(what=what, size=size, peer=peer, threads=torch.get_num_threads(), peer_seconds=theirs[0], ours_seconds=ours[0], ratio=theirs[0]/ours[0],
                peer_cpu_seconds=theirs[1], ours_cpu_seconds=ours[1], aim=aim, peer_mib=theirs[2], ours_mib=ours[2], note=note)


def compare(what, size, peer, theirs, ours, aim='', note='', budget=8.): return row(what, size, peer, *in_turns(theirs, ours, budget=budget), aim, note)


def backbone(name, quick):
    "A segmenter with its weights where they are here, else without: times do not depend on them."
    return load_segmenter('sam_toy') if quick else load_segmenter(name, None if checkpoint_state(name) == 'present' else False)


def _processor():
    info = Path('/proc/cpuinfo')
    names = [line.partition(': ')[2] for line in info.read_text().splitlines() if line.startswith('model name')] if info.exists() else []
    return f'{(names or [platform.processor() or platform.machine()])[0]}, {os.cpu_count()} cores'


def _commit():
    "The commit, with a + where code differs from it."
    git = lambda *a: subprocess.run(['git', *a], cwd=here, capture_output=True, text=True).stdout.strip()
    return git('rev-parse', '--short=10', 'HEAD') + '+'*bool(git('status', '--porcelain', '--', ':/medsam_prompts', ':/benchmarks/*.py'))


def stamp(topic, rows):
    "Topic, machine, versions of what was imported, commit and date."
    used = ', '.join(f'{dist} {version(dist)}' for dist, module in libraries.items() if module in sys.modules)
    return [dict(topic=topic, **r, machine=_processor(), versions=used, commit=_commit(), date=date.today().isoformat()) for r in rows]


def _text(v): return f'{v:.4g}' if isinstance(v, float) else v


def write(path, topics, new):
    "Rows of a topic and number of threads replace those that the file has of both."
    of = lambda r: (r['topic'], str(r['threads']))
    old = list(csv.DictReader(path.open())) if path.exists() else []
    rows = [r for r in old if of(r) not in set(map(of, new))] + [{k: _text(v) for k, v in r.items()} for r in new]
    with path.open('w', newline='') as f:
        w = csv.DictWriter(f, columns)
        w.writeheader()
        w.writerows(sorted(rows, key=lambda r: (topics.index(r['topic']), int(r['threads']))))
