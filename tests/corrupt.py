"""Damage valid inputs at random: every command copes, or refuses in one line that names the file.

`python tests/corrupt.py --count 1000 --seed 0 [--only png,dicom] [--case K]`: one file of a small valid input is cut,
has bits flipped, blocks zeroed or doubled, takes the header of another kind of file or is emptied, and one command
gets it. A line for each fault says how to repeat the case; exit code 1 if there was one. `--case K` shows that case."""
import argparse
import gzip
import hashlib
import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ |= dict(HF_HUB_OFFLINE='1', MEDSAM_PROMPTS_OFFLINE='1', OMP_NUM_THREADS='1')

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import SimpleITK as sitk
import torch
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

import medsam_prompts.cli
from medsam_prompts.all import read_model
from medsam_prompts.train.core import Resume

depth, height, width = 3, 40, 48
stems = 'anna', 'bert'
longest = 60  # seconds that a command may take
memory = 4 << 30  # bytes that a command may add to the address space of this process


def voxels(seed):
    "A bright ellipsoid in noise, and its mask: (D,H,W) of 8 bits each."
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[:depth, :height, :width]
    mask = ((z - 1)/4)**2 + ((y - 19 - seed)/11)**2 + ((x - 23)/13)**2 < 1
    return (rng.integers(20, 60, mask.shape) + 120*mask).astype(np.uint8), mask.astype(np.uint8)


# Writers: (D,H,W) into a file, or into a folder of files; a picture shows the slice in the middle


def picture(path, a, mode='L', **options): Image.fromarray(a[1]).convert(mode).save(path, **options)


def stack(path, a):
    first, *rest = map(Image.fromarray, a)
    first.save(path, save_all=True, append_images=rest)


def nifti(path, a): nib.save(nib.Nifti1Image(a.transpose(2, 1, 0).astype(np.int16), np.diag([-1., -1, 3, 1])), path)


def itk(path, a, packed=False):
    img = sitk.GetImageFromArray(a.astype(np.int16))
    img.SetSpacing((1., 1., 3.))
    sitk.WriteImage(img, str(path), packed)


def compressed(a, syntax):
    "A JPEG or JPEG 2000 stream of a slice, as DICOM holds it."
    file = io.BytesIO()
    how = dict(format='JPEG') if syntax == JPEGBaseline8Bit else dict(format='JPEG2000', no_jp2=True)
    Image.fromarray(a).save(file, **how)
    return encapsulate([file.getvalue()])


def dicom(path, a, z=1, syntax=ExplicitVRLittleEndian, patient=None):
    patient = patient or Path(path).stem
    series = f'1.2.826.0.1.3680043.8.498.{1 + stems.index(patient)}'
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax if syntax != RLELossless else ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f'{series}.{z + 1}'
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f'{series}.100', f'{series}.101'
    ds.FrameOfReferenceUID = f'{series}.102'
    ds.Modality, ds.PatientID, ds.InstanceNumber = 'MR', patient, z + 1
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = height, width, 1, 'MONOCHROME2'
    ds.BitsAllocated = ds.BitsStored = 8 if syntax in (JPEGBaseline8Bit, JPEG2000Lossless) else 16
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, 0
    ds.PixelSpacing, ds.SliceThickness = [1, 1], 3
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 3*z]
    ds.PixelData = a[z].astype(np.uint16).tobytes() if ds.BitsStored == 16 else compressed(a[z], syntax)
    if syntax == RLELossless: ds.compress(RLELossless)
    ds.save_as(path, enforce_file_format=True)


def series(path, a):
    path.mkdir()
    for z in range(depth): dicom(path/f'{z}.dcm', a, z, patient=path.name)


@dataclass(frozen=True)
class Form:
    "How images and masks of one kind are written."
    kind: str  # png, jpg, tif, nii, nii.gz, dicom, series, nrrd or mhd
    suffix: str  # of the images
    write: object
    mask: tuple|None = None  # suffix and writer of the masks; None: as the images
    flat: bool = True  # a picture, not a volume


