"The state dict of TransUNet against the official one."
import json

import pytest
import torch

from medsam_prompts.all import TransUNet
from conftest import parity

keys = parity('checkpoint_keys')
pytestmark = pytest.mark.skipif(keys is None, reason='no parity data here')


def test_keys():
    with torch.device('meta'): state = TransUNet(224, 2).state_dict()
    have = [[k, list(v.shape), str(v.dtype).removeprefix('torch.')] for k, v in state.items()]
    assert have == json.loads((keys/'transunet_r50_vit_b_16_224_c2.json').read_text())
