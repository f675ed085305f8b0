"Files as users have them, through the command line: each comes out right, is flagged, or is refused by name."
import csv

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, ImageFilter
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from medsam_prompts.cli import main
from medsam_prompts.data.preprocess import shown
from medsam_prompts.data.readers import list_images, read_case, read_labels

height, width = 48, 64
yy, xx = np.mgrid[:height, :width]
disc = np.hypot(yy - 20, xx - 40) < 12
picture = np.where(disc, 190, 70).astype(np.uint8) + np.random.default_rng(0).integers(0, 40, disc.shape).astype(np.uint8)
box = '28,8,52,32'


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv('MEDSAM_PROMPTS_HOME', str(tmp_path_factory.getbasetemp()/'field-home'))
    monkeypatch.setenv('MEDSAM_PROMPTS_OFFLINE', '1')


@pytest.fixture
def run(capfd):
    "Exit code and stderr of a command."
    def call(*argv):
        code = main([*map(str, argv), '--quiet'])
        said = capfd.readouterr().err
        assert 'Traceback' not in said
        if code == 2: assert len(said.strip().splitlines()) == 1, said
        return code, said
    return call


def folder(tmp_path, name, **arrays):
    "Pictures of a folder."
    (tmp_path/name).mkdir(exist_ok=True)
    for stem, a in arrays.items(): Image.fromarray(np.asarray(a, np.uint8)).save(tmp_path/name/f'{stem}.png')
    return tmp_path/name


def boxes(tmp_path, *lines, columns='image,x0,y0,x1,y1'):
    (tmp_path/'boxes.csv').write_text('\n'.join([columns, *lines]) + '\n')
    return tmp_path/'boxes.csv'


def predict(run, tmp_path, table):
    return run('predict', '--backbone', 'sam_toy', '--boxes', table, '--images', tmp_path/'images', '--out', tmp_path/'out')


def flags(tmp_path): return {r['case']: r['flags'].split() for r in csv.DictReader((tmp_path/'out/predictions.csv').open())}


def dicom(path, pixels=picture, uid=MRImageStorage, **tags):
    path.parent.mkdir(parents=True, exist_ok=True)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = uid
    ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    tags = dict(SOPClassUID=uid, SOPInstanceUID=generate_uid(), Modality='MR', PatientID='P', SeriesInstanceUID='1.2', **tags)
    if pixels is not None:
        tags = dict(Rows=pixels.shape[0], Columns=pixels.shape[1], SamplesPerPixel=1, PhotometricInterpretation='MONOCHROME2', BitsAllocated=16,
                    BitsStored=16, HighBit=15, PixelRepresentation=1, **tags)
        ds.PixelData = pixels.astype(np.int16).tobytes()
    for k, v in tags.items(): setattr(ds, k, v)
    ds.save_as(path, enforce_file_format=True)


def series(where, n=5, step=(0, 0, 4), **tags):
    for k in range(n):
        at = (np.array(step, float)*k).tolist()
        dicom(where/f's{n - k}.dcm', picture*10, ImagePositionPatient=at, ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[.8, .7], **tags)


@pytest.mark.parametrize('orientation', [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize('kind', ['jpg', 'png', 'tif'])
def test_exif_orientation(tmp_path, orientation, kind):
    turn = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.T, 6: np.rot90, 7: lambda a: a[::-1, ::-1].T, 8: lambda a: np.rot90(a, 3)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turn[orientation](picture))).save(tmp_path/f'a.{kind}', exif=exif, quality=95)
    read = read_case(tmp_path/f'a.{kind}').image.astype(int)
    assert read.shape == picture.shape and np.abs(read - picture).mean() < 4


def test_turned_picture_gets_a_mask_as_it_is_shown(run, tmp_path):
    (tmp_path/'images').mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(picture)).save(tmp_path/'images/a.jpg', exif=exif, quality=95)
    assert predict(run, tmp_path, boxes(tmp_path, f'a.jpg,{box}'))[0] == 0
    assert Image.open(tmp_path/'out/a.png').size == (width, height)