png, nii = ('.png', picture), ('.nii.gz', nifti)
syntaxes = dict(rle=RLELossless, jpeg=JPEGBaseline8Bit, j2k=JPEG2000Lossless)
forms = dict(
    png=Form('png', '.png', picture), png_colour=Form('png', '.png', partial(picture, mode='RGB'), png),
    jpg=Form('jpg', '.jpg', picture, png), jpg_colour=Form('jpg', '.jpg', partial(picture, mode='RGB'), png),
    tif=Form('tif', '.tif', picture), tif_pages=Form('tif', '.tif', stack, flat=False),
    tif_lzw=Form('tif', '.tif', partial(picture, compression='tiff_lzw')),
    tif_adobe_deflate=Form('tif', '.tif', partial(picture, compression='tiff_adobe_deflate')),
    tif_jpeg=Form('tif', '.tif', partial(picture, compression='jpeg'), png),
    nii=Form('nii', '.nii', nifti, flat=False), nii_gz=Form('nii.gz', '.nii.gz', nifti, flat=False),
    dicom=Form('dicom', '.dcm', dicom, png),
    **{f'dicom_{n}': Form('dicom', '.dcm', partial(dicom, syntax=s), png) for n, s in syntaxes.items()},
    series=Form('series', '', series, nii, flat=False),
    nrrd=Form('nrrd', '.nrrd', itk, flat=False),
    nrrd_packed=Form('nrrd', '.nrrd', partial(itk, packed=True), flat=False),
    mhd=Form('mhd', '.mhd', itk, flat=False), mhd_packed=Form('mhd', '.mhd', partial(itk, packed=True), flat=False))


def write_form(folder, form):
    "images, masks, pred (masks a pixel off), boxes.csv and points.csv."
    last = ',slice'*(not form.flat)
    boxes, points = ['image,x0,y0,x1,y1,label' + last], ['image,x,y,positive,label' + last]
    suffix, write = form.mask or (form.suffix, form.write)
    for sub in ('images', 'masks', 'pred'): (folder/sub).mkdir(parents=True)
    for i, stem in enumerate(stems):
        image, mask = voxels(i)
        form.write(folder/f'images/{stem}{form.suffix}', image)
        write(folder/f'masks/{stem}{suffix}', mask)
        write(folder/f'pred/{stem}{suffix}', np.roll(mask, 1, 2))
        for z in [''] if form.flat else range(depth):
            boxes.append(f'{stem},10,{8 + i},36,{30 + i},1' + f',{z}'*(not form.flat))
            points.append(f'{stem},23,{19 + i},1,1' + f',{z}'*(not form.flat))
    (folder/'boxes.csv').write_text('\n'.join(boxes) + '\n')
    (folder/'points.csv').write_text('\n'.join(points) + '\n')


bank = """bright spot:
  aliases: [spot, ellipse]
  phrase: a bright ellipse in noise
  questions:
    shape: What is the shape of the spot?
  description: The spot is round and bright.
  answers:
    shape: an ellipse
"""
profile = """about: a profile of one's own
experiments:
  weak_table1:
    tasks: [phantom_head]
    rows:
      - {method: tight_box}
      - {method: weak, shots: [2, 4], changes: {epochs: 2}}
"""

# Commands: name -> command line, in a folder that `set_up` has filled

toy = '--backbone sam_toy'
weak = f'train weak {toy} --images images --recipe paper --epochs 2'
scorer = f'train scorer {toy} --images images --masks masks --epochs 2 --out out/scorer.safetensors'
prefer = (f'train prefer {toy} --images images --masks masks --labelled-fraction 1 --epochs 2'
          ' --out out/prefer.safetensors')
commands = dict(
    boxes=f'predict {toy} --images images --boxes boxes.csv --out out',
    points=f'predict {toy} --images images --points points.csv --out out',
    model='predict --model weak.safetensors --images images --out out',
    tuned='predict --model prefer.safetensors --images images --out out',
    evolve=f'predict {toy} --images images --boxes boxes.csv --evolve scorer.safetensors --evolve-margin 0 --out out',
    weak=f'{weak} --boxes boxes.csv --out out/weak.safetensors',
    masks=f'{weak} --masks masks --components largest --out out/weak.safetensors',
    evaluate='evaluate --pred pred --truth masks --out out/cases.csv',
    info='info {target}',
    resume_weak=f'{weak} --boxes boxes.csv --resume --out out/weak.safetensors',
    resume_scorer=f'{scorer} --resume',
    resume_prefer=f'{prefer} --resume',
    bank=f'predict {toy} --images images --text spot --bank bank.yaml --out out',
    words=f'{prefer} --text bank.yaml',
    profile='reproduce --list --profile profile.yaml',
    plan='reproduce --dry-run --profile profile.yaml --out out')

# What may be damaged for which command, by kind
on_images = [(c, 'images/anna*') for c in ('boxes', 'model', 'weak', 'masks')]
on_masks = [('masks', 'masks/anna*'), ('evaluate', 'masks/anna*'), ('evaluate', 'pred/anna*')]
states = dict(resume_weak='out/weak.safetensors.state', resume_scorer='out/scorer.safetensors.state',
              resume_prefer='out/prefer.safetensors.state.tune')
