"fastai's callbacks of the trackers run in our trainings, where their packages are installed, and change nothing."
import pytest
import torch
from fastai.basics import Learner, MSELossFlat, defaults

from medsam_prompts.core import set_seed
from medsam_prompts.train.core import EpochSeed, TrainOnly, adam_l2, fit_epochs, memory_loaders
from medsam_prompts.trackers import track


def train(folder):
    set_seed(0, 'init')
    x = torch.linspace(-1, 1, 8)[:, None]
    learn = Learner(memory_loaders(x, x**2), torch.nn.Linear(1, 1), loss_func=MSELossFlat(), opt_func=adam_l2, cbs=[EpochSeed(0), TrainOnly()])
    return fit_epochs(learn, 3, .1, folder/'state.pt'), learn.model.weight.item()


@pytest.mark.parametrize('name, written', [('tensorboard', 'events.out.tfevents.*'), ('wandb', '*.wandb')])
def test_tracker(name, written, tmp_path, monkeypatch):
    pytest.importorskip(name, reason=f'{name} is not installed: the extra [track]')
    monkeypatch.setenv('MEDSAM_PROMPTS_OFFLINE', '1')
    monkeypatch.setattr(defaults, 'callbacks', [*defaults.callbacks])
    alone = train(tmp_path)
    track(name, tmp_path/'track')
    assert train(tmp_path) == alone
    assert list((tmp_path/'track').rglob(written))
