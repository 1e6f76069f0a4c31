"""The paper's measures by networks: LPIPS between pictures, and FVD between sets of clips.

Their weights are no part of this project; `fetch` gets them. LPIPS is torchmetrics', with AlexNet's weights
as torchvision keeps them in torch's own cache. FVD goes by the I3D network that was trained on Kinetics 400,
as the TorchScript file `i3d_torchscript.pt` that the field passes on. Where something is missing the measure
is absent.
"""

from __future__ import annotations

from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from scipy import linalg

from ..poseanything.checkpoints import CheckpointError
from ..poseanything.checkpoints.weights import Source, fetch_sources

ALEXNET = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
"""torchvision's, 244 MB, under BSD-3-Clause; trained on ImageNet, which is for research. As of all of torch's
files its checksum begins with what its name ends in."""
I3D = Source(
    repository="ByteDance/LatentSync-1.6",
    folder="",
    required=("auxiliary/i3d_torchscript.pt",),
    optional=(),
    what="I3D for FVD, about 50 MB; made of DeepMind's Kinetics I3D, which is under Apache-2.0",
)
"""One of the places that pass the file on, chosen since it tells the checksum."""
I3D_FILE = "i3d_torchscript.pt"
GET = "get it with: python build.py weights evaluation"
I3D_SIDE = 224
I3D_FRAMES = 10
"""The fewest frames that I3D takes."""


def weights_folder() -> Path:
    """Where the networks' own files are looked for: torch's cache of downloaded weights."""
    from torch.hub import get_dir

    return Path(get_dir()) / "checkpoints"


def absent_measures() -> dict[str, str]:
    """The measures that can't be taken here, and what each of them needs."""
    if find_spec("torch") is None:
        return dict.fromkeys(("lpips", "fvd"), "needs the Python package torch; install it with pip")
    absent = {}
    packages = [name for name in ("torchmetrics", "torchvision") if find_spec(name) is None]
    folder = weights_folder()
    if packages:
        absent["lpips"] = f"needs the Python packages {' and '.join(packages)}; install them with pip"
    elif not list(folder.glob("alexnet-*.pth")):
        absent["lpips"] = f"needs AlexNet's weights, {ALEXNET.rpartition('/')[2]}, in {folder}; {GET}"
    if _i3d() is None:
        absent["fvd"] = f"needs the I3D network's weights, {I3D_FILE}, in {folder}; {GET}"
    return absent


def _i3d() -> Path | None:
    """The I3D network's file, by hand or as it was fetched."""
    folder = weights_folder()
    places = (folder / I3D_FILE, folder / I3D.required[0])
    return next((path for path in places if path.is_file()), None)


def describe() -> str:
    """Which weights the measures need, where they are looked for and where they come from."""
    lines = [f"Looked for in {weights_folder()}:"]
    lines += [f"  LPIPS: {ALEXNET}", f"  FVD: {I3D.page}: {I3D.what}"]
    lines += [f"Absent: {name} {why}" for name, why in absent_measures().items()] or ["All of it is there."]
    return "\n".join(lines)


def fetch() -> None:
    """Get what is missing into torch's cache. Raises `CheckpointError`."""
    from torch.hub import download_url_to_file

    folder = weights_folder()
    if _i3d() is None:
        fetch_sources([I3D], folder)
    name = ALEXNET.rpartition("/")[2]
    if not list(folder.glob("alexnet-*.pth")):
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{ALEXNET}: AlexNet for LPIPS, 244 MB; licence: BSD-3-Clause, trained on ImageNet", flush=True)
        try:
            digest = name.removesuffix(".pth").rpartition("-")[2]
            download_url_to_file(ALEXNET, str(folder / name), hash_prefix=digest)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{ALEXNET} can't be fetched ({error}); run the command again.") from error


def lpips(frames: np.ndarray, truth: np.ndarray) -> float:
    """LPIPS with AlexNet of uint8 [F, H, W, 3], a mean over the frames after the first; only where
    `absent_measures` doesn't name it."""
    import torch
    from torchmetrics.functional.image.lpips import learned_perceptual_image_patch_similarity

    a, b = (torch.from_numpy(clip[1:].copy()).movedim(-1, 1).float() / 127.5 - 1 for clip in (frames, truth))
    with torch.no_grad():
        return float(learned_perceptual_image_patch_similarity(a, b, net_type="alex"))


class VideoDistance:
    """FVD (Unterthiner et al., 2018) of sets of clips from the true ones; only where `absent_measures`
    doesn't name it."""

    def __init__(self, network=None):
        import torch

        self._network = torch.jit.load(_i3d(), map_location="cpu").eval() if network is None else network
        self._features: dict[str, list[np.ndarray]] = defaultdict(list)

    def add(self, source: str, frames: np.ndarray) -> None:
        """A clip, uint8 [F, H, W, 3]; one of fewer than ten frames goes there and back."""
        import torch

        clip = frames
        while len(clip) < I3D_FRAMES:
            clip = np.concatenate([clip, clip[-2::-1] if len(clip) > 1 else clip])
        resized = np.stack([cv2.resize(frame, (I3D_SIDE, I3D_SIDE)) for frame in clip])
        video = torch.from_numpy(resized).movedim(-1, 0)[None].float() / 127.5 - 1
        with torch.no_grad():
            features = self._network(video, rescale=False, resize=False, return_features=True)
        self._features[source].append(features.flatten().double().numpy())

    def between(self, source: str, other: str) -> float:
        """NaN for sets of fewer than two clips. With few clips it is larger than with many: compare like with
        like."""
        one, two = np.array(self._features[source]), np.array(self._features[other])
        return frechet_distance(one, two) if min(len(one), len(two)) > 1 else float("nan")


def frechet_distance(one: np.ndarray, two: np.ndarray) -> float:
    """Between the normal distributions of two sets of features [N, D]."""
    difference = one.mean(0) - two.mean(0)
    covariances = [np.atleast_2d(np.cov(features, rowvar=False)) for features in (one, two)]
    # The trace of the root of a product is the sum of the roots of its eigenvalues, which are none below 0.
    roots = np.sqrt(np.maximum(linalg.eigvals(covariances[0] @ covariances[1]).real, 0))
    return float(difference @ difference + sum(np.trace(each) for each in covariances) - 2 * roots.sum())