models = dict(model='weak.safetensors', tuned='prefer.safetensors', evolve='scorer.safetensors')
others = dict(
    csv=[('boxes', 'boxes.csv'), ('points', 'points.csv'), ('weak', 'boxes.csv')],
    yaml=[('bank', 'bank.yaml'), ('words', 'bank.yaml'), ('profile', 'profile.yaml'), ('plan', 'profile.yaml')],
    model=[*models.items(), *(('info', m) for m in models.values())], state=[*states.items()],
    info=[('info', 'images/anna*')])
kinds = [*dict.fromkeys(f.kind for f in forms.values()), *others]


def choices(kind):
    "(form, command, pattern of the file) of a kind."
    several = dict(csv=['png', 'nii'], info=[*forms])
    if kind in others: return [(f, c, t) for c, t in others[kind] for f in several.get(kind, ['png'])]
    return [(n, c, t) for n, f in forms.items() if f.kind == kind for c, t in on_images + on_masks*(f.mask is None)]


# Damage: bytes -> bytes; `other` is a file of another kind


def cut(data, rng, other): return data[:rng.integers(len(data))]


def flip(data, rng, other):
    "1 to 64 bits, rather few, half of the time among the first 2000 bytes."
    a, n = np.frombuffer(data, np.uint8).copy(), 2**min(rng.geometric(.4) - 1, 6)
    within = len(a) if rng.random() < .5 else min(len(a), 2000)
    a[rng.integers(within, size=n)] ^= np.uint8(1) << rng.integers(8, size=n, dtype=np.uint8)
    return a.tobytes()


def block(data, rng):
    "A random stretch, short ones as often as long ones."
    n = int(len(data)**rng.random())
    start = int(rng.integers(len(data) - n + 1))
    return start, start + n


def zero(data, rng, other):
    i, j = block(data, rng)
    return data[:i] + bytes(j - i) + data[j:]


def double(data, rng, other):
    i, j = block(data, rng)
    return data[:j] + data[i:]


def head(data, rng, other):
    n = 2**rng.integers(1, 13)
    return other[:n] + data[n:]


def empty(data, rng, other): return b''


damages, shares = (cut, flip, zero, double, head, empty), (.2, .35, .15, .1, .15, .05)


def damaged(data, rng, other):
    "Bytes that differ, and the name of what was done; what gzip holds is damaged within as well."
    how = damages[rng.choice(len(damages), p=shares)]
    packed = data[:2] == b'\x1f\x8b' and how is not empty and rng.random() < .5
    inner = gzip.decompress(data) if packed else data
    new = next((n for _ in range(20) if (n := how(inner, rng, other)) != inner), b'')
    return (gzip.compress(new, 1), f'{how.__name__} within') if packed else (new, how.__name__)


# Cases


@dataclass
class Result:
    code: int|None  # None: killed after `longest` seconds
    out: str  # as written to descriptors 1 and 2
    err: str
    seconds: float


def _child(argv, folder, before):
    "The forked process; never returns."
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        for fd, name in enumerate(('stdout', 'stderr'), 1):
            os.dup2(os.open(f'../{name}', os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
        if os.path.exists('/proc/self/statm'):
            now = int(Path('/proc/self/statm').read_text().split()[0])*resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + memory,)*2)
        before()
        code = medsam_prompts.cli.main(argv)
    except SystemExit as e: code = e.code if isinstance(e.code, int) else 1
    except BaseException: sys.excepthook(*sys.exc_info())
    for f in (sys.stdout, sys.stderr): f.flush()
    os._exit(code or 0)


def run(argv, folder, before=lambda: None):
    "A command in a process of its own, with its children killed in the end."
    t = time.monotonic()
    pid, done = os.fork(), 0
    if not pid: _child(argv, folder, before)
    while not done and time.monotonic() - t < longest:
        done, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(.005)
    try: os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError: pass
    if not done: os.waitpid(pid, 0)
    said = [(folder.parent/name).read_text(errors='replace') for name in ('stdout', 'stderr')]
    return Result(os.waitstatus_to_exitcode(status) if done else None, *said, time.monotonic() - t)


def made(root):
    "Every form of the inputs, models, and states of trainings that were interrupted."
    os.environ['MEDSAM_PROMPTS_HOME'] = str(root/'home')
    for name, form in forms.items(): write_form(root/'forms'/name, form)
    (root/'bank.yaml').write_text(bank)
    (root/'profile.yaml').write_text(profile)
    def stop_after_an_epoch():
        whole = Resume.after_epoch
        def after_epoch(self):
            whole(self)
            raise KeyboardInterrupt
        Resume.after_epoch = after_epoch
    for command in (commands['weak'], scorer, prefer):
        for before, want in ((stop_after_an_epoch, 130), (lambda: None, 0)):
            r = run(command.split(), root/'forms/png', before)
            if r.code != want: raise RuntimeError(f'{command} ended with {r.code}: {r.out}{r.err}')
            for p in (root/'forms/png/out').iterdir(): p.rename(root/p.name)
    (root/'forms/png/out').rmdir()
    return root


