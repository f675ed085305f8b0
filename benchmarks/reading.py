"Files to cases: 100 pictures and a DICOM series of 512 slices, against the readers that a user would call."
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, generate_uid, MRImageStorage

from medsam_prompts.all import list_images, read_case
from .common import compare, installed


def write_pictures(folder, n, size):
    rng, (w, h) = np.random.default_rng(0), size
    smooth = 90 + 60*np.sin(np.arange(w)/40) + 60*np.cos(np.arange(h)[:, None]/30)
    for i in range(n):
        Image.fromarray((smooth + rng.integers(0, 30, (h, w))).astype(np.uint8)).save(folder/f'{i:03d}.png')


def write_series(folder, n, side):
    "Uncompressed slices of signed 16-bit numbers."
    ds, rng, folder = pydicom.Dataset(), np.random.default_rng(0), Path(folder)
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
    ds.SOPClassUID = MRImageStorage
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = (generate_uid() for _ in range(3))
    ds.Modality, ds.PatientID, ds.PhotometricInterpretation, ds.SamplesPerPixel = 'MR', 'patient', 'MONOCHROME2', 1
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = side, side, 16, 16, 15, 1
    ds.PixelSpacing, ds.SliceThickness, ds.ImageOrientationPatient = [.7, .7], 1, [1, 0, 0, 0, 1, 0]
    folder.mkdir()
    for z in range(n):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.InstanceNumber, ds.ImagePositionPatient = z + 1, [0, 0, z]
        ds.PixelData = rng.integers(-1000, 1000, (side, side), np.int16).tobytes()
        ds.save_as(folder/f'{rng.integers(10**6):06d}_{z}.dcm', enforce_file_format=True)  # in no order


def all_cases(folder): return [read_case(p) for p in list_images(folder).values()]


def with_pillow(folder): return [np.array(Image.open(p)) for p in sorted(folder.glob('*.png'))]


def series_names(folder): return sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))


def with_itk(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(series_names(folder))
    return sitk.GetArrayFromImage(reader.Execute())


def with_pydicom(folder):
    slices = [pydicom.dcmread(p) for p in folder.glob('*.dcm')]
    return np.stack([s.pixel_array for s in sorted(slices, key=lambda s: s.ImagePositionPatient[2])])


def same(a, b): return 'same numbers' if np.array_equal(a, b) else 'other numbers'


def rows(quick):
    n, size, slices, side = (4, (80, 54), 4, 32) if quick else (100, (800, 540), 512, 512)
    with TemporaryDirectory() as folder:
        pictures, scans = Path(folder)/'pictures', Path(folder)/'scans'
        pictures.mkdir()
        scans.mkdir()
        write_pictures(pictures, n, size)
        write_series(scans/'series', slices, side)
        in_folder, names = scans/'series', installed(lambda: series_names(scans/'series'))
        yield compare('list pictures', n, 'sorted(glob)', installed(lambda: sorted(pictures.glob('*.png'))),
                      lambda: list_images(pictures))
        note = same([c.image for c in all_cases(pictures)], with_pillow(pictures))
        yield compare('read pictures', f'{n} of {size[0]} x {size[1]}', 'PIL, numpy',
                      installed(lambda: with_pillow(pictures)), lambda: all_cases(pictures), note=note)
        yield compare('list a series', slices, 'GetGDCMSeriesFileNames', names, lambda: list_images(scans))
        for peer, read in {'SimpleITK.ImageSeriesReader': with_itk, 'pydicom, slice by slice': with_pydicom}.items():
            note = same(all_cases(scans)[0].image, read(in_folder))
            yield compare('read a series', f'{slices} of {side} x {side}', peer, installed(lambda: read(in_folder)),
                          lambda: all_cases(scans), note=note, budget=20)
