"A hundred damaged inputs, and what tests/corrupt.py calls a fault. All thousand: python tests/corrupt.py"
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='each case is a forked process')


def test_a_hundred_damaged_inputs_are_read_or_refused_in_a_line():
    script = [sys.executable, '-W', 'ignore', Path(__file__).parent/'corrupt.py']
    done = subprocess.run([*script, '--count', '100', '--seed', '1'], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith('0 with faults'), done.stdout


@pytest.fixture
def corrupt(monkeypatch):
    "The script as a module; it sets variables of the environment."
    for name in ('HF_HUB_OFFLINE', 'MEDSAM_PROMPTS_OFFLINE', 'OMP_NUM_THREADS'): monkeypatch.setenv(name, '1')
    import corrupt
    return corrupt


def test_what_counts_as_a_fault_in_words(corrupt, tmp_path):
    whole, target = corrupt.Result(0, 'out: 2 predictions\n', '', 1.), tmp_path/'images/anna.png'
    def faults(code, out='', err=''):
        return corrupt.faults_of_words(corrupt.Result(code, out, err, 1.), whole, target)
    assert faults(0, 'out: 1 predictions\n') == faults(2, err='medsam-prompts: images/anna.png: cut off. Copy it.\n') == []
    assert 'killed' in faults(None)[0] and 'exit code 1' in faults(1)[0] and 'without a word' in faults(2)[0]
    assert 'lines of others' in faults(0, 'libtiff: bad tag\n')[0]
    assert 'lines of others' in faults(2, err='libtiff\nmedsam-prompts: anna: no\n')[0]
    assert 'names neither' in faults(2, err='medsam-prompts: something is wrong\n')[0]
    trace = 'Traceback (most recent call last):\n  File "/x/medsam_prompts/core.py", line 3, in f\nValueError: no\n'
    assert faults(1, err=trace) == ['traceback: medsam_prompts/core.py:3:f ValueError: no']


def test_what_counts_as_a_fault_in_files(corrupt, tmp_path):
    work, home, done = tmp_path/'work', tmp_path/'home', corrupt.Result(0, '', '', 1.)
    corrupt.write_form(work, corrupt.forms['png'])
    home.mkdir()
    put = {p: corrupt.sha256(p) for p in corrupt.files(work)}
    def faults(): return corrupt.faults_of_files(done, work, home, put)
    assert faults() == []
    (work/'out').mkdir()
    (work/'out/anna.png').write_bytes((work/'images/anna.png').read_bytes()[:200])
    (home/'.part-1234-x').touch()
    (work/'boxes.csv').write_text('image\n')
    assert [f.split()[0] for f in faults()] == ['left', 'out/anna.png', 'changed:']


def test_every_kind_of_damage_changes_every_kind_of_file(corrupt, tmp_path):
    import numpy as np
    rng = np.random.default_rng(0)
    for name, form in corrupt.forms.items():
        corrupt.write_form(tmp_path/name, form)
        for p in corrupt.files(tmp_path/name/'images'):
            data = p.read_bytes()
            assert all(corrupt.damaged(data, rng, b'other')[0] != data for _ in range(20)), p