def set_up(root, folder, form, command):
    "A folder in which the command works; what is large is linked."
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root/'forms'/form, folder)
    for p in (*models.values(), 'bank.yaml', 'profile.yaml'): (folder/p).symlink_to(root/p)
    if command not in states: return
    (folder/'out').mkdir()
    shutil.copy(root/Path(states[command]).name, folder/states[command])


# What may be wrong afterwards


def unreadable(path, put):
    "Why a file among the outputs is not whole; '' if it is, or if it is as it was put there."
    if put.get(path) == sha256(path): return ''
    try:
        if path.name.endswith('.csv'): return '' if len(pd.read_csv(path).columns) > 5 else 'no table'
        if path.name.endswith('.png'): np.array(Image.open(path))
        elif path.name.endswith('.nii.gz'): np.asanyarray(nib.load(path).dataobj)
        elif path.name.endswith('.safetensors'): read_model(path)
        elif '.state' in path.name: torch.load(path, weights_only=True)
        else: return 'it was not asked for'
    except Exception as e: return f'{type(e).__name__}: {e}'
    return ''


def sha256(path): return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder): return [p for p in sorted(folder.rglob('*')) if p.is_file()]


def cases(out):
    "Names of the cases in a table of results."
    tables = [p for p in (out/'predictions.csv', out/'cases.csv') if p.is_file()]
    return [str(c) for p in tables for c in pd.read_csv(p).case]


def traceback_of(err):
    "Where in the package, and what."
    at = re.findall(r'File ".*?(medsam_prompts/\S+?\.py)", line (\d+), in (\S+)', err)
    return f'{":".join(at[-1]) if at else "?"} {err.strip().splitlines()[-1][:160]}'


def without_numbers(text): return {re.sub(r'-?(\d[\d.e+-]*|nan|inf)', '#', line) for line in text.splitlines()}


progress = re.compile(r'epoch \d+/\d+  loss |\d+ epochs, about |\w+  +\d+/\d+ ')  # its numbers differ from run to run


def faults_of_words(r, whole, target):
    "What is wrong with the exit code and with what was printed."
    if r.code is None: return [f'killed after {longest} s']
    if 'Traceback' in r.err + r.out: return [f'traceback: {traceback_of(r.err)}']
    if r.code not in (0, 2): return [f'exit code {r.code}']
    lines = r.err.splitlines()
    usual = whole.err.splitlines()
    strange = [s for s in lines if not s.startswith('medsam-prompts: ') and s not in usual and not progress.match(s)]
    own = target.name == 'profile.yaml'  # names in it are printed, and messages quote values of it
    if r.code == 0 and not own: strange += without_numbers(r.out) - without_numbers(whole.out)
    if r.code == 2: strange += r.out.splitlines()
    found = [f'{len(strange)} lines of others, first: {strange[0][:160]!r}'] if strange else []
    if r.code == 2 and not lines: found.append('refused without a word')
    known = {target.name, target.parent.name} | {s for s in stems if s in target.name}
    if r.code == 2 and r.err != whole.err and not own and not any(k in r.err for k in known):
        found.append(f'names neither {target.name} nor its folder: {r.err.strip()[:160]!r}')
    return found


def faults_of_files(r, folder, home, put):
    "What is wrong with the files that are there now."
    found = [f'left behind: {p.name}' for p in files(folder) + files(home) if '.part-' in p.name]
    name = lambda p: p.relative_to(folder)
    found += [f'{name(p)} is not whole: {why}' for p in files(folder/'out') if (why := unreadable(p, put))]
    given = [p for p in put if folder/'out' not in p.parents]
    found += [f'changed: {name(p)}' for p in given if not p.is_file() or sha256(p) != put[p]]
    if r.code == 2 and (folder/'out/predictions.csv').exists(): found.append('refused, but predictions.csv is there')
    return found


def results(out): return {p.name: sha256(p) for p in files(out) if p.suffix in ('.png', '.safetensors')}


