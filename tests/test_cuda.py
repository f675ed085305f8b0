"A GPU gives what the processor gives."
import csv

import numpy as np
import pytest
import torch
from conftest import write_phantoms
from PIL import Image

from medsam_prompts.all import (Consistency, EmbeddingCache, EncodeOptions, FastEncoder, LearnedPrompts, PredictedDice, Prompts, Safeguards, ScorerRecipe, SegmentationRegressor, cosine, evolve_prompt, fit_scorer, fit_weak, join_learners, load_segmenter, load_task, methods, point_map, predict_dice, scorer_learner, scorer_set, search_prompt, segment, set_seed, tight_boxes, weak_learner, weak_recipe, weak_training_set)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no CUDA device')
devices, toy = ('cpu', 'cuda'), ('--backbone', 'sam_toy', '--quiet')


@pytest.fixture(autouse=True)
def same_arithmetic():
    "Products of float32 as on the processor, not TF32."
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('highest')
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False): yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope='module')
def train(): return load_task('phantom_left_lung')['train'][:4]


@pytest.fixture(scope='module')
def placed(train, tmp_path_factory):
    "Embeddings and boxes, made on the processor."
    segmenter = load_segmenter('sam_toy')
    return weak_training_set(segmenter, EmbeddingCache(segmenter, folder=tmp_path_factory.mktemp('cache')), train, tight_boxes(train))


def agree(f, tol):
    "What a function of a device returns differs by no more than a share of the largest value."
    cpu, gpu = ([o.detach().cpu() for o in f(d)] for d in devices)
    for a, b in zip(cpu, gpu, strict=True): assert (a - b).abs().max() <= tol*max(a.abs().max(), 1e-3), (a - b).abs().max()


def test_embedding(train, tmp_path):
    def embed(device):
        segmenter = load_segmenter('sam_toy', device=device)
        cache = EmbeddingCache(segmenter, folder=tmp_path/device, dtype=torch.float32)
        out = cache.embed(train)
        assert out.device.type == device
        return [out]
    agree(embed, 1e-4)


def test_the_cache_does_not_depend_on_the_device(train, tmp_path):
    caches = [EmbeddingCache(load_segmenter('sam_toy', device=d), folder=tmp_path) for d in devices]
    assert caches[0].path(train[0]) == caches[1].path(train[0])
    caches[0].fill(train)
    assert caches[1].fill(train) == 0 and torch.equal(caches[0][train[0]], caches[1][train[0]].cpu())


@pytest.mark.parametrize('multimask', [False, True])
@pytest.mark.parametrize('points', [2, 20])  # below and above the sixteen tokens of the few-token attention
def test_decode(placed, multimask, points):
    emb, boxes = placed
    xy = torch.rand(len(emb), 1, points, 2, generator=torch.Generator().manual_seed(0))*127
    def decode(device):
        segmenter = load_segmenter('sam_toy', device=device)
        prompts = Prompts(points=xy, boxes=boxes[:, :, 0], masks=torch.zeros(len(emb), 1, 32, 32)).to(device)
        prompts.boxes.requires_grad_()
        logits, iou = segmenter.decode(emb.to(device), prompts, multimask)
        logits.sum().backward()
        return logits, iou, prompts.boxes.grad
    agree(decode, 1e-3)


@pytest.mark.parametrize('recipe', ['paper', 'kervadec', 'relu', 'ours', 'teacher'])
def test_loss_and_gradients(placed, recipe):
    "The first step: box losses of every kind, the teacher, and the moved answer of box-prompt learning."
    def gradients(device):
        learn = weak_learner(load_segmenter('sam_toy', device=device), *placed, weak_recipe(recipe, epochs=1, views=0))
        (x, *y), = learn.dls.train
        order = y[0].flatten(1)[:, 0].argsort()
        x, y = x[order], [o[order] for o in y]
        pred = learn.model(x)
        loss = learn.loss_func(pred, *y)
        set_seed(0)
        for cb in learn.cbs:
            if isinstance(cb, Consistency): loss = loss + cb.weight*cb._distance(x, pred)
        loss.backward()
        assert pred.device.type == device
        return [loss, *(p.grad for p in learn.model.prompters.parameters())]
    agree(gradients, 2e-3)


def only_flips(p, q, largest):
    "Adam moves a weight by the rate, however small its gradient: where rounding decides the sign, devices part, and nowhere else."
    assert (p - q).abs().max() <= largest
    return (p - q).abs().gt(1e-5).float().mean() < .02


def test_a_training_step_and_its_masks(placed, train, tmp_path):
    def step(device):
        segmenter, recipe = load_segmenter('sam_toy', device=device), weak_recipe('paper', epochs=1)
        modules, losses = fit_weak(weak_learner(segmenter, *placed, recipe), recipe, tmp_path/device)
        assert all(p.device.type == device for p in modules[1][0].parameters())
        outs = segment(segmenter, LearnedPrompts(modules), train, EmbeddingCache(segmenter, folder=tmp_path/'cache'))
        return losses, [p.detach().cpu() for p in modules[1][0].parameters()], [o.labels for o in outs]
    (loss, cpu, masks), (loss_gpu, gpu, masks_gpu) = map(step, devices)
    assert loss_gpu == pytest.approx(loss, rel=1e-3, abs=1e-3)
    assert all(only_flips(p, q, 2.1e-3) for p, q in zip(cpu, gpu, strict=True))
    assert all((a == b).mean() > .98 for a, b in zip(masks, masks_gpu, strict=True))


