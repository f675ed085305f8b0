import os
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
repo = Path(__file__).parent.parent


def parity(topic):
    "Folder with the parity data of a topic, or None where they are not here."
    root = Path(os.environ.get('MEDSAM_PROMPTS_PARITY', repo.parent/'shared/parity/public'))/topic
    return root if root.is_dir() else None
