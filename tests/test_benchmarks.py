"Every benchmark runs; how fast is not asked here."
import csv
import math
import subprocess
import sys

from conftest import repo

sys.path.insert(0, str(repo))
from benchmarks import topics


def run(out, *argv): return subprocess.run([sys.executable, '-m', 'benchmarks', '--quick', '--threads', '1', '--out', out, *argv], cwd=repo, check=True)


def test_every_topic_gives_rows_and_replaces_its_own(tmp_path):
    out = tmp_path/'results.csv'
    run(out)
    rows = list(csv.DictReader(out.open()))
    assert list(dict.fromkeys(r['topic'] for r in rows)) == topics
    assert all(math.isfinite(float(r['ratio'])) and float(r['ratio']) > 0 and r['machine'] and 'torch' in r['versions'] and r['date'] for r in rows)
    run(out, 'losses')
    again = list(csv.DictReader(out.open()))
    assert [r['what'] for r in again] == [r['what'] for r in rows] and [r for r in again if r['topic'] != 'losses'] == [r for r in rows if r['topic'] != 'losses']


def test_the_committed_table_has_every_topic():
    rows = list(csv.DictReader((repo/'benchmarks/results.csv').open()))
    assert list(dict.fromkeys(r['topic'] for r in rows)) == topics and all(math.isfinite(float(r['ratio'])) for r in rows)
