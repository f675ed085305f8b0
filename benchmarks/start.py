"How long a fresh process takes to say something, beside one that only imports torch and segment-anything."
import subprocess
import sys

from .common import compare


def rows(quick):
    run = lambda code: lambda: subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
    cli = 'import sys; from medsam_prompts.cli import main; sys.exit(main([{!r}]))'
    for command, aim in (('--help', '0.5 s'), ('info', '3 s')): yield compare(f'medsam-prompts {command}', '', 'import torch, segment_anything', run('import torch, segment_anything'), run(cli.format(command)), aim, budget=20)
