"Export and clean the notebooks in a copy of the repository and fail where that changes anything."
import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

repo = Path(__file__).parent.parent
kept = ('nbs', 'medsam_prompts', 'pyproject.toml', 'settings.ini')
skip = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', '_quarto.yml')


def files(root): return sorted(p.relative_to(root) for k in kept for p in ([root/k] if (root/k).is_file() else (root/k).rglob('*'))
                               if p.is_file() and '__pycache__' not in p.parts and '.ipynb_checkpoints' not in p.parts and p.name != '_quarto.yml')


with tempfile.TemporaryDirectory() as tmp:
    copy = Path(tmp)
    for k in kept: shutil.copytree(repo/k, copy/k, ignore=skip) if (repo/k).is_dir() else shutil.copy(repo/k, copy/k)
    for command in ('nbdev-export', 'nbdev-clean'): subprocess.run([command], cwd=copy, check=True)
    changed = [f for f in sorted(set(files(copy)) | set(files(repo))) if not ((copy/f).exists() and (repo/f).exists() and filecmp.cmp(copy/f, repo/f, shallow=False))]
if changed: sys.exit(f'nbdev-export and nbdev-clean change {", ".join(map(str, changed))}: run both and commit')
print('Notebooks and modules are in sync.')
