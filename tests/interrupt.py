"""Kill `reproduce` with all its processes, again and again, then let it finish.

`python tests/interrupt.py OUT` does it 20 times to the table of the profile grid (70 runs of all its methods on phantoms, the toy backbone, one epoch) and compares with a run that was left alone; about 20 minutes on 2 idle cores."""
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from medsam_prompts.core import sha256_file

code = 'import sys; from medsam_prompts.cli import main; sys.exit(main())'


def start(call, home):
    env = {**os.environ, 'MEDSAM_PROMPTS_HOME': str(home), 'MEDSAM_PROMPTS_OFFLINE': '1'}
    return subprocess.Popen([sys.executable, '-c', code, *map(str, call)], env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def stamps(out): return {p.parent.name: p.stat().st_mtime_ns for p in out.glob('cells/*/done.json')}


def check_files(out):
    "Every finished cell has what it promised, whole."
    for p in out.glob('cells/*/done.json'):
        for name, sha in json.loads(p.read_text())['outputs'].items(): assert sha256_file(p.parent/name) == sha, p.parent/name


def finish(call, out, home, kills, longest, seed=0):
    "Run to the end with this many kills, each at a random moment after a cell was begun; returns how many there were."
    rng, done = random.Random(seed), {}
    for n in range(kills):
        before, process = {p: p.stat().st_mtime_ns for p in out.glob('cells/*/notebook.ipynb')}, start(call, home)
        begun = lambda: any(before.get(p) != p.stat().st_mtime_ns for p in out.glob('cells/*/notebook.ipynb'))
        while process.poll() is None and not begun(): time.sleep(.1)
        try: process.wait(rng.uniform(0, longest))
        except subprocess.TimeoutExpired: pass
        if process.poll() is not None: return n
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        check_files(out)
        assert {k: v for k, v in stamps(out).items() if k in done} == done, 'a finished cell ran again'
        done = stamps(out)
        print(f'kill {n + 1}: {len(done)} cells done', flush=True)
    assert start(call, home).wait() == 0
    assert {k: v for k, v in stamps(out).items() if k in done} == done, 'a finished cell ran again'
    return kills


def tables(out):
    "Rows and tables, without the time they took."
    files = [p for p in sorted(out.glob('cells/*/*.csv'))]
    return {p.relative_to(out): pd.read_csv(p).drop(columns=['seconds', 'fit_seconds'], errors='ignore').to_csv() for p in files}


def toy(grid):
    "A table of the grid with the toy backbone and one epoch."
    rows = [{**r, 'backbone': 'sam_toy', 'changes': {**r.get('changes', {}), **({'epochs': 1} if {'weak', 'weak_ours', 'weak_masks'} & {*([r['method']] if isinstance(r['method'], str) else r['method'])} else {})}} for r in grid['rows']]
    return dict(experiments=dict(weak_table1={**grid, 'rows': rows}))


if __name__ == '__main__':
    import yaml
    from medsam_prompts.workflow import make_plan, read_profile
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    (folder/'grid.yaml').write_text(yaml.safe_dump(toy(read_profile('grid')['experiments']['weak_table1'])))
    print(f'{len(make_plan([], folder/"grid.yaml").cells)} cells')
    call = lambda out: ('reproduce', '--profile', folder/'grid.yaml', '--jobs', 2, '--out', folder/out)
    assert start(call('whole'), folder/'home').wait() == 0
    assert finish(call('killed'), folder/'killed', folder/'home', kills=20, longest=20) == 20
    check_files(folder/'killed')
    assert tables(folder/'whole') == tables(folder/'killed') != {}
    print('20 kills, and the same tables')