def test_an_image_that_shows_nothing_is_flagged(run, tmp_path):
    folder(tmp_path, 'images', flat=picture*0 + 7, dark=picture//16, good=picture)
    assert predict(run, tmp_path, boxes(tmp_path, *(f'{n},{box}' for n in ('flat', 'dark', 'good'))))[0] == 0
    found = flags(tmp_path)
    assert 'no_contrast' in found['flat'] and 'few_grey_levels' in found['dark']
    assert not {'no_contrast', 'few_grey_levels'} & set(found['good'])


def test_the_modality_in_the_file_decides_about_the_window(tmp_path):
    phase = np.where(disc, 3000, -3000) + np.random.default_rng(1).integers(-900, 900, disc.shape)
    dicom(tmp_path/'mr.dcm', phase)
    mr = read_case(tmp_path/'mr.dcm')
    assert mr.window()[0] < -3000 and shown(mr)[disc].mean() > shown(mr)[~disc].mean() + 100
    dicom(tmp_path/'ct.dcm', np.where(disc, 60, 0), **{'RescaleIntercept': -1, 'RescaleSlope': 1})
    nib.save(nib.Nifti1Image(np.where(disc, 3000., -700.)[..., None] + np.random.default_rng(1).normal(0, 300, (*disc.shape, 1)), np.eye(4)), tmp_path/'mr.nii.gz')
    assert read_case(tmp_path/'mr.nii.gz').window() != (-160., 240.)


def test_soft_masks_are_cut_at_half_with_a_word(run, tmp_path):
    hard = Image.fromarray((disc*255).astype(np.uint8)).resize((width*4, height*4), 0)
    soft = np.array(hard.filter(ImageFilter.GaussianBlur(3)))
    truth = folder(tmp_path, 'truth', a=soft)
    pred = folder(tmp_path, 'pred', a=np.array(hard))
    code, said = run('evaluate', '--pred', pred, '--truth', truth, '--out', tmp_path/'cases.csv')
    rows = list(csv.DictReader((tmp_path/'cases.csv').open()))
    assert code == 0 and 'half of its maximum' in said and len(rows) == 1 and float(rows[0]['dice']) > .97


def test_masks_that_are_none_are_refused(run, tmp_path):
    images = folder(tmp_path, 'images', a=picture, b=picture)
    train = ('train', 'weak', '--backbone', 'sam_toy', '--images', images, '--epochs', 1, '--out', tmp_path/'m.safetensors')
    code, said = run(*train, '--masks', images)
    assert code == 2 and 'the folder of the images' in said
    code, said = run(*train, '--masks', folder(tmp_path, 'grey', a=picture, b=picture))
    assert code == 2 and 'a.png: this is no mask' in said
    alpha = np.dstack([np.full(disc.shape, 255)]*3 + [disc*255])
    code, said = run(*train, '--masks', folder(tmp_path, 'alpha', a=alpha, b=alpha))
    assert code == 2 and 'alpha' in said
    code, said = run(*train, '--masks', folder(tmp_path, 'names', a_mask=disc*255, b_mask=disc*255))
    assert code == 2 and 'a_mask' in said
    assert not (tmp_path/'m.safetensors').exists()


def test_inverted_masks_are_asked_about(run, tmp_path):
    images = folder(tmp_path, 'images', a=picture, b=picture[::-1])
    masks = folder(tmp_path, 'masks', a=~disc*255, b=~disc[::-1]*255)
    code, said = run('train', 'weak', '--backbone', 'sam_toy', '--recipe', 'masks', '--images', images, '--masks', masks, '--epochs', 1, '--out', tmp_path/'m.safetensors')
    assert code == 0 and 'touches all borders' in said


def test_series_scout_and_report_in_one_folder(run, tmp_path):
    series(tmp_path/'images/pat1')
    dicom(tmp_path/'images/pat1/report.dcm', None, BasicTextSRStorage)
    code, said = predict(run, tmp_path, boxes(tmp_path, f'pat1,{box},2', columns='image,x0,y0,x1,y1,slice'))
    assert code == 0 and 'report.dcm (a structured report)' in said
    assert nib.load(tmp_path/'out/pat1.nii.gz').shape == (width, height, 5)
    dicom(tmp_path/'images/pat1/scout.dcm', picture[:32], ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=[1, 0, 0, 0, 0, 1])
    assert set(list_images(tmp_path/'images')) == {'pat1', 'pat1_scout'}


def test_gantry_tilt_is_kept(run, tmp_path):
    series(tmp_path/'images/pat1', step=(0, 1.3, 4))
    code, said = predict(run, tmp_path, boxes(tmp_path, f'pat1,{box},2', columns='image,x0,y0,x1,y1,slice'))
    assert code == 0 and 'tilted by 18 degrees' in said
    affine = nib.load(tmp_path/'out/pat1.nii.gz').affine
    assert np.allclose(affine @ [0, 0, 4, 1], [0, -4*1.3, 16, 1], atol=1e-3)


def test_what_is_no_case_is_said_where_a_table_names_it(run, tmp_path):
    series(tmp_path/'images')
    code, said = predict(run, tmp_path, boxes(tmp_path, f's3.dcm,{box}'))
    assert code == 2 and 's3.dcm' in said and 'slice of the volume images' in said


def test_positions_that_repeat(run, tmp_path):
    series(tmp_path/'images/pat1')
    for p in sorted((tmp_path/'images/pat1').iterdir()): dicom(p.with_name(f't2_{p.name}'), picture, ImagePositionPatient=[0, 0, 4*(5 - int(p.stem[1:]))],
                                                              ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[.8, .7])
    code, said = predict(run, tmp_path, boxes(tmp_path, f'pat1,{box},2', columns='image,x0,y0,x1,y1,slice'))
    assert code == 2 and 'positions repeat' in said and 'pat1' in said


def test_one_folder_for_each_patient(run, tmp_path):
    (tmp_path/'images').mkdir()
    for n in ('p1', 'p2'): folder(tmp_path/'images', n, img=picture)
    code, said = predict(run, tmp_path, boxes(tmp_path, f'p1/img.png,{box}', f'p2\\img.png,{box}'))
    assert code == 0, said
    assert sorted(p.name for p in (tmp_path/'out').glob('*.png')) == ['p1_img.png', 'p2_img.png']


def test_one_patient_id_in_all_files(run, tmp_path):
    for k in range(4): dicom(tmp_path/f'images/p{k}.dcm', picture*3)
    masks = folder(tmp_path, 'masks', **{f'p{k}': disc*255 for k in range(4)})
    code, said = run('train', 'weak', '--backbone', 'sam_toy', '--images', tmp_path/'images', '--masks', masks, '--shots', 3, '--out', tmp_path/'m.safetensors')
    assert code == 2 and 'PatientID' in said


def test_millimetres_of_a_header_that_contradicts_itself(run, tmp_path):
    for side, shift in (('pred', 2), ('true', 0)):
        block = np.pad(np.ones((16, 21, 3), np.uint8), ((8, 8), (10, 10), (0, 0)))
        img = nib.Nifti1Image(np.roll(block, shift, 0), np.eye(4))
        img.header.set_zooms((1.3, 1.3, 10))
        img.set_sform(np.eye(4), 2)
        (tmp_path/side).mkdir()
        nib.save(img, tmp_path/side/'a.nii.gz')
    code, said = run('evaluate', '--pred', tmp_path/'pred', '--truth', tmp_path/'true', '--out', tmp_path/'cases.csv')
    row = next(csv.DictReader((tmp_path/'cases.csv').open()))
    assert code == 0 and 'sform and qform disagree' in said and abs(float(row['hd95']) - 2.6) < .01


def test_a_mask_read_is_the_mask_that_was_written(tmp_path):
    for labels in (disc*1, disc*255, disc*2 + (yy > 24)*1, (disc*2 + (yy > 24)*1)*85):
        Image.fromarray(labels.astype(np.uint8)).save(tmp_path/'m.png')
        assert (read_labels(tmp_path/'m.png') == labels).all()
