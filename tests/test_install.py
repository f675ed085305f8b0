"A wheel carries everything a user needs, also far from the repository."
import os
import subprocess
import sys
import zipfile

import pytest

from conftest import repo


@pytest.mark.slow
def test_wheel(tmp_path):
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
    subprocess.run([*pip, 'wheel', '--no-deps', '--wheel-dir', tmp_path, repo], check=True)
    wheel = next(tmp_path.glob('*.whl'))
    names = set(zipfile.ZipFile(wheel).namelist())
    source = {f'medsam_prompts/experiments/{p.relative_to(repo/"nbs/experiments")}' for p in (repo/'nbs/experiments').rglob('*') if p.suffix in ('.ipynb', '.yaml', '.csv', '.json') and '.ipynb_checkpoints' not in p.parts and p.name != 'made.json'} | {'medsam_prompts/bank.yaml'}
    assert source <= names, sorted(source - names)
    subprocess.run([*pip, 'install', '--no-deps', '--target', tmp_path/'site', wheel], check=True)
    call = [sys.executable, '-c', 'import sys, medsam_prompts; print(medsam_prompts.__file__); from medsam_prompts.cli import main; sys.exit(main(["reproduce", "--list"]))']
    done = subprocess.run(call, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(tmp_path/'site')}, capture_output=True, text=True, check=True)
    assert str(tmp_path/'site') in done.stdout and 'weak_table1' in done.stdout
