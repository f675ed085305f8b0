"Several processes share one embedding cache."
import multiprocessing as mp
import os

import pytest
import torch

processes, rounds = 2, 3


def cases():
    from medsam_prompts.data.phantoms import phantom
    return [phantom(look, i) for look in ('fetal_head', 'chest_xray') for i in range(3)]


def toy_cache(folder):
    torch.set_num_threads(1)
    from medsam_prompts.backbones.core import load_segmenter
    from medsam_prompts.embeddings import EmbeddingCache
    return EmbeddingCache(load_segmenter('sam_toy'), folder=folder)


def work(folder, start, out):
    "Every round all processes ask for the same cases at the same time."
    found, mine = [], cases()
    for r in range(rounds):
        cache = toy_cache(f'{folder}/{r}')
        start.wait(timeout=600)
        found.append(torch.stack([cache[c] for c in mine]))
    out.put((os.getpid(), torch.stack(found).numpy()))


def die_while_writing(folder):
    import medsam_prompts.embeddings as e
    def half(tensors, path, metadata):
        path.write_bytes(b'half of a file')
        os._exit(9)
    e.save_file = half
    toy_cache(folder)[cases()[0]]


@pytest.fixture(autouse=True)
def threads():
    "One thread here, as many as before for the tests that follow: sums in another order have other last digits."
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def spawn(): return mp.get_context('spawn')


def test_processes_that_write_the_same_case_do_no_harm(tmp_path, spawn):
    start, out = spawn.Barrier(processes), spawn.Queue()
    workers = [spawn.Process(target=work, args=(str(tmp_path), start, out)) for _ in range(processes)]
    for w in workers: w.start()
    found = [torch.from_numpy(out.get(timeout=900)[1]) for _ in workers]
    for w in workers: w.join(); assert w.exitcode == 0
    for r in range(rounds):
        cache = toy_cache(tmp_path/str(r))
        fresh = torch.stack([cache.segmenter.encode(cache.segmenter.preprocess(c)).half().float() for c in cases()])
        assert all(torch.equal(f[r], fresh) for f in found)
        assert torch.equal(torch.stack([cache[c] for c in cases()]), fresh)
        assert sorted(p.name for p in cache.folder.iterdir()) == sorted(cache.path(c).name for c in cases())


def test_a_process_killed_while_writing_leaves_no_damaged_file(tmp_path, spawn):
    w = spawn.Process(target=die_while_writing, args=(str(tmp_path),))
    w.start(); w.join()
    assert w.exitcode == 9
    cache, case = toy_cache(tmp_path), cases()[0]
    assert not cache.path(case).exists()
    assert cache[case].isfinite().all()