def test_an_interrupted_training_goes_on(placed, tmp_path):
    "The state is read onto the processor and ends up where the model is."
    segmenter, recipe = load_segmenter('sam_toy', device='cuda'), weak_recipe('teacher', epochs=3)
    def run(resume): return fit_weak(weak_learner(segmenter, *placed, recipe), recipe, tmp_path/'state', 'job', resume)
    (whole, losses), (again, resumed) = run(False), run(True)
    assert len(resumed) == 3 and resumed == pytest.approx(losses, rel=1e-3)
    for a, b in zip(whole[1][0].parameters(), again[1][0].parameters()): assert a.device == b.device and (a - b).abs().max() <= 1e-3


@pytest.mark.parametrize('device', devices)
def test_runs_side_by_side_stay_on_their_device(placed, tmp_path, device):
    "Also on the processor of a machine with a GPU."
    segmenter, recipe, seeds = load_segmenter('sam_toy', device=device), weak_recipe('paper', epochs=2), (0, 5)
    def make(seed): return weak_learner(segmenter, *placed, recipe, seed)
    alone = [fit_weak(make(s), recipe, tmp_path/'a')[0][1][0] for s in seeds]
    joined = join_learners([make(s) for s in seeds], recipe, seeds)
    at_once, _ = fit_weak(joined, recipe, tmp_path/'b')
    for a, b in zip(alone, at_once[1]):
        for p, q in zip(a.parameters(), b.parameters(), strict=True): assert q.device.type == device and only_flips(p, q, 4.1e-3)


def test_fast_encoding(train):
    "Options of the encoder agree with float32; what would be laid out for a processor takes fused attention."
    segmenter = load_segmenter('sam_toy', device='cuda')
    x = torch.cat([segmenter.preprocess(c) for c in train])
    for options in (EncodeOptions(sdpa=True), EncodeOptions('bfloat16', True), EncodeOptions('float16', True), EncodeOptions('bfloat16', prepared=True)):
        fast = FastEncoder(segmenter, options)
        assert fast.options.sdpa and not fast.options.prepared and cosine(fast(x), segmenter.encode(x)) > .999


def test_evolution(placed):
    "Points and boxes climb alike; searches draw the same candidates; the landscape is the same."
    emb, boxes = placed
    set_seed(0)
    weights, images, limits = SegmentationRegressor().state_dict(), torch.rand(len(emb), 1, 32, 32), torch.tensor([[100, 128]]*len(emb))
    xy = torch.rand(len(emb), 2, 1, 2)*90
    def evolve(device):
        segmenter, net = load_segmenter('sam_toy', device=device), SegmentationRegressor().to(device)
        net.load_state_dict(weights)
        score, e = PredictedDice(net, images.to(device)), emb.to(device)
        points, box = Prompts(points=xy).to(device), Prompts(boxes=boxes[:, :, 0]).to(device)
        climbed = [evolve_prompt(segmenter, e, p, score, 2, lr=dict(points=1., boxes=1.), guard=Safeguards(margin=1e-3, inside=20., area=(.2, 5.)), limits=limits) for p in (points, box)]
        found = search_prompt(segmenter, e, points, score, 3, 'random', limits=limits.to(device))
        assert found.prompts.points.device.type == climbed[0].prompts.points.device.type == device
        return [*(c.scores for c in climbed), found.scores, point_map(segmenter, e[:1], PredictedDice(net, images[:1].to(device)), limits[0], 4)[0]]
    agree(evolve, 5e-3)


def test_scorer(train, tmp_path):
    "Its first steps, and what it then says."
    segmenter = load_segmenter('sam_toy')
    samples = scorer_set(segmenter, EmbeddingCache(segmenter, folder=tmp_path), train)
    def fit(device):
        recipe = ScorerRecipe(epochs=1, lr=1e-4)
        net, losses, valid = fit_scorer(scorer_learner(samples, samples, recipe, device=device), recipe, tmp_path/device)
        return [torch.tensor(losses), torch.tensor(valid), torch.from_numpy(predict_dice(net, samples))]
    agree(fit, 1e-2)


@pytest.mark.parametrize('method', ['persam', 'persam_f', 'unet', 'transunet', 'autosam'])
def test_baselines_run(method, train, tmp_path):
    segmenter = load_segmenter('sam_toy', device='cuda')
    changes = {} if method.startswith('persam') else dict(epochs=1, size=64)
    out, = methods[method].fit(segmenter, EmbeddingCache(segmenter, folder=tmp_path), train[:2], 0, dict(changes=changes, state=tmp_path/'state'))(train[2:3])
    assert out.labels.shape == train[2].size


def test_command_line(cli, tmp_path):
    "Train and predict with --device cuda; the model file does not know where it was made."
    write_phantoms(tmp_path, (1,))
    done = cli('train', 'weak', '--images', tmp_path/'images', '--boxes', tmp_path/'boxes.csv', '--epochs', 2, '--out', tmp_path/'m', '--device', 'cuda', '--recipe', 'paper', *toy)
    assert done.returncode == 0, done.stderr
    for device in devices:
        done = cli('predict', '--model', tmp_path/'m', '--images', tmp_path/'images', '--out', tmp_path/device, '--device', device, '--quiet')
        assert done.returncode == 0, done.stderr
    for i in range(3):
        a, b = (np.array(Image.open(tmp_path/device/f'p{i}.png')) for device in devices)
        assert (a == b).mean() > .99
    assert len(list(csv.DictReader((tmp_path/'cuda/predictions.csv').open()))) == 3
    assert 'cuda' in cli('info', '--device', 'cuda').stdout
    assert cli('info', '--device', 'cuda:99').returncode == 2
