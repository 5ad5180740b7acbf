"""DICOM files that tests write."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

RAMP = (np.arange(20, dtype=np.int16) * 100).reshape(4, 5)  # 0 to 1900


def dicom_file(path: Path, pixels: np.ndarray = RAMP, **attributes: object) -> Path:
    """A DICOM file of pixels (H, W), frames (F, H, W) or colours (H, W, 3)."""
    colour = pixels.shape[-1] == 3 and pixels.dtype == np.uint8
    frames = pixels.ndim == (4 if colour else 3)
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = SecondaryCaptureImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
    file.Rows, file.Columns = pixels.shape[1:3] if frames else pixels.shape[:2]
    if frames:
        file.NumberOfFrames = len(pixels)
    file.BitsAllocated = file.BitsStored = 8 * pixels.dtype.itemsize
    file.HighBit, file.PixelRepresentation = file.BitsStored - 1, int(pixels.dtype.kind == "i")
    file.SamplesPerPixel = 3 if colour else 1
    file.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        file.PlanarConfiguration = 0
    for name, value in attributes.items():
        setattr(file, name, value)
    file.PixelData = np.ascontiguousarray(pixels).tobytes()
    file.save_as(path, enforce_file_format=True)
    return path