def faults_in_silence(r, out, before, kind):
    "Whether cases are gone, or a damaged model or state gives another result, without a word."
    now, (_, before, was) = cases(out), before
    if r.code or r.err: return []
    if kind in ('model', 'state') and results(out) != was: return ['another result without a word']
    gone = [s for s in stems if any(c.startswith(s) for c in before) and not any(c.startswith(s) for c in now)]
    if kind == 'series' and len(now) < len(before): gone.append(f'{len(before) - len(now)} slices')
    return [f'gone without a word: {gone[0]}'] if gone else []


class Trials:
    "Numbered cases of a seed, in a folder."
    def __init__(self, root, seed):
        self.root, self.seed, self.folder, self.known = made(root), seed, root/'case/work', {}

    def whole(self, form, command, target):
        "What the command does to inputs that are whole: result, cases in its table, files."
        key = form, command, target*(command == 'info')
        if key in self.known: return self.known[key]
        set_up(self.root, self.folder, form, command)
        r = run(commands[command].format(target=target).split(), self.folder)
        may_refuse = command in ('bank', 'words') or command == 'info' and target.startswith('images')
        if r.code != 0 and not may_refuse or r.code not in (0, 2) or 'bank.yaml' in r.err:
            raise RuntimeError(f'{command} of whole {form} ended with {r.code}: {r.out}{r.err}')
        self.known[key] = r, cases(self.folder/'out'), results(self.folder/'out')
        return self.known[key]

    def __call__(self, k):
        "Run case k: its description, the result and the faults."
        kind, rng = kind_of(k), np.random.default_rng([self.seed, k])
        options = choices(kind)
        form, command, pattern = options[rng.integers(len(options))]
        set_up(self.root, self.folder, form, command)
        found = [f for p in sorted(self.folder.glob(pattern)) for f in (sorted(p.iterdir()) if p.is_dir() else [p])]
        target = found[rng.integers(len(found))]
        name = str(target.relative_to(self.folder))
        before = self.whole(form, command, name)
        set_up(self.root, self.folder, form, command)
        data, how = damaged(target.read_bytes(), rng, self.other(kind, rng))
        target.unlink()  # it may be a link
        target.write_bytes(data)
        put, argv = {p: sha256(p) for p in files(self.folder)}, commands[command].format(target=name).split()
        r = run(argv, self.folder)
        faults = faults_of_words(r, before[0], target) + faults_of_files(r, self.folder, self.root/'home', put)
        if not faults: faults = faults_in_silence(r, self.folder/'out', before, kind)
        return f'{form}, {how}, {name}: medsam-prompts {" ".join(argv)}', r, faults

    def other(self, kind, rng):
        "The bytes of a file of another kind."
        some = [p for n, f in forms.items() if f.kind != kind for p in files(self.root/'forms'/n/'images')]
        return some[rng.integers(len(some))].read_bytes()


def kind_of(k): return kinds[k % len(kinds)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--count', type=int, default=1000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', default=','.join(kinds), help='default: %(default)s')
    parser.add_argument('--case', type=int)
    parser.add_argument('--all', action='store_true', help='a line for every case: the damage, and what was said last')
    parser.add_argument('--keep', type=Path, help='work in this folder and leave it')
    a = parser.parse_args()
    torch.set_num_threads(1)  # a process with threads cannot be forked
    if unknown := set(a.only.split(',')) - set(kinds): parser.error(f'no kind {", ".join(unknown)}')
    with tempfile.TemporaryDirectory() as temporary:
        return report(Trials(a.keep or Path(temporary), a.seed), a)


def report(trials, a):
    "Run the cases and print what is wrong."
    start, ends, bad = time.monotonic(), Counter(), 0
    for k in range(a.count) if a.case is None else [a.case]:
        if kind_of(k) not in a.only.split(','): continue
        what, r, faults = trials(k)
        ends[kind_of(k), {0: 'done', 2: 'refused'}.get(r.code, 'other')] += 1
        bad += bool(faults)
        repeat = f'repeat: python tests/corrupt.py --seed {a.seed} --case {k}'
        if faults or a.case is not None: print(f'case {k}: {what}', *faults, repeat, sep='\n  ', flush=True)
        said = (r.err or r.out).strip().splitlines() or ['']
        if a.all: print(f'case {k}: {what.partition(": ")[0]}: exit code {r.code}: {said[-1]}', flush=True)
        if a.case is not None: print(f'exit code {r.code} after {r.seconds:.1f} s\n{r.out}{r.err}', end='')
    for kind in kinds:
        n = sorted((end, v) for (of, end), v in ends.items() if of == kind)
        if n: print(f'{kind:8}', ', '.join(f'{v} {end}' for end, v in n))
    print(f'{sum(ends.values())} damaged inputs in {time.monotonic() - start:.0f} s: {bad} with faults')
    return bool(bad)


if __name__ == '__main__': sys.exit(main())
